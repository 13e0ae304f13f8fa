//! Frames: written one for each write, read in whatever pieces they come. No I/O.

/// The largest payload of a control frame.
pub const CONTROL: usize = 125;
/// The longest header.
pub const HEADER: usize = 14;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte & 0x0f {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

pub type Key = [u8; 4];

/// The header of a whole message in one frame.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; HEADER],
    len: u8,
}

impl Header {
    pub fn new(opcode: Opcode, payload: usize, key: Option<Key>) -> Self {
        let mut header = Self {
            bytes: [0; HEADER],
            len: 0,
        };
        let masked = if key.is_some() { MASKED } else { 0 };
        header.push(&[FIN | opcode as u8]);
        match payload {
            0..=125 => header.push(&[masked | payload as u8]),
            126..=0xffff => {
                header.push(&[masked | 126]);
                header.push(&(payload as u16).to_be_bytes());
            }
            _ => {
                header.push(&[masked | 127]);
                header.push(&(payload as u64).to_be_bytes());
            }
        }
        if let Some(key) = key {
            header.push(&key);
        }
        header
    }

    fn push(&mut self, bytes: &[u8]) {
        let from = usize::from(self.len);
        self.bytes[from..from + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A control frame as a whole.
pub fn control(opcode: Opcode, payload: &[u8], key: Option<Key>) -> Vec<u8> {
    let payload = &payload[..payload.len().min(CONTROL)];
    let header = Header::new(opcode, payload.len(), key);
    let mut frame = [header.bytes(), payload].concat();
    if let Some(key) = key {
        mask(&mut frame[header.bytes().len()..], key, 0);
    }
    frame
}

/// Masks or unmasks; `phase` bytes of the same payload went before.
pub fn mask(bytes: &mut [u8], key: Key, phase: u64) {
    if key == [0; 4] {
        return;
    }
    let mut turned = key;
    turned.rotate_left((phase % 4) as usize);
    // By words of two keys, which compilers turn into vector instructions.
    let word = u64::from_ne_bytes([
        turned[0], turned[1], turned[2], turned[3], turned[0], turned[1], turned[2], turned[3],
    ]);
    let mut words = bytes.chunks_exact_mut(8);
    for chunk in &mut words {
        if let Ok(old) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(old) ^ word).to_ne_bytes());
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

/// Why a peer's bytes are no frames, with the code to close with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub why: &'static str,
}

impl Violation {
    /// Protocol error.
    pub const CODE: u16 = 1002;

    const fn new(why: &'static str) -> Self {
        Self { why }
    }
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: [u8; CONTROL],
    len: u8,
}

impl Payload {
    const EMPTY: Self = Self {
        bytes: [0; CONTROL],
        len: 0,
    };

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What bytes came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// So many bytes of payload are at the front of the buffer now.
    pub payload: usize,
    /// Frames of any kind were begun.
    pub frames: usize,
    /// The last of the pings among them.
    pub ping: Option<Payload>,
    /// The peer said its end. What follows it is not looked at.
    pub close: Option<Payload>,
    /// What comes after the payload is not right.
    pub violation: Option<Violation>,
}

/// Takes frames apart. Payload of text and binary messages is one stream of bytes; how it was cut
/// into messages and fragments does not matter.
#[derive(Debug)]
pub struct Decoder {
    header: [u8; HEADER],
    have: usize,
    frame: Option<Frame>,
    control: Payload,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    left: u64,
    key: Key,
    phase: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            header: [0; HEADER],
            have: 0,
            frame: None,
            control: Payload::EMPTY,
        }
    }
}

impl Decoder {
    /// Whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.have > 0 || self.frame.is_some()
    }

    /// Takes everything in `buf`; payload moves to its front.
    pub fn decode(&mut self, buf: &mut [u8]) -> Decoded {
        let mut decoded = Decoded::default();
        let mut at = 0;
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.left.min((buf.len() - at) as u64) as usize;
                let part = &mut buf[at..at + count];
                mask(part, frame.key, frame.phase);
                frame.phase += count as u64;
                frame.left -= count as u64;
                let frame = *frame;
                if frame.opcode.is_control() {
                    let from = usize::from(self.control.len);
                    self.control.bytes[from..from + count].copy_from_slice(part);
                    self.control.len += count as u8;
                } else {
                    if at != decoded.payload {
                        buf.copy_within(at..at + count, decoded.payload);
                    }
                    decoded.payload += count;
                }
                at += count;
                if frame.left > 0 {
                    return decoded;
                }
                self.frame = None;
                match frame.opcode {
                    Opcode::Ping => decoded.ping = Some(self.control),
                    Opcode::Close => {
                        decoded.close = Some(self.control);
                        return decoded;
                    }
                    _ => {}
                }
            }
            if at == buf.len() {
                return decoded;
            }
            match self.begin(&buf[at..]) {
                Ok(used) => at += used,
                Err(violation) => {
                    decoded.violation = Some(violation);
                    return decoded;
                }
            }
            if self.frame.is_some() {
                decoded.frames += 1;
            }
        }
    }

    /// Takes a header, or what there is of it.
    fn begin(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut used = 0;
        loop {
            let need = self.need();
            let count = (need - self.have).min(bytes.len() - used);
            self.header[self.have..self.have + count].copy_from_slice(&bytes[used..used + count]);
            self.have += count;
            used += count;
            if self.have < need {
                return Ok(used);
            }
            if need == self.need() {
                self.frame = Some(self.parse()?);
                self.have = 0;
                self.control.len = 0;
                return Ok(used);
            }
        }
    }

    /// How long the header is, as far as is known.
    fn need(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.header[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key = if self.header[1] & MASKED == 0 { 0 } else { 4 };
        2 + length + key
    }

    fn parse(&self) -> Result<Frame, Violation> {
        let [first, second, rest @ ..] = self.header;
        if first & RESERVED != 0 {
            return Err(Violation::new("a frame with reserved bits"));
        }
        let Some(opcode) = Opcode::of(first) else {
            return Err(Violation::new("a frame of an unknown kind"));
        };
        let mut wide = [0; 8];
        let (left, key_at) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), 2),
            127 => {
                wide.copy_from_slice(&rest[..8]);
                (u64::from_be_bytes(wide), 8)
            }
            short => (u64::from(short), 0),
        };
        if left >> 63 != 0 {
            return Err(Violation::new("a frame longer than there can be"));
        }
        if opcode.is_control() && (left > CONTROL as u64 || first & FIN == 0) {
            return Err(Violation::new("a control frame that is too long or cut"));
        }
        let mut key = [0; 4];
        if second & MASKED != 0 {
            key.copy_from_slice(&rest[key_at..key_at + 4]);
        }
        Ok(Frame {
            opcode,
            left,
            key,
            phase: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(opcode: Opcode, payload: &[u8], key: Option<Key>) -> Vec<u8> {
        let header = Header::new(opcode, payload.len(), key);
        let mut frame = [header.bytes(), payload].concat();
        mask(
            &mut frame[header.bytes().len()..],
            key.unwrap_or_default(),
            0,
        );
        frame
    }

    /// All payload of `bytes`, given in pieces of `size`.
    fn decoded(bytes: &[u8], size: usize) -> (Vec<u8>, Decoder) {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece);
            assert_eq!(decoded.violation, None);
            all.extend_from_slice(&piece[..decoded.payload]);
        }
        (all, decoder)
    }

    #[test]
    fn frames_are_those_of_realm() {
        let zero = Some([0; 4]);
        assert_eq!(
            bytes_of(Opcode::Binary, b"hi", zero),
            [0x82, 0x82, 0, 0, 0, 0, 0x68, 0x69]
        );
        assert_eq!(
            bytes_of(Opcode::Binary, b"hi", None),
            [0x82, 0x02, 0x68, 0x69]
        );
        assert_eq!(
            Header::new(Opcode::Binary, 200, zero).bytes(),
            [0x82, 0xfe, 0, 0xc8, 0, 0, 0, 0]
        );
        assert_eq!(Header::new(Opcode::Binary, 125, None).bytes(), [0x82, 125]);
        assert_eq!(
            Header::new(Opcode::Binary, 126, None).bytes(),
            [0x82, 126, 0, 126]
        );
        assert_eq!(
            Header::new(Opcode::Binary, 0xffff, None).bytes(),
            [0x82, 126, 0xff, 0xff]
        );
        assert_eq!(
            Header::new(Opcode::Binary, 0x1_0000, None).bytes(),
            [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn payload_comes_out_however_it_is_cut() {
        let text: Vec<u8> = (0..70_000_u32)
            .map(|at| (at * 7 + at / 251) as u8)
            .collect();
        let key = Some([0x12, 0x34, 0x56, 0x78]);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (len, key) in [
            (0, None),
            (1, key),
            (125, None),
            (126, key),
            (0, key),
            (65_535, key),
            (65_536, None),
            (70_000, key),
            (7, Some([0; 4])),
        ] {
            bytes.extend(bytes_of(Opcode::Binary, &text[..len], key));
            bytes.extend(bytes_of(Opcode::Pong, b"pong", key));
            expected.extend_from_slice(&text[..len]);
        }
        for size in [1, 2, 3, 5, 7, 13, 4096, 65_536, bytes.len()] {
            let (all, decoder) = decoded(&bytes, size);
            assert_eq!(all, expected, "in pieces of {size}");
            assert!(!decoder.is_inside());
        }
    }

    #[test]
    fn text_and_fragments_are_bytes_like_others() {
        let mut bytes = bytes_of(Opcode::Text, b"one ", None);
        bytes[0] &= !FIN;
        bytes.extend(bytes_of(Opcode::Ping, b"in between", None));
        let mut second = bytes_of(Opcode::Continuation, b"two ", Some([1, 2, 3, 4]));
        second[0] &= !FIN;
        bytes.extend(second);
        bytes.extend(bytes_of(Opcode::Continuation, b"three", None));
        for size in 1..=bytes.len() {
            assert_eq!(decoded(&bytes, size).0, b"one two three");
        }
    }

    #[test]
    fn control_frames_are_kept_whole() {
        let mut bytes = bytes_of(Opcode::Ping, b"first", None);
        bytes.extend(bytes_of(Opcode::Ping, &[7; CONTROL], Some([9, 8, 7, 6])));
        bytes.extend(bytes_of(Opcode::Binary, b"data", None));
        bytes.extend(bytes_of(Opcode::Close, b"\x03\xe8bye", None));
        bytes.extend(bytes_of(Opcode::Binary, b"behind the end", None));
        let decoded = Decoder::default().decode(&mut bytes);
        assert_eq!(&bytes[..decoded.payload], b"data");
        assert_eq!(decoded.ping.expect("a ping").bytes(), [7; CONTROL]);
        assert_eq!(decoded.close.expect("an end").bytes(), b"\x03\xe8bye");
        assert_eq!(decoded.frames, 4);
    }

    #[test]
    fn what_is_no_frame_is_told_after_what_came_before() {
        let wrong: [&[u8]; 6] = [
            &[0xc2, 0x01, 0x00],
            &[0x83, 0x00],
            &[0x8b, 0x00],
            &[0x89, 126, 0, 126],
            &[0x09, 0x00],
            &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ];
        for frame in wrong {
            let mut bytes = bytes_of(Opcode::Binary, b"good", None);
            bytes.extend_from_slice(frame);
            let decoded = Decoder::default().decode(&mut bytes);
            assert_eq!(&bytes[..decoded.payload], b"good");
            assert!(decoded.violation.is_some(), "{frame:?}");
        }
    }

    #[test]
    fn masking_by_words_is_masking_by_bytes() {
        let key = [0xde, 0xad, 0xbe, 0xef];
        for len in 0..40_usize {
            for phase in 0..9_u64 {
                let mut bytes: Vec<u8> = (0..len as u8).collect();
                mask(&mut bytes, key, phase);
                for (at, byte) in bytes.iter().enumerate() {
                    assert_eq!(*byte, at as u8 ^ key[(at + phase as usize) % 4]);
                }
            }
        }
    }
}
