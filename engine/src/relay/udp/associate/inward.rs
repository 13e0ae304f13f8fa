//! From the client to its targets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use serde_json::json;

use super::port::Port;
use super::targets::{Standing, Targets};
use super::{Associate, Live, family, largest_after, refusal_of};
use crate::desk::reports::Report;
use crate::flow::counters::add;
use crate::flow::ending::Side;
use crate::flow::reason::Refusal;
use crate::net::addr::{RawAddr, unmapped};
use crate::net::udp::{Arrival, Fate, Inbound, Outbound};
use crate::relay::udp::Buffers;
use crate::relay::udp::train::{Train, packets};
use crate::runtime::Worker;
use crate::transport::socks_udp;

/// What was gathered for targets of one family.
#[derive(Default)]
struct Gathered {
    family: usize,
    train: Option<(usize, Train)>,
}

impl Associate {
    pub(super) fn from_client(self: &Rc<Self>, worker: &Rc<Worker>, readiness: u8) {
        let mut live = self.live.borrow_mut();
        let mut shared = worker.datagrams.0.borrow_mut();
        let (Some(live), Some(Buffers { up, out, .. })) = (&mut *live, &mut *shared) else {
            return;
        };
        let Live {
            inward,
            outward,
            targets,
            client,
        } = live;
        up.clear();
        let back = self.flow.packets_down.get();
        inward.receive(worker, readiness, back, up);
        let counted = &self.flow.endpoint.udp;
        let mut gathered = Gathered::default();
        let mut last: Option<(&[u8], usize)> = None;
        for slot in 0..up.used() {
            let arrival = up.arrival(slot);
            let count = packets(arrival.len, arrival.segment) as u64;
            let Some(sender) = self.sender(arrival, client.map(|(client, _)| client)) else {
                counted.refused.add_many(Refusal::Denied as usize, count);
                continue;
            };
            if let Err(refusal) = self.flow.admits(worker, Side::Client, arrival.len) {
                counted.refused.add_many(refusal as usize, count);
                continue;
            }
            let bytes = up.bytes(slot);
            for offset in (0..bytes.len().max(1)).step_by(arrival.segment.max(1)) {
                let end = bytes.len().min(offset + arrival.segment);
                let datagram = &bytes[offset..end];
                let Some((address, header)) = socks_udp::split(datagram) else {
                    counted.refuse(Refusal::Malformed);
                    continue;
                };
                let payload = &datagram[header..];
                let index = match last {
                    Some((same, index)) if same == address => index,
                    _ => match self.target(targets, address, worker.now()) {
                        Ok(index) => index,
                        Err(refusal) => {
                            // Somebody may have gone for another.
                            last = None;
                            counted.refuse(refusal);
                            continue;
                        }
                    },
                };
                last = Some((address, index));
                // Only who speaks the protocol is the client.
                *client = Some((sender, arrival.local));
                match targets.standing(index) {
                    Some(Standing::Allowed(peer)) => {
                        let peer = *peer;
                        let family = family(&peer);
                        if family != gathered.family {
                            self.forward(worker, outward, &gathered, up, out);
                            gathered = Gathered {
                                family,
                                train: None,
                            };
                        }
                        let largest = outward[family].as_ref().map_or(0, |port| port.largest);
                        gathered.add(
                            out,
                            slot,
                            (offset + header, payload.len()),
                            index,
                            &peer,
                            largest,
                        );
                    }
                    Some(Standing::Asked { .. }) => {
                        self.flow.moved.set(worker.now());
                        if !targets.hold(index, payload) {
                            counted.refuse(Refusal::Undecided);
                        }
                    }
                    Some(Standing::Denied { why, .. }) => counted.refuse(*why),
                    None => {}
                }
            }
        }
        self.forward(worker, outward, &gathered, up, out);
        up.clear();
    }

    /// The client, if the datagram is from it: nobody else's is taken.
    fn sender(&self, arrival: &Arrival, client: Option<SocketAddr>) -> Option<SocketAddr> {
        let sender = arrival.sender?;
        let known = match (client, self.port) {
            (Some(client), _) => sender.port() == client.port(),
            (None, Some(port)) => sender.port() == port,
            // No answer could be sent to port 0.
            (None, None) => sender.port() != 0,
        };
        (known && unmapped(sender.ip()) == self.ip).then_some(sender)
    }

    /// The number of the target that the client means. A new one is asked about.
    fn target(
        &self,
        targets: &mut Targets,
        address: &[u8],
        now: Instant,
    ) -> Result<usize, Refusal> {
        if let Some(index) = targets.find(address, now) {
            return Ok(index);
        }
        let text = socks_udp::destination(address).ok_or(Refusal::Malformed)?;
        let reports = self.flow.terms.as_ref().map(|terms| &terms.reports);
        let reports = reports
            .filter(|reports| !reports.is_full())
            .ok_or(Refusal::Undecided)?;
        let index = targets.ask(address, &text).ok_or(Refusal::Undecided)?;
        reports.put(Report {
            handle: self.flow.id,
            leg: None,
            kind: "asks",
            text: json!({"target": text}).to_string(),
        });
        Ok(index)
    }

    fn forward(
        &self,
        worker: &Worker,
        outward: &mut [Option<Port>; 2],
        gathered: &Gathered,
        up: &Inbound,
        out: &mut Outbound,
    ) {
        let Some(port) = &mut outward[gathered.family] else {
            return;
        };
        if out.is_empty() {
            return;
        }
        let (fd, largest) = (port.raw(), &mut port.largest);
        let counted = &self.flow.endpoint.udp;
        out.send(fd, up, |_, fate| match fate {
            Fate::Sent { bytes, packets } => {
                self.flow.moved_up(bytes, worker.now());
                add(&self.flow.packets_up, packets as u64);
                add(&counted.packets_up, packets as u64);
            }
            Fate::Lost { packets, error } => {
                let why = refusal_of(error);
                counted.refused.add_many(why as usize, packets as u64);
            }
            Fate::NoTrain { segment, error } => *largest = largest_after(segment, error),
        });
    }
}

impl Gathered {
    /// Adds the part of a slot that is for a target, to the train before it if it may.
    fn add(
        &mut self,
        out: &mut Outbound,
        slot: usize,
        (offset, len): (usize, usize),
        target: usize,
        peer: &SocketAddr,
        largest: usize,
    ) {
        let follows = match &mut self.train {
            Some((of, train)) => *of == target && train.extend(len, len, largest),
            None => false,
        };
        if !follows {
            out.begin(&RawAddr::from(*peer), None, 0);
            self.train = Some((target, Train::start(len, len)));
        }
        out.add(slot, offset, len, len, 1);
    }
}
