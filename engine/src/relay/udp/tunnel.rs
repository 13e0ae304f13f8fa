//! Associations whose target is reached by a stream: each has one of its own, in which datagrams
//! travel behind their lengths.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use super::association::{Associations, Key, Leg};
use super::{UdpEndpoint, refusal_of};
use crate::flow::counters::add;
use crate::flow::ending::Side;
use crate::flow::reason::{Reason, Refusal};
use crate::flow::table::Flow;
use crate::net::addr::RawAddr;
use crate::net::udp;
use crate::relay::endpoint::LocalEndpoint;
use crate::relay::reach::{Aim, reach};
use crate::relay::road::{Stop, Walk, tell};
use crate::runtime::{TaskId, Worker};
use crate::transport::Stream;
use crate::transport::uot::{Backlog, Unpacker};

/// Bytes that may wait for the stream, in either direction of a stream.
pub const BACKLOG: usize = 256 * 1024;
/// Reads of a stream before others get their turn.
pub const READS: usize = 8;

/// What an association and the task that carries its datagrams know of each other.
pub struct Tunnel {
    backlog: RefCell<Backlog>,
    task: Cell<Option<TaskId>>,
    closed: Cell<bool>,
}

impl Tunnel {
    /// Gives a datagram to the stream, unless too many wait for it.
    pub fn send(&self, worker: &Worker, endpoint: &LocalEndpoint, flow: &Flow, datagram: &[u8]) {
        if !self.backlog.borrow_mut().add(datagram) {
            return endpoint.udp.refuse(Refusal::SendFailed);
        }
        flow.moved_up(datagram.len(), worker.now());
        add(&flow.packets_up, 1);
        add(&endpoint.udp.packets_up, 1);
        self.wake(worker);
    }

    /// The association has ended.
    pub fn close(&self, worker: &Worker) {
        self.closed.set(true);
        self.wake(worker);
    }

    fn wake(&self, worker: &Worker) {
        if let Some(task) = self.task.get() {
            worker.tasks.wake(task);
        }
    }
}

impl UdpEndpoint {
    /// A leg for an association that is about to be added.
    pub(super) fn tunnel() -> Leg {
        Leg::Stream(Rc::new(Tunnel {
            backlog: RefCell::new(Backlog::new(BACKLOG)),
            task: Cell::new(None),
            closed: Cell::new(false),
        }))
    }

    /// Connects the stream of an association, and carries what goes through it.
    pub(super) fn dig(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        associations: &mut Associations,
        index: usize,
    ) {
        let (Some(association), Some(endpoint)) =
            (associations.get(index), self.endpoint.upgrade())
        else {
            return;
        };
        let Leg::Stream(tunnel) = &association.leg else {
            return;
        };
        let carrier = Carrier {
            side: Rc::clone(self),
            worker: Rc::clone(worker),
            endpoint,
            tunnel: Rc::clone(tunnel),
            flow: Rc::clone(&association.flow),
            key: association.key,
            index,
        };
        worker.tasks.spawn(move |task| {
            carrier.tunnel.task.set(Some(task));
            carrier.carry(task)
        });
    }
}

struct Carrier {
    side: Rc<UdpEndpoint>,
    worker: Rc<Worker>,
    endpoint: Rc<LocalEndpoint>,
    tunnel: Rc<Tunnel>,
    flow: Rc<Flow>,
    key: Key,
    index: usize,
}

impl Carrier {
    async fn carry(self, task: TaskId) {
        let walk = Walk {
            worker: Rc::clone(&self.worker),
            flow: Rc::clone(&self.flow),
            task,
        };
        let reached = self.unless_closed(reach(&walk, None, Aim::Pool(0))).await;
        let mut stream = match reached {
            None => return,
            Some(Err(stop)) => return self.stopped(stop),
            Some(Ok(leg)) => leg.into_stream(),
        };
        let mut unpacker = Unpacker::default();
        let end = poll_fn(|_| self.pass(&mut *stream, &mut unpacker)).await;
        if let Some(stop) = end {
            self.stopped(stop);
        } else {
            // What does not fit any more is lost, as datagrams may be.
            let _ = stream.end();
            stream.io().doom(false);
        }
    }

    /// The result of `work`, or `None` when the association ends first.
    async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.tunnel.closed.get() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }

    fn stopped(&self, stop: Stop) {
        if self.tunnel.closed.get() {
            return;
        }
        if let Some(why) = &stop.detail {
            tell(&self.worker, &self.flow, stop.reason, why);
        }
        let detail = stop.detail.as_deref();
        let associations = &mut *self.side.associations.borrow_mut();
        let (worker, endpoint) = (&self.worker, &self.endpoint);
        self.side.end(
            worker,
            endpoint,
            associations,
            self.index,
            stop.reason,
            detail,
        );
    }

    /// Moves what can be moved now. `None` ends it because the association has ended.
    fn pass(&self, stream: &mut dyn Stream, unpacker: &mut Unpacker) -> Poll<Option<Stop>> {
        if self.tunnel.closed.get() {
            return Poll::Ready(None);
        }
        if let Err(error) = write(&mut self.tunnel.backlog.borrow_mut(), stream) {
            return Poll::Ready(Some(lost(error, Reason::TargetReset)));
        }
        let mut scratch = self.worker.scratch.borrow_mut();
        let to = RawAddr::from(self.key.client);
        for _ in 0..READS {
            let count = match stream.read(&mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Some(Stop::bare(Reason::TargetClosed))),
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Some(lost(error, Reason::TargetReset)));
                }
            };
            unpacker.feed(&scratch[..count], |datagram| {
                self.answer(&to, datagram);
            });
            let associations = &mut *self.side.associations.borrow_mut();
            associations.touch(self.index, self.worker.now());
        }
        self.worker.tasks.wake_current();
        Poll::Pending
    }

    fn answer(&self, to: &RawAddr, datagram: &[u8]) {
        let Self { flow, key, .. } = self;
        let counted = &self.endpoint.udp;
        if let Err(refusal) = flow.admits(&self.worker, Side::Target, datagram.len()) {
            return counted.refuse(refusal);
        }
        match udp::send_from(self.side.fd.as_raw_fd(), to, key.local, datagram) {
            Ok(()) => {
                flow.moved_down(datagram.len(), self.worker.now());
                add(&flow.packets_down, 1);
                add(&counted.packets_down, 1);
            }
            Err(error) => counted.refuse(refusal_of(&error)),
        }
    }
}

/// Writes what waits, as far as it goes.
pub fn write(backlog: &mut Backlog, stream: &mut dyn Stream) -> std::io::Result<()> {
    while !backlog.is_empty() {
        match stream.write(backlog.waiting()) {
            Poll::Pending => return Ok(()),
            Poll::Ready(count) => backlog.wrote(count?),
        }
    }
    match stream.flush() {
        Poll::Ready(Err(error)) => Err(error),
        _ => Ok(()),
    }
}

/// What the loss of a stream means for its flow.
pub fn lost(error: std::io::Error, reset: Reason) -> Stop {
    match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => Stop::bare(reset),
        _ => Stop::new(Reason::Error, error.to_string()),
    }
}
