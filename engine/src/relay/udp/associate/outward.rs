//! From targets back to the client. Who is not a target is not heard.

use std::rc::Rc;

use super::{Associate, Live, largest_after, refusal_of};
use crate::flow::counters::add;
use crate::flow::ending::Side;
use crate::flow::reason::Refusal;
use crate::net::addr::RawAddr;
use crate::net::udp::{self, Fate};
use crate::relay::udp::train::{Train, packets};
use crate::relay::udp::{Buffers, MOST_ERRORS};
use crate::runtime::{Worker, ready};
use crate::transport::socks_udp::Header;

impl Associate {
    pub(super) fn from_targets(self: &Rc<Self>, worker: &Rc<Worker>, family: usize, readiness: u8) {
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
        let (Some(port), Some((client, local))) = (&mut outward[family], client) else {
            return;
        };
        let counted = &self.flow.endpoint.udp;
        if readiness & ready::ERROR != 0 {
            let errors = udp::take_errors(port.raw(), MOST_ERRORS);
            add(&counted.errors, errors as u64);
        }
        up.clear();
        port.receive(worker, readiness, self.flow.packets_up.get(), up);
        let to = RawAddr::from(*client);
        let mut train: Option<Train> = None;
        for slot in 0..up.used() {
            let arrival = *up.arrival(slot);
            let count = packets(arrival.len, arrival.segment) as u64;
            let Some(sender) = arrival.sender.filter(|sender| targets.are_at(sender)) else {
                counted.refused.add_many(Refusal::Denied as usize, count);
                continue;
            };
            if let Err(refusal) = self.flow.admits(worker, Side::Target, arrival.len) {
                counted.refused.add_many(refusal as usize, count);
                continue;
            }
            let header = Header::of(&sender);
            let header = header.bytes();
            for offset in (0..arrival.len.max(1)).step_by(arrival.segment.max(1)) {
                let len = arrival.segment.min(arrival.len - offset);
                let whole = header.len() + len;
                let follows = train
                    .as_mut()
                    .is_some_and(|train| train.extend(whole, whole, inward.largest));
                if !follows {
                    out.begin(&to, *local, header.len());
                    train = Some(Train::start(whole, whole));
                }
                out.add_own(header);
                out.add(slot, offset, len, whole, 1);
            }
        }
        let (fd, largest) = (inward.raw(), &mut inward.largest);
        out.send(fd, up, |header, fate| match fate {
            Fate::Sent { bytes, packets } => {
                self.flow.moved_down(bytes - header * packets, worker.now());
                add(&self.flow.packets_down, packets as u64);
                add(&counted.packets_down, packets as u64);
            }
            Fate::Lost { packets, error } => {
                let why = refusal_of(error);
                counted.refused.add_many(why as usize, packets as u64);
            }
            Fate::NoTrain { segment, error } => *largest = largest_after(segment, error),
        });
        up.clear();
    }
}
