//! Datagrams in a stream: each behind its length, two bytes with the high one first. No I/O.

/// The longest payload of a datagram that IPv4 carries.
pub const MOST: usize = 65_507;
const LENGTH: usize = 2;

/// Takes datagrams out of a stream that may be cut anywhere.
#[derive(Debug, Default)]
pub struct Unpacker {
    /// Of a datagram that has come in part, with its length.
    part: Vec<u8>,
}

impl Unpacker {
    /// Gives every datagram that is whole now.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while !self.part.is_empty() {
            let need = whole(&self.part).unwrap_or(LENGTH);
            let count = (need - self.part.len()).min(bytes.len());
            self.part.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            match whole(&self.part) {
                Some(need) if self.part.len() == need => {
                    each(&self.part[LENGTH..]);
                    self.part = Vec::new();
                }
                _ if bytes.is_empty() => return,
                _ => {}
            }
        }
        while let Some(need) = whole(bytes)
            && let Some(framed) = bytes.get(..need)
        {
            each(&framed[LENGTH..]);
            bytes = &bytes[need..];
        }
        self.part.extend_from_slice(bytes);
    }

    /// Whether a datagram has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !self.part.is_empty()
    }
}

/// How long the first datagram in `bytes` is with its length, when that is known.
fn whole(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [high, low, ..] => Some(LENGTH + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// Datagrams that wait for a stream to take them, no more than there is room for.
#[derive(Debug)]
pub struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
    room: usize,
}

impl Backlog {
    pub fn new(room: usize) -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            room,
        }
    }

    /// Puts a datagram behind the others; false when it has to be dropped.
    pub fn add(&mut self, datagram: &[u8]) -> bool {
        let Ok(length) = u16::try_from(datagram.len()) else {
            return false;
        };
        let waiting = self.bytes.len() - self.sent;
        if waiting > 0 && waiting + LENGTH + datagram.len() > self.room {
            return false;
        }
        // What was sent makes room before more is asked for.
        if self.sent > 0 && self.bytes.len() + LENGTH + datagram.len() > self.bytes.capacity() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(datagram);
        true
    }

    /// What is to be written next.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub fn is_empty(&self) -> bool {
        self.waiting().is_empty()
    }

    /// So much of it was written. An empty backlog holds nothing.
    pub fn wrote(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.bytes = Vec::new();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let mut backlog = Backlog::new(usize::MAX);
        for datagram in datagrams {
            assert!(backlog.add(datagram));
        }
        backlog.waiting().to_vec()
    }

    fn unpacked(bytes: &[u8], size: usize) -> (Vec<Vec<u8>>, bool) {
        let mut unpacker = Unpacker::default();
        let mut datagrams = Vec::new();
        for piece in bytes.chunks(size) {
            unpacker.feed(piece, |datagram| datagrams.push(datagram.to_vec()));
        }
        (datagrams, unpacker.is_inside())
    }

    #[test]
    fn datagrams_stay_whole_however_the_stream_is_cut() {
        let datagrams: Vec<Vec<u8>> = [0, 1, 2, 255, 256, 0, 1200, MOST, 3]
            .iter()
            .enumerate()
            .map(|(at, len)| vec![at as u8; *len])
            .collect();
        let bytes = packed(&datagrams);
        assert_eq!(bytes[..5], [0, 0, 0, 1, 1]);
        for size in [1, 2, 3, 7, 1000, bytes.len()] {
            assert_eq!(unpacked(&bytes, size), (datagrams.clone(), false), "{size}");
        }
        assert!(unpacked(&bytes[..bytes.len() - 1], 5).1);
        assert!(unpacked(&bytes[..1], 5).1);
    }

    #[test]
    fn a_full_backlog_drops_the_new_ones() {
        let mut backlog = Backlog::new(100);
        assert!(backlog.add(&[1; 40]));
        assert!(backlog.add(&[2; 40]));
        assert!(!backlog.add(&[3; 40]));
        assert!(backlog.add(&[4; 14]));
        assert_eq!(backlog.waiting().len(), 100);
        backlog.wrote(43);
        assert!(backlog.add(&[5; 40]));
        assert_eq!(backlog.waiting()[..2], [40, 2]);
        backlog.wrote(backlog.waiting().len());
        assert!(backlog.is_empty());
        // Nothing is larger than an empty backlog takes.
        assert!(backlog.add(&[6; MOST]));
        assert!(!backlog.add(&[0; 65_536]));
    }
}
