//! How an association begins: a seat, the target's address, a socket of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::association::{Association, Associations, Key, Leg, Seat};
use super::greeting::{greeting, send_one};
use super::{UdpEndpoint, refusal_of};
use crate::flow::limits::Gate;
use crate::flow::reason::{Reason, Refusal};
use crate::flow::table::{Opening, Protocol, State};
use crate::net::addr::RawAddr;
use crate::net::fd::Fd;
use crate::net::{reserve, socket, udp};
use crate::relay::access;
use crate::relay::dial::source_for;
use crate::relay::endpoint::{LocalEndpoint, Remote, Route, Target, Through};
use crate::relay::health::pool::tell;
use crate::relay::reach::missed;
use crate::relay::uot;
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
        let now = worker.now();
        let mut tried = Vec::new();
        let in_stream = uot::carries_out(&route.plan);
        let (leg, lookup) = loop {
            if in_stream {
                break (Self::tunnel(), None);
            }
            let choice = route.pools[0]
                .choose(key.client.ip(), &tried, now)
                .ok_or(Refusal::Unreachable)?;
            tried.push(choice);
            match self.towards(worker, endpoint, associations, &route, choice) {
                Ok(begun) => break begun,
                Err(refusal) => {
                    if refusal == Refusal::Descriptors || route.pools[0].untried(&tried) == 0 {
                        return Err(refusal);
                    }
                }
            }
        };
        let flow = worker.table.open(Opening {
            id: None,
            protocol: Protocol::Udp,
            endpoint: Rc::clone(endpoint),
            route,
            terms: None,
            client: key.client,
            passes: Vec::new(),
            at: now,
        });
        if !in_stream {
            flow.aim(*tried.last().unwrap_or(&0));
        }
        worker.shared.loads[worker.index].set(worker.table.len());
        if lookup.is_none() && !in_stream {
            flow.state.set(State::Open);
        }
        let id = flow.id;
        let cutter = Rc::clone(&self.cutter) as Rc<dyn Source>;
        let index = associations.next_index();
        flow.owned_by(Owner::Source(cutter, index as u64));
        let greeting = greeting(endpoint, &flow.route, &key);
        let mut association = Association::new(key, flow, leg, now, seats);
        association.greeting = greeting;
        associations.add(association);
        if let Some(future) = lookup {
            self.resolve(worker, index, id, tried, future);
        }
        if in_stream {
            self.dig(worker, associations, index);
        }
        self.arm(worker, endpoint, associations);
        Ok(index)
    }

    /// A leg to a target, or the lookup that it waits for.
    fn towards(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &Rc<LocalEndpoint>,
        associations: &mut Associations,
        route: &Route,
        choice: usize,
    ) -> Result<(Leg, Option<LookupFuture>), Refusal> {
        let target = &route.targets[choice];
        let peers = match &target.remote {
            Remote::Addr(addr) => vec![*addr],
            Remote::Name { host, port } => match route.resolver.lookup(host) {
                Lookup::Ready(Ok(ips)) => with_port(&ips, *port),
                Lookup::Ready(Err(error)) => {
                    notice(worker, endpoint, Reason::ResolveFailed.name(), &error);
                    let pool = &route.pools[0];
                    let change = pool.failed(choice, &error.to_string(), worker.now());
                    tell(&worker.shared, &endpoint.shared, &target.text, change);
                    return Err(Refusal::ResolveFailed);
                }
                Lookup::Pending(future) => {
                    return Ok((Leg::Waiting(Vec::new()), Some(future)));
                }
            },
        };
        let leg = self.leg(worker, endpoint, associations, route, target, &peers)?;
        Ok((leg, None))
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
        target: &Target,
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
            let text = format!("can't open a socket to {}: {error}", target.text);
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
    fn resolve(
        self: &Rc<Self>,
        worker: &Worker,
        index: usize,
        id: u64,
        tried: Vec<usize>,
        future: LookupFuture,
    ) {
        let side = Rc::clone(self);
        worker.tasks.spawn(move |_| async move {
            let answer = future.await;
            side.resolved(index, id, tried, answer);
        });
    }

    /// The name of a waiting association was resolved, or can't be.
    fn resolved(self: &Rc<Self>, index: usize, id: u64, mut tried: Vec<usize>, answer: Answer) {
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
        let flow = Rc::clone(&association.flow);
        let route = Arc::clone(&flow.route);
        let (reason, text) = match answer {
            Err(error) => {
                notice(&worker, &endpoint, Reason::ResolveFailed.name(), &error);
                missed(&worker, &flow, &error.to_string());
                (Reason::ResolveFailed, error.to_string())
            }
            Ok(ips) => {
                let peers = with_port(&ips, flow.target().port());
                match self.try_leg(&worker, &route, &peers, || index) {
                    Ok(leg) => return self.arrive(&worker, &endpoint, association, leg),
                    Err(error) => {
                        notice(&worker, &endpoint, refusal_of(&error).name(), &error);
                        (Reason::Error, error.to_string())
                    }
                }
            }
        };
        let pool = &route.pools[0];
        while let Some(choice) = pool.choose(flow.client.ip(), &tried, worker.now()) {
            tried.push(choice);
            flow.aim(choice);
            match &flow.target().remote {
                Remote::Addr(addr) => {
                    if let Ok(leg) = self.try_leg(&worker, &route, &[*addr], || index) {
                        return self.arrive(&worker, &endpoint, association, leg);
                    }
                }
                Remote::Name { host, port } => match route.resolver.lookup(host) {
                    Lookup::Pending(future) => {
                        return self.resolve(&worker, index, id, tried, future);
                    }
                    Lookup::Ready(Err(error)) => missed(&worker, &flow, &error.to_string()),
                    Lookup::Ready(Ok(ips)) => {
                        let peers = with_port(&ips, *port);
                        if let Ok(leg) = self.try_leg(&worker, &route, &peers, || index) {
                            return self.arrive(&worker, &endpoint, association, leg);
                        }
                    }
                },
            }
        }
        self.end(&worker, &endpoint, associations, index, reason, Some(&text));
    }

    /// The leg that the association's datagrams waited for is there.
    fn arrive(
        &self,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        association: &mut Association,
        leg: Leg,
    ) {
        association.flow.state.set(State::Open);
        let before = association.set_leg(leg);
        let (Leg::Waiting(held), Leg::Open { .. }) = (before, &association.leg) else {
            return;
        };
        for datagram in held {
            self.held.set(self.held.get() - datagram.len());
            send_one(worker, endpoint, association, &datagram);
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

    /// Leaves a target that went down for another, and follows the target's name to another
    /// address, if it has moved.
    pub(super) fn follow(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        association: &mut Association,
        index: usize,
    ) {
        let now = worker.now();
        let flow = Rc::clone(&association.flow);
        let pool = &flow.route.pools[0];
        let named = match &flow.target().remote {
            Remote::Name { host, .. } => Some(host),
            Remote::Addr(_) => None,
        };
        if let Some((choice, answer)) = association.news.take()
            && choice == flow.choice.get()
        {
            return self.moved(worker, endpoint, association, index, answer);
        }
        if association.looking
            || now < association.looked_up + LOOK_UP_EVERY
            || named.is_none() && !pool.has_choice()
        {
            return;
        }
        association.looked_up = now;
        let is_silent = association
            .heard
            .is_none_or(|heard| now >= heard + LOOK_UP_EVERY);
        if is_silent && pool.is_to_be_left(flow.choice.get(), now) {
            self.leave(worker, endpoint, association, index);
            return;
        }
        let Some(host) = named else {
            return;
        };
        match association.flow.route.resolver.lookup(host) {
            Lookup::Ready(answer) => self.moved(worker, endpoint, association, index, answer),
            Lookup::Pending(future) => {
                association.looking = true;
                let side = Rc::clone(self);
                let (id, choice) = (flow.id, flow.choice.get());
                worker.tasks.spawn(move |_| async move {
                    let answer = future.await;
                    if let Some(association) = side.associations.borrow_mut().get(index)
                        && association.flow.id == id
                    {
                        association.looking = false;
                        // For the next datagram: answers to the last one may be on their way.
                        association.news = Some((choice, answer));
                    }
                });
            }
        }
    }

    /// Goes on with another target than the one that is down.
    fn leave(
        self: &Rc<Self>,
        worker: &Worker,
        endpoint: &LocalEndpoint,
        association: &mut Association,
        index: usize,
    ) {
        let flow = Rc::clone(&association.flow);
        let route = &flow.route;
        let down = flow.choice.get();
        let Some(choice) = route.pools[0].choose(flow.client.ip(), &[down], worker.now()) else {
            return;
        };
        let peers = match &route.targets[choice].remote {
            Remote::Addr(addr) => vec![*addr],
            Remote::Name { host, port } => match route.resolver.lookup(host) {
                Lookup::Ready(Ok(ips)) => with_port(&ips, *port),
                Lookup::Ready(Err(_)) => return,
                Lookup::Pending(future) => {
                    // Known when it is asked for again.
                    worker.tasks.spawn(move |_| async move {
                        let _ = future.await;
                    });
                    return;
                }
            },
        };
        if let Ok(leg) = self.try_leg(worker, route, &peers, || index) {
            flow.aim(choice);
            association.heard = None;
            association.blamed = None;
            let former = association.set_leg(leg);
            self.close_leg(worker, endpoint, former);
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
                    association.flow.target().text
                );
                notice(worker, endpoint, refusal_of(&error).name(), &text);
            }
        }
    }
}

pub fn open_socket(route: &Route, peer: &SocketAddr) -> io::Result<Fd> {
    open_from(&route.through, route.plan.interface.as_deref(), peer)
}

/// A socket to send to this address from.
pub fn open_from(through: &Through, interface: Option<&str>, peer: &SocketAddr) -> io::Result<Fd> {
    let source = source_for(through, peer)?;
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
    if let Some(device) = interface {
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
