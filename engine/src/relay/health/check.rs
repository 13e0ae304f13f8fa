//! Checks that go on for as long as an endpoint wants to know. Equal ones are made once for all
//! endpoints, on one of the workers.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::pool::{self, Pool};
use super::probe::{Look, Question, Verdict};
use super::standing::{Policy, Standing};
use crate::balance::Dice;
use crate::plan::CheckPlan;
use crate::relay::endpoint::{Route, Target};
use crate::runtime::{Sleep, TaskId, Worker};
use crate::shared::{Endpoint, Shared};

/// Checks under way at once on one worker.
const MOST_AT_ONCE: usize = 256;
/// How long a check waits when there are so many.
const CROWDED: Duration = Duration::from_millis(20);
/// The first checks of many remotes are so far apart on the average.
const APART: Duration = Duration::from_millis(2);

static DICE: Dice = Dice::new();

/// All checks of an engine.
#[derive(Default)]
pub struct Checks {
    all: Mutex<HashMap<String, Weak<Check>>>,
    serial: AtomicU64,
}

/// One remote that is looked at again and again.
struct Check {
    key: String,
    route: Arc<Route>,
    target: usize,
    question: Question,
    interval: Duration,
    timeout: Duration,
    audience: Mutex<HashMap<u64, Listener>>,
    /// For those who join later.
    latest: Mutex<Verdict>,
}

/// Who wants to know.
struct Listener {
    endpoint: Arc<Endpoint>,
    standing: Arc<Standing>,
    policy: Policy,
}

/// Keeps a check going for one endpoint until it is dropped.
pub struct Subscription {
    shared: Arc<Shared>,
    check: Arc<Check>,
    number: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut all = lock(&self.shared.checks.all);
        let mut audience = lock(&self.check.audience);
        audience.remove(&self.number);
        if audience.is_empty() {
            // Its task ends when it looks for it next.
            all.remove(&self.check.key);
        }
    }
}

/// Starts the checks of a route's remotes, or joins those that go on already.
pub fn subscribe(
    shared: &Arc<Shared>,
    endpoint: &Arc<Endpoint>,
    route: &Arc<Route>,
) -> Vec<Subscription> {
    let Some(plan) = &route.plan.health.check else {
        return Vec::new();
    };
    let members = route
        .pools
        .iter()
        .flat_map(|pool| pool.range().map(move |target| (pool, target)));
    members
        .filter_map(|(pool, target)| join(shared, endpoint, route, plan, pool, target))
        .collect()
}

fn join(
    shared: &Arc<Shared>,
    endpoint: &Arc<Endpoint>,
    route: &Arc<Route>,
    plan: &CheckPlan,
    pool: &Pool,
    target: usize,
) -> Option<Subscription> {
    let key = key(route, plan, &route.targets[target]);
    let number = shared.checks.serial.fetch_add(1, Ordering::Relaxed);
    let mut all = lock(&shared.checks.all);
    let going = all.get(&key).and_then(Weak::upgrade);
    let is_new = going.is_none();
    let check = match going {
        Some(check) => check,
        None => {
            // Both were found possible when the route was prepared.
            let (interval, timeout) = pool::times(plan).ok()?;
            let question = Question::prepare(plan, &route.targets[target]).ok()?;
            Arc::new(Check {
                key: key.clone(),
                route: Arc::clone(route),
                target,
                question,
                interval,
                timeout,
                audience: Mutex::default(),
                latest: Mutex::new(Verdict::Unsure),
            })
        }
    };
    let listener = Listener {
        endpoint: Arc::clone(endpoint),
        standing: Arc::clone(pool.standing(target)?),
        policy: *pool.policy(),
    };
    if !listener.standing.is_known() {
        let text = &route.targets[target].text;
        listener.hear(&lock(&check.latest), shared, text, Instant::now());
    }
    lock(&check.audience).insert(number, listener);
    if is_new {
        all.insert(key, Arc::downgrade(&check));
        start(shared, &check, all.len(), number);
    }
    drop(all);
    Some(Subscription {
        shared: Arc::clone(shared),
        check,
        number,
    })
}

/// All that a check's outcome depends on.
fn key(route: &Route, check: &CheckPlan, target: &Target) -> String {
    let plan = &route.plan;
    let tls = plan
        .remote_transport
        .as_ref()
        .and_then(|transport| transport.tls.as_ref());
    serde_json::json!([
        target.text,
        check,
        plan.through,
        plan.through_interface,
        plan.interface,
        plan.resolver,
        route.tcp.send_mptcp,
        tls,
    ])
    .to_string()
}

fn start(shared: &Shared, check: &Arc<Check>, count: usize, number: u64) {
    let Some(inboxes) = shared.inboxes.get() else {
        return;
    };
    let weak = Arc::downgrade(check);
    // Not all at once, and not later than they are made anyway.
    let spread = check.interval.min(APART * count as u32);
    inboxes[number as usize % inboxes.len()].call(move |worker| {
        let there = Rc::clone(worker);
        worker
            .tasks
            .spawn(move |task| go_on(there, task, weak, DICE.part_of(spread)));
    });
}

async fn go_on(worker: Rc<Worker>, task: TaskId, check: Weak<Check>, mut pause: Duration) {
    loop {
        Sleep::new(&worker, Some(worker.now() + pause)).await;
        let Some(check) = check.upgrade() else {
            return;
        };
        let Some(_place) = Place::take() else {
            pause = CROWDED + DICE.part_of(CROWDED);
            continue;
        };
        let began = worker.now();
        let look = Look {
            worker: &worker,
            task,
            route: &check.route,
            target: &check.route.targets[check.target],
            timeout: check.timeout,
        };
        let verdict = look.ask(&check.question).await;
        check.tell(&worker, &verdict);
        // From nine tenths to eleven of the interval, so that many don't gather at one time.
        let interval = check.interval * 9 / 10 + DICE.part_of(check.interval / 5);
        pause = interval.saturating_sub(worker.now().saturating_duration_since(began));
    }
}

impl Check {
    fn tell(&self, worker: &Worker, verdict: &Verdict) {
        let now = worker.now();
        for listener in lock(&self.audience).values() {
            let target = &self.route.targets[self.target].text;
            listener.hear(verdict, &worker.shared, target, now);
        }
        *lock(&self.latest) = verdict.clone();
    }
}

impl Listener {
    fn hear(&self, verdict: &Verdict, shared: &Shared, target: &str, now: Instant) {
        let Self {
            endpoint,
            standing,
            policy,
        } = self;
        let change = match verdict {
            Verdict::Good => standing.check_passed(policy, now),
            Verdict::Bad(why) => standing.check_failed(policy, why, now),
            Verdict::Unsure => None,
        };
        pool::tell(shared, endpoint, target, change);
    }
}

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
}

/// A check's place among those that a worker has under way.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let count = UNDER_WAY.get();
        (count < MOST_AT_ONCE).then(|| {
            UNDER_WAY.set(count + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.set(UNDER_WAY.get() - 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
