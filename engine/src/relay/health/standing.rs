//! How one remote stands: up, down, on its way back. The clock is an argument; no I/O.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::balance::WHOLE;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody has tried it yet.
    Unknown,
    Up,
    Down,
    /// Was down and gets a growing share of flows.
    Recovering,
}

/// What failures mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures of flows in a row that take a remote down; 0 never does.
    pub max_fails: u32,
    /// How long it is left alone then, if no checks say more.
    pub fail_timeout: Duration,
    /// Over how long its share grows when it comes back.
    pub ramp: Duration,
    /// Checks in a row that bring it back, and that take it down; `None` without checks.
    pub checks: Option<(u32, u32)>,
}

/// The longest that a returning remote takes to get its whole share.
const LONGEST_RAMP: Duration = Duration::from_secs(10);
/// How many of 256 of its share a remote gets right after the first success.
const FIRST_SHARE: u16 = 26;

impl Policy {
    pub fn ramp_for(pause: Duration) -> Duration {
        (pause / 2).min(LONGEST_RAMP)
    }

    /// Nothing takes a remote down.
    pub fn is_blind(&self) -> bool {
        self.max_fails == 0 && self.checks.is_none()
    }
}

/// A change that people should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Down { reason: String },
    Up { after: Duration },
}

/// May a remote be chosen?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// So many of 256 of its share.
    Share(u16),
    /// Its pause is over: one flow may try it.
    Probe,
    No,
}

/// One remote of one endpoint, as all workers see it.
#[derive(Debug)]
pub struct Standing {
    /// Flows that are there or on their way there.
    pub open: AtomicU64,
    pub total: AtomicU64,
    pub fails: AtomicU64,
    /// Nothing was ever wrong since it was last up: the record need not be looked at.
    calm: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    state: State,
    since: SystemTime,
    reason: Option<String>,
    /// In a row.
    flows_failed: u32,
    checks_failed: u32,
    checks_passed: u32,
    /// While down: when one flow may try it, which is then given a while to do so.
    retry: Option<Instant>,
    /// When it was taken down, and when its way back began.
    down: Option<Instant>,
    back: Option<Instant>,
}

/// A snapshot for whoever wants to see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub state: State,
    /// Why it was last taken down, until it is wholly back.
    pub reason: Option<String>,
    /// Unix time of the last change of state.
    pub since: f64,
    pub open: u64,
    pub total: u64,
    pub fails: u64,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            open: AtomicU64::new(0),
            total: AtomicU64::new(0),
            fails: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            record: Mutex::new(Record {
                state: State::Unknown,
                since: SystemTime::now(),
                reason: None,
                flows_failed: 0,
                checks_failed: 0,
                checks_passed: 0,
                retry: None,
                down: None,
                back: None,
            }),
        }
    }
}

impl Standing {
    pub fn access(&self, policy: &Policy, now: Instant) -> Access {
        if policy.is_blind() || self.calm.load(Ordering::Relaxed) {
            return Access::Share(WHOLE);
        }
        let mut record = self.lock();
        record.grow_up(policy, now);
        match record.state {
            State::Unknown | State::Up => Access::Share(WHOLE),
            State::Recovering => Access::Share(record.share(policy, now)),
            State::Down if record.may_be_tried(policy, now) => Access::Probe,
            State::Down => Access::No,
        }
    }

    /// Takes the right to be the one that tries; false when another has it.
    pub fn take_probe(&self, policy: &Policy, now: Instant) -> bool {
        let mut record = self.lock();
        let due = record.state == State::Down && record.may_be_tried(policy, now);
        if due {
            // In case nothing is ever heard of that flow.
            record.retry = Some(now + policy.fail_timeout.max(Duration::from_secs(1)));
        }
        due
    }

    /// A flow has reached the remote.
    pub fn flow_succeeded(&self, policy: &Policy, now: Instant) -> Option<Change> {
        if self.calm.load(Ordering::Relaxed) {
            return None;
        }
        let mut record = self.lock();
        record.grow_up(policy, now);
        record.flows_failed = 0;
        match record.state {
            State::Unknown => record.enter(State::Up),
            // Checks see more than that a connection comes about.
            State::Down if policy.checks.is_none() => return Some(record.come_back(now)),
            _ => {}
        }
        self.note_calm(&record);
        None
    }

    /// A flow could not reach the remote.
    pub fn flow_failed(&self, policy: &Policy, why: &str, now: Instant) -> Option<Change> {
        self.fails.fetch_add(1, Ordering::Relaxed);
        if policy.max_fails == 0 {
            return None;
        }
        let mut record = self.lock();
        self.calm.store(false, Ordering::Relaxed);
        record.grow_up(policy, now);
        record.flows_failed = record.flows_failed.saturating_add(1);
        match record.state {
            State::Down => {
                // The one that tried it has failed, or stragglers of before have.
                if record.retry.is_some() {
                    record.retry = Some(now + policy.fail_timeout);
                }
                None
            }
            State::Recovering => Some(record.go_down(policy, why, now)),
            _ if record.flows_failed >= policy.max_fails => Some(record.go_down(policy, why, now)),
            _ => None,
        }
    }

    /// A check has passed.
    pub fn check_passed(&self, policy: &Policy, now: Instant) -> Option<Change> {
        let rise = policy.checks.map_or(1, |(rise, _)| rise);
        let mut record = self.lock();
        record.grow_up(policy, now);
        record.checks_failed = 0;
        record.checks_passed = record.checks_passed.saturating_add(1);
        match record.state {
            State::Unknown => record.enter(State::Up),
            State::Down if record.checks_passed >= rise => return Some(record.come_back(now)),
            _ => {}
        }
        self.note_calm(&record);
        None
    }

    /// A check has failed.
    pub fn check_failed(&self, policy: &Policy, why: &str, now: Instant) -> Option<Change> {
        let fall = policy.checks.map_or(1, |(_, fall)| fall);
        let mut record = self.lock();
        self.calm.store(false, Ordering::Relaxed);
        record.grow_up(policy, now);
        record.checks_passed = 0;
        record.checks_failed = record.checks_failed.saturating_add(1);
        if record.state == State::Down || record.checks_failed < fall {
            return None;
        }
        Some(record.go_down(policy, why, now))
    }

    /// Whether anybody has tried it.
    pub fn is_known(&self) -> bool {
        self.lock().state != State::Unknown
    }

    pub fn report(&self, policy: &Policy, now: Instant) -> Report {
        let mut record = self.lock();
        record.grow_up(policy, now);
        Report {
            state: record.state,
            reason: record.reason.clone(),
            since: record
                .since
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            open: self.open.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            fails: self.fails.load(Ordering::Relaxed),
        }
    }

    fn note_calm(&self, record: &Record) {
        let calm = record.state == State::Up && record.flows_failed == 0;
        self.calm.store(calm, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.since = SystemTime::now();
    }

    fn go_down(&mut self, policy: &Policy, why: &str, now: Instant) -> Change {
        self.enter(State::Down);
        self.reason = Some(why.to_owned());
        self.checks_passed = 0;
        // With checks, they alone say when it is back.
        self.retry = policy.checks.is_none().then(|| now + policy.fail_timeout);
        self.down = Some(now);
        self.back = None;
        Change::Down {
            reason: why.to_owned(),
        }
    }

    fn may_be_tried(&self, policy: &Policy, now: Instant) -> bool {
        match self.retry {
            Some(retry) => now >= retry,
            // A plan of before had checks, which nobody makes any more.
            None => policy.checks.is_none(),
        }
    }

    fn come_back(&mut self, now: Instant) -> Change {
        self.enter(State::Recovering);
        self.flows_failed = 0;
        self.checks_failed = 0;
        self.retry = None;
        self.back = Some(now);
        Change::Up {
            after: self
                .down
                .map_or(Duration::ZERO, |down| now.saturating_duration_since(down)),
        }
    }

    /// A returning remote is up once its share is whole.
    fn grow_up(&mut self, policy: &Policy, now: Instant) {
        if self.state == State::Recovering && self.share(policy, now) >= WHOLE {
            self.enter(State::Up);
            self.reason = None;
            self.back = None;
        }
    }

    fn share(&self, policy: &Policy, now: Instant) -> u16 {
        let Some(back) = self.back else {
            return WHOLE;
        };
        let gone = now.saturating_duration_since(back);
        if gone >= policy.ramp {
            return WHOLE;
        }
        let part = gone.as_secs_f64() / policy.ramp.as_secs_f64();
        let share = part * f64::from(WHOLE);
        (share as u16).clamp(FIRST_SHARE, WHOLE - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        max_fails: 2,
        fail_timeout: Duration::from_secs(60),
        ramp: Duration::from_secs(10),
        checks: None,
    };
    const CHECKED: Policy = Policy {
        checks: Some((2, 3)),
        ..POLICY
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn failures_in_a_row_take_it_down_and_a_success_between_forgives() {
        let standing = Standing::default();
        let now = Instant::now();
        assert_eq!(standing.report(&POLICY, now).state, State::Unknown);
        assert_eq!(standing.flow_failed(&POLICY, "refused", now), None);
        assert_eq!(standing.flow_succeeded(&POLICY, now), None);
        assert_eq!(standing.flow_failed(&POLICY, "refused", now), None);
        assert_eq!(standing.access(&POLICY, now), Access::Share(WHOLE));
        let reason = "refused".to_owned();
        assert_eq!(
            standing.flow_failed(&POLICY, "refused", now),
            Some(Change::Down { reason })
        );
        assert_eq!(standing.access(&POLICY, now), Access::No);
        let report = standing.report(&POLICY, now);
        assert_eq!(report.state, State::Down);
        assert_eq!(report.reason.as_deref(), Some("refused"));
        assert_eq!(report.fails, 3);
        // Nobody hears of it twice.
        assert_eq!(standing.flow_failed(&POLICY, "refused", now), None);
    }

    fn downed(policy: &Policy) -> (Standing, Instant) {
        let standing = Standing::default();
        let now = Instant::now();
        standing.flow_failed(policy, "refused", now);
        assert!(standing.flow_failed(policy, "refused", now).is_some());
        (standing, now)
    }

    #[test]
    fn one_flow_tries_it_after_the_pause_and_its_failure_begins_another() {
        let (standing, now) = downed(&POLICY);
        let later = now + seconds(60);
        assert!(!standing.take_probe(&POLICY, later - seconds(1)));
        assert_eq!(standing.access(&POLICY, later), Access::Probe);
        assert!(standing.take_probe(&POLICY, later));
        assert!(!standing.take_probe(&POLICY, later));
        assert_eq!(standing.access(&POLICY, later), Access::No);
        assert_eq!(standing.flow_failed(&POLICY, "refused", later), None);
        assert_eq!(standing.access(&POLICY, later + seconds(59)), Access::No);
        assert_eq!(standing.access(&POLICY, later + seconds(60)), Access::Probe);
    }

    #[test]
    fn it_comes_back_gradually() {
        let (standing, now) = downed(&POLICY);
        let later = now + seconds(60);
        assert!(standing.take_probe(&POLICY, later));
        let after = seconds(60);
        assert_eq!(
            standing.flow_succeeded(&POLICY, later),
            Some(Change::Up { after })
        );
        assert_eq!(standing.report(&POLICY, later).state, State::Recovering);
        let shares: Vec<_> = (0..11)
            .map(|second| standing.access(&POLICY, later + seconds(second)))
            .map(|access| match access {
                Access::Share(share) => share,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shares[0], FIRST_SHARE);
        assert!(shares.is_sorted());
        assert_eq!(shares[5], WHOLE / 2);
        assert_eq!(shares[10], WHOLE);
        let report = standing.report(&POLICY, later + seconds(10));
        assert_eq!((report.state, report.reason), (State::Up, None));
        assert_eq!(standing.flow_succeeded(&POLICY, later + seconds(10)), None);
    }

    #[test]
    fn a_failure_on_the_way_back_takes_it_down_again() {
        let (standing, now) = downed(&POLICY);
        let later = now + seconds(60);
        standing.flow_succeeded(&POLICY, later);
        assert!(standing.flow_failed(&POLICY, "refused", later).is_some());
        assert_eq!(standing.access(&POLICY, later + seconds(59)), Access::No);
    }

    #[test]
    fn without_max_fails_nothing_takes_it_down() {
        let policy = Policy {
            max_fails: 0,
            ..POLICY
        };
        let standing = Standing::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(standing.flow_failed(&policy, "refused", now), None);
        }
        assert_eq!(standing.access(&policy, now), Access::Share(WHOLE));
        assert_eq!(standing.report(&policy, now).fails, 100);
    }

    #[test]
    fn checks_take_it_down_and_bring_it_back() {
        let standing = Standing::default();
        let now = Instant::now();
        assert_eq!(standing.check_passed(&CHECKED, now), None);
        assert_eq!(standing.report(&CHECKED, now).state, State::Up);
        for _ in 0..2 {
            assert_eq!(standing.check_failed(&CHECKED, "status 503", now), None);
        }
        assert!(standing.check_failed(&CHECKED, "status 503", now).is_some());
        // However long it takes, and whatever flows do.
        let later = now + seconds(1000);
        assert_eq!(standing.access(&CHECKED, later), Access::No);
        assert_eq!(standing.flow_succeeded(&CHECKED, later), None);
        assert_eq!(standing.check_passed(&CHECKED, later), None);
        assert_eq!(standing.check_failed(&CHECKED, "status 503", later), None);
        assert_eq!(standing.check_passed(&CHECKED, later), None);
        assert!(matches!(
            standing.check_passed(&CHECKED, later),
            Some(Change::Up { .. })
        ));
        assert_eq!(standing.report(&CHECKED, later).state, State::Recovering);
    }

    #[test]
    fn checks_also_bring_back_what_flows_took_down() {
        let (standing, now) = downed(&CHECKED);
        let later = now + seconds(1000);
        assert_eq!(standing.access(&CHECKED, later), Access::No);
        standing.check_passed(&CHECKED, later);
        assert!(standing.check_passed(&CHECKED, later).is_some());
    }
}
