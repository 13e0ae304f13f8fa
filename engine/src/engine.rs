//! The engine as its owner sees it: workers, groups, endpoints and the questions about them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::binding::{self, Inherited, lend_udp, listen_alike, local, set_listener_options};
use crate::desk::joining::Counter;
use crate::desk::legs::Legs;
use crate::error::Error;
use crate::flow::limits::Gate;
use crate::flow::rates::Rates;
use crate::flow::reason::Reason;
use crate::flow::table::Flow;
use crate::net::fd;
use crate::plan::{EndpointPlan, LimitsPlan};
use crate::relay::endpoint::{LocalEndpoint, Route};
use crate::relay::health::check::{self, Subscription};
use crate::relay::hook::Answer;
use crate::relay::listener::{self, Listener};
use crate::resolve;
use crate::runtime::{Inbox, MAX_WORKERS, Sleep, Worker, ready};
use crate::shared::{Endpoint, Group, Heir, Shared};
use crate::stats::{EndpointStats, WorkerStats};

/// How long a worker may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where an endpoint listens.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub handle: u32,
    pub tcp: Option<SocketAddr>,
    pub udp: Option<SocketAddr>,
}

/// An endpoint that listens.
struct Registered {
    endpoint: Arc<Endpoint>,
    route: Arc<Route>,
    started: bool,
    /// The checks of its remotes, while it serves.
    checks: Vec<Subscription>,
}

/// Worker threads and what they carry.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    inboxes: Vec<Arc<Inbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    groups: Mutex<HashMap<u32, Arc<Group>>>,
    endpoints: Mutex<BTreeMap<u32, Registered>>,
    /// Closed endpoints whose UDP associations may live on.
    leaving: Mutex<Vec<(Weak<Endpoint>, Arc<Route>)>>,
    /// Legs that the owner's threads hold.
    desks: Mutex<Vec<Weak<Legs>>>,
    serial: AtomicU32,
    closed: AtomicBool,
}

impl Engine {
    /// `workers` 0 is one per core; `pipe_size` 0 adapts.
    pub fn start(workers: usize, pipe_size: usize) -> Result<Self, Error> {
        let workers = match workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            wanted => wanted.min(MAX_WORKERS / 4),
        };
        let engine = Self {
            shared: Arc::new(Shared::new(workers)),
            inboxes: Vec::new(),
            threads: Mutex::default(),
            groups: Mutex::default(),
            endpoints: Mutex::default(),
            leaving: Mutex::default(),
            desks: Mutex::default(),
            serial: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        };
        engine.start_workers(workers, pipe_size)
    }

    /// What was begun is taken back when not all of them start.
    fn start_workers(mut self, workers: usize, pipe_size: usize) -> Result<Self, Error> {
        let mut opened = Vec::with_capacity(workers);
        for _ in 0..workers {
            match Inbox::open() {
                Ok(inbox) => opened.push(inbox),
                Err(error) => {
                    for (number, inbox) in opened {
                        inbox.close(number);
                    }
                    return Err(Error::io("start", "can't start the workers", error));
                }
            }
        }
        self.inboxes = opened.iter().map(|(_, inbox)| Arc::clone(inbox)).collect();
        let _ = self.shared.inboxes.set(self.inboxes.clone());
        let mut failed = None;
        for (index, (number, inbox)) in opened.into_iter().enumerate() {
            if failed.is_none()
                && let Err(error) = self.start_worker(index, number, &inbox, pipe_size)
            {
                failed = Some(error);
            }
            // Workers that don't run take no letters. Those that run are stopped by the drop.
            if failed.is_some() {
                inbox.close(number);
            }
        }
        match failed {
            None => Ok(self),
            Some(error) => Err(Error::io("start", "can't start a worker", error)),
        }
    }

    fn start_worker(
        &self,
        index: usize,
        number: usize,
        inbox: &Arc<Inbox>,
        pipe_size: usize,
    ) -> io::Result<()> {
        let (inbox, shared) = (Arc::clone(inbox), Arc::clone(&self.shared));
        let (tell, told) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("qanat-{index}"))
            .spawn(move || {
                let worker = Worker::new(index, number, inbox, shared, pipe_size);
                match worker.and_then(|worker| worker.prepare().map(|()| worker)) {
                    Ok(worker) => {
                        let _ = tell.send(Ok(()));
                        worker.run();
                    }
                    Err(error) => {
                        let _ = tell.send(Err(error));
                    }
                }
            })?;
        lock(&self.threads).push(thread);
        told.recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }

    pub fn workers(&self) -> usize {
        self.inboxes.len()
    }

    pub fn open_group(&self, limits: &LimitsPlan) -> Result<u32, Error> {
        self.alive()?;
        let id = self.next_serial();
        lock(&self.groups).insert(id, Arc::new(Group::new(id, limits)));
        Ok(id)
    }

    pub fn set_group_limits(&self, group: u32, limits: &LimitsPlan) -> Result<(), Error> {
        self.group(group)?.gate.set(limits);
        Ok(())
    }

    pub fn watch_group(&self, group: u32, ended: bool) -> Result<(), Error> {
        self.group(group)?.watch(ended);
        Ok(())
    }

    /// Closes everything of the group now and forgets it.
    pub fn close_group(&self, group: u32) -> Result<(), Error> {
        match lock(&self.groups).remove(&group) {
            None => return Ok(()),
            Some(gone) => gone.close(),
        }
        let handles: Vec<u32> = lock(&self.endpoints)
            .iter()
            .filter(|(_, registered)| registered.endpoint.group.id == group)
            .map(|(handle, _)| *handle)
            .collect();
        let closing: Vec<_> = handles
            .iter()
            .filter_map(|handle| lock(&self.endpoints).remove(handle))
            .collect();
        for registered in &closing {
            registered.endpoint.close();
        }
        self.ask(move |worker| {
            for handle in &handles {
                worker.endpoints.close(*handle);
            }
            cut(worker, Reason::Shutdown, |flow| {
                flow.endpoint.shared.group.id == group
            });
        })?;
        for registered in closing {
            registered.endpoint.close_tcp();
        }
        lock(&self.shared.retired).retain(|(of, _), _| *of != group);
        Ok(())
    }

    /// Binds and listens without serving yet. Nothing is left behind on failure.
    pub fn bind(
        &self,
        group: u32,
        plan: EndpointPlan,
        inherited: Inherited,
        takeover: bool,
    ) -> Result<Bound, Error> {
        self.alive()?;
        let group = self.group(group)?;
        let former = self.former(group.id, &plan.id);
        let route = Route::succeed(plan, former.as_deref()).map_err(|error| Error::plan(&error))?;
        let mut inherited = inherited;
        if takeover {
            self.share_listeners(&group, &route, &mut inherited);
        }
        self.inherit_leaving(&group, &route, &mut inherited);
        let (tcp, udp) = binding::sockets(&route, inherited, takeover)?;
        let handle = self.next_serial();
        let endpoint = Arc::new(Endpoint {
            handle,
            id: route.plan.id.clone(),
            gate: Gate::new(&route.plan.limits),
            rates: Arc::new(Rates::new(&route.plan)),
            closed: AtomicBool::new(false),
            group,
            tcp_addr: tcp.as_ref().and_then(local),
            udp_addr: udp.as_ref().and_then(local),
            tcp: Mutex::new(tcp),
            udp,
            udp_heir: Heir::default(),
        });
        let bound = Bound {
            handle,
            tcp: endpoint.tcp_addr,
            udp: endpoint.udp_addr,
        };
        lock(&self.endpoints).insert(
            handle,
            Registered {
                endpoint,
                route,
                started: false,
                checks: Vec::new(),
            },
        );
        Ok(bound)
    }

    /// They are closed with the engine.
    pub(crate) fn watch_over(&self, legs: &Arc<Legs>) {
        let mut desks = lock(&self.desks);
        desks.retain(|legs| legs.strong_count() > 0);
        desks.push(Arc::downgrade(legs));
    }

    /// An endpoint without sockets, for flows that the owner accepts: a row of the group's
    /// statistics, closed like any other.
    pub(crate) fn open_counter(
        &self,
        group: &Arc<Group>,
        plan: EndpointPlan,
        listen: Option<SocketAddr>,
    ) -> Result<Counter, Error> {
        let route = Route::prepare(plan).map_err(|error| Error::plan(&error))?;
        let endpoint = Arc::new(Endpoint {
            handle: self.next_serial(),
            id: route.plan.id.clone(),
            gate: Gate::new(&route.plan.limits),
            rates: Arc::new(Rates::new(&route.plan)),
            closed: AtomicBool::new(false),
            group: Arc::clone(group),
            tcp: Mutex::new(None),
            udp: None,
            udp_heir: Heir::default(),
            tcp_addr: listen,
            udp_addr: None,
        });
        let counter = Counter { endpoint, route };
        let served = counter.clone();
        self.ask(move |worker| drop(served.on(worker)))?;
        lock(&self.endpoints).insert(
            counter.endpoint.handle,
            Registered {
                endpoint: Arc::clone(&counter.endpoint),
                route: Arc::clone(&counter.route),
                started: true,
                checks: Vec::new(),
            },
        );
        Ok(counter)
    }

    /// By what plan the latest endpoint of this name goes.
    fn former(&self, group: u32, id: &str) -> Option<Arc<Route>> {
        lock(&self.endpoints)
            .values()
            .rev()
            .find(|registered| {
                registered.endpoint.group.id == group && registered.endpoint.id == id
            })
            .map(|registered| Arc::clone(&registered.route))
    }

    /// An older endpoint that listens in the same way lends its sockets: nobody who waits in their
    /// queues is lost when it closes.
    fn share_listeners(&self, group: &Group, route: &Route, inherited: &mut Inherited) {
        for registered in lock(&self.endpoints).values() {
            let older = &registered.endpoint;
            if older.group.id != group.id {
                continue;
            }
            if !listen_alike(&registered.route, route) {
                if older.udp_addr.map(|addr| addr.port()) == Some(route.listen.port()) {
                    older.udp_heir.replace();
                }
                continue;
            }
            let same_tcp = older.tcp_addr == Some(route.listen)
                && registered.route.tcp.accept_mptcp == route.tcp.accept_mptcp;
            if inherited.tcp.is_none() && same_tcp {
                inherited.tcp = lock(&older.tcp).as_ref().and_then(|fd| fd.share().ok());
            }
            lend_udp(older, route, inherited);
        }
    }

    /// An endpoint that was closed keeps its UDP socket while associations answer through it: who
    /// comes after it at the same address takes the socket over.
    fn inherit_leaving(&self, group: &Group, route: &Route, inherited: &mut Inherited) {
        if route.plan.udp.is_none() {
            return;
        }
        lock(&self.leaving).retain(|(older, former)| {
            let Some(older) = older.upgrade() else {
                return false;
            };
            if older.group.id == group.id && listen_alike(former, route) {
                lend_udp(&older, route, inherited);
            }
            true
        });
    }

    /// Serves bound endpoints.
    pub fn serve(&self, handles: &[u32]) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(handles.len());
        {
            let mut endpoints = lock(&self.endpoints);
            for handle in handles {
                let registered = endpoints.get_mut(handle).ok_or_else(Error::no_endpoint)?;
                if !registered.started {
                    registered.started = true;
                    registered.checks =
                        check::subscribe(&self.shared, &registered.endpoint, &registered.route);
                    batch.push((
                        Arc::clone(&registered.endpoint),
                        Arc::clone(&registered.route),
                    ));
                }
            }
        }
        let workers = self.workers();
        let answers = self.ask(move |worker| {
            let mut failed = None;
            for (endpoint, route) in &batch {
                // A connection that another worker passed on may have come first.
                let local = worker.endpoints.get(endpoint.handle).unwrap_or_else(|| {
                    let local = LocalEndpoint::new(Arc::clone(endpoint), Arc::clone(route));
                    worker.endpoints.insert(Rc::clone(&local));
                    local
                });
                let tcp = Listener::start(worker, &local);
                // One worker reads a datagram socket, so that order is kept.
                let mine = endpoint.handle as usize % workers == worker.index;
                let udp = if mine {
                    crate::relay::udp::start(worker, &local)
                } else {
                    Ok(())
                };
                if let Err(error) = tcp.and(udp) {
                    failed = Some((endpoint.id.clone(), error));
                }
            }
            failed
        })?;
        match answers.into_iter().flatten().next() {
            None => Ok(()),
            Some((id, error)) => Err(Error::io("start", &format!("can't serve {id}"), error)),
        }
    }

    /// New flows go by `plan`.
    pub fn update(
        &self,
        handle: u32,
        plan: EndpointPlan,
        drain: Option<Duration>,
    ) -> Result<(), Error> {
        let former = lock(&self.endpoints)
            .get(&handle)
            .map(|registered| Arc::clone(&registered.route));
        let route = Route::succeed(plan, former.as_deref()).map_err(|error| Error::plan(&error))?;
        {
            let mut endpoints = lock(&self.endpoints);
            let registered = endpoints.get_mut(&handle).ok_or_else(Error::no_endpoint)?;
            registered.endpoint.gate.set(&route.plan.limits);
            registered.endpoint.rates.set(&route.plan);
            if let Some(fd) = &*lock(&registered.endpoint.tcp) {
                let _ = set_listener_options(fd, &route);
            }
            registered.route = Arc::clone(&route);
            if registered.started {
                // Those that go on are joined before they are left.
                registered.checks = check::subscribe(&self.shared, &registered.endpoint, &route);
            }
        }
        self.ask(move |worker| {
            let Some(local) = worker.endpoints.get(handle) else {
                return;
            };
            local.set_route(Arc::clone(&route));
            if let Some(drain) = drain {
                // Those that are here now, unless their plan has come back by then.
                let newest = worker.table.newest();
                cut_after(worker, drain, move |flow| {
                    flow.endpoint.shared.handle == handle
                        && flow.id <= newest
                        && flow.route.plan != local.route().plan
                });
            }
        })?;
        Ok(())
    }

    /// Stops listening; flows live on, or as long as `drain`.
    pub fn close(&self, handle: u32, drain: Option<Duration>) -> Result<(), Error> {
        let registered = lock(&self.endpoints)
            .remove(&handle)
            .ok_or_else(Error::no_endpoint)?;
        registered.endpoint.close();
        if !registered.started {
            return Ok(());
        }
        self.ask(move |worker| {
            let Some(local) = worker.endpoints.get(handle) else {
                return;
            };
            // Whoever is in the queue was let in before the end.
            if worker.index == 0 {
                listener::empty_queue(worker, &local);
            }
            worker.endpoints.close(handle);
            if let Some(drain) = drain {
                cut_after(worker, drain, move |flow| {
                    flow.endpoint.shared.handle == handle
                });
            }
        })?;
        // No worker watches it any more.
        registered.endpoint.close_tcp();
        if registered.endpoint.udp.is_some() {
            let mut leaving = lock(&self.leaving);
            leaving.retain(|(older, _)| older.strong_count() > 0);
            leaving.push((Arc::downgrade(&registered.endpoint), registered.route));
        }
        Ok(())
    }

    /// JSON array of the group's live flows.
    pub fn flows(&self, group: u32) -> Result<String, Error> {
        self.group(group)?;
        let parts = self.ask(move |worker| {
            let now = worker.now();
            worker
                .table
                .list(|flow| flow.endpoint.shared.group.id == group)
                .into_iter()
                .map(|flow| flow.record(worker.index, now, None))
                .collect::<Vec<_>>()
        })?;
        let records: Vec<_> = parts.into_iter().flatten().collect();
        Ok(format!("[{}]", records.join(",")))
    }

    /// Ends one flow now; whether there was one.
    pub fn kill(&self, group: u32, id: u64) -> Result<bool, Error> {
        self.group(group)?;
        let found = self.ask(move |worker| match worker.table.get(id) {
            Some(flow) if flow.endpoint.shared.group.id == group => {
                cut_one(worker, &flow, Reason::Killed);
                true
            }
            _ => false,
        })?;
        Ok(found.contains(&true))
    }

    /// Ends every flow of the group; how many there were.
    pub fn kill_all(&self, group: u32) -> Result<usize, Error> {
        self.group(group)?;
        let counts = self.ask(move |worker| {
            cut(worker, Reason::Shutdown, |flow| {
                flow.endpoint.shared.group.id == group
            })
        })?;
        Ok(counts.into_iter().sum())
    }

    /// TCP flows of the group that are alive.
    pub fn open_flows(&self, group: u32) -> Result<u32, Error> {
        Ok(self.group(group)?.gate.open())
    }

    /// JSON of everything counted.
    pub fn stats(&self, group: u32) -> Result<String, Error> {
        self.group(group)?;
        let parts = self.ask(move |worker| WorkerStats::take(worker, group))?;
        let mut endpoints: BTreeMap<u32, EndpointStats> = BTreeMap::new();
        let mut workers = Vec::new();
        for part in parts {
            workers.push(part.json());
            for (handle, stats) in part.endpoints {
                match endpoints.entry(handle) {
                    Entry::Vacant(place) => {
                        place.insert(stats);
                    }
                    Entry::Occupied(mut place) => place.get_mut().totals.merge(&stats.totals),
                }
            }
        }
        self.add_retired(group, &mut endpoints);
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(handle, stats)| stats.json(*handle))
            .collect();
        let names = resolve::stats();
        let (lost, queued) = self.shared.events.counts();
        Ok(json!({
            "workers": workers,
            "endpoints": endpoints,
            "resolver": {
                "lookups": names.lookups,
                "cached": names.cached,
                "failed": names.failed,
                "stale": names.stale,
                "entries": names.entries,
                "inflight": names.inflight,
            },
            "events": {"lost": lost, "queued": queued},
            "descriptors": {"open": fd::open_count(), "limit": fd::limit()},
        })
        .to_string())
    }

    pub fn flush_resolvers(&self) {
        resolve::flush_all();
    }

    /// Waits for events; `None` when the engine is closed and all were fetched.
    pub fn next_events(&self, timeout: Duration) -> Option<Vec<String>> {
        self.shared.events.fetch(timeout)
    }

    /// A descriptor that is readable while questions wait. Before the first call nobody is asked.
    pub fn listen_to_questions(&self) -> Result<i32, Error> {
        self.alive()?;
        let listening = self.shared.questions.listen();
        listening.map_err(|error| Error::io("start", "can't make a descriptor", error))
    }

    /// Questions about flows that wait, as JSON.
    pub fn take_questions(&self) -> Vec<String> {
        self.shared.questions.take()
    }

    /// Takes answers to them. Those that come too late change nothing.
    pub fn answer(&self, answers: Vec<Answer>) {
        let mut by_worker: HashMap<usize, Vec<Answer>> = HashMap::new();
        for answer in answers {
            by_worker.entry(answer.worker()).or_default().push(answer);
        }
        for (worker, answers) in by_worker {
            if let Some(inbox) = self.inboxes.get(worker) {
                inbox.call(move |worker| {
                    for answer in answers {
                        worker.deciding.settle(worker, answer);
                    }
                });
            }
        }
    }

    /// Closes everything and joins the threads.
    pub fn shutdown(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        for legs in lock(&self.desks).iter().filter_map(Weak::upgrade) {
            legs.close();
        }
        for inbox in &self.inboxes {
            inbox.call(|worker| worker.stop());
        }
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
        lock(&self.endpoints).clear();
        lock(&self.groups).clear();
        self.shared.events.close();
    }

    /// An endpoint that took over from a closed one of the same id goes on counting from there.
    /// What nobody took over is told once, as a closed endpoint.
    fn add_retired(&self, group: u32, endpoints: &mut BTreeMap<u32, EndpointStats>) {
        let mut retired = lock(&self.shared.retired);
        for stats in endpoints.values_mut().filter(|stats| !stats.closed) {
            if let Some(totals) = retired.get(&(group, stats.id.clone())) {
                stats.totals.merge(totals);
                stats.inherits = true;
            }
        }
        let taken: HashSet<_> = endpoints
            .values()
            .filter(|stats| stats.inherits)
            .map(|stats| stats.id.clone())
            .collect();
        retired.retain(|(of, id), totals| {
            if *of != group || taken.contains(id) {
                return true;
            }
            let stats = EndpointStats {
                id: id.clone(),
                closed: true,
                inherits: false,
                remotes: Vec::new(),
                hook: None,
                quota: None,
                protocols: [totals.tcp.total > 0, totals.udp.total > 0],
                totals: totals.clone(),
            };
            endpoints.insert(self.next_serial(), stats);
            false
        });
    }

    pub(crate) fn next_serial(&self) -> u32 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn alive(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::closed());
        }
        Ok(())
    }

    pub(crate) fn group(&self, id: u32) -> Result<Arc<Group>, Error> {
        self.alive()?;
        lock(&self.groups)
            .get(&id)
            .cloned()
            .ok_or_else(Error::no_group)
    }

    /// Runs the question on every worker and waits for all answers.
    pub(crate) fn ask<T, F>(&self, question: F) -> Result<Vec<T>, Error>
    where
        T: Send + 'static,
        F: Fn(&Rc<Worker>) -> T + Send + Sync + 'static,
    {
        self.alive()?;
        let question = Arc::new(question);
        let (answer, answers) = mpsc::channel();
        for inbox in &self.inboxes {
            let question = Arc::clone(&question);
            let answer = answer.clone();
            let delivered = inbox.call(move |worker| {
                let _ = answer.send(question(worker));
            });
            if !delivered {
                return Err(Error::closed());
            }
        }
        drop(answer);
        self.inboxes
            .iter()
            .map(|_| match answers.recv_timeout(PATIENCE) {
                Ok(answer) => Ok(answer),
                Err(mpsc::RecvTimeoutError::Timeout) => Err(Error::stuck()),
                Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::closed()),
            })
            .collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn cut_one(worker: &Worker, flow: &Flow, reason: Reason) {
    flow.cut.set(Some(reason));
    if let Some(owner) = flow.owner() {
        worker.call_owner(owner, ready::CUT);
    }
}

fn cut(worker: &Worker, reason: Reason, wanted: impl Fn(&Flow) -> bool) -> usize {
    let flows = worker.table.list(wanted);
    for flow in &flows {
        cut_one(worker, flow, reason);
    }
    flows.len()
}

fn cut_after(worker: &Rc<Worker>, drain: Duration, wanted: impl Fn(&Flow) -> bool + 'static) {
    if drain.is_zero() {
        cut(worker, Reason::Drained, wanted);
        return;
    }
    let until = worker.now() + drain;
    let worker = Rc::clone(worker);
    let tasks = Rc::clone(&worker);
    tasks.tasks.spawn(move |_| async move {
        Sleep::new(&worker, Some(until)).await;
        cut(&worker, Reason::Drained, wanted);
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
