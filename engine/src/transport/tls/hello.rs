//! The ClientHello as it came, for those who look for marks in it.

/// No more than this is kept of what a client says before its hello is complete.
pub const MOST: usize = 64 * 1024;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// The message without the headers of the records that it came in (RFC 8446, sections 4 and 5.1);
/// `None` when `bytes` doesn't begin with all of one.
pub fn message(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let (header, rest) = bytes.split_at_checked(RECORD_HEADER)?;
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE_RECORD || length == 0 {
            return None;
        }
        let (record, rest) = rest.split_at_checked(length)?;
        message.extend_from_slice(record);
        bytes = rest;
        if let [kind, a, b, c, ..] = message[..] {
            let length = MESSAGE_HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != CLIENT_HELLO || length > MOST {
                return None;
            }
            if message.len() >= length {
                message.truncate(length);
                return Some(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with a body of so many bytes, in records of at most `chunk`.
    fn records(body: usize, chunk: usize) -> (Vec<u8>, Vec<u8>) {
        let length = (body as u32).to_be_bytes();
        let mut message = vec![CLIENT_HELLO, length[1], length[2], length[3]];
        message.extend((0..body).map(|at| at as u8));
        let mut bytes = Vec::new();
        for part in message.chunks(chunk) {
            bytes.extend([HANDSHAKE_RECORD, 3, 1]);
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
        }
        (bytes, message)
    }

    #[test]
    fn a_hello_in_any_records_is_the_same_message() {
        for chunk in [1, 3, 4, 5, 100, 16_384] {
            let (mut bytes, expected) = records(700, chunk);
            for end in 0..bytes.len() {
                assert_eq!(message(&bytes[..end]), None, "{chunk} {end}");
            }
            assert_eq!(message(&bytes).as_ref(), Some(&expected));
            bytes.extend([1; 9]);
            assert_eq!(message(&bytes), Some(expected));
        }
    }

    #[test]
    fn what_is_no_hello_is_nothing() {
        let (mut bytes, _) = records(100, 50);
        bytes[5] = 2;
        assert_eq!(message(&bytes), None);
        assert_eq!(message(&[HANDSHAKE_RECORD, 3, 1, 0, 0, 1, 0, 0, 0]), None);
        assert_eq!(message(b"GET / HTTP/1.1\r\n\r\n"), None);
        let (large, _) = records(MOST + 1, 16_384);
        assert_eq!(message(&large), None);
    }
}
