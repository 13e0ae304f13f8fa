//! From targets, and from whoever else they passed our address to, back to clients.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::association::{Burst, Leg};
use super::pace::PAUSE;
use super::train::packets;
use super::upward::load;
use super::{Buffers, FLUSH, MOST_ERRORS, Paced, UdpEndpoint, largest_after, refusal_of};
use crate::flow::counters::add;
use crate::flow::ending::Side;
use crate::flow::table::Flow;
use crate::net::addr::RawAddr;
use crate::net::udp::{self, Fate, Local};
use crate::relay::endpoint::LocalEndpoint;
use crate::runtime::{Source, Worker, ready};

/// Datagrams in one receive that prove an association to be busy, which then gets them in trains
/// and has a larger buffer.
pub const BUSY: usize = 8;
pub const BUSY_BUFFER: usize = 2 << 20;

/// What one association's socket gave.
struct Answer {
    flow: Rc<Flow>,
    association: usize,
    client: SocketAddr,
    local: Option<Local>,
    largest: usize,
    first: usize,
    count: usize,
}

/// Answers that wait until the worker has called everybody, so that they go in one system call.
#[derive(Default)]
pub struct Answers {
    list: Vec<Answer>,
    /// The endpoint that they leave by.
    side: Option<Rc<UdpEndpoint>>,
}

impl UdpEndpoint {
    /// Something came to an association's socket.
    pub(super) fn answered(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        endpoint: &Rc<LocalEndpoint>,
        index: usize,
        readiness: u8,
    ) {
        let mut shared = worker.datagrams.0.borrow_mut();
        let Some(buffers) = &mut *shared else {
            return;
        };
        let others = buffers.answers.side.as_ref();
        if others.is_some_and(|side| !Rc::ptr_eq(side, self))
            || buffers.down.slots() - buffers.down.used() < Burst::MOST
        {
            send(worker, buffers);
        }
        let associations = &mut *self.associations.borrow_mut();
        let Some(association) = associations.get(index) else {
            return;
        };
        let Leg::Open { fd, watch, .. } = &association.leg else {
            return;
        };
        let (fd, watch) = (fd.as_raw_fd(), *watch);
        if readiness & ready::ERROR != 0 {
            let errors = udp::take_errors(fd, MOST_ERRORS);
            add(&endpoint.udp.errors, errors as u64);
            if errors > 0 {
                association.unreachable(worker);
            }
        }
        let before = association.pace;
        if before.is_bulk() && readiness & ready::TIMER == 0 {
            return self.call_after(worker, index as u64, PAUSE);
        }
        let first = buffers.down.used();
        // In bulk, as much as has gathered.
        let most = if before.is_bulk() {
            Burst::MOST
        } else {
            association.burst.size()
        };
        let received = if most == 1 && !association.grown {
            buffers.down.receive_one(fd)
        } else {
            buffers.down.receive(fd, most)
        };
        // Nothing there, or an error that this call has taken away; the reactor calls again if
        // there is more.
        let count = received.unwrap_or(0);
        association.burst.received(count);
        let back = association.flow.packets_up.get();
        association.pace.note(worker.now(), count, back);
        let socket = Paced {
            fd,
            watch,
            token: index as u64,
            full: count == most,
        };
        self.set_pace(worker, socket, before, association.pace);
        if count == 0 {
            return;
        }
        association.answered(worker);
        if count >= BUSY && !association.grown {
            association.grown = true;
            udp::receive_buffer(&fd, BUSY_BUFFER);
            udp::receive_trains(&fd);
        }
        let slots = first..first + count;
        let bytes = slots
            .clone()
            .map(|slot| buffers.down.arrival(slot).len)
            .sum();
        if let Err(refusal) = association.flow.admits(worker, Side::Target, bytes) {
            let dropped: usize = slots
                .map(|slot| buffers.down.arrival(slot))
                .map(|arrival| packets(arrival.len, arrival.segment))
                .sum();
            let refused = &endpoint.udp.refused;
            return refused.add_many(refusal as usize, dropped as u64);
        }
        buffers.answers.list.push(Answer {
            flow: Rc::clone(&association.flow),
            association: index,
            client: association.key.client,
            local: association.key.local,
            largest: association.largest_down,
            first,
            count,
        });
        if buffers.answers.side.is_none() {
            buffers.answers.side = Some(Rc::clone(self));
            worker.flush_later(Rc::clone(self) as Rc<dyn Source>, FLUSH);
        }
        associations.touch(index, worker.now());
    }

    /// Sends what was gathered in this turn of the worker.
    pub(super) fn flush(&self, worker: &Worker) {
        if let Some(buffers) = &mut *worker.datagrams.0.borrow_mut() {
            send(worker, buffers);
        }
    }
}

/// Sends the gathered answers through the listening socket of the endpoint that they leave by.
fn send(worker: &Worker, buffers: &mut Buffers) {
    let Buffers {
        down, answers, out, ..
    } = buffers;
    let list = &mut answers.list;
    if let Some(side) = answers.side.take()
        && let Some(endpoint) = side.endpoint.upgrade()
    {
        for (tag, answer) in list.iter().enumerate() {
            let to = RawAddr::from(answer.client);
            let slots = answer.first..answer.first + answer.count;
            load(out, down, slots, &to, answer.local, answer.largest, tag);
        }
        let now = worker.now();
        out.send(side.fd, down, |tag, fate| {
            let answer = &list[tag];
            match fate {
                Fate::Sent { bytes, packets } => {
                    answer.flow.moved_down(bytes, now);
                    add(&answer.flow.packets_down, packets as u64);
                    add(&endpoint.udp.packets_down, packets as u64);
                }
                Fate::Lost { packets, error } => {
                    let refused = &endpoint.udp.refused;
                    refused.add_many(refusal_of(error) as usize, packets as u64);
                }
                Fate::NoTrain { segment, error } => {
                    let largest = largest_after(segment, error);
                    side.shrink(answer.association, &answer.flow, largest);
                }
            }
        });
    }
    list.clear();
    down.clear();
}

impl UdpEndpoint {
    /// Trains to the client of this flow may have segments of at most `largest` bytes.
    fn shrink(&self, index: usize, flow: &Flow, largest: usize) {
        if let Some(association) = self.associations.borrow_mut().get(index)
            && association.flow.id == flow.id
        {
            association.largest_down = largest;
        }
    }
}
