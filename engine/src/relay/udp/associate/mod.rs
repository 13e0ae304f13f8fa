//! UDP associations of SOCKS5 clients: a socket for the client, whose datagrams name their targets,
//! and one for each family towards these. The owner says once for each target whether it may be
//! sent to and where it is; from there on datagrams pass without asking.
//!
//! Each association belongs to one worker and uses its buffers; what it remembers by itself has a
//! bound for everything.

mod inward;
mod outward;
mod port;
mod targets;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Instant;

use self::port::Port;
pub use self::targets::Bounds;
use self::targets::Targets;
use super::association::Seat;
use super::opening::open_from;
use super::{largest_after, refusal_of};
use crate::desk::joining::Counter;
use crate::desk::reports::Reports;
use crate::flow::counters::add;
use crate::flow::reason::{Reason, Refusal};
use crate::flow::table::{Flow, Opening, Protocol, State};
use crate::flow::terms::Terms;
use crate::net::addr::RawAddr;
use crate::net::fd::Fd;
use crate::net::socket;
use crate::net::udp::{self, Local};
use crate::relay::endpoint::Through;
use crate::runtime::{Owner, Source, TimerId, Worker, ready};

const INWARD: u64 = 0;
/// Towards targets, by family.
const OUTWARD: [u64; 2] = [1, 2];
const EXPIRY: u64 = 3;

/// What an association is made of; made on the owner's thread.
pub struct Prepared {
    pub id: u64,
    pub counter: Counter,
    pub terms: Box<Terms>,
    /// Bound to the address that the client sends to.
    pub socket: Fd,
    /// The other end of the connection that the association lives by.
    pub client: SocketAddr,
    /// The port that the client sends from; without, it is that of its first datagram.
    pub port: Option<u16>,
    pub way: Way,
    pub bounds: Bounds,
    pub seats: [Seat; 2],
}

/// How sockets towards targets are made.
pub struct Way {
    pub through: Through,
    pub interface: Option<String>,
}

/// The associations of a worker, by the number of their flow.
#[derive(Default)]
pub struct Associates(RefCell<HashMap<u64, Rc<Associate>>>);

impl Associates {
    /// The one of this number, if it reports there.
    pub fn get(&self, id: u64, reports: &Reports) -> Option<Rc<Associate>> {
        let found = self.0.borrow().get(&id).cloned()?;
        let of = found.flow.terms.as_ref().map(|terms| &*terms.reports)?;
        std::ptr::eq(of, reports).then_some(found)
    }

    fn add(&self, associate: Rc<Associate>) {
        self.0.borrow_mut().insert(associate.flow.id, associate);
    }

    fn forget(&self, id: u64) {
        let forgotten = self.0.borrow_mut().remove(&id);
        drop(forgotten);
    }
}

pub struct Associate {
    worker: Weak<Worker>,
    flow: Rc<Flow>,
    ip: IpAddr,
    port: Option<u16>,
    way: Way,
    /// Gone when the association has ended.
    live: RefCell<Option<Live>>,
    expiry: Cell<Option<TimerId>>,
    seats: Cell<Option<[Seat; 2]>>,
}

/// What changes as datagrams pass.
struct Live {
    inward: Port,
    outward: [Option<Port>; 2],
    targets: Targets,
    /// Where the client sends from, and to which address of ours.
    client: Option<(SocketAddr, Option<Local>)>,
}

/// The association begins here.
pub fn begin(worker: &Rc<Worker>, prepared: Prepared) {
    let Prepared {
        id,
        counter,
        terms,
        socket,
        client,
        port,
        way,
        bounds,
        seats,
    } = prepared;
    // The desk was closed meanwhile.
    if terms.reports.bell().is_none() {
        return;
    }
    let now = worker.now();
    worker.datagrams.prepare();
    let flow = worker.table.open(Opening {
        id: Some(id),
        protocol: Protocol::Udp,
        endpoint: counter.on(worker),
        route: counter.route,
        terms: Some(terms),
        client,
        passes: Vec::new(),
        at: now,
    });
    flow.state.set(State::Open);
    let associate = Rc::new(Associate {
        worker: Rc::downgrade(worker),
        flow: Rc::clone(&flow),
        ip: crate::net::addr::unmapped(client.ip()),
        port,
        way,
        live: RefCell::new(None),
        expiry: Cell::new(None),
        seats: Cell::new(Some(seats)),
    });
    let cutter = Rc::new(Cutter(Rc::downgrade(&associate)));
    flow.owned_by(Owner::Source(cutter, INWARD));
    worker.shared.loads[worker.index].set(worker.table.len());
    match Port::open(worker, socket, associate.owner(INWARD)) {
        Ok(inward) => {
            *associate.live.borrow_mut() = Some(Live {
                inward,
                outward: [None, None],
                targets: Targets::new(bounds),
                client: None,
            });
            associate.arm(worker, now);
            worker.associates.add(associate);
        }
        Err(error) => associate.end(worker, Reason::Error, Some(&error.to_string())),
    }
}

impl Associate {
    fn owner(self: &Rc<Self>, token: u64) -> Owner {
        Owner::Source(Rc::clone(self) as Rc<dyn Source>, token)
    }

    /// The owner's answer about a target: where it is, or why nothing goes there.
    pub fn settle(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        target: &str,
        answer: Result<SocketAddr, Refusal>,
    ) {
        let mut live = self.live.borrow_mut();
        let Some(live) = &mut *live else {
            return;
        };
        if !live.targets.await_answer(target) {
            return;
        }
        let answer = answer.and_then(|peer| match self.reach(worker, live, &peer) {
            Ok(()) => Ok(peer),
            Err(error) if socket::is_exhausted(&error) => Err(Refusal::Descriptors),
            Err(error) => Err(refusal_of(&error)),
        });
        let waited = live.targets.settle(target, answer, worker.now());
        let counted = &self.flow.endpoint.udp;
        let peer = match answer {
            Ok(peer) => peer,
            Err(why) => return counted.refused.add_many(why as usize, waited.len() as u64),
        };
        self.flow.peer.set(Some(peer));
        let Some(port) = &live.outward[family(&peer)] else {
            return;
        };
        let to = RawAddr::from(peer);
        for payload in waited {
            match udp::send_to(port.raw(), &to, &payload) {
                Ok(()) => {
                    self.flow.moved_up(payload.len(), worker.now());
                    add(&self.flow.packets_up, 1);
                    add(&counted.packets_up, 1);
                }
                Err(error) => counted.refuse(refusal_of(&error)),
            }
        }
    }

    /// Makes sure that there is a socket towards this address.
    fn reach(
        self: &Rc<Self>,
        worker: &Worker,
        live: &mut Live,
        peer: &SocketAddr,
    ) -> std::io::Result<()> {
        let family = family(peer);
        if live.outward[family].is_none() {
            let interface = self.way.interface.as_deref();
            let fd = open_from(&self.way.through, interface, peer)?;
            let port = Port::open(worker, fd, self.owner(OUTWARD[family]))?;
            self.flow.target_fd.set(port.raw());
            live.outward[family] = Some(port);
        }
        Ok(())
    }

    /// The association has ended.
    pub fn end(&self, worker: &Worker, reason: Reason, detail: Option<&str>) {
        self.flow.forget_sockets();
        if let Some(live) = self.live.take() {
            let Live {
                inward, outward, ..
            } = live;
            for port in std::iter::once(inward).chain(outward.into_iter().flatten()) {
                port.close(worker);
            }
        }
        if let Some(timer) = self.expiry.take() {
            worker.timers.disarm(timer);
        }
        // Whoever hears of the end finds the places free.
        drop(self.seats.take());
        worker.table.close(&self.flow, worker.now(), reason, detail);
        worker.shared.loads[worker.index].set(worker.table.len());
        worker.associates.forget(self.flow.id);
    }

    fn arm(self: &Rc<Self>, worker: &Worker, moved: Instant) {
        if let Some(timeout) = self.flow.idle_timeout() {
            let timer = worker.timers.arm(moved + timeout, self.owner(EXPIRY));
            self.expiry.set(Some(timer));
        }
    }

    fn expire(self: &Rc<Self>, worker: &Worker) {
        self.expiry.set(None);
        let moved = self.flow.moved.get();
        match self.flow.idle_timeout() {
            Some(timeout) if moved + timeout <= worker.now() => {
                self.end(worker, Reason::Expired, None);
            }
            _ => self.arm(worker, moved),
        }
    }
}

impl Source for Associate {
    fn ready(self: Rc<Self>, token: u64, readiness: u8) {
        let Some(worker) = self.worker.upgrade() else {
            return;
        };
        if readiness & ready::CUT != 0 {
            let reason = self.flow.cut.get().unwrap_or(Reason::Killed);
            return self.end(&worker, reason, None);
        }
        match token {
            EXPIRY if self.live.borrow().is_some() => self.expire(&worker),
            EXPIRY => {}
            INWARD => self.from_client(&worker, readiness),
            token => self.from_targets(&worker, (token - OUTWARD[0]) as usize, readiness),
        }
    }
}

/// Passes the end of a flow on to its association, which keeps the flow.
struct Cutter(Weak<Associate>);

impl Source for Cutter {
    fn ready(self: Rc<Self>, token: u64, readiness: u8) {
        if let Some(associate) = self.0.upgrade() {
            associate.ready(token, readiness);
        }
    }
}

fn family(addr: &SocketAddr) -> usize {
    usize::from(addr.is_ipv6())
}
