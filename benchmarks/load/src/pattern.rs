//! The bytes of a bulk transfer: what stands at an offset is known, so a receiver can compare.

/// A prime, so that no buffer size of a relay divides it and a shifted block never matches.
const PERIOD: usize = 65_521;
/// Longest piece that can be taken at any offset.
pub const PIECE: usize = 256 * 1024;

pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub fn new() -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        let bytes = period
            .iter()
            .copied()
            .cycle()
            .take(PERIOD + PIECE)
            .collect();
        Self { bytes }
    }

    /// Up to `PIECE` bytes as they stand at `offset` of the stream.
    pub fn at(&self, offset: u64) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.bytes[start..start + PIECE]
    }

    pub fn matches(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut offset = offset;
        bytes.chunks(PIECE).all(|chunk| {
            let same = self.at(offset)[..chunk.len()] == *chunk;
            offset += chunk.len() as u64;
            same
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_or_changed_byte_is_seen() {
        let pattern = Pattern::new();
        let mut bytes = pattern.at(1_000_000)[..5_000].to_vec();
        assert!(pattern.matches(1_000_000, &bytes));
        assert!(!pattern.matches(1_000_001, &bytes));
        bytes[4_999] ^= 1;
        assert!(!pattern.matches(1_000_000, &bytes));
    }
}
