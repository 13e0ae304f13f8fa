//! Streams that carry the datagrams of one association each: unwrapped here, and sent to the target
//! through a socket of their own.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::task::Poll;

use super::endpoint::{PlanError, Remote};
use super::reach::{Aim, client_ip, missed, reached};
use super::road::{Leg, Stop, Walk};
use super::udp::{self, BACKLOG, READS, lost, write};
use crate::flow::counters::add;
use crate::flow::ending::Side;
use crate::flow::reason::{Reason, Refusal};
use crate::flow::table::State;
use crate::net::addr::RawAddr;
use crate::net::{socket, udp as datagrams};
use crate::plan::EndpointPlan;
use crate::resolve::Lookup;
use crate::runtime::io::Io;
use crate::runtime::{Sleep, ready};
use crate::transport::Stream;
use crate::transport::uot::{Backlog, Unpacker};

/// Datagrams taken from the target before others get their turn.
const ANSWERS: usize = 64;
/// ICMP errors taken at one call.
const MOST_ERRORS: usize = 64;

/// Whether streams of clients are taken apart here. Where the target's leg carries datagrams in the
/// same way, they pass as they are.
pub fn unwraps(plan: &EndpointPlan) -> bool {
    carries_in(plan) && !carries_out(plan)
}

/// Whether UDP goes to the target in streams.
pub fn carries_out(plan: &EndpointPlan) -> bool {
    plan.remote_transport.as_ref().is_some_and(|leg| leg.uot)
}

fn carries_in(plan: &EndpointPlan) -> bool {
    plan.listen_transport.as_ref().is_some_and(|leg| leg.uot)
}

/// Refuses what can't be meant.
pub fn check(plan: &EndpointPlan) -> Result<(), PlanError> {
    let wrong = |field, why: &str| PlanError {
        field,
        value: "true".to_owned(),
        why: why.to_owned(),
    };
    if carries_in(plan) && plan.tcp.is_none() {
        let field = "listen_transport.uot";
        return Err(wrong(field, "datagrams come in TCP, which is off"));
    }
    if carries_out(plan) && !carries_in(plan) {
        let field = "remote_transport.uot";
        if plan.tcp.is_some() {
            return Err(wrong(field, "carries UDP alone, and TCP is on"));
        }
        if plan.udp.is_none() {
            return Err(wrong(field, "carries UDP, which is off"));
        }
    }
    Ok(())
}

/// Carries the datagrams of a stream until it ends, or nothing passes any more.
pub async fn serve(walk: &Walk, client: Leg, aim: Aim) -> Stop {
    let (socket, peer) = match open(walk, aim).await {
        Ok(opened) => opened,
        Err(stop) => return stop,
    };
    let flow = &walk.flow;
    let now = walk.worker.now();
    flow.peer.set(Some(peer));
    flow.connected.set(Some(now));
    flow.moved.set(now);
    flow.target_fd.set(socket.as_raw_fd());
    flow.state.set(State::Open);
    let timeout = flow.route.udp_timeout;
    let mut exchange = Exchange {
        walk,
        client: client.into_stream(),
        socket,
        to: RawAddr::from(peer),
        unpacker: Unpacker::default(),
        backlog: Backlog::new(BACKLOG),
        idle: Sleep::new(&walk.worker, timeout.map(|timeout| now + timeout)),
    };
    let stop = poll_fn(|_| exchange.poll()).await;
    flow.target_fd.set(-1);
    if matches!(stop.reason, Reason::Expired | Reason::ClientClosed) {
        let _ = exchange.client.end();
        exchange.client.io().doom(false);
    }
    stop
}

/// A socket for the target, and where that is.
async fn open(walk: &Walk, aim: Aim) -> Result<(Io, SocketAddr), Stop> {
    let Walk { worker, flow, task } = walk;
    let route = &flow.route;
    let choice = match aim {
        Aim::Pool(pool) => route.pools[pool].choose(client_ip(flow), &[], worker.now()),
        Aim::Target(target) => Some(target),
    };
    let Some(choice) = choice else {
        return Err(Stop::new(Reason::ConnectFailed, "there is no remote"));
    };
    flow.aim(choice);
    let peers = match &flow.target().remote {
        Remote::Addr(addr) => vec![*addr],
        Remote::Name { host, port } => {
            flow.state.set(State::Resolving);
            let answer = match route.resolver.lookup(host) {
                Lookup::Ready(answer) => answer,
                Lookup::Pending(future) => future.await,
            };
            let ips = answer.map_err(|error| {
                let why = error.to_string();
                missed(worker, flow, &why);
                Stop::new(Reason::ResolveFailed, why)
            })?;
            ips.iter().map(|ip| SocketAddr::new(*ip, *port)).collect()
        }
    };
    let mut last = "the name has no address".to_owned();
    for peer in peers {
        match udp::open_socket(route, &peer).and_then(|fd| Io::new(worker, fd, *task)) {
            Ok(io) => return Ok((io, peer)),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Stop::new(Reason::ConnectFailed, last))
}

struct Exchange<'a> {
    walk: &'a Walk,
    client: Box<dyn Stream>,
    socket: Io,
    to: RawAddr,
    unpacker: Unpacker,
    backlog: Backlog,
    idle: Sleep,
}

impl Exchange<'_> {
    fn poll(&mut self) -> Poll<Stop> {
        if self.socket.is(ready::ERROR) {
            self.socket.clear(ready::ERROR);
            let errors = datagrams::take_errors(self.socket.as_raw_fd(), MOST_ERRORS);
            add(&self.walk.flow.endpoint.udp.errors, errors as u64);
        }
        let up = match self.up() {
            Ok(busy) => busy,
            Err(stop) => return Poll::Ready(stop),
        };
        let down = self.down();
        if let Err(error) = write(&mut self.backlog, &mut *self.client) {
            return Poll::Ready(lost(error, Reason::ClientReset));
        }
        if up || down {
            self.walk.worker.tasks.wake_current();
        }
        if self.is_idle() {
            return Poll::Ready(Stop::bare(Reason::Expired));
        }
        Poll::Pending
    }

    /// From the client; whether there may be more.
    fn up(&mut self) -> Result<bool, Stop> {
        let Walk { worker, flow, .. } = self.walk;
        let counted = &flow.endpoint.udp;
        let mut scratch = worker.scratch.borrow_mut();
        for _ in 0..READS {
            let count = match self.client.read(&mut scratch) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Err(Stop::bare(Reason::ClientClosed)),
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Err(lost(error, Reason::ClientReset)),
            };
            let (fd, to) = (self.socket.as_raw_fd(), &self.to);
            self.unpacker.feed(&scratch[..count], |datagram| {
                if let Err(refusal) = flow.admits(worker, Side::Client, datagram.len()) {
                    return counted.refuse(refusal);
                }
                match datagrams::send_to(fd, to, datagram) {
                    Ok(()) => {
                        flow.moved_up(datagram.len(), worker.now());
                        add(&flow.packets_up, 1);
                    }
                    Err(error) => counted.refuse(udp::refusal_of(&error)),
                }
            });
        }
        Ok(true)
    }

    /// From the target; whether there may be more.
    fn down(&mut self) -> bool {
        let Walk { worker, flow, .. } = self.walk;
        let counted = &flow.endpoint.udp;
        let mut scratch = worker.scratch.borrow_mut();
        for _ in 0..ANSWERS {
            if !self.socket.is(ready::READ) {
                return false;
            }
            let count = match socket::recv(&self.socket, &mut scratch) {
                Ok(Some(count)) => count,
                Ok(None) => {
                    self.socket.clear(ready::READ);
                    return false;
                }
                // What the kernel says of an earlier datagram; the call has taken it away.
                Err(_) => continue,
            };
            if flow.packets_down.get() == 0 {
                reached(worker, flow);
            }
            let datagram = &scratch[..count];
            if let Err(refusal) = flow.admits(worker, Side::Target, count) {
                counted.refuse(refusal);
            } else if self.backlog.add(datagram) {
                flow.moved_down(count, worker.now());
                add(&flow.packets_down, 1);
            } else {
                counted.refuse(Refusal::SendFailed);
            }
        }
        true
    }

    fn is_idle(&mut self) -> bool {
        let Some(timeout) = self.walk.flow.route.udp_timeout else {
            return false;
        };
        if !self.idle.is_due() {
            return false;
        }
        let until = self.walk.flow.moved.get() + timeout;
        if until <= self.walk.worker.now() {
            return true;
        }
        self.idle.reset(Some(until));
        self.idle.is_due()
    }
}
