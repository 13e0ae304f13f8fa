//! One client's association with the target, and all those of an endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::pace::Pace;
use super::recency::Recency;
use super::tunnel::Tunnel;
use crate::flow::limits::Gate;
use crate::flow::table::Flow;
use crate::net::addr::RawAddr;
use crate::net::fd::Fd;
use crate::net::udp::{Local, MAX_BYTES};
use crate::relay::reach::{missed, reached};
use crate::resolve::Answer;
use crate::runtime::{WatchId, Worker};
use crate::transport::proxy::Addresses;

/// An association counts against its target at most so often.
const BLAME_EVERY: Duration = Duration::from_millis(500);

/// What tells associations apart: the client, and the address of ours that it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub client: SocketAddr,
    /// Known when the endpoint listens on all addresses.
    pub local: Option<Local>,
}

/// The side of the target.
pub enum Leg {
    /// The target's name is being resolved; these wait for it.
    Waiting(Vec<Box<[u8]>>),
    /// Not connected, so that whoever the target passes our address to can answer too.
    Open {
        fd: Fd,
        watch: WatchId,
        peer: SocketAddr,
        to: RawAddr,
    },
    /// Datagrams go through a stream.
    Stream(Rc<Tunnel>),
}

/// How many datagrams to ask for at once: grows while the socket proves to hold many, so that a
/// lone datagram doesn't cost a second, failing look into the queue.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    size: u8,
    full: u8,
}

/// Full receives in a row before more is asked for.
const FULL_IN_A_ROW: u8 = 4;

impl Burst {
    pub const MOST: usize = 64;

    pub fn size(self) -> usize {
        usize::from(self.size)
    }

    pub fn received(&mut self, count: usize) {
        if count < self.size() {
            self.full = 0;
            self.size = count.max(1).next_power_of_two() as u8;
            return;
        }
        self.full += 1;
        if self.full >= FULL_IN_A_ROW {
            self.full = 0;
            self.size = (self.size() * 2).min(Self::MOST) as u8;
        }
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self { size: 1, full: 0 }
    }
}

/// A place among the associations that a gate lets in, given back when dropped.
pub struct Seat(Arc<Gate>);

impl Seat {
    pub fn take(gate: &Arc<Gate>) -> Option<Self> {
        gate.admit_association().then(|| Self(Arc::clone(gate)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.release_association();
    }
}

pub struct Association {
    pub key: Key,
    pub flow: Rc<Flow>,
    pub leg: Leg,
    /// When the target's name was last looked up.
    pub looked_up: Instant,
    /// Such a look is under way.
    pub looking: bool,
    /// What it found for the target of this number.
    pub news: Option<(usize, Answer)>,
    /// The largest datagrams that may travel in trains to the target, and to the client.
    pub largest_up: usize,
    pub largest_down: usize,
    pub burst: Burst,
    pub pace: Pace,
    /// Its socket was prepared for much: it may give trains.
    pub grown: bool,
    /// When the target last answered, and when it last proved to be unreachable.
    pub heard: Option<Instant>,
    pub blamed: Option<Instant>,
    /// The header that its first datagram takes along, until it is sent.
    pub greeting: Option<Addresses>,
    /// Its place among the runs of the batch that is being forwarded.
    pub run: Option<usize>,
    _seats: [Seat; 2],
}

impl Association {
    pub fn new(key: Key, flow: Rc<Flow>, leg: Leg, now: Instant, seats: [Seat; 2]) -> Self {
        let mut association = Self {
            key,
            flow,
            leg: Leg::Waiting(Vec::new()),
            looked_up: now,
            looking: false,
            news: None,
            largest_up: MAX_BYTES,
            largest_down: MAX_BYTES,
            burst: Burst::default(),
            pace: Pace::new(now),
            grown: false,
            heard: None,
            blamed: None,
            greeting: None,
            run: None,
            _seats: seats,
        };
        association.set_leg(leg);
        association
    }

    /// The target has answered.
    pub fn answered(&mut self, worker: &Rc<Worker>) {
        if self.heard.is_none() || self.blamed.take().is_some() {
            reached(worker, &self.flow);
        }
        self.heard = Some(worker.now());
    }

    /// The target's host has said that nobody is there.
    pub fn unreachable(&mut self, worker: &Rc<Worker>) {
        let now = worker.now();
        // One that sends much hears it as often.
        if self.blamed.is_none_or(|blamed| now >= blamed + BLAME_EVERY) {
            self.blamed = Some(now);
            missed(worker, &self.flow, "port unreachable");
        }
    }

    /// Puts another leg in place; the former one is returned.
    pub fn set_leg(&mut self, leg: Leg) -> Leg {
        if let Leg::Open { fd, peer, .. } = &leg {
            self.flow.target_fd.set(fd.as_raw_fd());
            self.flow.peer.set(Some(*peer));
        }
        self.grown = false;
        std::mem::replace(&mut self.leg, leg)
    }
}

/// All associations of an endpoint, found by number or by key, in the order of their last use.
#[derive(Default)]
pub struct Associations {
    all: Slab<Association>,
    by_key: HashMap<Key, usize>,
    recency: Recency,
}

impl Associations {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn find(&self, key: &Key) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub fn get(&mut self, index: usize) -> Option<&mut Association> {
        self.all.get_mut(index)
    }

    /// The number that the next one will have.
    pub fn next_index(&self) -> usize {
        self.all.vacant_key()
    }

    pub fn add(&mut self, association: Association) -> usize {
        let key = association.key;
        let index = self.all.insert(association);
        self.by_key.insert(key, index);
        self.recency.add(index);
        index
    }

    pub fn remove(&mut self, index: usize) -> Option<Association> {
        let association = self.all.try_remove(index)?;
        self.by_key.remove(&association.key);
        self.recency.remove(index);
        if self.all.is_empty() {
            // A flood's room is given back.
            self.all = Slab::new();
            self.by_key = HashMap::new();
        }
        Some(association)
    }

    /// Something passed in either direction.
    pub fn touch(&mut self, index: usize, now: Instant) {
        if let Some(association) = self.all.get(index) {
            association.flow.moved.set(now);
            self.recency.touch(index);
        }
    }

    /// The one used longest ago, and when that was.
    pub fn oldest(&self) -> Option<(usize, Instant)> {
        let index = self.recency.oldest()?;
        Some((index, self.all.get(index)?.flow.moved.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_grows_on_proof_and_shrinks_at_once() {
        let mut burst = Burst::default();
        for _ in 0..FULL_IN_A_ROW {
            assert_eq!(burst.size(), 1);
            burst.received(1);
        }
        assert_eq!(burst.size(), 2);
        burst.received(1);
        assert_eq!(burst.size(), 1);
        for _ in 0..100 {
            burst.received(burst.size());
        }
        assert_eq!(burst.size(), Burst::MOST);
        burst.received(0);
        assert_eq!(burst.size(), 1);
        burst.received(1);
        assert_eq!(burst.size(), 1);
    }
}
