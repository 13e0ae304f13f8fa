//! The table of live flows: one per worker, enumerable, with everything known about each flow.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::counters::{Counters, add};
use super::ending::Side;
use super::limits::Pass;
use super::rates::Meter;
use super::reason::{Reason, Refusal};
use super::terms::Terms;
use crate::net::socket::local_addr;
use crate::relay::endpoint::{LocalEndpoint, Route, Target};
use crate::relay::health::standing::Standing;
use crate::runtime::{Owner, Worker};
use crate::shared::Shared;
use crate::transport::proxy::Addresses;
use crate::transport::tls::Handshake;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Resolving,
    Connecting,
    /// A PROXY header or a transport's first words are under way.
    Handshake,
    /// The owner is asked what to do with it.
    Deciding,
    Open,
    HalfClosed,
    Closing,
    Ended,
}

/// Where the record of ended flows goes, for those who asked for it.
#[derive(Debug)]
pub struct EndedRecord {
    pub group: u32,
    pub json: String,
}

/// One live flow. Counters are plain cells: only the flow's worker touches them.
pub struct Flow {
    pub id: u64,
    pub protocol: Protocol,
    pub endpoint: Rc<LocalEndpoint>,
    /// The plan that the flow began with.
    pub route: Arc<Route>,
    /// What holds for this flow alone, when the owner began it.
    pub terms: Option<Box<Terms>>,
    /// The other end of the client's socket.
    pub client: SocketAddr,
    announced: RefCell<Option<Rc<Announced>>>,
    /// Places among the limits, given back when the flow ends: the endpoint's, the group's.
    passes: RefCell<Vec<Pass>>,
    pub started: Instant,
    pub state: Cell<State>,
    /// Place of the chosen target in the route.
    pub choice: Cell<usize>,
    aimed: RefCell<Option<Arc<Standing>>>,
    pub peer: Cell<Option<SocketAddr>>,
    /// Descriptor of the target's side, to ask for its local address; -1 while there is none.
    pub target_fd: Cell<RawFd>,
    pub connected: Cell<Option<Instant>>,
    /// When bytes or packets last moved.
    pub moved: Cell<Instant>,
    pub bytes_up: Cell<u64>,
    pub bytes_down: Cell<u64>,
    pub packets_up: Cell<u64>,
    pub packets_down: Cell<u64>,
    /// What TLS handshakes came to, on either leg.
    pub tls: RefCell<Handshakes>,
    /// There when the endpoint has limits on bytes.
    meter: RefCell<Option<Box<Meter>>>,
    /// Set when somebody wants the flow to end now.
    pub cut: Cell<Option<Reason>>,
    owner: RefCell<Option<Owner>>,
}

/// What a PROXY header announced.
#[derive(Debug)]
pub struct Announced {
    pub addresses: Option<Addresses>,
    pub tlvs: Box<[u8]>,
}

#[derive(Default)]
pub struct Handshakes {
    pub client: Option<Rc<Handshake>>,
    pub target: Option<Rc<Handshake>>,
}

impl Handshakes {
    fn truncation(&self) -> Option<&'static str> {
        let cut = |leg: &Option<Rc<Handshake>>| leg.as_ref().is_some_and(|leg| leg.truncated.get());
        match (cut(&self.client), cut(&self.target)) {
            (false, false) => None,
            (true, false) => Some("the client ended without TLS close_notify"),
            (false, true) => Some("the target ended without TLS close_notify"),
            (true, true) => Some("client and target ended without TLS close_notify"),
        }
    }
}

/// What is known when a flow begins.
pub struct Opening {
    /// A number that was taken before, or a new one.
    pub id: Option<u64>,
    pub protocol: Protocol,
    pub endpoint: Rc<LocalEndpoint>,
    pub route: Arc<Route>,
    pub terms: Option<Box<Terms>>,
    pub client: SocketAddr,
    pub passes: Vec<Pass>,
    /// When it was accepted.
    pub at: Instant,
}

impl Flow {
    pub fn counters(&self) -> &Counters {
        match self.protocol {
            Protocol::Tcp => &self.endpoint.tcp,
            Protocol::Udp => &self.endpoint.udp,
        }
    }

    /// The client's address for decisions and records: the announced one, or the socket's.
    pub fn origin(&self) -> SocketAddr {
        self.announced()
            .and_then(|announced| announced.addresses)
            .map_or(self.client, |addresses| addresses.source)
    }

    pub fn announce(&self, announced: Announced) {
        *self.announced.borrow_mut() = Some(Rc::new(announced));
    }

    pub fn announced(&self) -> Option<Rc<Announced>> {
        self.announced.borrow().clone()
    }

    /// Counts the flow among those of a client that was not known at accept.
    pub fn name_client(&self, ip: IpAddr) -> Result<(), Refusal> {
        let mut passes = self.passes.borrow_mut();
        for (index, pass) in passes.iter_mut().enumerate() {
            pass.name_client(ip)
                .map_err(|over| over.refusal(index > 0))?;
        }
        Ok(())
    }

    /// The flow goes to this target of its route, and counts as open there.
    pub fn aim(&self, choice: usize) {
        self.leave();
        self.choice.set(choice);
        let pool = self.route.pool_of(choice);
        if let Some(standing) = pool.and_then(|pool| pool.standing(choice)) {
            standing.open.fetch_add(1, Ordering::Relaxed);
            standing.total.fetch_add(1, Ordering::Relaxed);
            *self.aimed.borrow_mut() = Some(Arc::clone(standing));
        }
    }

    /// It doesn't count there any more.
    fn leave(&self) {
        if let Some(standing) = self.aimed.take() {
            standing.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many bytes may be read from a side now. 0: none, and the flow's task is called when some
    /// may.
    pub fn allowance(&self, worker: &Rc<Worker>, from: Side) -> usize {
        if !self.is_metered() {
            return usize::MAX;
        }
        self.meter
            .borrow_mut()
            .get_or_insert_with(|| self.new_meter(worker))
            .allowance(from, worker.now())
    }

    /// Whether datagrams of so many bytes in all may pass; what may not is dropped.
    pub fn admits(&self, worker: &Rc<Worker>, from: Side, bytes: usize) -> Result<(), Refusal> {
        let rates = &self.endpoint.shared.rates;
        if !self.is_metered() {
            return Ok(());
        }
        if rates.is_spent() {
            return Err(Refusal::Quota);
        }
        // More than is allowed now makes a debt, which later datagrams pay.
        if self.allowance(worker, from) == 0 {
            return Err(Refusal::RateLimited);
        }
        if let Some(meter) = &*self.meter.borrow() {
            meter.spend(from, bytes);
        }
        Ok(())
    }

    /// Counts bytes that were read against the limits. With them the endpoint's quota may end, and
    /// with that the flow.
    pub fn spend(&self, worker: &Worker, from: Side, bytes: usize) {
        if let Some(meter) = &*self.meter.borrow()
            && !meter.spend(from, bytes)
            && self.cut.get().is_none()
        {
            self.cut.set(Some(Reason::Quota));
            worker.tasks.wake_current();
        }
    }

    fn is_metered(&self) -> bool {
        self.endpoint.shared.rates.is_limited()
            || self.terms.as_ref().is_some_and(|terms| terms.is_limited())
    }

    fn new_meter(&self, worker: &Rc<Worker>) -> Box<Meter> {
        let rates = Arc::clone(&self.endpoint.shared.rates);
        let shares = self.terms.as_ref().map(|terms| terms.shares.clone());
        let shares = shares.unwrap_or_default();
        Box::new(Meter::new(worker, rates, self.origin().ip(), shares))
    }

    pub fn idle_timeout(&self) -> Option<Duration> {
        match &self.terms {
            Some(terms) => terms.idle_timeout,
            None => self.route.idle_timeout,
        }
    }

    pub fn linger(&self) -> Option<Duration> {
        match &self.terms {
            Some(terms) => terms.linger,
            None => self.route.linger,
        }
    }

    /// On which of our addresses the client came in.
    fn listener(&self) -> Option<SocketAddr> {
        if let Some(listener) = self.terms.as_ref().and_then(|terms| terms.listener) {
            return Some(listener);
        }
        match self.protocol {
            Protocol::Tcp => self.endpoint.shared.tcp_addr,
            Protocol::Udp => self.endpoint.shared.udp_addr,
        }
    }

    /// Where the flow goes, as far as is known by now.
    pub fn target(&self) -> &Target {
        &self.route.targets[self.choice.get()]
    }

    /// The sockets are about to be closed, and their numbers may soon be others'.
    pub fn forget_sockets(&self) {
        self.target_fd.set(-1);
        if let Some(terms) = &self.terms {
            terms.client_fd.set(-1);
        }
    }

    /// Says who is called when the flow is cut.
    pub fn owned_by(&self, owner: Owner) {
        *self.owner.borrow_mut() = Some(owner);
    }

    pub fn owner(&self) -> Option<Owner> {
        self.owner.borrow().clone()
    }

    /// Bytes went from the client to the target.
    pub fn moved_up(&self, bytes: usize, now: Instant) {
        add(&self.bytes_up, bytes as u64);
        add(&self.counters().bytes_up, bytes as u64);
        self.moved.set(now);
    }

    /// Bytes went from the target to the client.
    pub fn moved_down(&self, bytes: usize, now: Instant) {
        add(&self.bytes_down, bytes as u64);
        add(&self.counters().bytes_down, bytes as u64);
        self.moved.set(now);
    }

    /// The record of this flow as JSON. `end` makes it the record of an ended flow.
    pub fn record(
        &self,
        worker: usize,
        now: Instant,
        end: Option<(Reason, Option<&str>)>,
    ) -> String {
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let source = match self.target_fd.get() {
            fd if fd >= 0 && end.is_none() => local_addr(fd),
            _ => None,
        };
        let tls = self.tls.borrow();
        let record = Record {
            kind: end.map(|_| "ended"),
            id: self.id,
            group: self.endpoint.shared.group.id,
            endpoint: &self.route.plan.id,
            protocol: self.protocol,
            client: self.origin(),
            via: (self.origin() != self.client).then_some(self.client),
            listener: self.listener(),
            user: self.terms.as_ref().and_then(|terms| terms.user.as_deref()),
            target: match &self.terms {
                Some(terms) => &terms.target,
                None => &self.target().text,
            },
            peer: self.peer.get(),
            source,
            state: if end.is_some() {
                State::Ended
            } else {
                self.state.get()
            },
            started: wall - seconds(self.started),
            duration: seconds(self.started),
            connect: self
                .connected
                .get()
                .map(|at| at.saturating_duration_since(self.started).as_secs_f64()),
            idle: seconds(self.moved.get()),
            bytes_up: self.bytes_up.get(),
            bytes_down: self.bytes_down.get(),
            packets_up: self.packets_up.get(),
            packets_down: self.packets_down.get(),
            worker,
            reason: end.map(|(reason, _)| reason.name()),
            detail: end.and_then(|(_, detail)| detail.or_else(|| tls.truncation())),
            handshakes: Facts::of(&tls),
        };
        // A record holds nothing that JSON can't say.
        serde_json::to_string(&record).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    id: u64,
    group: u32,
    endpoint: &'a str,
    protocol: Protocol,
    client: SocketAddr,
    /// The socket's other end, when a PROXY header named another client.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<SocketAddr>,
    listener: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    target: &'a str,
    peer: Option<SocketAddr>,
    source: Option<SocketAddr>,
    state: State,
    started: f64,
    duration: f64,
    connect: Option<f64>,
    idle: f64,
    bytes_up: u64,
    bytes_down: u64,
    packets_up: u64,
    packets_down: u64,
    worker: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    detail: Option<&'a str>,
    #[serde(flatten)]
    handshakes: Option<Facts<'a>>,
}

/// What TLS handshakes came to, for who has seen any.
#[derive(Serialize)]
struct Facts<'a> {
    /// The version on the client's leg.
    tls: Option<&'static str>,
    cipher: Option<&'a str>,
    /// The name that the client asked for.
    sni: Option<&'a str>,
    alpn: Option<&'a str>,
    /// The subject of the client's certificate.
    client_certificate: Option<&'a str>,
    resumed: Option<bool>,
    target_tls: Option<&'static str>,
    target_cipher: Option<&'a str>,
    target_alpn: Option<&'a str>,
    target_resumed: Option<bool>,
}

impl<'a> Facts<'a> {
    fn of(handshakes: &'a Handshakes) -> Option<Self> {
        let client = handshakes.client.as_deref();
        let target = handshakes.target.as_deref();
        client.or(target)?;
        Some(Self {
            tls: client.map(|client| client.version),
            cipher: client.map(|client| client.cipher.as_str()),
            sni: client.and_then(|client| client.sni.as_deref()),
            alpn: client.and_then(|client| client.alpn.as_deref()),
            client_certificate: client.and_then(|client| client.subject.as_deref()),
            resumed: client.map(|client| client.resumed),
            target_tls: target.map(|target| target.version),
            target_cipher: target.map(|target| target.cipher.as_str()),
            target_alpn: target.and_then(|target| target.alpn.as_deref()),
            target_resumed: target.map(|target| target.resumed),
        })
    }
}

/// All live flows of one worker.
pub struct Table {
    worker: usize,
    shared: Arc<Shared>,
    flows: RefCell<HashMap<u64, Rc<Flow>>>,
    ended: RefCell<Vec<EndedRecord>>,
}

impl Table {
    pub fn new(worker: usize, shared: Arc<Shared>) -> Self {
        Self {
            worker,
            shared,
            flows: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    pub fn open(&self, opening: Opening) -> Rc<Flow> {
        let id = opening
            .id
            .unwrap_or_else(|| self.shared.next_flow(self.worker));
        let flow = Rc::new(Flow {
            id,
            protocol: opening.protocol,
            endpoint: opening.endpoint,
            route: opening.route,
            terms: opening.terms,
            client: opening.client,
            announced: RefCell::new(None),
            passes: RefCell::new(opening.passes),
            started: opening.at,
            state: Cell::new(State::Resolving),
            choice: Cell::new(0),
            aimed: RefCell::new(None),
            peer: Cell::new(None),
            target_fd: Cell::new(-1),
            connected: Cell::new(None),
            moved: Cell::new(opening.at),
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            packets_up: Cell::new(0),
            packets_down: Cell::new(0),
            tls: RefCell::default(),
            meter: RefCell::new(None),
            cut: Cell::new(None),
            owner: RefCell::new(None),
        });
        let counters = flow.counters();
        add(&counters.open, 1);
        add(&counters.total, 1);
        self.flows.borrow_mut().insert(flow.id, Rc::clone(&flow));
        flow
    }

    /// The flow has ended: counts it, tells whoever watches, forgets it. A second call for the same
    /// flow does nothing.
    pub fn close(&self, flow: &Flow, now: Instant, reason: Reason, detail: Option<&str>) {
        if self.flows.borrow_mut().remove(&flow.id).is_none() {
            return;
        }
        let counters = flow.counters();
        counters.open.set(counters.open.get() - 1);
        counters.ended.add(reason as usize);
        flow.state.set(State::Ended);
        flow.leave();
        flow.passes.borrow_mut().clear();
        let group = &flow.endpoint.shared.group;
        if let Some(terms) = &flow.terms {
            let seconds = now.saturating_duration_since(flow.started).as_secs_f64();
            terms.tell_end(flow, reason, detail, seconds);
        }
        if group.is_watched() {
            self.ended.borrow_mut().push(EndedRecord {
                group: group.id,
                json: flow.record(self.worker, now, Some((reason, detail))),
            });
        }
    }

    /// The id of the flow that began last.
    pub fn newest(&self) -> u64 {
        self.shared.newest_flow(self.worker)
    }

    pub fn get(&self, id: u64) -> Option<Rc<Flow>> {
        self.flows.borrow().get(&id).cloned()
    }

    pub fn len(&self) -> usize {
        self.flows.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.flows.borrow().is_empty()
    }

    /// The live flows for which `wanted` holds, oldest first.
    pub fn list(&self, wanted: impl Fn(&Flow) -> bool) -> Vec<Rc<Flow>> {
        let mut list: Vec<_> = self
            .flows
            .borrow()
            .values()
            .filter(|flow| wanted(flow))
            .cloned()
            .collect();
        list.sort_unstable_by_key(|flow| flow.id);
        list
    }

    /// Records of flows that ended since the last call.
    pub fn take_ended(&self) -> Vec<EndedRecord> {
        std::mem::take(&mut *self.ended.borrow_mut())
    }

    pub fn has_ended(&self) -> bool {
        !self.ended.borrow().is_empty()
    }

    pub fn clear(&self) {
        let flows = std::mem::take(&mut *self.flows.borrow_mut());
        drop(flows);
    }
}
