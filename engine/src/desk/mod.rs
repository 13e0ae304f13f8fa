//! Legs and flows that the owner holds: it accepts a socket or has it dialled, says and hears what
//! it must, and then joins two legs, which from there on are moved like those of any other flow.
//!
//! Each thread of the owner has a desk of its own, at which everything that happens to what it
//! holds is reported.

mod associating;
mod dialling;
mod held;
pub mod joining;
mod leg;
pub mod legs;
pub mod lifted;
mod listening;
mod open;
pub mod plan;
mod recent;
pub mod reports;
mod shaking;
mod speaking;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::dialling::Ways;
use self::joining::{Counter, Join, Legs};
use self::lifted::Lifted;
use self::listening::Listener;
use self::plan::{ExchangePlan, JoinPlan};
use self::recent::Recent;
use self::reports::{Report, Reports};
use crate::engine::Engine;
use crate::error::Error;
use crate::flow::exchange::{self, Left};
use crate::flow::reason::Reason;
use crate::flow::table::Flow;
use crate::net::fd::Fd;
use crate::net::socket;
use crate::plan::EndpointPlan;
use crate::runtime::{Worker, ready};
use crate::shared::{Group, WORKER_SHIFT};

/// How long a worker may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// The desk itself holds its reports, and its table of legs does.
const HOLDERS: usize = 2;

/// TLS configurations that are kept ready.
const MOST_CONFIGURATIONS: usize = 256;

/// Where the owner's thread keeps what it holds.
pub struct Desk {
    engine: Arc<Engine>,
    group: Arc<Group>,
    reports: Arc<Reports>,
    counters: Mutex<HashMap<u32, Counter>>,
    legs: Arc<legs::Legs>,
    listeners: Mutex<HashMap<u64, Arc<Listener>>>,
    /// Flows whose legs are on their way to them.
    joining: Arc<Mutex<HashSet<u64>>>,
    ways: Ways,
    acceptors: Recent<String, speaking::Greeting>,
    connectors: Recent<String, speaking::Calling>,
    closed: AtomicBool,
}

impl Desk {
    /// While `most` reports wait, nothing new is begun.
    pub fn open(engine: &Arc<Engine>, group: u32, most: usize) -> Result<Self, Error> {
        let group = engine.group(group)?;
        let reports = Reports::open(most.max(1))
            .map_err(|error| Error::io("start", "can't make a descriptor", error))?;
        let reports = Arc::new(reports);
        let legs = legs::Legs::new(Arc::clone(&engine.shared), Arc::clone(&reports));
        let legs = Arc::new(legs);
        engine.watch_over(&legs);
        Ok(Self {
            engine: Arc::clone(engine),
            group,
            legs,
            reports,
            counters: Mutex::default(),
            listeners: Mutex::default(),
            joining: Arc::default(),
            ways: Ways::default(),
            acceptors: Recent::new(MOST_CONFIGURATIONS),
            connectors: Recent::new(MOST_CONFIGURATIONS),
            closed: AtomicBool::new(false),
        })
    }

    pub fn bell(&self) -> Result<RawFd, Error> {
        self.reports.bell().ok_or_else(desk_closed)
    }

    /// Some of what happened. What concerns a leg that is closed by now is left out.
    pub fn take(&self) -> Vec<Report> {
        let mut batch = self.reports.take();
        batch.retain(|report| {
            if report.kind == "accepted"
                && let Some(listener) = lock(&self.listeners).get(&report.handle)
            {
                listener.one_less();
            }
            let Some(leg) = report.leg else {
                return true;
            };
            match report.kind {
                // It is of no use any more.
                "failed" => self.legs.remove(leg).is_some(),
                _ => self.legs.has(leg),
            }
        });
        batch
    }

    /// A row in the group's statistics. `listen` is what records show.
    pub fn endpoint(&self, name: &str, listen: &str) -> Result<u32, Error> {
        self.alive()?;
        let shown: Option<SocketAddr> = listen.parse().ok();
        // The remote is never used: each flow brings its own target.
        let plan = EndpointPlan::new(name, "0.0.0.0:0", "0.0.0.0", 0);
        let counter = self.engine.open_counter(&self.group, plan, shown)?;
        let handle = counter.endpoint.handle;
        lock(&self.counters).insert(handle, counter);
        Ok(handle)
    }

    /// Its flows live on.
    pub fn close_endpoint(&self, handle: u32) -> Result<(), Error> {
        self.alive()?;
        self.forget_endpoint(handle)
    }

    /// Two connected sockets become a flow at once. On error neither is taken.
    pub fn lower(
        &self,
        client: RawFd,
        target: RawFd,
        plan: JoinPlan,
        first_up: Vec<u8>,
        first_down: Vec<u8>,
    ) -> Result<u64, Error> {
        let course = None;
        self.begin([client, target], plan, [first_up, first_down], course)
    }

    /// As `lower`, for messages of HTTP: what is ordinary among them is exchanged, and the rest
    /// comes back (`recover`).
    pub fn exchange(
        &self,
        client: RawFd,
        target: RawFd,
        plan: ExchangePlan,
        unread: Vec<u8>,
    ) -> Result<u64, Error> {
        let course = Some(Box::new(joining::course_of(&plan)?));
        self.begin([client, target], plan.flow, [unread, Vec::new()], course)
    }

    /// What an exchange has left at its end; `None` for any other flow.
    pub fn recover(&self, flow: u64) -> Option<Left> {
        self.reports.fetch(flow)
    }

    fn begin(
        &self,
        [client, target]: [RawFd; 2],
        plan: JoinPlan,
        [first_up, first_down]: [Vec<u8>; 2],
        exchange: Option<Box<exchange::Course>>,
    ) -> Result<u64, Error> {
        self.ready_for_more()?;
        let shared = &self.engine.shared;
        let worker = shared.idlest();
        let join = self.prepare(worker, plan)?;
        if client == target {
            return Err(not_taken(
                "both legs",
                std::io::Error::from_raw_os_error(libc::EINVAL),
            ));
        }
        check_stream(client).map_err(|error| not_taken("the client's leg", error))?;
        check_stream(target).map_err(|error| not_taken("the target's leg", error))?;
        let legs = Legs {
            client: Lifted::Plain(Fd::own(client)),
            target: Lifted::Plain(Fd::own(target)),
            first_up,
            first_down,
            exchange,
        };
        let id = join.id;
        shared.loads[worker].expect_one();
        self.call(worker, move |worker| join.begin(worker, legs, true))?;
        Ok(id)
    }

    /// Bytes up and down; `None` when there is no such flow any more.
    pub fn counted(&self, flow: u64) -> Result<Option<(u64, u64)>, Error> {
        if !self.is_a_flow(flow) {
            return Ok(None);
        }
        let (answer, answered) = mpsc::channel();
        self.call(worker_of(flow), move |worker| {
            let counted = worker
                .table
                .get(flow)
                .map(|flow| (flow.bytes_up.get(), flow.bytes_down.get()));
            let _ = answer.send(counted);
        })?;
        answered.recv_timeout(PATIENCE).map_err(|_| Error::stuck())
    }

    /// Ends a flow now, with a reset on both legs, and a report.
    pub fn cut(&self, flow: u64) -> Result<(), Error> {
        let reports = Arc::clone(&self.reports);
        if !self.is_a_flow(flow) {
            return Ok(());
        }
        // Its legs may still be on their way to it.
        lock(&self.joining).remove(&flow);
        self.call(worker_of(flow), move |worker| {
            cut(worker, &reports, Reason::Killed, Some(flow));
        })
    }

    /// Live limits of all flows whose plan names the key; `None` is none.
    pub fn set_rates(&self, key: &str, up: Option<f64>, down: Option<f64>) -> Result<(), Error> {
        let rate = |rate: Option<f64>| match rate {
            None => Ok(0),
            Some(rate) if rate >= 1.0 && rate < u64::MAX as f64 => Ok(rate as u64),
            Some(rate) => {
                let text = format!("{rate} bytes per second is no limit");
                Err(Error::plain("plan", text))
            }
        };
        match self.group.shares.set(key, [rate(up)?, rate(down)?]) {
            true => Ok(()),
            false => Err(joining::too_many_names()),
        }
    }

    /// Bytes up and down that passed without the engine, under the limits of a key: how many
    /// seconds to wait before more do.
    pub fn spend(&self, key: &str, up: usize, down: usize) -> f64 {
        self.group.shares.spend(key, [up, down], Instant::now())
    }

    /// Closes everything of this desk and waits until it is done.
    pub fn shutdown(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.reports.close();
        self.legs.close();
        lock(&self.joining).clear();
        for listener in std::mem::take(&mut *lock(&self.listeners)).into_values() {
            listener.close(());
        }
        let reports = Arc::clone(&self.reports);
        // An engine that is shut down has closed everything by itself.
        let _ = self.engine.ask(move |worker| {
            cut(worker, &reports, Reason::Shutdown, None);
        });
        let handles: Vec<_> = lock(&self.counters).keys().copied().collect();
        for handle in handles {
            let _ = self.forget_endpoint(handle);
        }
        // Everything that is under way holds the reports; a turn of all workers brings it further.
        let until = Instant::now() + PATIENCE;
        while Arc::strong_count(&self.reports) > HOLDERS && Instant::now() < until {
            if self.engine.ask(|_| ()).is_err() {
                return;
            }
        }
    }

    fn forget_endpoint(&self, handle: u32) -> Result<(), Error> {
        match lock(&self.counters).remove(&handle) {
            None => Ok(()),
            Some(_) => match self.engine.close(handle, None) {
                // With its group.
                Err(error) if error.code == "unknown" => Ok(()),
                closed => closed,
            },
        }
    }

    /// Whether a flow can have that number. A desk that is closed has none to ask about.
    fn is_a_flow(&self, flow: u64) -> bool {
        self.alive().is_err() || worker_of(flow) < self.engine.workers()
    }

    fn prepare(&self, worker: usize, plan: JoinPlan) -> Result<Join, Error> {
        let counter = lock(&self.counters)
            .get(&plan.endpoint)
            .cloned()
            .ok_or_else(Error::no_endpoint)?;
        let id = self.engine.shared.next_flow(worker);
        Join::prepare(id, counter, plan, &self.reports)
    }

    fn call(
        &self,
        worker: usize,
        call: impl FnOnce(&std::rc::Rc<Worker>) + Send + 'static,
    ) -> Result<(), Error> {
        self.alive()?;
        let inbox = self.engine.shared.inbox(worker);
        match inbox.is_some_and(|inbox| inbox.call(call)) {
            true => Ok(()),
            false => Err(Error::closed()),
        }
    }

    fn ready_for_more(&self) -> Result<(), Error> {
        self.alive()?;
        match self.reports.is_full() {
            false => Ok(()),
            true => Err(Error::plain("full", "too many reports wait".to_owned())),
        }
    }

    fn alive(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) || self.group.is_closed() {
            return Err(desk_closed());
        }
        self.engine.alive()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Ends one flow of the desk, or all of them.
fn cut(worker: &Worker, reports: &Arc<Reports>, reason: Reason, flow: Option<u64>) {
    let mine = |flow: &Flow| {
        let terms = flow.terms.as_ref();
        terms.is_some_and(|terms| Arc::ptr_eq(&terms.reports, reports))
    };
    let flows = match flow {
        None => worker.table.list(mine),
        Some(id) => worker.table.get(id).into_iter().collect(),
    };
    for flow in flows.iter().filter(|flow| mine(flow)) {
        flow.cut.set(Some(reason));
        if let Some(owner) = flow.owner() {
            worker.call_owner(owner, ready::CUT);
        }
    }
}

/// The worker on which a flow of that number lives; a number that is none of ours finds no inbox.
fn worker_of(flow: u64) -> usize {
    usize::try_from(flow >> WORKER_SHIFT).unwrap_or(usize::MAX)
}

/// Whether this descriptor can be a leg. It is made one that doesn't block.
fn check_stream(raw: RawFd) -> std::io::Result<()> {
    if Fd::is_owned(raw) {
        return Err(std::io::Error::from_raw_os_error(libc::EBUSY));
    }
    socket::take_stream(raw)
}

fn not_taken(what: &str, error: std::io::Error) -> Error {
    Error::io("descriptor", &format!("can't take {what}"), error)
}

fn desk_closed() -> Error {
    Error::plain("closed", "the desk is closed".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
