//! Descriptors that are kept back from new flows: for the targets of flows already taken, for pipes,
//! names, and for whoever looks after the relay.
//!
//! The kernel gives out the lowest free number, so the number of a new descriptor says how many are
//! in use.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// One part in so many is kept back.
const PART: RawFd = 8;
const MOST: RawFd = 256;

/// Where the reserve begins, by the limit when it was last looked at.
static BEGINS: AtomicI32 = AtomicI32::new(0);

/// Whether this new descriptor comes out of the reserve.
pub fn is_reserved(fd: &impl AsRawFd) -> bool {
    let fd = fd.as_raw_fd();
    if fd < BEGINS.load(Ordering::Relaxed) {
        return false;
    }
    // For the first time, or the limit may have been raised since.
    let begins = begin(super::fd::limit());
    BEGINS.store(begins, Ordering::Relaxed);
    fd >= begins
}

fn begin(limit: u64) -> RawFd {
    let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
    limit - (limit / PART).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_part_of_few_and_a_little_of_many() {
        assert_eq!(begin(0), 0);
        assert_eq!(begin(256), 224);
        assert_eq!(begin(20_000), 19_744);
        assert_eq!(begin(u64::MAX), RawFd::MAX - MOST);
    }

    #[test]
    fn a_low_number_is_not_reserved() {
        assert!(!is_reserved(&0));
        assert!(is_reserved(&begin(super::super::fd::limit())));
    }
}
