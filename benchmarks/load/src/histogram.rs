//! Latencies in a fixed table: 64 steps per power of two, so that a percentile is off by 1.6 %.

use crate::json::Object;

const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = (64 - STEP_BITS as usize + 1) * STEPS as usize;

pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u128,
    max: u64,
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (u64::from(shift + 1) * STEPS + ((value >> shift) - STEPS)) as usize
}

fn lower_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    (bucket % STEPS + STEPS) << shift
}

impl Histogram {
    pub fn new() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            count: 0,
            sum: 0,
            max: 0,
        }
    }

    pub fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.sum += u128::from(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    pub fn absorb(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn quantile(&self, fraction: f64) -> u64 {
        let wanted = (self.count as f64 * fraction).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return lower_edge(index);
            }
        }
        self.max
    }

    /// Microseconds, as every report shows them.
    pub fn report(&self) -> Object {
        let micro = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        Object::new()
            .float("mean", self.sum as f64 / self.count as f64 / 1e3)
            .float("p50", micro(self.quantile(0.5)))
            .float("p90", micro(self.quantile(0.9)))
            .float("p99", micro(self.quantile(0.99)))
            .float("p999", micro(self.quantile(0.999)))
            .float("max", micro(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_close() {
        let mut last = 0;
        for value in [
            0,
            1,
            63,
            64,
            65,
            127,
            128,
            1_000,
            123_456_789,
            u64::MAX / 2,
            u64::MAX,
        ] {
            let index = bucket(value);
            assert!(index >= last && index < BUCKETS);
            last = index;
            let edge = lower_edge(index);
            assert!(
                edge <= value && value - edge <= value / STEPS,
                "{value} {edge}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_uniform_run() {
        let mut histogram = Histogram::new();
        for value in 1..=10_000 {
            histogram.record(value);
        }
        let p99 = histogram.quantile(0.99);
        assert!((9_700..=9_900).contains(&p99), "{p99}");
        assert!((4_900..=5_000).contains(&histogram.quantile(0.5)));
        let mut other = Histogram::new();
        other.absorb(&histogram);
        assert_eq!(other.count(), 10_000);
    }
}
