//! Listening for the owner: connections become legs, after the TLS handshake when there is one.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::held::{self, Beginning};
use super::leg::{Leg, Order, Phase, Shake, Trouble};
use super::legs::Legs;
use super::reports::Report;
use crate::net::fd::Fd;
use crate::net::reserve;
use crate::net::socket;
use crate::runtime::{LISTENER, Owner, Source, WatchId, Worker, ready};
use crate::transport::tls::acceptor::Acceptor;

/// Connections taken at one call, when many wait.
const MOST_AT_ONCE: u32 = 32;
/// How long to leave the queue alone when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket, as all threads see it.
pub struct Listener {
    pub handle: u64,
    /// The worker that watches it.
    pub worker: usize,
    pub local: Option<SocketAddr>,
    group: u32,
    closed: AtomicBool,
    legs: Arc<Legs>,
    tls: Option<Terms>,
    most: u32,
    /// Those that shake hands.
    guests: Mutex<HashMap<u64, Arc<Leg>>>,
    /// Connections of which the owner has not heard yet, handshakes included.
    waiting: AtomicU32,
    /// The kernel's queue is left alone until some were fetched.
    stalled: AtomicBool,
}

/// How guests shake hands.
pub struct Terms {
    pub acceptor: Arc<Acceptor>,
    pub limit: Option<Duration>,
    pub hello: bool,
}

/// A connection on its way to the owner.
pub struct Guest {
    listener: Arc<Listener>,
    peer: SocketAddr,
    local: Option<SocketAddr>,
    /// Of its leg.
    handle: u64,
    counted: bool,
}

impl Listener {
    pub fn new(
        handle: u64,
        worker: usize,
        group: u32,
        local: Option<SocketAddr>,
        legs: &Arc<Legs>,
        tls: Option<Terms>,
        most: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            handle,
            worker,
            local,
            group,
            closed: AtomicBool::new(false),
            legs: Arc::clone(legs),
            tls,
            most: most.max(1),
            guests: Mutex::default(),
            waiting: AtomicU32::new(0),
            stalled: AtomicBool::new(false),
        })
    }

    /// The owner has heard of a guest, or it is gone: there is room for another.
    pub fn one_less(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if self.stalled.swap(false, Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// Closes the socket, soon; `done` is dropped when it is.
    pub fn close(&self, done: impl Send + 'static) {
        self.closed.store(true, Ordering::SeqCst);
        let guests = std::mem::take(&mut *self.guests());
        for leg in guests.into_values() {
            leg.part(Order::Abort);
        }
        let handle = self.handle;
        let inbox = self.legs.shared.inbox(self.worker);
        inbox.map(|inbox| {
            inbox.call(move |worker| {
                nudge(worker, handle);
                drop(done);
            })
        });
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<u64, Arc<Leg>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn nudge(&self) {
        let handle = self.handle;
        let inbox = self.legs.shared.inbox(self.worker);
        inbox.map(|inbox| inbox.call(move |worker| nudge(worker, handle)));
    }

    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) >= self.most
    }

    fn notice(&self, worker: &Worker, code: &'static str, text: String) {
        let name = self.local.map(|addr| addr.to_string()).unwrap_or_default();
        worker.shared.events.notice(self.group, &name, code, text);
    }
}

fn nudge(worker: &Worker, handle: u64) {
    let watching = worker.watching.borrow().get(&handle).cloned();
    if let Some(watching) = watching {
        watching.ready(0, 0);
    }
}

/// The socket on the worker that watches it.
struct Watching {
    worker: Weak<Worker>,
    listener: Arc<Listener>,
    fd: Fd,
    watch: Cell<Option<WatchId>>,
}

impl Watching {
    fn watch(self: &Rc<Self>, worker: &Worker) -> io::Result<()> {
        let owner = Owner::Source(Rc::clone(self) as Rc<dyn Source>, 0);
        let fd = self.fd.as_raw_fd();
        self.watch
            .set(Some(worker.reactor.watch(fd, LISTENER, owner)?));
        Ok(())
    }

    fn unwatch(&self, worker: &Worker) {
        if let Some(watch) = self.watch.take() {
            worker.reactor.unwatch(self.fd.as_raw_fd(), watch);
        }
    }

    /// Nothing is accepted for a while.
    fn pause(self: &Rc<Self>, worker: &Worker) {
        self.unwatch(worker);
        let owner = Owner::Source(Rc::clone(self) as Rc<dyn Source>, 0);
        worker.timers.arm(worker.now() + PAUSE, owner);
    }

    fn accept(self: &Rc<Self>, worker: &Rc<Worker>) {
        let listener = &self.listener;
        for _ in 0..MOST_AT_ONCE {
            if listener.is_full() || listener.legs.reports.is_full() {
                self.stall(worker);
                return;
            }
            match socket::accept(self.fd.as_raw_fd()) {
                Ok((fd, peer)) => listener.take(worker, fd, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let text = format!("can't accept a connection: {error}");
                    listener.notice(worker, "accept_failed", text);
                    if socket::is_exhausted(&error) {
                        return self.pause(worker);
                    }
                }
            }
        }
    }

    /// A level-triggered queue that isn't emptied would spin.
    fn stall(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.unwatch(worker);
        let listener = &self.listener;
        listener.stalled.store(true, Ordering::SeqCst);
        // Fetched in between: nobody else says so again. What fills the queue of reports may be
        // others', who don't know of us.
        let others = !listener.is_full();
        if others && listener.stalled.swap(false, Ordering::SeqCst) {
            self.pause(worker);
        }
    }
}

impl Source for Watching {
    fn ready(self: Rc<Self>, _: u64, readiness: u8) {
        let Some(worker) = self.worker.upgrade() else {
            return;
        };
        if self.listener.is_closed() {
            self.unwatch(&worker);
            worker.watching.borrow_mut().remove(&self.listener.handle);
            return;
        }
        if readiness & ready::READ == 0 && self.watch.get().is_none() {
            if let Err(error) = self.watch(&worker) {
                let text = format!("can't watch for connections: {error}");
                self.listener.notice(&worker, "accept_failed", text);
                self.pause(&worker);
            }
            return;
        }
        self.accept(&worker);
    }
}

impl Listener {
    /// The worker watches the socket from now on.
    pub fn start(self: &Arc<Self>, worker: &Rc<Worker>, fd: Fd) -> io::Result<()> {
        let watching = Rc::new(Watching {
            worker: Rc::downgrade(worker),
            listener: Arc::clone(self),
            fd,
            watch: Cell::new(None),
        });
        watching.watch(worker)?;
        worker
            .watching
            .borrow_mut()
            .insert(self.handle, watching as Rc<dyn Source>);
        Ok(())
    }

    fn take(self: &Arc<Self>, worker: &Rc<Worker>, fd: Fd, peer: SocketAddr) {
        if reserve::is_reserved(&fd) {
            socket::reset_on_close(&fd);
            let text = format!("refused {peer}: descriptors are needed for those that are here");
            return self.notice(worker, "descriptors", text);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let shared = &self.legs.shared;
        let handle = shared.next_leg();
        let guest = Guest {
            listener: Arc::clone(self),
            peer,
            local: socket::local_addr(fd.as_raw_fd()),
            handle,
            counted: true,
        };
        if self.tls.is_none() {
            let leg = Leg::new(handle, &self.legs.reports, Phase::Parked(fd), Vec::new());
            return guest.introduce(&leg, None);
        }
        let carrier = shared.idlest();
        let leg = Leg::new(handle, &self.legs.reports, Phase::Busy(carrier), Vec::new());
        leg.lock().wrapped = true;
        self.guests().insert(handle, Arc::clone(&leg));
        if self.is_closed() {
            return;
        }
        let Some(inbox) = shared.inbox(carrier) else {
            return;
        };
        inbox.call(move |there| held::begin(there, leg, Beginning::Guest(fd, guest)));
    }
}

impl Guest {
    pub fn shake(&self) -> Option<(Shake, Option<Duration>)> {
        let tls = self.listener.tls.as_ref()?;
        let shake = Shake::Accept {
            acceptor: Arc::clone(&tls.acceptor),
            hello: tls.hello,
        };
        Some((shake, tls.limit))
    }

    /// The owner hears of it, and has the leg from now on.
    pub fn introduce(mut self, leg: &Arc<Leg>, facts: Option<Value>) {
        let listener = &self.listener;
        let text = json!({
            "leg": leg.handle,
            "peer": self.peer,
            "local": self.local,
            "tls": facts,
        });
        if listener.is_closed() || !listener.legs.insert(leg) {
            leg.part(Order::Abort);
            return;
        }
        self.counted = false;
        listener.legs.reports.put(Report {
            handle: listener.handle,
            leg: Some(leg.handle),
            kind: "accepted",
            text: text.to_string(),
        });
    }

    /// Its handshake came to nothing.
    pub fn turn_away(self, worker: &Worker, trouble: &Trouble) {
        let text = format!("can't carry {}: {}", self.peer, trouble.text);
        self.listener
            .notice(worker, "client_handshake_failed", text);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.listener.guests().remove(&self.handle);
        if self.counted {
            self.listener.one_less();
        }
    }
}
