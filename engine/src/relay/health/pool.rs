//! Remotes among which flows are spread: the strategy, and how each of them stands.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::probe::Question;
use super::standing::{Access, Change, Policy, Report, Standing};
use crate::balance::{Candidate, Chooser, WHOLE, seed};
use crate::plan::{Balance, CheckPlan, EndpointPlan, HealthPlan};
use crate::relay::endpoint::{PlanError, Target, limit};
use crate::shared::{Endpoint, Shared};

/// The largest weight of one remote.
const MOST_WEIGHT: u32 = 255;

/// A run of a route's targets, one of which each flow goes to.
#[derive(Debug)]
pub struct Pool {
    first: usize,
    members: Vec<Member>,
    chooser: Arc<Chooser>,
    policy: Policy,
    /// Whether the next one is tried when a remote can't be reached.
    failover: bool,
}

#[derive(Debug)]
struct Member {
    /// The name that it is known by over reloads, and how many of that name stand before it.
    key: (String, usize),
    weight: u32,
    seed: u64,
    standing: Arc<Standing>,
}

impl Pool {
    /// The pool of `targets[range]`. What `former` pools know of the same remotes stays known.
    pub fn new(
        plan: &EndpointPlan,
        targets: &[Target],
        range: Range<usize>,
        weights: &[u32],
        former: &[Self],
    ) -> Result<Self, PlanError> {
        let balance = plan.balance;
        let members = members(&targets[range.clone()], weights, former);
        let known = former.iter().find(|pool| pool.is_like(balance, &members));
        let chooser = match known {
            Some(pool) => Arc::clone(&pool.chooser),
            None => Arc::new(Chooser::new(balance, members.len())),
        };
        if let Some(check) = &plan.health.check {
            for target in &targets[range.clone()] {
                Question::prepare(check, target)?;
            }
        }
        Ok(Self {
            first: range.start,
            members,
            chooser,
            policy: policy(plan)?,
            failover: fails_over(plan),
        })
    }

    fn is_like(&self, balance: Balance, members: &[Member]) -> bool {
        let named = |member: &Member| (member.key.clone(), member.weight);
        self.chooser.balance() == balance
            && self.members.iter().map(named).eq(members.iter().map(named))
    }

    /// The places of its members among the route's targets.
    pub fn range(&self) -> Range<usize> {
        self.first..self.first + self.members.len()
    }

    pub fn fails_over(&self) -> bool {
        self.failover
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn standing(&self, target: usize) -> Option<&Arc<Standing>> {
        let place = target.checked_sub(self.first)?;
        Some(&self.members.get(place)?.standing)
    }

    /// How many more than those in `tried` could be tried for one flow.
    pub fn untried(&self, tried: &[usize]) -> usize {
        if !self.failover && !tried.is_empty() {
            return 0;
        }
        let all = self.range();
        all.filter(|target| self.counts(*target, tried)).count()
    }

    fn counts(&self, target: usize, tried: &[usize]) -> bool {
        let weighs = match self.chooser.balance() {
            Balance::Off if !self.failover => target == self.first,
            Balance::Off | Balance::Failover => true,
            _ => self.members[target - self.first].weight > 0,
        };
        weighs && !tried.contains(&target)
    }

    /// The target of a client's flow that can't be served by those in `tried`.
    pub fn choose(&self, client: IpAddr, tried: &[usize], now: Instant) -> Option<usize> {
        if self.chooser.balance() == Balance::Off && !self.failover {
            return tried.is_empty().then_some(self.first);
        }
        if !self.failover && !tried.is_empty() {
            return None;
        }
        let mut probes = vec![false; self.members.len()];
        let mut candidates: Vec<_> = self
            .range()
            .zip(&mut probes)
            .map(|(target, probe)| {
                let member = &self.members[target - self.first];
                let share = match member.standing.access(&self.policy, now) {
                    _ if !self.counts(target, tried) => return None,
                    Access::Share(share) => share,
                    Access::Probe => {
                        *probe = true;
                        WHOLE
                    }
                    Access::No => return None,
                };
                Some(member.candidate(share))
            })
            .collect();
        while let Some(place) = self.chooser.pick(&candidates, client) {
            if !probes[place] || self.members[place].standing.take_probe(&self.policy, now) {
                return Some(self.first + place);
            }
            candidates[place] = None;
        }
        // All are down: whoever is tried may be back.
        let all: Vec<_> = self
            .range()
            .map(|target| {
                self.counts(target, tried)
                    .then(|| self.members[target - self.first].candidate(WHOLE))
            })
            .collect();
        Some(self.first + self.chooser.pick(&all, client)?)
    }

    /// Whether a remote may turn out to be down while others are not.
    pub fn has_choice(&self) -> bool {
        let spreads = self.failover || self.chooser.balance() != Balance::Off;
        spreads && self.members.len() > 1 && !self.policy.is_blind()
    }

    /// Whether another of its remotes should be used instead of this one, which is down.
    pub fn is_to_be_left(&self, target: usize, now: Instant) -> bool {
        let is_down = |target: usize| {
            self.standing(target).is_some_and(|standing| {
                !matches!(standing.access(&self.policy, now), Access::Share(_))
            })
        };
        is_down(target)
            && self
                .range()
                .any(|other| self.counts(other, &[target]) && !is_down(other))
    }

    pub fn succeeded(&self, target: usize, now: Instant) -> Option<Change> {
        self.standing(target)?.flow_succeeded(&self.policy, now)
    }

    pub fn failed(&self, target: usize, why: &str, now: Instant) -> Option<Change> {
        self.standing(target)?.flow_failed(&self.policy, why, now)
    }

    pub fn reports(&self, now: Instant) -> impl Iterator<Item = (usize, Report)> {
        self.range()
            .zip(&self.members)
            .map(move |(target, member)| (target, member.standing.report(&self.policy, now)))
    }
}

impl Member {
    fn candidate(&self, share: u16) -> Candidate {
        Candidate {
            weight: self.weight,
            open: self.standing.open.load(Ordering::Relaxed),
            seed: self.seed,
            share,
        }
    }
}

fn members(targets: &[Target], weights: &[u32], former: &[Pool]) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::with_capacity(targets.len());
    for (place, target) in targets.iter().enumerate() {
        let repeat = targets[..place]
            .iter()
            .filter(|other| other.text == target.text)
            .count();
        let key = (target.text.clone(), repeat);
        let known = former
            .iter()
            .flat_map(|pool| &pool.members)
            .find(|member| member.key == key);
        members.push(Member {
            weight: weights.get(place).copied().unwrap_or(1),
            seed: seed(&target.text, repeat),
            standing: known.map_or_else(Arc::default, |member| Arc::clone(&member.standing)),
            key,
        });
    }
    members
}

/// Whether a plan's flows go on to the next remote when one can't be reached.
fn fails_over(plan: &EndpointPlan) -> bool {
    plan.health.failover || plan.balance == Balance::Failover
}

/// Whether it is of interest how the remotes of a plan stand.
pub fn is_of_interest(plan: &EndpointPlan) -> bool {
    plan.balance != Balance::Off || plan.health != HealthPlan::default()
}

/// One weight for each remote, or none at all.
pub fn check_weights(plan: &EndpointPlan) -> Result<(), PlanError> {
    let weights = &plan.weights;
    let wrong = |why: String| PlanError {
        field: "weights",
        value: format!("{weights:?}"),
        why,
    };
    if weights.is_empty() {
        return Ok(());
    }
    let remotes = plan.remotes.len();
    if weights.len() != remotes {
        let count = weights.len();
        return Err(wrong(format!("{count} weights for {remotes} remotes")));
    }
    if let Some(weight) = weights.iter().find(|weight| **weight > MOST_WEIGHT) {
        return Err(wrong(format!("{weight} is more than {MOST_WEIGHT}")));
    }
    if weights.iter().all(|weight| *weight == 0) {
        return Err(wrong("all are 0, so no remote gets anything".to_owned()));
    }
    Ok(())
}

fn policy(plan: &EndpointPlan) -> Result<Policy, PlanError> {
    let health = &plan.health;
    let fail_timeout = limit("health.fail_timeout", health.fail_timeout)?.unwrap_or(Duration::ZERO);
    let (pause, checks) = match &health.check {
        None => (fail_timeout, None),
        Some(check) => (
            times(check)?.0 * 2 * check.rise.min(1_000),
            Some((check.rise, check.fall)),
        ),
    };
    Ok(Policy {
        max_fails: if fails_over(plan) {
            health.max_fails
        } else {
            0
        },
        fail_timeout,
        ramp: Policy::ramp_for(pause),
        checks,
    })
}

/// Interval and timeout of a check that can be made.
pub fn times(check: &CheckPlan) -> Result<(Duration, Duration), PlanError> {
    let wrong = |field, value: String, why: &str| PlanError {
        field,
        value,
        why: why.to_owned(),
    };
    let positive = |field, seconds: f64| {
        limit(field, seconds)?
            .filter(|time| *time >= Duration::from_millis(1))
            .ok_or_else(|| wrong(field, seconds.to_string(), "must be positive"))
    };
    let interval = positive("health.check.interval", check.interval)?;
    let timeout = positive("health.check.timeout", check.timeout)?;
    for (field, count) in [
        ("health.check.rise", check.rise),
        ("health.check.fall", check.fall),
    ] {
        if count == 0 {
            return Err(wrong(field, "0".to_owned(), "must be positive"));
        }
    }
    Ok((interval, timeout))
}

/// Says what changed, once.
pub fn tell(shared: &Shared, endpoint: &Endpoint, target: &str, change: Option<Change>) {
    let (code, text) = match change {
        None => return,
        Some(Change::Down { reason }) => ("remote_down", format!("{target} is down: {reason}")),
        Some(Change::Up { after }) => (
            "remote_up",
            format!("{target} is up again after {:.1} s", after.as_secs_f64()),
        ),
    };
    let group = endpoint.group.id;
    shared.events.announce(group, &endpoint.id, code, &text);
}

#[cfg(test)]
mod tests {
    use super::super::standing::State;
    use super::*;
    use crate::plan::RemotePlan;
    use crate::relay::endpoint::Route;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn plan(balance: Balance, remotes: u16) -> EndpointPlan {
        let mut plan = EndpointPlan::new("test", "127.0.0.1:0", "127.0.0.1", 1);
        plan.remotes = (1..=remotes)
            .map(|port| RemotePlan {
                host: "127.0.0.1".to_owned(),
                port,
            })
            .collect();
        plan.balance = balance;
        plan.health.failover = true;
        plan
    }

    /// How many of so many flows go to each.
    fn spread(pool: &Pool, now: Instant, flows: usize) -> Vec<usize> {
        let mut count = vec![0; pool.members.len()];
        for _ in 0..flows {
            count[pool.choose(CLIENT, &[], now).expect("a remote")] += 1;
        }
        count
    }

    #[test]
    fn a_returning_remote_gets_one_flow_and_then_more_and_more() {
        for balance in [Balance::Roundrobin, Balance::Failover] {
            let route = Route::prepare(plan(balance, 2)).expect("plan");
            let pool = &route.pools[0];
            let now = Instant::now();
            assert!(pool.succeeded(1, now).is_none());
            assert!(pool.failed(0, "refused", now).is_none());
            assert!(pool.failed(0, "refused", now).is_some());
            assert_eq!(spread(pool, now, 100), [0, 100]);
            let later = now + Duration::from_secs(120);
            assert_eq!(spread(pool, later, 100), [1, 99], "{balance:?}");
            assert!(pool.succeeded(0, later).is_some());
            let whole = if balance == Balance::Failover {
                1.0
            } else {
                0.5
            };
            for (seconds, share) in [(0, 0.1), (5, 0.5), (9, 0.9), (10, 1.0)] {
                let flows = spread(pool, later + Duration::from_secs(seconds), 10_000);
                let got = flows[0] as f64 / 10_000.0;
                assert!((got - share * whole).abs() < 0.03, "{balance:?}: {flows:?}");
            }
        }
    }

    #[test]
    fn the_tried_are_not_tried_again_and_the_down_come_last() {
        let route = Route::prepare(plan(Balance::Failover, 3)).expect("plan");
        let pool = &route.pools[0];
        let now = Instant::now();
        for _ in 0..2 {
            pool.failed(0, "refused", now);
        }
        assert_eq!(pool.choose(CLIENT, &[], now), Some(1));
        assert_eq!(pool.choose(CLIENT, &[1], now), Some(2));
        assert_eq!(pool.choose(CLIENT, &[1, 2], now), Some(0));
        assert_eq!(pool.choose(CLIENT, &[1, 2, 0], now), None);
        assert_eq!(pool.untried(&[1]), 2);
    }

    #[test]
    fn a_weight_of_nothing_gets_nothing_even_when_all_are_down() {
        let mut plan = plan(Balance::Roundrobin, 3);
        plan.weights = vec![1, 0, 1];
        let route = Route::prepare(plan).expect("plan");
        let pool = &route.pools[0];
        let now = Instant::now();
        assert_eq!(spread(pool, now, 100), [50, 0, 50]);
        for target in [0, 0, 2, 2] {
            pool.failed(target, "refused", now);
        }
        assert_eq!(spread(pool, now, 100), [50, 0, 50]);
        assert_eq!(pool.untried(&[0, 2]), 0);
    }

    #[test]
    fn a_reload_keeps_the_turn_and_what_is_known() {
        let first = Route::prepare(plan(Balance::Roundrobin, 3)).expect("plan");
        let now = Instant::now();
        assert_eq!(first.pools[0].choose(CLIENT, &[], now), Some(0));
        let again = plan(Balance::Roundrobin, 3);
        let second = Route::succeed(again, Some(&first)).expect("plan");
        assert_eq!(second.pools[0].choose(CLIENT, &[], now), Some(1));
        for _ in 0..2 {
            second.pools[0].failed(1, "refused", now);
        }
        let mut fewer = plan(Balance::Iphash, 3);
        fewer.remotes.remove(0);
        let third = Route::succeed(fewer, Some(&second)).expect("plan");
        let states: Vec<_> = third.pools[0]
            .reports(now)
            .map(|(_, report)| report.state)
            .collect();
        assert_eq!(states, [State::Down, State::Unknown]);
    }

    #[test]
    fn an_association_leaves_only_for_one_that_is_better() {
        let route = Route::prepare(plan(Balance::Roundrobin, 2)).expect("plan");
        let pool = &route.pools[0];
        let now = Instant::now();
        assert!(!pool.is_to_be_left(0, now));
        for _ in 0..2 {
            pool.failed(0, "port unreachable", now);
        }
        assert!(pool.is_to_be_left(0, now));
        assert!(!pool.is_to_be_left(1, now));
        for _ in 0..2 {
            pool.failed(1, "port unreachable", now);
        }
        assert!(!pool.is_to_be_left(0, now));
    }
}
