//! The lines of a head, read as strictly as they can be: what somebody could read in another way
//! is no head for us.

/// Bytes of a head. The owner takes longer ones.
pub const HEAD_CAP: usize = 16 * 1024;
const MOST_FIELDS: usize = 128;

/// A name as it was spelt, and its value without the blanks around it.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// The first line, and the fields.
pub struct Head<'a> {
    pub line: &'a [u8],
    pub fields: Vec<Field<'a>>,
}

/// Where the head ends, with the empty line. `searched` bytes are known to hold no end.
pub fn end_of(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    let found = bytes[from..]
        .windows(4)
        .position(|four| four == b"\r\n\r\n");
    found.map(|at| from + at + 4)
}

/// The head in `bytes`, which end with its empty line.
pub fn split(bytes: &[u8]) -> Option<Head<'_>> {
    let mut lines = Lines(bytes.strip_suffix(b"\r\n")?);
    let line = lines.next()?;
    if line.is_empty() {
        return None;
    }
    let mut fields = Vec::with_capacity(16);
    for line in lines {
        if fields.len() == MOST_FIELDS {
            return None;
        }
        fields.push(field(line)?);
    }
    Some(Head { line, fields })
}

/// What ends with CR LF. The fields' own bytes can't be CR or LF, which is looked at with them.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.0.windows(2).position(|two| two == b"\r\n")?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 2..];
        Some(line)
    }
}

fn field(line: &[u8]) -> Option<Field<'_>> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    let plain = is_token(name) && value.iter().all(|byte| is_text(*byte));
    plain.then_some((name, value))
}

/// Without blanks and tabs around it.
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

pub fn is_token(bytes: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(token)
}

/// What may stand in a value.
pub fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// A number of bytes as it may be written: digits alone.
pub fn length(text: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    plain.then(|| {
        text.iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_its_lines() {
        let bytes = b"GET / HTTP/1.1\r\nHost:a\r\nx-empty:\r\nX-Odd: \t b c \t\r\n\r\n";
        let head = split(bytes).expect("a head");
        assert_eq!(head.line, b"GET / HTTP/1.1");
        let fields: [Field; 3] = [(b"Host", b"a"), (b"x-empty", b""), (b"X-Odd", b"b c")];
        assert_eq!(head.fields, fields);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_none() {
        for text in [
            "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "\r\n",
            "",
        ] {
            assert!(split(text.as_bytes()).is_none(), "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(129));
        assert!(split(many.as_bytes()).is_none());
    }

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
        let mut searched = 0;
        for count in 0..bytes.len() {
            let found = end_of(&bytes[..count], searched);
            assert_eq!(found, (count >= 27).then_some(27), "{count}");
            searched = searched.max(count.min(26));
        }
    }

    #[test]
    fn a_length_is_digits() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"000000000000000017"), Some(17));
        assert_eq!(length(b"999999999999999999"), Some(999_999_999_999_999_999));
        for text in ["", "1000000000000000000", "-1", "+1", "1 ", "0x1", "1,1"] {
            assert_eq!(length(text.as_bytes()), None, "{text:?}");
        }
    }
}
