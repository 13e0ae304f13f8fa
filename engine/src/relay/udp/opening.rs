//! How an association begins: a seat, the target's address, a socket of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::association::{Association, Associations, Key, Leg, Seat};
use super::{UdpEndpoint, refusal_of};
use crate::flow::counters::add;
use crate::flow::limits::Gate;
use crate::flow::reason::{Reason, Refusal};
use crate::flow::table::{Opening, Protocol, State};
use crate::net::addr::RawAddr;
use crate::net::fd::Fd;
use crate::net::{reserve, socket, udp};
use crate::relay::access;
use crate::relay::dial::source_for;
use crate::relay::endpoint::{LocalEndpoint, Remote, Route};
use crate::resolve::{Answer, Lookup, LookupFuture};
use crate::runtime::{DATAGRAMS, Owner, Source, Worker};

/// Datagrams of one association that may wait for a name, and bytes of all of an endpoint.
const MOST_HELD: usize = 16;
const MOST_HELD_BYTES: usize = 64 * 1024;
/// How often an association asks whether its target's name still means the same address.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

impl UdpEndpoint {
    /// Opens an association for a new client, at the cost of the one used longest ago when there
    /// are too many.
    pub(super) fn open(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        endpoint: &Rc<LocalEndpoint>,
        associations: &mut Associations,
        key: Key,
    ) -> Result<usize, Refusal> {
        // No answer could be sent to port 0.
        if self.closing.get() || key.client.port() == 0 {
            return Err(Refusal::Unreachable);
        }
        let route = endpoint.route();
        if !access::is_allowed(&route, key.client.ip()) {
            return Err(Refusal::Denied);
        }
        let group = &endpoint.shared.group.gate;
        let seats = [
            self.seat(worker, endpoint, associations, &endpoint.shared.gate)
                .ok_or(Refusal::Connections)?,
            self.seat(worker, endpoint, associations, group)
                .ok_or(Refusal::OverallConnections)?,
        ];
        let mut lookup = None;
        let leg = match &route.targets[0].remote {
            Remote::Addr(addr) => self.leg(worker, endpoint, associations, &route, &[*addr])?,
            Remote::Name { host, port } => match route.resolver.lookup(host) {
                Lookup::Ready(Ok(ips)) => {
                    let peers = with_port(&ips, *port);
                    self.leg(worker, endpoint, associations, &route, &peers)?
                }
                Lookup::Ready(Err(error)) => {
                    notice(worker, endpoint, Reason::ResolveFailed.name(), &error);
                    return Err(Refusal::ResolveFailed);
                }
                Lookup::Pending(future) => {
                    lookup = Some(future);
                    Leg::Waiting(Vec::new())
                }
            },
        };
        let now = worker.now();
        let flow = worker.table.open(Opening {
            protocol: Protocol::Udp,
            endpoint: Rc::clone(endpoint),
            route,
            client: key.client,
            passes: Vec::new(),
            at: now,
        });
        worker.shared.loads[worker.index].set(worker.table.len());
        if lookup.is_none() {
            flow.state.set(State::Open);
        }
        let id = flow.id;
        let cutter = Rc::clone(&self.cutter) as Rc<dyn Source>;
        let index = associations.next_index();
        flow.owned_by(Owner::Source(cutter, index as u64));
        associations.add(Association::new(key, flow, leg, now, seats));
        if let Some(future) = lookup {
            self.resolve(worker, index, id, future);
        }
        self.arm(worker, endpoint, associations);
        Ok(index)
    }

    fn seat(
        &self,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        associations: &mut Associations,
        gate: &Arc<Gate>,
    ) -> Option<Seat> {
        loop {
            if let Some(seat) = Seat::take(gate) {
                return Some(seat);
            }
            self.evict(worker, endpoint, associations)?;
        }
    }

    fn evict(
        &self,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        associations: &mut Associations,
    ) -> Option<()> {
        let (oldest, _) = associations.oldest()?;
        self.end(
            worker,
            endpoint,
            associations,
            oldest,
            Reason::Evicted,
            None,
        );
        Some(())
    }

    /// A leg to the first of these addresses that can be used, for the association that is added
    /// next.
    fn leg(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        associations: &mut Associations,
        route: &Route,
        peers: &[SocketAddr],
    ) -> Result<Leg, Refusal> {
        let mut result = self.try_leg(worker, route, peers, || associations.next_index());
        if result.as_ref().is_err_and(socket::is_exhausted)
            && self.evict(worker, endpoint, associations).is_some()
        {
            result = self.try_leg(worker, route, peers, || associations.next_index());
        }
        result.map_err(|error| {
            let refusal = if socket::is_exhausted(&error) {
                Refusal::Descriptors
            } else {
                refusal_of(&error)
            };
            let text = format!("can't open a socket to {}: {error}", route.targets[0].text);
            notice(worker, endpoint, refusal.name(), &text);
            refusal
        })
    }

    fn try_leg(
        self: &Rc<Self>,
        worker: &Worker,
        route: &Route,
        peers: &[SocketAddr],
        index: impl Fn() -> usize,
    ) -> io::Result<Leg> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for peer in peers {
            match open_socket(route, peer) {
                Ok(fd) => {
                    let owner = self.owner(index() as u64);
                    let watch = worker.reactor.watch(fd.as_raw_fd(), DATAGRAMS, owner)?;
                    return Ok(Leg::Open {
                        fd,
                        watch,
                        peer: *peer,
                        to: RawAddr::from(*peer),
                    });
                }
                Err(error) if socket::is_exhausted(&error) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits for the name in a task of its own.
    fn resolve(self: &Rc<Self>, worker: &Worker, index: usize, id: u64, future: LookupFuture) {
        let side = Rc::clone(self);
        worker.tasks.spawn(move |_| async move {
            let answer = future.await;
            side.resolved(index, id, answer);
        });
    }

    /// The name of a waiting association was resolved, or can't be.
    fn resolved(self: &Rc<Self>, index: usize, id: u64, answer: Answer) {
        let (Some(worker), Some(endpoint)) = (self.worker.upgrade(), self.endpoint.upgrade())
        else {
            return;
        };
        let associations = &mut *self.associations.borrow_mut();
        let Some(association) = associations.get(index) else {
            return;
        };
        // Another may have its place by now.
        if association.flow.id != id {
            return;
        }
        let route = Arc::clone(&association.flow.route);
        let ips = match answer {
            Ok(ips) => ips,
            Err(error) => {
                notice(&worker, &endpoint, Reason::ResolveFailed.name(), &error);
                let text = error.to_string();
                let reason = Reason::ResolveFailed;
                self.end(&worker, &endpoint, associations, index, reason, Some(&text));
                return;
            }
        };
        let peers = with_port(&ips, route.targets[0].port());
        let leg = match self.try_leg(&worker, &route, &peers, || index) {
            Ok(leg) => leg,
            Err(error) => {
                let text = error.to_string();
                notice(&worker, &endpoint, refusal_of(&error).name(), &error);
                self.end(
                    &worker,
                    &endpoint,
                    associations,
                    index,
                    Reason::Error,
                    Some(&text),
                );
                return;
            }
        };
        association.flow.state.set(State::Open);
        let before = association.set_leg(leg);
        let (Leg::Waiting(held), Leg::Open { fd, to, .. }) = (before, &association.leg) else {
            return;
        };
        for datagram in held {
            self.held.set(self.held.get() - datagram.len());
            match udp::send_to(fd.as_raw_fd(), to, &datagram) {
                Ok(()) => {
                    association.flow.moved_up(datagram.len(), worker.now());
                    add(&association.flow.packets_up, 1);
                    add(&endpoint.udp.packets_up, 1);
                }
                Err(error) => endpoint.udp.refuse(refusal_of(&error)),
            }
        }
    }

    /// Keeps a datagram until the target's name is resolved; false when there is no room.
    pub(super) fn hold(&self, held: &mut Vec<Box<[u8]>>, datagram: &[u8]) -> bool {
        let bytes = self.held.get() + datagram.len();
        if held.len() >= MOST_HELD || bytes > MOST_HELD_BYTES {
            return false;
        }
        self.held.set(bytes);
        held.push(datagram.into());
        true
    }

    /// Follows the target's name to another address, if it has moved.
    pub(super) fn follow(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        association: &mut Association,
        index: usize,
    ) {
        let now = worker.now();
        let Remote::Name { host, .. } = &association.flow.target().remote else {
            return;
        };
        if association.looking || now < association.looked_up + LOOK_UP_EVERY {
            return;
        }
        association.looked_up = now;
        match association.flow.route.resolver.lookup(host) {
            Lookup::Ready(answer) => self.moved(worker, endpoint, association, index, answer),
            Lookup::Pending(future) => {
                association.looking = true;
                let side = Rc::clone(self);
                let id = association.flow.id;
                worker.tasks.spawn(move |_| async move {
                    let answer = future.await;
                    if let (Some(worker), Some(endpoint)) =
                        (side.worker.upgrade(), side.endpoint.upgrade())
                        && let Some(association) = side.associations.borrow_mut().get(index)
                        && association.flow.id == id
                    {
                        association.looking = false;
                        side.moved(&worker, &endpoint, association, index, answer);
                    }
                });
            }
        }
    }

    /// The name means these addresses now. An association stays where it is while that is one of
    /// them, or while nobody knows better.
    fn moved(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        association: &mut Association,
        index: usize,
        answer: Answer,
    ) {
        let Leg::Open { peer, to, .. } = &mut association.leg else {
            return;
        };
        let ips = match answer {
            Ok(ips) if !ips.contains(&peer.ip()) => ips,
            _ => return,
        };
        let peers = with_port(&ips, peer.port());
        if let Some(first) = peers.first()
            && first.is_ipv4() == peer.is_ipv4()
        {
            *peer = *first;
            *to = RawAddr::from(*first);
            association.flow.peer.set(Some(*first));
            return;
        }
        let route = Arc::clone(&association.flow.route);
        match self.try_leg(worker, &route, &peers, || index) {
            Ok(leg) => {
                let former = association.set_leg(leg);
                self.close_leg(worker, endpoint, former);
            }
            Err(error) => {
                let text = format!(
                    "{} moved, but can't be reached: {error}",
                    route.targets[0].text
                );
                notice(worker, endpoint, refusal_of(&error).name(), &text);
            }
        }
    }
}

fn open_socket(route: &Route, peer: &SocketAddr) -> io::Result<Fd> {
    let source = source_for(&route.through, peer)?;
    let fd = socket::datagram(peer)?;
    if reserve::is_reserved(&fd) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    if let Some(mut source) = source {
        let mut bound = socket::bind(&fd, &source);
        // One port can't serve two clients: answers could go to either. The first one has it.
        if source.port() != 0
            && let Err(error) = &bound
            && error.raw_os_error() == Some(libc::EADDRINUSE)
        {
            source.set_port(0);
            bound = socket::bind(&fd, &source);
        }
        bound?;
    }
    if let Some(device) = &route.plan.interface {
        socket::bind_device(&fd, device)?;
    }
    udp::receive_errors(&fd, peer.is_ipv4())?;
    Ok(fd)
}

fn with_port(ips: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()
}

fn notice(
    worker: &Worker,
    endpoint: &LocalEndpoint,
    code: &'static str,
    text: &impl std::fmt::Display,
) {
    let group = endpoint.shared.group.id;
    let events = &worker.shared.events;
    events.notice(group, &endpoint.shared.id, code, text.to_string());
}
