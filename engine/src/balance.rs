//! Which of several remotes a flow goes to. Pure: no I/O, no clock; whoever asks says which remotes
//! may be chosen.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::net::addr::unmapped;
use crate::plan::Balance;

/// One remote that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub weight: u32,
    /// Flows that it carries now.
    pub open: u64,
    /// What it is called in the eyes of `iphash`: equal for the same remote wherever it stands in
    /// a list.
    pub seed: u64,
    /// How many of 256 of its share it gets: fewer while it comes back from having been down.
    pub share: u16,
}

/// A share that is whole.
pub const WHOLE: u16 = 256;

/// A strategy and what it remembers, shared by all workers.
#[derive(Debug)]
pub struct Chooser {
    balance: Balance,
    turns: Mutex<RoundRobin>,
    dice: Dice,
}

impl Chooser {
    pub fn new(balance: Balance, remotes: usize) -> Self {
        Self {
            balance,
            turns: Mutex::new(RoundRobin::new(remotes)),
            dice: Dice::default(),
        }
    }

    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// The place of one of the candidates; those that are `None` can't be chosen.
    pub fn pick(&self, candidates: &[Option<Candidate>], client: IpAddr) -> Option<usize> {
        match self.balance {
            Balance::Off | Balance::Failover => self.first(candidates),
            Balance::Iphash => by_address(candidates, client),
            Balance::Roundrobin => self.in_turn(&self.partly(candidates)),
            Balance::Leastconn => self.in_turn(&least_loaded(self.partly(candidates))),
            Balance::Random2 => self.two_choices(&self.partly(candidates)),
        }
    }

    fn first(&self, candidates: &[Option<Candidate>]) -> Option<usize> {
        let partly = self.partly(candidates);
        partly.iter().position(Option::is_some)
    }

    fn in_turn(&self, candidates: &[Option<Candidate>]) -> Option<usize> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.pick(candidates)
    }

    /// Leaves out those whose share is small as often as it is small, unless nobody is left.
    fn partly(&self, candidates: &[Option<Candidate>]) -> Vec<Option<Candidate>> {
        let some: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.filter(|one| self.dice.allows(one.share)))
            .collect();
        match some.iter().any(Option::is_some) {
            true => some,
            false => candidates.to_vec(),
        }
    }

    /// The less loaded of two that are drawn by their weights.
    fn two_choices(&self, candidates: &[Option<Candidate>]) -> Option<usize> {
        let one = drawn(candidates, None, self.dice.roll())?;
        let Some(two) = drawn(candidates, Some(one), self.dice.roll()) else {
            return Some(one);
        };
        match (&candidates[one], &candidates[two]) {
            (Some(first), Some(second)) if second.is_less_loaded_than(first) => Some(two),
            _ => Some(one),
        }
    }
}

impl Candidate {
    /// Has fewer open flows for its weight.
    fn is_less_loaded_than(&self, other: &Self) -> bool {
        // a / w < b / v, without a division.
        u128::from(self.open) * u128::from(other.weight)
            < u128::from(other.open) * u128::from(self.weight)
    }
}

/// Smooth weighted round robin: in each turn all gain their weight, and the one that has gained
/// most pays the sum.
#[derive(Debug)]
pub struct RoundRobin {
    gained: Vec<i64>,
}

impl RoundRobin {
    pub fn new(remotes: usize) -> Self {
        Self {
            gained: vec![0; remotes],
        }
    }

    pub fn pick(&mut self, candidates: &[Option<Candidate>]) -> Option<usize> {
        self.gained.resize(candidates.len(), 0);
        let mut sum = 0;
        let mut best: Option<usize> = None;
        for (place, candidate) in candidates.iter().enumerate() {
            let Some(Candidate { weight, .. }) = candidate else {
                continue;
            };
            let weight = i64::from(*weight);
            sum += weight;
            self.gained[place] += weight;
            if best.is_none_or(|best| self.gained[place] > self.gained[best]) {
                best = Some(place);
            }
        }
        let best = best?;
        self.gained[best] -= sum;
        Some(best)
    }
}

/// Rendezvous hashing: each remote draws a number from the client's address and its own name, and
/// the best number wins. A client moves only when the remote that it had leaves, or when a new one
/// beats it.
fn by_address(candidates: &[Option<Candidate>], client: IpAddr) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    // Taken only when all others are away: a remote that is not yet open to this client.
    let mut early: Option<(f64, usize)> = None;
    for (place, candidate) in candidates.iter().enumerate() {
        let Some(candidate) = candidate else {
            continue;
        };
        let hash = address_hash(client, candidate.seed);
        let score = score(hash, candidate.weight);
        // Which clients come back first has nothing to do with how well they fit.
        let open = (mix(hash) & 0xff) < u64::from(candidate.share);
        let kept = if open { &mut best } else { &mut early };
        if kept.is_none_or(|(most, _)| score > most) {
            *kept = Some((score, place));
        }
    }
    best.or(early).map(|(_, place)| place)
}

/// `-weight / ln(u)` for a `u` drawn from (0, 1): the chance to be the greatest of several is
/// proportional to the weight.
fn score(hash: u64, weight: u32) -> f64 {
    // 53 bits are exact; the half keeps clear of 0 and 1.
    let u = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / u.ln()
}

fn address_hash(client: IpAddr, seed: u64) -> u64 {
    match unmapped(client) {
        IpAddr::V4(v4) => mix(seed ^ mix(u64::from(u32::from(v4)))),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            mix(mix(seed ^ mix((bits >> 64) as u64)) ^ mix(bits as u64 ^ 0x0076_3666_6c6f_7773))
        }
    }
}

/// The seed of a remote by its name, and by how many of the same name stand before it.
pub fn seed(name: &str, repeat: usize) -> u64 {
    // FNV-1a, and then every bit depends on every other.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3_u64)
    });
    mix(hash.wrapping_add(repeat as u64))
}

/// Leaves those that have the least open flows for their weight.
fn least_loaded(mut candidates: Vec<Option<Candidate>>) -> Vec<Option<Candidate>> {
    let least = candidates.iter().flatten().copied().reduce(|least, one| {
        match one.is_less_loaded_than(&least) {
            true => one,
            false => least,
        }
    });
    if let Some(least) = least {
        for place in &mut candidates {
            *place = place.filter(|one| !least.is_less_loaded_than(one));
        }
    }
    candidates
}

/// One at random by weight, but not `except`.
fn drawn(candidates: &[Option<Candidate>], except: Option<usize>, random: u64) -> Option<usize> {
    let weights = || {
        candidates
            .iter()
            .enumerate()
            .filter(move |(place, _)| Some(*place) != except)
            .filter_map(|(place, candidate)| candidate.map(|one| (place, u64::from(one.weight))))
    };
    let sum: u64 = weights().map(|(_, weight)| weight).sum();
    if sum == 0 {
        return weights().next().map(|(place, _)| place);
    }
    let mut left = random % sum;
    for (place, weight) in weights() {
        if left < weight {
            return Some(place);
        }
        left -= weight;
    }
    None
}

/// Random enough to spread load; no secrets depend on it.
#[derive(Debug, Default)]
pub struct Dice(AtomicU64);

impl Dice {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn roll(&self) -> u64 {
        mix(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// Any time from zero to this one.
    pub fn part_of(&self, time: Duration) -> Duration {
        let part = self.roll() >> 32;
        Duration::from_nanos(((time.as_nanos() * u128::from(part)) >> 32) as u64)
    }

    /// True as often as `share` is of the whole.
    fn allows(&self, share: u16) -> bool {
        share >= WHOLE || (self.roll() & 0xff) < u64::from(share)
    }
}

/// SplitMix64: neighbouring numbers become unrelated ones.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
