//! The life of a UDP association: a client's first datagram opens it, datagrams pass both ways in
//! trains, silence ends it.
//!
//! An endpoint's socket and all its associations belong to one worker, so that order is kept and
//! nothing is locked. They share the worker's buffers; an association holds none.

pub mod associate;
mod association;
mod downward;
mod greeting;
mod opening;
mod pace;
mod recency;
mod train;
mod tunnel;
mod upward;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

pub use self::association::Seat;
use self::association::{Associations, Leg};
use self::downward::Answers;
pub use self::opening::open_socket;
use self::pace::Pace;
pub use self::tunnel::{BACKLOG, READS, lost, write};
use self::upward::Forwards;
use super::endpoint::{LocalEndpoint, UdpSide};
use crate::flow::reason::{Reason, Refusal};
use crate::net::udp::{self, Inbound, Outbound};
use crate::runtime::{DATAGRAMS, ONCE, Owner, Source, TimerId, WatchId, Worker, ready};
use crate::shared::Endpoint;

/// What the listening socket may hold: nearly 50 ms at 150,000 datagrams of 1,200 bytes a second,
/// which the kernel counts twice.
const LISTENER_BUFFER: usize = 8 << 20;
/// How often to receive into one batch from the listening socket.
const BATCH: usize = 128;
/// Later than any time of this turn of the worker, so that others have theirs.
const NEXT_TURN: Duration = Duration::from_nanos(1);
/// ICMP errors taken at one call.
const MOST_ERRORS: usize = 64;

// Tokens; smaller ones are numbers of associations.
const LISTENER: u64 = u64::MAX;
const EXPIRY: u64 = u64::MAX - 1;
const FLUSH: u64 = u64::MAX - 2;

/// Buffers that all UDP endpoints of a worker share.
#[derive(Default)]
pub struct Datagrams(RefCell<Option<Buffers>>);

struct Buffers {
    /// From clients.
    up: Inbound,
    forwards: Forwards,
    /// From targets, to be sent when the worker has called everybody.
    down: Inbound,
    answers: Answers,
    out: Outbound,
}

impl Datagrams {
    fn prepare(&self) {
        self.0.borrow_mut().get_or_insert_with(|| Buffers {
            up: Inbound::new(BATCH, true),
            forwards: Forwards::new(BATCH),
            down: Inbound::new(BATCH, false),
            answers: Answers::default(),
            out: Outbound::default(),
        });
    }

    /// Forgets everything, when the worker ends.
    pub fn clear(&self) {
        let buffers = self.0.borrow_mut().take();
        drop(buffers);
    }
}

/// The UDP side of an endpoint, on the one worker that serves it.
struct UdpEndpoint {
    worker: Weak<Worker>,
    endpoint: Weak<LocalEndpoint>,
    /// The listening socket; it lives as long as the endpoint.
    fd: RawFd,
    watch: Cell<Option<WatchId>>,
    pace: Cell<Pace>,
    /// Knows clients only from before; ends with the last association.
    closing: Cell<bool>,
    associations: RefCell<Associations>,
    expiry: Cell<Option<TimerId>>,
    /// Bytes that wait for names.
    held: Cell<usize>,
    /// Owner of every flow: doesn't keep the endpoint, which keeps the flows.
    cutter: Rc<Cutter>,
}

/// Serves the endpoint's UDP socket on this worker.
pub fn start(worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>) -> io::Result<()> {
    let (Some(socket), Some(addr)) = (&endpoint.shared.udp, endpoint.shared.udp_addr) else {
        return Ok(());
    };
    if udp::is_wildcard(&addr) {
        udp::receive_local(socket, addr.is_ipv4())?;
    }
    udp::receive_trains(socket);
    udp::receive_buffer(socket, LISTENER_BUFFER);
    worker.datagrams.prepare();
    let side = Rc::new_cyclic(|side: &Weak<UdpEndpoint>| UdpEndpoint {
        worker: Rc::downgrade(worker),
        endpoint: Rc::downgrade(endpoint),
        fd: socket.as_raw_fd(),
        watch: Cell::new(None),
        pace: Cell::new(Pace::new(worker.now())),
        closing: Cell::new(false),
        associations: RefCell::default(),
        expiry: Cell::new(None),
        held: Cell::new(0),
        cutter: Rc::new(Cutter(side.clone())),
    });
    let owner = side.owner(LISTENER);
    let watch = worker.reactor.watch(side.fd, DATAGRAMS, owner)?;
    side.watch.set(Some(watch));
    *endpoint.udp_source.borrow_mut() = Some(side);
    Ok(())
}

impl UdpEndpoint {
    fn owner(self: &Rc<Self>, token: u64) -> Owner {
        Owner::Source(Rc::clone(self) as Rc<dyn Source>, token)
    }

    /// Ends an association.
    fn end(
        &self,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        associations: &mut Associations,
        index: usize,
        reason: Reason,
        detail: Option<&str>,
    ) {
        let Some(association) = associations.remove(index) else {
            return;
        };
        self.close_leg(worker, endpoint, association.leg);
        association.flow.target_fd.set(-1);
        worker
            .table
            .close(&association.flow, worker.now(), reason, detail);
        worker.shared.loads[worker.index].set(worker.table.len());
        if associations.is_empty() {
            self.disarm(worker);
            if self.closing.get() {
                self.unwatch(worker);
            }
        }
    }

    fn close_leg(&self, worker: &Worker, endpoint: &LocalEndpoint, leg: Leg) {
        match leg {
            Leg::Open { watch, .. } => worker.reactor.forget(watch),
            Leg::Waiting(held) => {
                for datagram in held {
                    self.held.set(self.held.get() - datagram.len());
                    endpoint.udp.refuse(Refusal::ResolveFailed);
                }
            }
            Leg::Stream(tunnel) => tunnel.close(worker),
        }
    }

    /// Makes sure that the oldest association is looked at when its time is over.
    fn arm(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        associations: &Associations,
    ) {
        if self.expiry.get().is_none()
            && let Some(timeout) = endpoint.route().udp_timeout
            && let Some((_, used)) = associations.oldest()
        {
            let timer = worker.timers.arm(used + timeout, self.owner(EXPIRY));
            self.expiry.set(Some(timer));
        }
    }

    fn disarm(&self, worker: &Worker) {
        if let Some(timer) = self.expiry.take() {
            worker.timers.disarm(timer);
        }
    }

    fn expire(self: &Rc<Self>, worker: &Worker, endpoint: &LocalEndpoint) {
        let associations = &mut *self.associations.borrow_mut();
        self.expiry.set(None);
        if let Some(timeout) = endpoint.route().udp_timeout {
            while let Some((index, used)) = associations.oldest()
                && used + timeout <= worker.now()
            {
                self.end(worker, endpoint, associations, index, Reason::Expired, None);
            }
        }
        self.arm(worker, endpoint, associations);
    }

    /// Watches a socket as its pace wants it: one in bulk reports once and is then left alone for
    /// a while, unless more waits there already.
    fn set_pace(self: &Rc<Self>, worker: &Worker, socket: Paced, before: Pace, now: Pace) {
        let Paced {
            fd,
            watch,
            token,
            full,
        } = socket;
        match (before.is_bulk(), now.is_bulk()) {
            (true, true) if full => self.call_after(worker, token, NEXT_TURN),
            (_, true) => worker.reactor.modify(fd, watch, ONCE),
            (true, false) => worker.reactor.modify(fd, watch, DATAGRAMS),
            (false, false) => {}
        }
    }

    fn call_after(self: &Rc<Self>, worker: &Worker, token: u64, time: Duration) {
        worker.timers.arm(worker.now() + time, self.owner(token));
    }

    fn cut(&self, worker: &Worker, endpoint: &LocalEndpoint, index: usize) {
        let associations = &mut *self.associations.borrow_mut();
        if let Some(association) = associations.get(index)
            && let Some(reason) = association.flow.cut.get()
        {
            self.end(worker, endpoint, associations, index, reason, None);
        }
    }

    fn unwatch(&self, worker: &Worker) {
        if let Some(watch) = self.watch.take() {
            worker.reactor.unwatch(self.fd, watch);
        }
    }
}

/// A socket that is watched by its pace.
struct Paced {
    fd: RawFd,
    watch: WatchId,
    token: u64,
    /// The last receive gave as much as was asked for.
    full: bool,
}

impl Source for UdpEndpoint {
    fn ready(self: Rc<Self>, token: u64, readiness: u8) {
        let (Some(worker), Some(endpoint)) = (self.worker.upgrade(), self.endpoint.upgrade())
        else {
            return;
        };
        match token {
            LISTENER => self.arrived(&worker, &endpoint, readiness),
            EXPIRY => self.expire(&worker, &endpoint),
            FLUSH => self.flush(&worker),
            index if readiness & ready::CUT != 0 => self.cut(&worker, &endpoint, index as usize),
            index => self.answered(&worker, &endpoint, index as usize, readiness),
        }
    }
}

impl UdpSide for UdpEndpoint {
    /// Clients that are known are served until their associations end; nobody new is. With an
    /// heir, associations only pass answers on.
    fn stop_listening(&self) {
        self.closing.set(true);
        let (Some(worker), Some(endpoint)) = (self.worker.upgrade(), self.endpoint.upgrade())
        else {
            return;
        };
        let Endpoint {
            udp,
            udp_addr,
            udp_heir,
            ..
        } = &*endpoint.shared;
        if udp_heir.is_lent() || udp_heir.is_replaced() || self.associations.borrow().is_empty() {
            self.unwatch(&worker);
        }
        if udp_heir.is_replaced()
            && !udp_heir.is_lent()
            && let (Some(udp), Some(addr)) = (udp, udp_addr)
        {
            // At worst the kernel goes on giving this socket some of the clients.
            let _ = udp::mute(udp, addr);
        }
    }

    fn route_changed(&self) {
        let (Some(worker), Some(endpoint)) = (self.worker.upgrade(), self.endpoint.upgrade())
        else {
            return;
        };
        if let Some(side) = self.cutter.0.upgrade() {
            side.disarm(&worker);
            side.arm(&worker, &endpoint, &self.associations.borrow());
        }
    }
}

/// Passes the end of a flow on to its endpoint.
struct Cutter(Weak<UdpEndpoint>);

impl Source for Cutter {
    fn ready(self: Rc<Self>, token: u64, readiness: u8) {
        if let Some(side) = self.0.upgrade() {
            side.ready(token, readiness);
        }
    }
}

/// The count under which a datagram that could not be sent goes.
pub fn refusal_of(error: &io::Error) -> Refusal {
    if error.raw_os_error() == Some(libc::EMSGSIZE) {
        Refusal::TooBig
    } else if udp::is_unreachable(error) {
        Refusal::Unreachable
    } else {
        Refusal::SendFailed
    }
}

/// The largest segment that may travel in trains after one of `segment` was refused.
fn largest_after(segment: usize, error: &io::Error) -> usize {
    match error.raw_os_error() {
        // Larger than the path takes in one packet.
        Some(libc::EINVAL | libc::EMSGSIZE) => segment.saturating_sub(1),
        // The device can't, whatever the size.
        _ => 0,
    }
}
