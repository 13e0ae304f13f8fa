//! From clients to targets.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::association::{Associations, Key, Leg};
use super::greeting::send_one;
use super::pace::PAUSE;
use super::train::{Train, packets};
use super::{BATCH, Buffers, LISTENER, Paced, UdpEndpoint, largest_after, refusal_of};
use crate::flow::counters::add;
use crate::flow::ending::Side;
use crate::flow::reason::Refusal;
use crate::net::addr::RawAddr;
use crate::net::udp::{Fate, Inbound, Local, MAX_BYTES, MAX_SEGMENTS, Outbound};
use crate::relay::endpoint::LocalEndpoint;
use crate::runtime::{Worker, ready};

/// The slots of one batch that are for one association, in order.
struct Run {
    association: usize,
    first: usize,
    last: usize,
}

/// A batch sorted by association.
pub struct Forwards {
    runs: Vec<Run>,
    /// The slot that follows each in its run.
    next: Vec<usize>,
}

impl Forwards {
    pub fn new(slots: usize) -> Self {
        Self {
            runs: Vec::new(),
            next: vec![0; slots],
        }
    }

    fn add(&mut self, place: &mut Option<usize>, association: usize, slot: usize) {
        if let Some(run) = place.and_then(|place| self.runs.get_mut(place)) {
            self.next[run.last] = slot;
            run.last = slot;
        } else {
            *place = Some(self.runs.len());
            self.runs.push(Run {
                association,
                first: slot,
                last: slot,
            });
        }
    }

    fn slots(&self, run: &Run) -> impl Iterator<Item = usize> {
        let last = run.last;
        std::iter::successors(Some(run.first), move |slot| {
            (*slot != last).then(|| self.next[*slot])
        })
    }
}

impl UdpEndpoint {
    /// Something came to the listening socket.
    pub(super) fn arrived(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        endpoint: &Rc<LocalEndpoint>,
        readiness: u8,
    ) {
        let before = self.pace.get();
        if before.is_bulk() && readiness & ready::TIMER == 0 {
            return self.call_after(worker, LISTENER, PAUSE);
        }
        // Who took the socket over reads it.
        if self.closing.get() && endpoint.shared.udp_heir.is_lent() {
            return self.unwatch(worker);
        }
        let count = self.receive(worker, endpoint);
        let mut pace = before;
        pace.note(worker.now(), count, endpoint.udp.packets_down.get());
        self.pace.set(pace);
        if let Some(watch) = self.watch.get() {
            let socket = Paced {
                fd: self.fd,
                watch,
                token: LISTENER,
                full: count == BATCH,
            };
            self.set_pace(worker, socket, before, pace);
        }
    }

    /// Takes one batch from the listening socket and sends it on; how many receives it took.
    fn receive(self: &Rc<Self>, worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>) -> usize {
        let mut shared = worker.datagrams.0.borrow_mut();
        let Some(buffers) = &mut *shared else {
            return 0;
        };
        buffers.up.clear();
        // Nothing there, or an error of an earlier answer, which this call has taken away.
        if buffers.up.receive(self.fd, BATCH).is_err() {
            return 0;
        }
        let associations = &mut *self.associations.borrow_mut();
        let mut known: Option<(Key, usize)> = None;
        for slot in 0..buffers.up.used() {
            let arrival = *buffers.up.arrival(slot);
            let Some(client) = arrival.sender else {
                continue;
            };
            let key = Key {
                client,
                local: arrival.local,
            };
            let found = match known {
                Some((last, index)) if last == key => Some(index),
                _ => associations.find(&key),
            };
            let index = match found {
                Some(index) => index,
                None => {
                    // What was gathered goes first: one of those it is for may have to go.
                    self.forward(worker, endpoint, associations, buffers);
                    match self.open(worker, endpoint, associations, key) {
                        Ok(index) => index,
                        Err(refusal) => {
                            known = None;
                            let count = packets(arrival.len, arrival.segment);
                            endpoint
                                .udp
                                .refused
                                .add_many(refusal as usize, count as u64);
                            continue;
                        }
                    }
                }
            };
            known = Some((key, index));
            let Some(association) = associations.get(index) else {
                continue;
            };
            if let Err(refusal) = association.flow.admits(worker, Side::Client, arrival.len) {
                let count = packets(arrival.len, arrival.segment);
                let refused = &endpoint.udp.refused;
                refused.add_many(refusal as usize, count as u64);
                continue;
            }
            if association.greeting.is_some() && matches!(association.leg, Leg::Open { .. }) {
                let bytes = buffers.up.bytes(slot);
                for offset in (0..bytes.len().max(1)).step_by(arrival.segment.max(1)) {
                    let end = bytes.len().min(offset + arrival.segment);
                    send_one(worker, endpoint, association, &bytes[offset..end]);
                }
                associations.touch(index, worker.now());
                continue;
            }
            match &mut association.leg {
                Leg::Open { .. } => {
                    let forwards = &mut buffers.forwards;
                    forwards.add(&mut association.run, index, slot);
                }
                Leg::Waiting(held) => {
                    let bytes = buffers.up.bytes(slot);
                    for offset in (0..bytes.len().max(1)).step_by(arrival.segment.max(1)) {
                        let end = bytes.len().min(offset + arrival.segment);
                        if !self.hold(held, &bytes[offset..end]) {
                            endpoint.udp.refuse(Refusal::ResolveFailed);
                        }
                    }
                    associations.touch(index, worker.now());
                }
                Leg::Stream(tunnel) => {
                    let bytes = buffers.up.bytes(slot);
                    for offset in (0..bytes.len().max(1)).step_by(arrival.segment.max(1)) {
                        let end = bytes.len().min(offset + arrival.segment);
                        let datagram = &bytes[offset..end];
                        tunnel.send(worker, endpoint, &association.flow, datagram);
                    }
                    associations.touch(index, worker.now());
                }
            }
        }
        self.forward(worker, endpoint, associations, buffers);
        buffers.up.used()
    }

    /// Sends what was gathered, each association's datagrams in order and in trains.
    fn forward(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        endpoint: &Rc<LocalEndpoint>,
        associations: &mut Associations,
        buffers: &mut Buffers,
    ) {
        let Buffers {
            up, forwards, out, ..
        } = buffers;
        let now = worker.now();
        for run in &forwards.runs {
            associations.touch(run.association, now);
            let Some(association) = associations.get(run.association) else {
                continue;
            };
            association.run = None;
            self.follow(worker, endpoint, association, run.association);
            let Leg::Open { fd, to, .. } = &association.leg else {
                continue;
            };
            load(
                out,
                up,
                forwards.slots(run),
                to,
                None,
                association.largest_up,
                0,
            );
            let flow = &association.flow;
            let largest = &mut association.largest_up;
            out.send(fd.as_raw_fd(), up, |_, fate| match fate {
                Fate::Sent { bytes, packets } => {
                    flow.moved_up(bytes, now);
                    add(&flow.packets_up, packets as u64);
                    add(&endpoint.udp.packets_up, packets as u64);
                }
                Fate::Lost { packets, error } => {
                    let refused = &endpoint.udp.refused;
                    refused.add_many(refusal_of(error) as usize, packets as u64);
                }
                Fate::NoTrain { segment, error } => *largest = largest_after(segment, error),
            });
        }
        forwards.runs.clear();
    }
}

/// Loads slots into messages to `to`, as few as the rules for trains allow.
pub fn load(
    out: &mut Outbound,
    inbound: &Inbound,
    slots: impl Iterator<Item = usize>,
    to: &RawAddr,
    local: Option<Local>,
    largest: usize,
    tag: usize,
) {
    let mut train: Option<Train> = None;
    for slot in slots {
        let arrival = inbound.arrival(slot);
        let (len, segment) = (arrival.len, arrival.segment);
        if let Some(train) = &mut train
            && train.extend(len, segment, largest)
        {
            out.add(slot, 0, len, segment, packets(len, segment));
            continue;
        }
        // A received train may be longer than what may be sent.
        let most = if segment > largest {
            1
        } else {
            MAX_SEGMENTS.min(MAX_BYTES / segment.max(1)).max(1)
        };
        let mut offset = 0;
        loop {
            let part = (len - offset).min(most * segment);
            out.begin(to, local, tag);
            out.add(slot, offset, part, segment, packets(part, segment));
            offset += part;
            if offset >= len {
                train = (part == len).then(|| Train::start(len, segment));
                break;
            }
        }
    }
}
