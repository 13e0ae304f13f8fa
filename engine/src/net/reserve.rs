//! Descriptors that are kept back from new flows: for the targets of flows already taken, for pipes,
//! names, and for whoever looks after the relay.
//!
//! The kernel gives out the lowest free number, so the number of a new descriptor says how many are
//! in use.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::fd::Fd;

/// One part in so many is kept back.
const PART: RawFd = 8;
const MOST: RawFd = 256;

/// Where the reserve begins, by the limit when it was last looked at.
static BEGINS: AtomicI32 = AtomicI32::new(0);

/// Flows that were taken and have no descriptor for their target yet.
static AWAITED: AtomicI32 = AtomicI32::new(0);

/// The right to one more descriptor, until it is there.
pub struct Claim(());

impl Claim {
    /// For a flow whose client has this new descriptor; `None` when there would be none left for
    /// its target.
    pub fn beside(client: &Fd) -> Option<Self> {
        let claim = Self(());
        AWAITED.fetch_add(1, Ordering::Relaxed);
        (!is_reserved(client)).then_some(claim)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        AWAITED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this new descriptor comes out of the reserve, which begins the sooner the more are
/// awaited.
pub fn is_reserved(fd: &impl AsRawFd) -> bool {
    let awaited = AWAITED.load(Ordering::Relaxed);
    let fd = fd.as_raw_fd().saturating_add(awaited);
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
    fn what_is_awaited_counts_as_used() {
        let last = begin(super::super::fd::limit()) - 1;
        assert!(!is_reserved(&0));
        assert!(!is_reserved(&last));
        assert!(is_reserved(&(last + 1)));
        // SAFETY: plain arguments.
        let low = Fd::own(unsafe { libc::dup(0) });
        let claim = Claim::beside(&low);
        assert!(claim.is_some());
        assert!(is_reserved(&last));
        drop(claim);
        assert!(!is_reserved(&last));
    }
}
