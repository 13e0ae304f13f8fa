//! How fast bytes may go, and how many in all: token buckets of a flow, of a client and of an
//! endpoint, in each direction. Limits change while flows live.
//!
//! Shared by the workers; what an endpoint doesn't limit costs a flow one look at a flag.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::ending::Side;
use super::limits::ClientKey;
use super::shares::Share;
use crate::plan::{EndpointPlan, RatesPlan};
use crate::runtime::{Sleep, Worker};

/// A bucket holds what passes in this part of a second: the burst after a rest.
const BURST: f64 = 0.05;
/// Who waits for tokens waits for what passes in this part of a second.
const QUANTUM: f64 = 0.01;

/// The limits of one endpoint, and what its flows have used.
#[derive(Default)]
pub struct Rates {
    limited: AtomicBool,
    flow: [AtomicU64; 2],
    client: [AtomicU64; 2],
    endpoint: [AtomicU64; 2],
    buckets: [Bucket; 2],
    clients: Mutex<HashMap<ClientKey, Weak<[Bucket; 2]>>>,
    quota: AtomicU64,
    used: AtomicU64,
}

impl Rates {
    pub fn new(plan: &EndpointPlan) -> Self {
        let rates = Self::default();
        rates.set(plan);
        rates
    }

    /// New limits hold at once, for living flows too. What was used stays used.
    pub fn set(&self, plan: &EndpointPlan) {
        let RatesPlan {
            flow_up,
            flow_down,
            client_up,
            client_down,
            endpoint_up,
            endpoint_down,
        } = plan.rates;
        let store = |cells: &[AtomicU64; 2], values: [u64; 2]| {
            for (cell, value) in cells.iter().zip(values) {
                cell.store(value, Ordering::Relaxed);
            }
        };
        store(&self.flow, [flow_up, flow_down]);
        store(&self.client, [client_up, client_down]);
        store(&self.endpoint, [endpoint_up, endpoint_down]);
        self.quota.store(plan.quota, Ordering::Relaxed);
        let limited = plan.rates != RatesPlan::default() || plan.quota != 0;
        self.limited.store(limited, Ordering::Relaxed);
    }

    pub fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// The quota and what was used of it; `None` without one.
    pub fn quota(&self) -> Option<(u64, u64)> {
        match self.quota.load(Ordering::Relaxed) {
            0 => None,
            quota => Some((quota, self.used.load(Ordering::Relaxed))),
        }
    }

    pub fn is_spent(&self) -> bool {
        self.quota().is_some_and(|(quota, used)| used >= quota)
    }

    fn client(&self, ip: IpAddr) -> Arc<[Bucket; 2]> {
        let mut clients = lock(&self.clients);
        let key = ClientKey::of(ip);
        if let Some(buckets) = clients.get(&key).and_then(Weak::upgrade) {
            return buckets;
        }
        // No more entries than clients with flows, give or take as many that are gone.
        if clients.len() >= clients.capacity() {
            clients.retain(|_, buckets| buckets.strong_count() > 0);
        }
        let buckets = Arc::<[Bucket; 2]>::default();
        clients.insert(key, Arc::downgrade(&buckets));
        buckets
    }
}

/// What one flow has passed, against all limits that hold for it.
pub struct Meter {
    rates: Arc<Rates>,
    client: Arc<[Bucket; 2]>,
    own: [Bucket; 2],
    shares: Arc<[Arc<Share>]>,
    sleeps: [Sleep; 2],
}

impl Meter {
    pub fn new(
        worker: &Rc<Worker>,
        rates: Arc<Rates>,
        client: IpAddr,
        shares: Arc<[Arc<Share>]>,
    ) -> Self {
        Self {
            client: rates.client(client),
            rates,
            own: Default::default(),
            shares,
            sleeps: [Sleep::new(worker, None), Sleep::new(worker, None)],
        }
    }

    /// How many bytes may be read now. 0: none, and the task is called when some may.
    pub fn allowance(&mut self, from: Side, now: Instant) -> usize {
        let way = from as usize;
        let mut most = f64::MAX;
        let mut wait: f64 = 0.0;
        for (rate, bucket) in self.buckets(way) {
            let (tokens, missing) = bucket.look(rate, now);
            most = most.min(tokens);
            wait = wait.max(missing);
        }
        if wait == 0.0 {
            return most as usize;
        }
        let sleep = &mut self.sleeps[way];
        sleep.reset(Some(now + Duration::from_secs_f64(wait)));
        // Asked once to arm it.
        sleep.is_due();
        0
    }

    /// Counts bytes that passed. Whether the endpoint's quota lasts.
    pub fn spend(&self, from: Side, bytes: usize) -> bool {
        for (_, bucket) in self.buckets(from as usize) {
            bucket.take(bytes);
        }
        self.rates.used.fetch_add(bytes as u64, Ordering::Relaxed);
        !self.rates.is_spent()
    }

    /// The limits in this direction that are set.
    fn buckets(&self, way: usize) -> impl Iterator<Item = (u64, &Bucket)> {
        let rate = |cells: &[AtomicU64; 2]| cells[way].load(Ordering::Relaxed);
        let shared = self
            .shares
            .iter()
            .map(move |share| (share.rate(way), &share.buckets[way]));
        [
            (rate(&self.rates.flow), &self.own[way]),
            (rate(&self.rates.client), &self.client[way]),
            (rate(&self.rates.endpoint), &self.rates.buckets[way]),
        ]
        .into_iter()
        .chain(shared)
        .filter(|(rate, _)| *rate != 0)
    }
}

/// Tokens are bytes; below zero when several workers took at once.
#[derive(Default)]
pub(super) struct Bucket(Mutex<Option<Level>>);

struct Level {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// The bytes that may pass now, and how many seconds to wait when these are too few.
    fn look(&self, rate: u64, now: Instant) -> (f64, f64) {
        let rate = rate as f64;
        let quantum = (rate * QUANTUM).max(1.0);
        let mut level = lock(&self.0);
        let level = level.get_or_insert(Level {
            tokens: quantum,
            filled: now,
        });
        let passed = now.saturating_duration_since(level.filled).as_secs_f64();
        level.filled = level.filled.max(now);
        level.tokens = (level.tokens + passed * rate).min((rate * BURST).max(1.0));
        if level.tokens >= quantum {
            (level.tokens, 0.0)
        } else {
            (0.0, (quantum - level.tokens) / rate)
        }
    }

    /// Has passed what was not looked at before: how many seconds to wait until that is even.
    pub(super) fn owe(&self, rate: u64, bytes: usize, now: Instant) -> f64 {
        self.look(rate, now);
        self.take(bytes);
        self.look(rate, now).1
    }

    fn take(&self, bytes: usize) {
        if let Some(level) = &mut *lock(&self.0) {
            level.tokens -= bytes as f64;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that pass a bucket in `seconds`, by somebody who takes all he may.
    fn passed(rate: u64, seconds: f64, every: f64) -> f64 {
        let bucket = Bucket::default();
        let start = Instant::now();
        let mut sum = 0.0;
        let mut at = 0.0;
        while at < seconds {
            let (tokens, _) = bucket.look(rate, start + Duration::from_secs_f64(at));
            let taken = tokens.floor();
            bucket.take(taken as usize);
            sum += taken;
            at += every;
        }
        sum
    }

    #[test]
    fn the_rate_is_kept_within_three_percent_over_five_seconds() {
        for rate in [1_000, 100_000, 125_000_000] {
            for every in [0.001, 0.011, 0.04] {
                let share = passed(rate, 5.0, every) / (rate as f64 * 5.0);
                assert!((0.97..=1.03).contains(&share), "{rate} {every}: {share}");
            }
        }
    }

    #[test]
    fn debt_is_paid_before_anything_passes() {
        let bucket = Bucket::default();
        let now = Instant::now();
        bucket.look(1_000, now);
        bucket.take(1_010);
        let (tokens, wait) = bucket.look(1_000, now);
        assert_eq!(tokens, 0.0);
        assert!((wait - 1.01).abs() < 1e-6, "{wait}");
        let (tokens, wait) = bucket.look(1_000, now + Duration::from_secs_f64(wait));
        assert!(tokens >= 10.0 && wait == 0.0);
    }

    #[test]
    fn clients_are_forgotten_with_their_flows() {
        let rates = Rates::default();
        for number in 0..10_000_u32 {
            drop(rates.client(IpAddr::V4(number.into())));
        }
        assert!(lock(&rates.clients).len() < 10);
        let kept = rates.client(IpAddr::V4(1.into()));
        let same = rates.client(IpAddr::V4(1.into()));
        assert!(Arc::ptr_eq(&kept, &same));
    }
}
