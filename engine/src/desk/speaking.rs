//! What the owner does with single legs, until it joins two of them.

use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::held::{self, Beginning};
use super::joining::{Join, Legs, seconds};
use super::leg::{self, Leg, Lift, Order, Phase, Remains, Shake};
use super::lifted::Lifted;
use super::listening::{self, Listener};
use super::plan::{DeskListenPlan, DialPlan, JoinPlan, TlsAcceptPlan, TlsConnectPlan};
use super::{Desk, PATIENCE, check_stream, lock, not_taken};
use crate::error::Error;
use crate::net::fd::Fd;
use crate::net::socket::{self, Listening};
use crate::relay::endpoint;
use crate::runtime::Worker;
use crate::transport::tls::acceptor::Acceptor;
use crate::transport::tls::connector::Connector;

/// How clients are met, made ready.
pub struct Greeting {
    acceptor: Arc<Acceptor>,
    limit: Option<Duration>,
    hello: bool,
}

/// How targets are met, made ready.
pub struct Calling {
    connector: Arc<Connector>,
    limit: Option<Duration>,
}

impl Greeting {
    fn prepare(plan: &TlsAcceptPlan) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            acceptor: Acceptor::shared(&plan.tls).map_err(|error| Error::plan(&error))?,
            limit: seconds("handshake_timeout", plan.handshake_timeout)?,
            hello: plan.hello,
        }))
    }
}

impl Desk {
    /// A leg over a connected socket. `unread` was read from it before.
    pub fn adopt(&self, raw: RawFd, unread: Vec<u8>) -> Result<u64, Error> {
        self.ready_for_more()?;
        check_stream(raw).map_err(|error| not_taken("this leg", error))?;
        Ok(self.new_leg(Phase::Parked(Fd::own(raw)), unread).handle)
    }

    /// A leg over a connection that is made now.
    pub fn dial(&self, plan: DialPlan) -> Result<u64, Error> {
        self.ready_for_more()?;
        let beginning = self.ways.begin(plan)?;
        let worker = self.engine.shared.idlest();
        let leg = self.new_leg(Phase::Busy(worker), Vec::new());
        self.carry(worker, &leg, beginning)?;
        Ok(leg.handle)
    }

    /// Shakes hands with a client. `unread` was read from the leg before.
    pub fn tls_accept(&self, leg: u64, plan: &str, unread: Vec<u8>) -> Result<(), Error> {
        let greeting = self.acceptors.get(plan.to_owned(), || {
            let plan = serde_json::from_str(plan).map_err(|error| Error::json(&error))?;
            Greeting::prepare(&plan)
        })?;
        let shake = Shake::Accept {
            acceptor: Arc::clone(&greeting.acceptor),
            hello: greeting.hello,
        };
        self.shake(leg, shake, greeting.limit, unread)
    }

    /// Shakes hands with a target.
    pub fn tls_connect(&self, leg: u64, plan: &str) -> Result<(), Error> {
        let calling = self.connectors.get(plan.to_owned(), || {
            let plan: TlsConnectPlan =
                serde_json::from_str(plan).map_err(|error| Error::json(&error))?;
            Ok::<_, Error>(Arc::new(Calling {
                connector: Connector::shared(&plan.tls).map_err(|error| Error::plan(&error))?,
                limit: seconds("handshake_timeout", plan.handshake_timeout)?,
            }))
        })?;
        let shake = Shake::Connect(Arc::clone(&calling.connector));
        self.shake(leg, shake, calling.limit, Vec::new())
    }

    fn shake(
        &self,
        leg: u64,
        shake: Shake,
        limit: Option<Duration>,
        unread: Vec<u8>,
    ) -> Result<(), Error> {
        let leg = self.carried(leg)?;
        leg.shake(shake, limit, unread)
    }

    /// See `Leg::read`.
    pub fn read<T>(
        &self,
        leg: u64,
        most: usize,
        look: impl FnOnce(&std::collections::VecDeque<u8>, usize) -> T,
    ) -> Result<Option<T>, Error> {
        self.carried(leg)?.read(most, look)
    }

    pub fn write(&self, leg: u64, bytes: &[u8]) -> Result<usize, Error> {
        self.carried(leg)?.write(bytes)
    }

    pub fn finish(&self, leg: u64) -> Result<(), Error> {
        self.carried(leg)?.finish()
    }

    pub fn is_drained(&self, leg: u64) -> Result<bool, Error> {
        self.carried(leg)?.is_drained()
    }

    /// An orderly end, in the background. Closing what is closed does nothing.
    pub fn close(&self, leg: u64) {
        // Closing a socket with unread bytes would reset it: a worker reads them.
        let _ = self.carried(leg);
        if let Some(leg) = self.legs.remove(leg) {
            self.legs.part_with(&leg);
        }
    }

    /// A reset, now.
    pub fn abort(&self, leg: u64) {
        if let Some(leg) = self.legs.remove(leg) {
            leg.part(Order::Abort);
        }
    }

    /// Two legs become a flow. Bytes that were read from them before go first.
    pub fn join(
        &self,
        client: u64,
        target: u64,
        plan: JoinPlan,
        unread_client: Vec<u8>,
        unread_target: Vec<u8>,
    ) -> Result<u64, Error> {
        self.ready_for_more()?;
        if client == target {
            return Err(Error::plain("plan", "one leg for both sides".to_owned()));
        }
        let (client, target) = (self.legs.get(client)?, self.legs.get(target)?);
        let shared = &self.engine.shared;
        let places = [target.place()?, client.place()?];
        let worker = places.into_iter().flatten().next();
        let worker = worker.unwrap_or_else(|| shared.idlest());
        let join = self.prepare(worker, plan)?;
        let id = join.id;
        // Whoever takes a leg out of the table has it: another thread may have been faster.
        if self.legs.remove(client.handle).is_none() {
            return Err(leg::no_leg());
        }
        if self.legs.remove(target.handle).is_none() {
            self.legs.insert(&client);
            return Err(leg::no_leg());
        }
        lock(&self.joining).insert(id);
        let meeting = Meeting {
            join,
            joining: Arc::clone(&self.joining),
            unread_client,
            unread_target,
        };
        shared.loads[worker].expect_one();
        let inbox = shared.inbox(worker).cloned();
        // The last one to be lifted begins the flow, where it was.
        match client.lift_or_take() {
            Ok(client) => match target.lift_or_take() {
                Ok(target) => {
                    let begin = move |there: &Rc<Worker>| meeting.begin(there, client, target);
                    if !inbox.is_some_and(|inbox| inbox.call(begin)) {
                        return Err(Error::closed());
                    }
                }
                Err(target) => {
                    target.lift(Box::new(move |there, remains| {
                        meeting.begin(there, client, remains);
                    }));
                }
            },
            Err(client) => match target.lift_or_take() {
                Ok(target) => client.lift(Box::new(move |there, remains| {
                    meeting.begin(there, remains, target);
                })),
                Err(target) => client.lift(Box::new(move |_, client| {
                    target.lift(Box::new(move |there, target| {
                        meeting.begin(there, client, target);
                    }));
                })),
            },
        }
        Ok(id)
    }

    /// Listens for connections that become legs; a handle and the address.
    pub fn listen(
        &self,
        plan: DeskListenPlan,
        inherited: Option<RawFd>,
    ) -> Result<(u64, String), Error> {
        self.ready_for_more()?;
        let tls = plan.tls.as_ref().map(Greeting::prepare).transpose()?;
        let tls = tls.map(|greeting| listening::Terms {
            acceptor: Arc::clone(&greeting.acceptor),
            limit: greeting.limit,
            hello: greeting.hello,
        });
        let addr =
            endpoint::parse_addr("listen", &plan.listen).map_err(|error| Error::plan(&error))?;
        let failed = |error| Error::io("bind", &format!("can't listen on tcp {addr}"), error);
        let fd = match inherited {
            Some(raw) => {
                let taken = match Fd::is_owned(raw) {
                    true => Err(std::io::Error::from_raw_os_error(libc::EBUSY)),
                    false => socket::take_listener(raw),
                };
                taken.map_err(|error| not_taken("this listener", error))?;
                Fd::own(raw)
            }
            None => {
                let listening = Listening {
                    addr,
                    ipv6_only: plan.ipv6_only,
                    device: plan.listen_interface.as_deref(),
                    takeover: false,
                };
                listening.tcp(plan.accept_mptcp).map_err(failed)?
            }
        };
        // What accepted sockets inherit; of what has no such option nothing is lost.
        let _ = socket::nodelay(&fd);
        let shared = &self.engine.shared;
        let worker = shared.idlest();
        let listener = Listener::new(
            shared.next_leg(),
            worker,
            self.group.id,
            socket::local_addr(fd.as_raw_fd()),
            &self.legs,
            tls,
            plan.waiting,
        );
        let handle = listener.handle;
        let local = listener.local.unwrap_or(addr).to_string();
        lock(&self.listeners).insert(handle, Arc::clone(&listener));
        let (answer, answered) = mpsc::channel();
        self.call(worker, move |worker| {
            let _ = answer.send(listener.start(worker, fd));
        })?;
        match answered.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok((handle, local)),
            Ok(Err(error)) => {
                lock(&self.listeners).remove(&handle);
                Err(failed(error))
            }
            Err(_) => Err(Error::stuck()),
        }
    }

    /// Closes the socket and turns away those of whom the owner has not heard.
    pub fn close_listener(&self, listener: u64) {
        let Some(listener) = lock(&self.listeners).remove(&listener) else {
            return;
        };
        for leg in self.reports.legs_of(listener.handle) {
            self.abort(leg);
        }
        let (answer, answered) = mpsc::channel::<()>();
        listener.close(answer);
        // It is answered by being dropped.
        let _ = answered.recv_timeout(PATIENCE);
    }

    fn new_leg(&self, phase: Phase, unread: Vec<u8>) -> Arc<Leg> {
        let handle = self.engine.shared.next_leg();
        let leg = Leg::new(handle, &self.reports, phase, unread);
        // A desk that is closed meanwhile closes it with the last who holds it.
        self.legs.insert(&leg);
        leg
    }

    /// The leg, carried by a worker from now on at the latest.
    fn carried(&self, leg: u64) -> Result<Arc<Leg>, Error> {
        let leg = self.legs.get(leg)?;
        let mut state = leg.lock();
        if !matches!(state.phase, Phase::Parked(_)) {
            drop(state);
            return Ok(leg);
        }
        let worker = self.engine.shared.idlest();
        let Phase::Parked(fd) = std::mem::replace(&mut state.phase, Phase::Open(worker)) else {
            return Err(leg::no_leg());
        };
        drop(state);
        self.carry(worker, &leg, Beginning::Socket(fd))?;
        Ok(leg)
    }

    fn carry(&self, worker: usize, leg: &Arc<Leg>, beginning: Beginning) -> Result<(), Error> {
        let carried = Arc::clone(leg);
        self.call(worker, move |worker| {
            held::begin(worker, carried, beginning);
        })
    }
}

/// A flow on the way to its legs.
struct Meeting {
    join: Join,
    joining: Arc<Mutex<std::collections::HashSet<u64>>>,
    unread_client: Vec<u8>,
    unread_target: Vec<u8>,
}

impl Meeting {
    fn begin(self, worker: &Rc<Worker>, client: Remains, target: Remains) {
        // What the owner wrote goes before what the other side says, and what it has read of that
        // before what it has not.
        let first = |written: Vec<u8>, read: Vec<u8>, unread: Vec<u8>| {
            let mut bytes = written;
            bytes.extend(read);
            bytes.extend(unread);
            bytes
        };
        let legs = Legs {
            exchange: None,
            first_up: first(target.outgoing, self.unread_client, client.incoming),
            first_down: first(client.outgoing, self.unread_target, target.incoming),
            client: client.leg,
            target: target.leg,
        };
        let wanted = lock(&self.joining).remove(&self.join.id);
        self.join.begin(worker, legs, wanted);
    }
}

impl Leg {
    /// The worker that carries it, if any does; an error when it can't be joined now.
    fn place(&self) -> Result<Option<usize>, Error> {
        let state = self.lock();
        match &state.phase {
            Phase::Parked(_) => Ok(None),
            Phase::Open(worker) => match (&state.end, &state.broken) {
                (Some(Err(trouble)), _) | (_, Some(trouble)) => Err(trouble.clone().into()),
                _ if state.finished => {
                    let text = "the leg was finished".to_owned();
                    Err(Error::plain("finished", text))
                }
                _ => Ok(Some(*worker)),
            },
            Phase::Busy(_) => Err(leg::busy()),
            Phase::Failed(trouble) => Err(trouble.clone().into()),
            Phase::Gone => Err(leg::no_leg()),
        }
    }

    /// What there is of a leg that nobody carries; the leg again when somebody does.
    fn lift_or_take(self: Arc<Self>) -> Result<Remains, Arc<Self>> {
        let mut state = self.lock();
        match std::mem::replace(&mut state.phase, Phase::Gone) {
            Phase::Parked(fd) => Ok(Remains {
                leg: Lifted::Plain(fd),
                incoming: std::mem::take(&mut state.incoming).into(),
                outgoing: Vec::new(),
            }),
            carried => {
                state.phase = carried;
                drop(state);
                Err(self)
            }
        }
    }

    fn lift(&self, lift: Lift) {
        let mut state = self.lock();
        state.order = Some(Order::Lift(lift));
        self.stir(state);
    }
}
