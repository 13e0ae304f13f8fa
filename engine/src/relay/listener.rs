//! Taking connections in.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::access;
use super::endpoint::LocalEndpoint;
use super::tcp;
use crate::flow::counters::add;
use crate::flow::reason::Refusal;
use crate::net::fd::Fd;
use crate::net::reserve::Claim;
use crate::net::socket;
use crate::runtime::{LISTENER, Owner, Source, WatchId, Worker, ready};

/// Connections taken at one call, when many wait.
const MOST_AT_ONCE: u32 = 32;
/// How long to leave the queue alone when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);
/// Flows that a worker may have more than the idlest before it passes connections on.
const SLACK: u32 = 2;

/// The listening socket of an endpoint on one worker. All workers watch the same socket; the kernel
/// wakes one of them (EPOLLEXCLUSIVE).
pub struct Listener {
    worker: Weak<Worker>,
    endpoint: Weak<LocalEndpoint>,
    fd: RawFd,
    watch: Cell<Option<WatchId>>,
    /// How many to take at the next call: doubles while calls follow each other turn by turn, so
    /// that a lone connection costs one accept and not a second that fails.
    burst: Cell<u32>,
    last_turn: Cell<u64>,
}

impl Listener {
    pub fn start(worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>) -> io::Result<()> {
        let Some(fd) = endpoint.shared.tcp_fd() else {
            return Ok(());
        };
        let listener = Rc::new(Self {
            worker: Rc::downgrade(worker),
            endpoint: Rc::downgrade(endpoint),
            fd,
            watch: Cell::new(None),
            burst: Cell::new(1),
            last_turn: Cell::new(0),
        });
        listener.watch(worker)?;
        *endpoint.listener.borrow_mut() = Some(listener);
        Ok(())
    }

    /// Stops watching; the socket itself belongs to the endpoint.
    pub fn stop(&self) {
        if let (Some(worker), Some(watch)) = (self.worker.upgrade(), self.watch.take()) {
            worker.reactor.unwatch(self.fd, watch);
        }
    }

    fn watch(self: &Rc<Self>, worker: &Worker) -> io::Result<()> {
        let owner = Owner::Source(Rc::clone(self) as Rc<dyn Source>, 0);
        self.watch
            .set(Some(worker.reactor.watch(self.fd, LISTENER, owner)?));
        Ok(())
    }

    fn accept(self: &Rc<Self>, worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>) {
        let turn = worker.turns();
        let burst = if self.last_turn.replace(turn) + 1 == turn {
            (self.burst.get() * 2).min(MOST_AT_ONCE)
        } else {
            1
        };
        self.burst.set(burst);
        for _ in 0..burst {
            match socket::accept(self.fd) {
                Ok((fd, client)) => take(worker, endpoint, fd, client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.burst.set(1);
                    return;
                }
                Err(error) if socket::is_exhausted(&error) => {
                    self.failed(worker, endpoint, &error);
                    self.pause(worker);
                    return;
                }
                // The connection that was waiting is gone (ECONNABORTED, or an error of its own
                // that accept passes on); the next one may be well.
                Err(error) => self.failed(worker, endpoint, &error),
            }
        }
    }

    fn failed(&self, worker: &Worker, endpoint: &LocalEndpoint, error: &io::Error) {
        add(&endpoint.tcp.errors, 1);
        worker.shared.events.notice(
            endpoint.shared.group.id,
            &endpoint.route().plan.id,
            "accept_failed",
            format!("can't accept a connection: {error}"),
        );
    }

    /// A level-triggered queue that can't be emptied would spin.
    fn pause(self: &Rc<Self>, worker: &Worker) {
        self.stop();
        self.burst.set(1);
        let owner = Owner::Source(Rc::clone(self) as Rc<dyn Source>, 0);
        worker.timers.arm(worker.now() + PAUSE, owner);
    }
}

impl Source for Listener {
    fn ready(self: Rc<Self>, _: u64, readiness: u8) {
        let (Some(worker), Some(endpoint)) = (self.worker.upgrade(), self.endpoint.upgrade())
        else {
            return;
        };
        if endpoint.closed.get() {
            return;
        }
        if readiness & ready::TIMER != 0
            && self.watch.get().is_none()
            && let Err(error) = self.watch(&worker)
        {
            self.failed(&worker, &endpoint, &error);
            self.pause(&worker);
            return;
        }
        self.accept(&worker, &endpoint);
    }
}

/// Takes what still waits in the queue of a listener that is about to close.
pub fn empty_queue(worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>) {
    let Some(listener) = endpoint.shared.tcp_fd() else {
        return;
    };
    while let Ok((fd, client)) = socket::accept(listener) {
        take(worker, endpoint, fd, client);
    }
}

/// Limits first, then the flow begins, here or on a worker with less to do.
fn take(worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>, fd: Fd, client: SocketAddr) {
    // A flow needs another descriptor for its target: without one it would only wait in vain.
    let Some(claim) = Claim::beside(&fd) else {
        return refuse(worker, endpoint, &fd, client, Refusal::Descriptors);
    };
    let now = worker.now();
    let route = endpoint.route();
    // Behind a PROXY header, who the client is turns out later.
    let ip = (!access::is_announced(&route)).then(|| client.ip());
    if ip.is_some_and(|ip| !access::is_allowed(&route, ip)) {
        return refuse(worker, endpoint, &fd, client, Refusal::Denied);
    }
    let group = &endpoint.shared.group;
    if endpoint.shared.rates.is_spent() {
        return refuse(worker, endpoint, &fd, client, Refusal::Quota);
    }
    let passes = endpoint
        .shared
        .gate
        .admit(ip, now)
        .map_err(|over| over.refusal(false))
        .and_then(|own| match group.gate.admit(ip, now) {
            Ok(overall) => Ok(vec![own, overall]),
            Err(over) => Err(over.refusal(true)),
        });
    let passes = match passes {
        Ok(passes) => passes,
        Err(refusal) => return refuse(worker, endpoint, &fd, client, refusal),
    };
    let admitted = tcp::Admitted {
        fd,
        client,
        passes,
        claim,
    };
    match idler(worker) {
        None => tcp::begin(worker, endpoint, admitted),
        Some(other) => pass_on(worker, endpoint, other, admitted),
    }
}

fn refuse(
    worker: &Worker,
    endpoint: &LocalEndpoint,
    fd: &Fd,
    client: SocketAddr,
    refusal: Refusal,
) {
    endpoint.tcp.refuse(refusal);
    socket::reset_on_close(fd);
    worker.shared.events.notice(
        endpoint.shared.group.id,
        &endpoint.route().plan.id,
        refusal.name(),
        match refusal {
            Refusal::Denied => format!("refused {client}: the access lists don't let it in"),
            Refusal::Quota => format!("refused {client}: the quota is used up"),
            _ => format!("refused {client}: over the limit {}", refusal.name()),
        },
    );
}

/// A worker with clearly fewer flows than this one.
fn idler(worker: &Worker) -> Option<usize> {
    let loads = &worker.shared.loads;
    let mine = loads[worker.index].get();
    let (least, load) = loads
        .iter()
        .map(crate::shared::Load::get)
        .enumerate()
        .min_by_key(|(_, load)| *load)?;
    let slack = SLACK.max(load / 8);
    (least != worker.index && mine >= load + slack).then_some(least)
}

fn pass_on(
    worker: &Rc<Worker>,
    endpoint: &Rc<LocalEndpoint>,
    other: usize,
    admitted: tcp::Admitted,
) {
    let handle = endpoint.shared.handle;
    let shared = Arc::clone(&worker.shared);
    // Counted at once, or a burst would all go to the same one.
    shared.loads[other].expect_one();
    let Some(inbox) = shared.inbox(other) else {
        return;
    };
    let (endpoint, route) = (Arc::clone(&endpoint.shared), endpoint.route());
    // Not delivered only when the engine ends, which closes the connection.
    inbox.call(move |there| {
        if endpoint.group.is_closed() {
            return;
        }
        let local = there.endpoints.get(handle).unwrap_or_else(|| {
            let closed = endpoint.is_closed();
            let local = LocalEndpoint::new(endpoint, route);
            there.endpoints.insert(Rc::clone(&local));
            // Otherwise the word to serve it is still on its way here.
            if closed {
                there.endpoints.close(handle);
            }
            local
        });
        tcp::begin(there, &local, admitted);
    });
}
