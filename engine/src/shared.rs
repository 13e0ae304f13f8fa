//! What the workers of one engine share: events for the owner, loads, groups of endpoints.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::flow::counters::Snapshot;
use crate::flow::limits::Gate;
use crate::flow::rates::Rates;
use crate::flow::shares::Shares;
use crate::flow::table::Table;
use crate::net::fd::Fd;
use crate::plan::LimitsPlan;
use crate::relay::health::check::Checks;
use crate::relay::hook::Questions;
use crate::runtime::Inbox;

/// Where a flow's number tells its worker.
pub const WORKER_SHIFT: u32 = 40;

/// Above the numbers of all workers.
const HELD_SHIFT: u32 = 52;

/// Events that wait to be fetched; more are counted and dropped.
const MOST_EVENTS: usize = 65_536;

/// A notice for the same cause is repeated at most so often.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Shared {
    pub events: Events,
    /// Flows that each worker carries, so that an accepted one goes to an idle worker.
    pub loads: Vec<Load>,
    turn: AtomicUsize,
    /// Of legs and listeners.
    held: AtomicU64,
    pub inboxes: OnceLock<Vec<Arc<Inbox>>>,
    pub checks: Checks,
    pub questions: Questions,
    /// What endpoints counted that are closed, by group and id: a later endpoint of the same id
    /// goes on from there.
    pub retired: Mutex<HashMap<(u32, String), Totals>>,
}

/// Counters of one endpoint, of all workers together.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub tcp: Snapshot,
    pub udp: Snapshot,
}

impl Totals {
    pub fn merge(&mut self, other: &Self) {
        self.tcp.merge(&other.tcp);
        self.udp.merge(&other.udp);
    }
}

/// On a cache line of its own: written at every open and close by one worker.
#[derive(Default)]
#[repr(align(64))]
pub struct Load {
    flows: AtomicU32,
    /// Of flows that began there, or for which a number was taken.
    serial: AtomicU64,
}

impl Load {
    pub fn set(&self, flows: usize) {
        self.flows.store(flows as u32, Ordering::Relaxed);
    }

    /// One more is on its way there.
    pub fn expect_one(&self) {
        self.flows.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u32 {
        self.flows.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub fn new(workers: usize) -> Self {
        Self {
            events: Events::default(),
            loads: (0..workers).map(|_| Load::default()).collect(),
            turn: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            inboxes: OnceLock::new(),
            checks: Checks::default(),
            questions: Questions::default(),
            retired: Mutex::default(),
        }
    }

    /// Keeps what a closed endpoint counted on one worker.
    pub fn retire(&self, group: &Group, id: String, totals: &Totals) {
        let key = (group.id, id);
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: whoever closes the group clears the table afterwards.
        if group.is_closed() {
            return;
        }
        retired.entry(key).or_default().merge(totals);
    }

    /// The number of a flow that is to begin on that worker. The worker in the upper part makes
    /// numbers unique without asking anyone; 53 bits in all, since JSON readers keep no more.
    pub fn next_flow(&self, worker: usize) -> u64 {
        let serial = self.loads[worker].serial.fetch_add(1, Ordering::Relaxed) + 1;
        (worker as u64) << WORKER_SHIFT | serial
    }

    /// The number that was given out last for that worker.
    pub fn newest_flow(&self, worker: usize) -> u64 {
        let serial = self.loads[worker].serial.load(Ordering::Relaxed);
        (worker as u64) << WORKER_SHIFT | serial
    }

    /// The number of something that the owner will hold, unlike that of any flow.
    pub fn next_leg(&self) -> u64 {
        1 << HELD_SHIFT | self.held.fetch_add(1, Ordering::Relaxed)
    }

    /// The worker with the least to do. Among equals they take turns.
    pub fn idlest(&self) -> usize {
        let count = self.loads.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        let nearest = (first..count).chain(0..first);
        nearest
            .min_by_key(|worker| self.loads[*worker].get())
            .unwrap_or(0)
    }

    pub fn inbox(&self, worker: usize) -> Option<&Arc<Inbox>> {
        self.inboxes.get()?.get(worker)
    }
}

/// The endpoints of one relay together.
pub struct Group {
    pub id: u32,
    pub gate: Arc<Gate>,
    /// Limits by name.
    pub shares: Shares,
    watched: AtomicBool,
    closed: AtomicBool,
}

impl Group {
    pub fn new(id: u32, limits: &LimitsPlan) -> Self {
        Self {
            id,
            gate: Gate::new(limits),
            shares: Shares::default(),
            watched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether nothing may begin any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether somebody wants the records of ended flows.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    pub fn watch(&self, wanted: bool) {
        self.watched.store(wanted, Ordering::Relaxed);
    }
}

/// One endpoint as all workers see it.
pub struct Endpoint {
    pub handle: u32,
    pub id: String,
    pub group: Arc<Group>,
    pub gate: Arc<Gate>,
    pub rates: Arc<Rates>,
    pub closed: AtomicBool,
    /// Taken out and closed when listening ends, whoever still holds the endpoint.
    pub tcp: Mutex<Option<Fd>>,
    /// Open for as long as an association replies through it.
    pub udp: Option<Fd>,
    pub udp_heir: Heir,
    pub tcp_addr: Option<SocketAddr>,
    pub udp_addr: Option<SocketAddr>,
}

/// Who gets the clients of a UDP endpoint that leaves. Without an heir it goes on with those it
/// knows.
#[derive(Default)]
pub struct Heir {
    same_socket: AtomicBool,
    own_socket: AtomicBool,
}

impl Heir {
    /// Another endpoint reads the same socket.
    pub fn is_lent(&self) -> bool {
        self.same_socket.load(Ordering::Relaxed)
    }

    pub fn lend(&self) {
        self.same_socket.store(true, Ordering::Relaxed);
    }

    /// Another endpoint has bound a socket of its own to the port.
    pub fn is_replaced(&self) -> bool {
        self.own_socket.load(Ordering::Relaxed)
    }

    pub fn replace(&self) {
        self.own_socket.store(true, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// No new flows from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// The listening TCP socket, for as long as the endpoint listens.
    pub fn tcp_fd(&self) -> Option<RawFd> {
        let tcp = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        tcp.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub fn close_tcp(&self) {
        let tcp = self
            .tcp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(tcp);
    }
}

/// Events on their way to the owner of the engine.
#[derive(Default)]
pub struct Events {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<String>,
    /// Dropped since the last fetch, by group.
    lost: HashMap<u32, u64>,
    lost_ever: u64,
    notices: HashMap<(u32, String, &'static str), Repeats>,
    closed: bool,
}

struct Repeats {
    last: Instant,
    unsaid: u64,
    text: String,
}

impl Events {
    /// Moves the records of ended flows from a worker's table to the queue.
    pub fn publish(&self, table: &Table) {
        if !table.has_ended() {
            return;
        }
        let records = table.take_ended();
        let mut queue = self.lock();
        let wake = queue.events.is_empty();
        for record in records {
            if queue.events.len() < MOST_EVENTS {
                queue.events.push_back(record.json);
            } else {
                *queue.lost.entry(record.group).or_default() += 1;
                queue.lost_ever += 1;
            }
        }
        drop(queue);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Something that the owner should know; repeats within a second are counted.
    pub fn notice(&self, group: u32, endpoint: &str, code: &'static str, text: String) {
        let now = Instant::now();
        let mut queue = self.lock();
        let key = (group, endpoint.to_owned(), code);
        if let Some(repeats) = queue.notices.get_mut(&key)
            && now.duration_since(repeats.last) < NOTICE_EVERY
        {
            repeats.unsaid += 1;
            repeats.text = text;
            return;
        }
        let repeats = queue.notices.remove(&key).map_or(0, |old| old.unsaid);
        let event = notice_json(group, endpoint, code, &text, repeats + 1);
        if queue.events.len() < MOST_EVENTS {
            queue.events.push_back(event);
        }
        queue.notices.insert(
            key,
            Repeats {
                last: now,
                unsaid: 0,
                text,
            },
        );
        drop(queue);
        self.arrived.notify_one();
    }

    /// Something that happened once: told as it is, however soon the next one follows.
    pub fn announce(&self, group: u32, endpoint: &str, code: &'static str, text: &str) {
        let mut queue = self.lock();
        if queue.events.len() < MOST_EVENTS {
            let event = notice_json(group, endpoint, code, text, 1);
            queue.events.push_back(event);
        }
        drop(queue);
        self.arrived.notify_one();
    }

    /// Waits for events. `None` when the engine is closed and all were fetched.
    pub fn fetch(&self, timeout: Duration) -> Option<Vec<String>> {
        let deadline = Instant::now() + timeout;
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            queue.say_repeats(now);
            if !queue.events.is_empty() || !queue.lost.is_empty() {
                let mut batch: Vec<_> = queue.events.drain(..).collect();
                batch.extend(queue.lost.drain().map(|(group, count)| {
                    format!(r#"{{"kind":"lost","group":{group},"count":{count}}}"#)
                }));
                return Some(batch);
            }
            if queue.closed {
                return None;
            }
            if now >= deadline {
                return Some(Vec::new());
            }
            let mut wait = deadline - now;
            if queue.notices.values().any(|repeats| repeats.unsaid > 0) {
                wait = wait.min(NOTICE_EVERY);
            }
            queue = self
                .arrived
                .wait_timeout(queue, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Dropped ever, and waiting now.
    pub fn counts(&self) -> (u64, usize) {
        let queue = self.lock();
        (queue.lost_ever, queue.events.len())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Turns repeats that nobody heard of into one more notice, and forgets causes gone quiet.
    fn say_repeats(&mut self, now: Instant) {
        let events = &mut self.events;
        self.notices.retain(|(group, endpoint, code), repeats| {
            if now.duration_since(repeats.last) < NOTICE_EVERY {
                return true;
            }
            if repeats.unsaid == 0 {
                return false;
            }
            let event = notice_json(*group, endpoint, code, &repeats.text, repeats.unsaid);
            events.push_back(event);
            repeats.unsaid = 0;
            repeats.last = now;
            true
        });
    }
}

fn notice_json(group: u32, endpoint: &str, code: &str, text: &str, count: u64) -> String {
    serde_json::json!({
        "kind": "notice",
        "group": group,
        "endpoint": endpoint,
        "code": code,
        "text": text,
        "count": count,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_notices_are_counted_not_repeated() {
        let events = Events::default();
        for _ in 0..1000 {
            events.notice(1, "e", "accept_failed", "Too many open files".to_owned());
        }
        let first = events.fetch(Duration::ZERO).expect("open");
        assert_eq!(first.len(), 1);
        assert!(first[0].contains(r#""count":1"#));
        let later = events.fetch(Duration::from_secs(3)).expect("open");
        assert_eq!(later.len(), 1);
        assert!(later[0].contains(r#""count":999"#), "{}", later[0]);
    }

    #[test]
    fn a_closed_queue_gives_what_it_holds_and_then_ends() {
        let events = Events::default();
        events.notice(1, "e", "x", "text".to_owned());
        events.close();
        assert_eq!(
            events.fetch(Duration::ZERO).map(|batch| batch.len()),
            Some(1)
        );
        assert_eq!(events.fetch(Duration::from_secs(10)), None);
    }
}
