//! Counters of one endpoint on one worker: plain cells, added up over the workers when asked.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::reason::{Reason, Refusal};

/// A count for each member of a closed list.
pub struct Tally<const N: usize>([Cell<u64>; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([const { Cell::new(0) }; N])
    }
}

impl<const N: usize> Tally<N> {
    pub fn add(&self, index: usize) {
        self.add_many(index, 1);
    }

    pub fn add_many(&self, index: usize, count: u64) {
        self.0[index].set(self.0[index].get() + count);
    }

    fn named(&self, name: impl Fn(usize) -> &'static str) -> BTreeMap<&'static str, u64> {
        self.0
            .iter()
            .enumerate()
            .filter(|(_, count)| count.get() > 0)
            .map(|(index, count)| (name(index), count.get()))
            .collect()
    }
}

pub type Reasons = Tally<{ Reason::ALL.len() }>;
pub type Refusals = Tally<{ Refusal::ALL.len() }>;

/// What both protocols count.
#[derive(Default)]
pub struct Counters {
    pub open: Cell<u64>,
    pub total: Cell<u64>,
    pub bytes_up: Cell<u64>,
    pub bytes_down: Cell<u64>,
    pub packets_up: Cell<u64>,
    pub packets_down: Cell<u64>,
    pub ended: Reasons,
    /// TCP: connections refused. UDP: datagrams dropped.
    pub refused: Refusals,
    /// TCP: accept calls that failed. UDP: ICMP errors received.
    pub errors: Cell<u64>,
    pub connect: Histogram,
}

/// `cell += count`.
pub fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

impl Counters {
    pub fn refuse(&self, refusal: Refusal) {
        self.refused.add(refusal as usize);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            open: self.open.get(),
            total: self.total.get(),
            bytes_up: self.bytes_up.get(),
            bytes_down: self.bytes_down.get(),
            packets_up: self.packets_up.get(),
            packets_down: self.packets_down.get(),
            ended: self.ended.named(|index| Reason::ALL[index].name()),
            refused: self.refused.named(|index| Refusal::ALL[index].name()),
            errors: self.errors.get(),
            connect: self.connect.snapshot(),
        }
    }
}

/// Counters at one moment, in the form in which they add up.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub open: u64,
    pub total: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub packets_up: u64,
    pub packets_down: u64,
    pub ended: BTreeMap<&'static str, u64>,
    pub refused: BTreeMap<&'static str, u64>,
    pub errors: u64,
    pub connect: HistogramSnapshot,
}

impl Snapshot {
    pub fn merge(&mut self, other: &Self) {
        self.open += other.open;
        self.total += other.total;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.packets_up += other.packets_up;
        self.packets_down += other.packets_down;
        for (name, count) in &other.ended {
            *self.ended.entry(name).or_default() += count;
        }
        for (name, count) in &other.refused {
            *self.refused.entry(name).or_default() += count;
        }
        self.errors += other.errors;
        self.connect.merge(&other.connect);
    }
}

/// Upper bounds in seconds of the buckets for the time to connect.
pub const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

#[derive(Default)]
pub struct Histogram {
    counts: Tally<{ BOUNDS.len() + 1 }>,
    sum: Cell<f64>,
}

impl Histogram {
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts.add(bucket);
        self.sum.set(self.sum.get() + seconds);
    }

    fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: BOUNDS,
            counts: self.counts.0.each_ref().map(Cell::get),
            sum: self.sum.get(),
            count: self.counts.0.iter().map(Cell::get).sum(),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct HistogramSnapshot {
    bounds: [f64; BOUNDS.len()],
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
    count: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Histogram::default().snapshot()
    }
}

impl HistogramSnapshot {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
        self.count += other.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for micros in [500, 501, 30_000, 6_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.counts, [1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(snapshot.count, 4);
        assert!((snapshot.sum - 6.031_001).abs() < 1e-9);
    }

    #[test]
    fn snapshots_of_workers_add_up() {
        let one = Counters::default();
        add(&one.total, 2);
        one.ended.add(Reason::Killed as usize);
        let two = Counters::default();
        add(&two.total, 3);
        two.ended.add(Reason::Killed as usize);
        two.refuse(Refusal::ConnectionRate);
        let mut sum = one.snapshot();
        sum.merge(&two.snapshot());
        assert_eq!(sum.total, 5);
        assert_eq!(sum.ended["killed"], 2);
        assert_eq!(sum.refused["connection_rate"], 1);
    }

    #[test]
    fn the_lists_are_in_the_order_of_the_enums() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }
}
