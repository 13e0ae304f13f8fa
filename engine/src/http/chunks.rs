//! Where a chunked body ends.

use super::head::{is_text, is_token, trim};

/// A line of a chunk's size, or of the trailer.
const LINE_CAP: usize = 1024;
const TRAILER_CAP: usize = 16 * 1024;
/// Bytes of all extensions of a body together.
const EXTENSIONS_CAP: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data,
    /// The line's end behind a chunk.
    After,
    Trailer,
    Done,
}

/// A body on its way, as far as it has come.
pub struct Chunks {
    state: State,
    /// Of the present chunk.
    left: u64,
    /// Of a line that is not complete.
    held: Vec<u8>,
    trailer: usize,
    extensions: usize,
}

/// Somebody could read the body in another way.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

impl Default for Chunks {
    fn default() -> Self {
        Self {
            state: State::Size,
            left: 0,
            held: Vec::new(),
            trailer: 0,
            extensions: 0,
        }
    }
}

impl Chunks {
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many of the bytes belong to the body; fewer than all only when it is done.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut place = 0;
        while place < bytes.len() && !self.is_done() {
            let rest = &bytes[place..];
            if self.state == State::Data {
                let taken =
                    usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
                place += taken;
                self.left -= taken as u64;
                if self.left == 0 {
                    self.state = State::After;
                }
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(rest.len(), |end| end + 1);
            if self.held.len() + taken > LINE_CAP {
                return Err(Malformed);
            }
            self.held.extend_from_slice(&rest[..taken]);
            place += taken;
            if end.is_some() {
                let line = std::mem::take(&mut self.held);
                self.line(line.strip_suffix(b"\r\n").ok_or(Malformed)?)?;
            }
        }
        Ok(place)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        match self.state {
            State::After if line.is_empty() => self.state = State::Size,
            State::Size => self.size(line)?,
            State::Trailer if line.is_empty() => self.state = State::Done,
            State::Trailer => {
                self.trailer += line.len() + 2;
                let colon = line
                    .iter()
                    .position(|byte| *byte == b':')
                    .ok_or(Malformed)?;
                let text = line[colon + 1..].iter().all(|byte| is_text(*byte));
                if self.trailer > TRAILER_CAP || !is_token(&line[..colon]) || !text {
                    return Err(Malformed);
                }
            }
            State::After | State::Data | State::Done => return Err(Malformed),
        }
        Ok(())
    }

    fn size(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let digits = digits.count();
        let extension = &line[digits..];
        self.extensions += extension.len();
        let shaped = match trim(extension) {
            [] => true,
            [b';', text @ ..] => text.iter().all(|byte| is_text(*byte)),
            _ => false,
        };
        if !(1..=15).contains(&digits) || !shaped || self.extensions > EXTENSIONS_CAP {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(&line[..digits]).map_err(|_| Malformed)?;
        self.left = u64::from_str_radix(text, 16).map_err(|_| Malformed)?;
        self.state = match self.left {
            0 => State::Trailer,
            _ => State::Data,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"5\r\nhello\r\n1;a=\"b\"\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n";

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let bytes = [BODY, b"HTTP/1.1 200 OK"].concat();
        for step in 1..bytes.len() {
            let mut chunks = Chunks::default();
            let mut used = 0;
            for part in bytes.chunks(step) {
                used += chunks.feed(part).expect("well-formed");
            }
            assert!(chunks.is_done() && used == BODY.len(), "{step}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_malformed() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x5\r\nhello",
            "5\nhello",
            "5\r\nhello!\r\n",
            "5 5\r\nhello",
            "1000000000000000\r\n",
            "5;\0\r\n",
            "5\r;\r\n",
            "0\r\nno field\r\n",
            "0\r\na b: c\r\n",
        ] {
            let fed = Chunks::default().feed(body.as_bytes());
            assert_eq!(fed, Err(Malformed), "{body:?}");
        }
    }

    #[test]
    fn lines_extensions_and_trailers_are_bounded() {
        let long = format!("5;{}", "a".repeat(LINE_CAP));
        assert_eq!(Chunks::default().feed(long.as_bytes()), Err(Malformed));
        let extended = format!("1;{}\r\nx\r\n", "a".repeat(900)).repeat(19);
        assert_eq!(Chunks::default().feed(extended.as_bytes()), Err(Malformed));
        let trailer = format!("0\r\n{}", format!("a: {}\r\n", "b".repeat(900)).repeat(19));
        assert_eq!(Chunks::default().feed(trailer.as_bytes()), Err(Malformed));
    }
}
