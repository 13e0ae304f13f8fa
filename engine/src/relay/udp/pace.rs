//! When to let datagrams gather before they are taken, so that they travel in long trains. Pure.
//!
//! A socket is left alone for `PAUSE` at a time while much comes through it and little goes back:
//! whoever waits for answers (a ping-pong, a game) is never made to wait longer.

use std::time::{Duration, Instant};

/// How long to let datagrams gather.
pub const PAUSE: Duration = Duration::from_micros(100);
/// Datagrams a second that are much.
const MUCH: u32 = 20_000;
/// Much more than goes back.
const TIMES: u64 = 4;
const WINDOW: Duration = Duration::from_millis(5);

/// What came through one socket lately.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    since: Instant,
    count: u32,
    /// The count of the other direction at `since`.
    back: u64,
    bulk: bool,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
            back: 0,
            bulk: false,
        }
    }

    /// Whether to let datagrams gather.
    pub fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// `count` datagrams came; `back` ever went the other way.
    pub fn note(&mut self, now: Instant, count: usize, back: u64) {
        self.count = self.count.saturating_add(count as u32);
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return;
        }
        let answers = back.saturating_sub(self.back);
        let much = f64::from(self.count) >= f64::from(MUCH) * passed.as_secs_f64();
        self.bulk = much && u64::from(self.count) >= TIMES * answers;
        self.since = now;
        self.count = 0;
        self.back = back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `rate` datagrams a second for a while, with `answers` for each.
    fn run(pace: &mut Pace, start: Instant, rate: u32, answers: f64) -> Instant {
        let mut back = pace.back as f64;
        for tick in 1..=100_u32 {
            let now = start + Duration::from_millis(u64::from(tick));
            back += f64::from(rate / 1000) * answers;
            pace.note(now, rate as usize / 1000, back as u64);
        }
        start + Duration::from_millis(100)
    }

    #[test]
    fn much_in_one_direction_is_bulk_until_it_ends() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let now = run(&mut pace, start, 10_000, 0.0);
        assert!(!pace.is_bulk());
        let now = run(&mut pace, now, 30_000, 0.1);
        assert!(pace.is_bulk());
        pace.note(now + Duration::from_secs(1), 1, pace.back);
        assert!(!pace.is_bulk());
    }

    #[test]
    fn whoever_is_answered_is_not_bulk() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        run(&mut pace, start, 100_000, 1.0);
        assert!(!pace.is_bulk());
        run(&mut pace, start, 100_000, 0.3);
        assert!(!pace.is_bulk());
    }
}
