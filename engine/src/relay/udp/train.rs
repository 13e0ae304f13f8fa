//! Forming trains: which datagrams in a row may be sent as one piece. Pure.

use crate::net::udp::{MAX_BYTES, MAX_SEGMENTS};

/// Datagrams in a row that may go as one: all of `segment` bytes, the last one maybe shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    pub segment: usize,
    pub bytes: usize,
    pub packets: usize,
    /// Whether another datagram may follow: the last one so far was not shorter.
    open: bool,
}

impl Train {
    /// A train of what was received at once: `len` bytes in datagrams of `segment` bytes.
    pub fn start(len: usize, segment: usize) -> Self {
        Self {
            segment,
            bytes: len,
            packets: packets(len, segment),
            open: len > 0 && len.is_multiple_of(segment),
        }
    }

    /// Adds what was received next; false when it can't go in the same train. `largest` is the
    /// largest segment that may travel in trains.
    pub fn extend(&mut self, len: usize, segment: usize, largest: usize) -> bool {
        let fits = if len > segment {
            segment == self.segment
        } else {
            len <= self.segment
        };
        let more = packets(len, segment);
        if !self.open
            || !fits
            || len == 0
            || self.segment > largest
            || self.bytes + len > MAX_BYTES
            || self.packets + more > MAX_SEGMENTS
        {
            return false;
        }
        self.bytes += len;
        self.packets += more;
        self.open = len.is_multiple_of(self.segment);
        true
    }
}

/// How many datagrams of `segment` bytes make up `len` bytes. An empty datagram is one too.
pub fn packets(len: usize, segment: usize) -> usize {
    if len <= segment {
        1
    } else {
        len.div_ceil(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The trains that single datagrams of these sizes form: (datagrams, bytes) of each.
    fn trains(sizes: &[usize], largest: usize) -> Vec<(usize, usize)> {
        let mut trains: Vec<Train> = Vec::new();
        for size in sizes {
            let joined = trains
                .last_mut()
                .is_some_and(|train| train.extend(*size, *size, largest));
            if !joined {
                trains.push(Train::start(*size, *size));
            }
        }
        trains
            .iter()
            .map(|train| (train.packets, train.bytes))
            .collect()
    }

    #[test]
    fn equal_sizes_go_together_and_a_shorter_one_ends_the_train() {
        assert_eq!(trains(&[100, 100, 100], 1000), [(3, 300)]);
        assert_eq!(
            trains(&[100, 100, 40, 100, 40, 41], 1000),
            [(3, 240), (2, 140), (1, 41)]
        );
        assert_eq!(trains(&[40, 100], 1000), [(1, 40), (1, 100)]);
    }

    #[test]
    fn an_empty_datagram_travels_alone() {
        assert_eq!(
            trains(&[100, 0, 0, 100], 1000),
            [(1, 100), (1, 0), (1, 0), (1, 100)]
        );
    }

    #[test]
    fn trains_end_at_the_limits_of_the_kernel() {
        assert_eq!(
            trains(&[8; MAX_SEGMENTS + 1], 1000),
            [(MAX_SEGMENTS, 8 * MAX_SEGMENTS), (1, 8)]
        );
        let most = MAX_BYTES / 1472;
        let sizes = vec![1472; most + 1];
        assert_eq!(trains(&sizes, 1472), [(most, 1472 * most), (1, 1472)]);
    }

    #[test]
    fn what_is_too_large_for_trains_goes_alone() {
        assert_eq!(
            trains(&[1472, 1472, 100], 1400),
            [(1, 1472), (1, 1472), (1, 100)]
        );
        assert_eq!(trains(&[100, 100], 0), [(1, 100), (1, 100)]);
    }

    #[test]
    fn received_trains_are_coupled_when_their_segments_agree() {
        let mut train = Train::start(2400, 1200);
        assert!(train.extend(2400, 1200, 1472));
        assert!(!train.extend(2000, 1000, 1472));
        assert!(train.extend(2000, 1200, 1472));
        assert_eq!((train.bytes, train.packets), (6800, 6));
        assert!(!train.extend(1200, 1200, 1472), "the last one was shorter");
    }
}
