//! Limits that flows share by a name, such as a user's, over all endpoints of a group. The owner
//! changes them while flows live.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::rates::Bucket;

/// Names that can be told apart at once: those with limits, and those that flows go by.
pub const MOST_NAMES: usize = 65_536;

/// What the flows of one name may pass together, up and down.
#[derive(Default)]
pub struct Share {
    limited: AtomicBool,
    rates: [AtomicU64; 2],
    pub(super) buckets: [Bucket; 2],
}

impl Share {
    pub fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// Bytes per second in one direction; 0 is no limit.
    pub(super) fn rate(&self, way: usize) -> u64 {
        self.rates[way].load(Ordering::Relaxed)
    }

    fn set(&self, rates: [u64; 2]) {
        for (cell, rate) in self.rates.iter().zip(rates) {
            cell.store(rate, Ordering::Relaxed);
        }
        self.limited.store(rates != [0, 0], Ordering::Relaxed);
    }
}

/// All names of one group.
#[derive(Default)]
pub struct Shares(Mutex<HashMap<Box<str>, Arc<Share>>>);

impl Shares {
    /// The limits of a name; `None` when there are too many names.
    pub fn get(&self, name: &str) -> Option<Arc<Share>> {
        let mut names = self.lock();
        if let Some(share) = names.get(name) {
            return Some(Arc::clone(share));
        }
        // Those that nobody uses are looked for when the table would grow, so that a look costs
        // each new name little.
        if names.len() == names.capacity() || names.len() >= MOST_NAMES {
            names.retain(|_, share| share.is_limited() || Arc::strong_count(share) > 1);
        }
        if names.len() >= MOST_NAMES {
            return None;
        }
        let share = Arc::<Share>::default();
        names.insert(name.into(), Arc::clone(&share));
        Some(share)
    }

    /// Limits in bytes per second, for living flows too; 0 is none. False when there are too many
    /// names.
    pub fn set(&self, name: &str, rates: [u64; 2]) -> bool {
        if rates == [0, 0] {
            // Nothing to remember of a name that no flow uses.
            let mut names = self.lock();
            if let Some(share) = names.get(name) {
                share.set(rates);
                if Arc::strong_count(share) == 1 {
                    names.remove(name);
                }
            }
            return true;
        }
        match self.get(name) {
            Some(share) => {
                share.set(rates);
                true
            }
            None => false,
        }
    }

    /// Bytes up and down that passed without the engine, under the limits of a name: how many
    /// seconds to wait before more do.
    pub fn spend(&self, name: &str, bytes: [usize; 2], now: Instant) -> f64 {
        let share = match self.lock().get(name) {
            Some(share) if share.is_limited() => Arc::clone(share),
            _ => return 0.0,
        };
        let ways = bytes.into_iter().enumerate();
        ways.filter(|(way, count)| *count > 0 && share.rate(*way) > 0)
            .map(|(way, count)| share.buckets[way].owe(share.rate(way), count, now))
            .fold(0.0, f64::max)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Share>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_share_for_all_who_use_it() {
        let shares = Shares::default();
        let one = shares.get("alice").expect("room");
        assert!(shares.set("alice", [1, 2]));
        assert!(one.is_limited());
        assert_eq!((one.rate(0), one.rate(1)), (1, 2));
        assert!(Arc::ptr_eq(&one, &shares.get("alice").expect("room")));
        assert!(shares.set("alice", [0, 0]));
        assert!(!one.is_limited());
    }

    #[test]
    fn what_passes_elsewhere_is_paid_from_the_same_bucket() {
        let shares = Shares::default();
        let now = Instant::now();
        assert_eq!(shares.spend("alice", [5_000, 5_000], now), 0.0);
        assert!(shares.set("alice", [1_000, 0]));
        assert_eq!(shares.spend("alice", [0, 5_000], now), 0.0);
        let wait = shares.spend("alice", [5_000, 5_000], now);
        assert!((4.9..=5.1).contains(&wait), "{wait}");
        let longer = shares.spend("alice", [1_000, 0], now);
        assert!((longer - wait - 1.0).abs() < 0.01, "{longer}");
    }

    #[test]
    fn names_are_forgotten_with_their_flows_and_limits() {
        let shares = Shares::default();
        for number in 0..10_000 {
            drop(shares.get(&number.to_string()));
        }
        assert!(shares.lock().len() < 10);
        assert!(shares.set("bob", [5, 0]));
        drop(shares.get("bob"));
        assert!(shares.set("nobody", [0, 0]));
        assert!(shares.lock().contains_key("bob"));
        assert!(shares.set("bob", [0, 0]));
        assert!(!shares.lock().contains_key("bob"));
    }

    #[test]
    fn the_table_of_names_is_bounded() {
        let shares = Shares::default();
        for number in 0..MOST_NAMES {
            assert!(shares.set(&number.to_string(), [1, 1]));
        }
        assert!(!shares.set("one more", [1, 1]));
        assert!(shares.get("one more").is_none());
        assert!(shares.set("0", [0, 0]));
        assert!(shares.get("one more").is_some());
    }
}
