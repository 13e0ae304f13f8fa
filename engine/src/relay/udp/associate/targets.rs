//! Where a client's datagrams may go: each target is asked about once, and what was answered is
//! remembered for as many as there is room for. Pure.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::flow::reason::Refusal;
use crate::relay::udp::recency::Recency;

/// A target that was denied is asked about again after so long: its name may have an address now.
pub const DENIED_FOR: Duration = Duration::from_secs(10);

/// How much is kept for one association.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub targets: usize,
    /// Of them, those that wait for a decision.
    pub questions: usize,
    /// Datagrams, and their bytes, that wait for decisions.
    pub held: usize,
    pub held_bytes: usize,
}

/// What is known of a target.
#[derive(Debug)]
pub enum Standing {
    /// The owner was asked by this text, and these datagrams wait for its answer.
    Asked {
        text: Box<str>,
        held: Vec<Box<[u8]>>,
    },
    Allowed(SocketAddr),
    Denied {
        why: Refusal,
        until: Instant,
    },
}

struct Target {
    /// As the client writes it.
    address: Box<[u8]>,
    standing: Standing,
}

pub struct Targets {
    bounds: Bounds,
    all: Slab<Target>,
    by_address: HashMap<Box<[u8]>, usize>,
    /// Who may answer, and how many targets that is.
    peers: HashMap<SocketAddr, usize>,
    recency: Recency,
    asked: usize,
    held: usize,
    held_bytes: usize,
}

impl Targets {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            all: Slab::new(),
            by_address: HashMap::new(),
            peers: HashMap::new(),
            recency: Recency::default(),
            asked: 0,
            held: 0,
            held_bytes: 0,
        }
    }

    /// The number of the target that the client writes so, which is used now.
    pub fn find(&mut self, address: &[u8], now: Instant) -> Option<usize> {
        let index = *self.by_address.get(address)?;
        if let Some(Standing::Denied { until, .. }) = self.standing(index)
            && *until <= now
        {
            self.remove(index);
            return None;
        }
        self.recency.touch(index);
        Some(index)
    }

    pub fn standing(&self, index: usize) -> Option<&Standing> {
        self.all.get(index).map(|target| &target.standing)
    }

    /// Whether there is room for one more question.
    pub fn may_ask(&self) -> bool {
        self.asked < self.bounds.questions
    }

    /// Adds a target that the owner is asked about. The one used longest ago may have to go, but
    /// none whose answer is awaited.
    pub fn ask(&mut self, address: &[u8], text: &str) -> Option<usize> {
        if !self.may_ask() || !self.make_room() {
            return None;
        }
        let index = self.all.insert(Target {
            address: address.into(),
            standing: Standing::Asked {
                text: text.into(),
                held: Vec::new(),
            },
        });
        self.by_address.insert(address.into(), index);
        self.recency.add(index);
        self.asked += 1;
        Some(index)
    }

    /// Keeps a datagram until the target's answer is there; false when there is no room.
    pub fn hold(&mut self, index: usize, payload: &[u8]) -> bool {
        if self.held >= self.bounds.held || self.held_bytes + payload.len() > self.bounds.held_bytes
        {
            return false;
        }
        let Some(Standing::Asked { held, .. }) =
            self.all.get_mut(index).map(|target| &mut target.standing)
        else {
            return false;
        };
        held.push(payload.into());
        self.held += 1;
        self.held_bytes += payload.len();
        true
    }

    /// Whether the owner was asked about a target by this text.
    pub fn await_answer(&self, text: &str) -> bool {
        self.all.iter().any(|(_, target)| match &target.standing {
            Standing::Asked { text: of, .. } => **of == *text,
            _ => false,
        })
    }

    /// The owner's answer for targets of this text: an address, or why not. What waited for it is
    /// returned.
    pub fn settle(
        &mut self,
        text: &str,
        answer: Result<SocketAddr, Refusal>,
        now: Instant,
    ) -> Vec<Box<[u8]>> {
        let mut waited = Vec::new();
        for (_, target) in &mut self.all {
            let Standing::Asked { text: of, held } = &mut target.standing else {
                continue;
            };
            if **of != *text {
                continue;
            }
            self.asked -= 1;
            self.held -= held.len();
            self.held_bytes -= held.iter().map(|payload| payload.len()).sum::<usize>();
            waited.append(held);
            target.standing = match answer {
                Ok(peer) => {
                    *self.peers.entry(peer).or_default() += 1;
                    Standing::Allowed(peer)
                }
                Err(why) => Standing::Denied {
                    why,
                    until: now + DENIED_FOR,
                },
            };
        }
        waited
    }

    /// Whether one of the targets is at this address.
    pub fn are_at(&self, peer: &SocketAddr) -> bool {
        self.peers.contains_key(peer)
    }

    fn make_room(&mut self) -> bool {
        // No more than these can be awaited.
        for _ in 0..=self.asked {
            if self.all.len() < self.bounds.targets {
                return true;
            }
            let Some(oldest) = self.recency.oldest() else {
                return false;
            };
            match self.standing(oldest) {
                Some(Standing::Asked { .. }) => self.recency.touch(oldest),
                _ => self.remove(oldest),
            }
        }
        self.all.len() < self.bounds.targets
    }

    /// Takes out a target whose answer is not awaited.
    fn remove(&mut self, index: usize) {
        let Some(target) = self.all.try_remove(index) else {
            return;
        };
        self.by_address.remove(&target.address);
        self.recency.remove(index);
        if let Standing::Allowed(peer) = target.standing
            && let Some(count) = self.peers.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                self.peers.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        targets: 3,
        questions: 2,
        held: 2,
        held_bytes: 10,
    };

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// Targets that were allowed in this order, at these ports.
    fn allowed(ports: &[u16]) -> (Targets, Instant) {
        let (mut targets, now) = (Targets::new(BOUNDS), Instant::now());
        for port in ports {
            let text = port.to_string();
            assert!(targets.ask(text.as_bytes(), &text).is_some());
            assert!(targets.settle(&text, Ok(peer(*port)), now).is_empty());
        }
        (targets, now)
    }

    #[test]
    fn the_target_used_longest_ago_goes_and_with_it_the_right_to_answer() {
        let (mut targets, now) = allowed(&[1, 2, 3]);
        assert!(targets.find(b"1", now).is_some());
        assert!(targets.ask(b"4", "4").is_some());
        assert_eq!(targets.find(b"2", now), None);
        assert!(!targets.are_at(&peer(2)));
        assert!(targets.are_at(&peer(1)) && targets.are_at(&peer(3)));
    }

    #[test]
    fn an_address_may_answer_while_any_target_is_there() {
        let (mut targets, now) = (Targets::new(BOUNDS), Instant::now());
        for name in ["a", "b"] {
            targets.ask(name.as_bytes(), name);
            targets.settle(name, Ok(peer(7)), now);
        }
        for name in ["c", "d"] {
            targets.ask(name.as_bytes(), name);
            targets.settle(name, Ok(peer(8)), now);
        }
        assert_eq!(targets.find(b"a", now), None);
        assert!(targets.are_at(&peer(7)));
        targets.ask(b"e", "e");
        assert!(!targets.are_at(&peer(7)));
    }

    #[test]
    fn questions_have_a_bound_and_are_not_forgotten() {
        let mut targets = Targets::new(BOUNDS);
        assert!(targets.ask(b"1", "1").is_some() && targets.ask(b"2", "2").is_some());
        assert_eq!(targets.ask(b"3", "3"), None);
        let now = Instant::now();
        targets.settle("2", Ok(peer(2)), now);
        for port in 3..100_u16 {
            let text = port.to_string();
            assert!(targets.ask(text.as_bytes(), &text).is_some());
            targets.settle(&text, Ok(peer(port)), now);
            assert!(targets.all.len() <= BOUNDS.targets);
        }
        assert!(matches!(
            targets
                .find(b"1", now)
                .and_then(|index| targets.standing(index)),
            Some(Standing::Asked { .. })
        ));
        assert_eq!(targets.peers.len(), 2);
    }

    #[test]
    fn nothing_is_asked_where_there_is_room_for_no_more_than_questions() {
        let mut targets = Targets::new(Bounds {
            targets: 1,
            ..BOUNDS
        });
        assert!(targets.ask(b"1", "1").is_some());
        assert!(targets.may_ask());
        assert_eq!(targets.ask(b"2", "2"), None);
    }

    #[test]
    fn datagrams_wait_up_to_their_bounds() {
        let mut targets = Targets::new(BOUNDS);
        let one = targets.ask(b"1", "1").expect("room");
        let two = targets.ask(b"2", "2").expect("room");
        assert!(!targets.hold(one, &[0; 11]));
        assert!(targets.hold(one, &[1; 6]));
        assert!(!targets.hold(two, &[2; 5]), "bytes");
        assert!(targets.hold(two, &[2; 4]));
        assert!(!targets.hold(one, &[]), "datagrams");
        let now = Instant::now();
        assert_eq!(
            targets.settle("1", Ok(peer(1)), now),
            [vec![1; 6].into_boxed_slice()]
        );
        assert!(targets.hold(two, &[2; 6]));
        assert_eq!(targets.settle("2", Err(Refusal::Denied), now).len(), 2);
        assert_eq!((targets.held, targets.held_bytes, targets.asked), (0, 0, 0));
        assert!(!targets.hold(two, &[]), "nothing waits any more");
    }

    #[test]
    fn a_denial_is_remembered_for_a_while() {
        let (mut targets, now) = (Targets::new(BOUNDS), Instant::now());
        targets.ask(b"1", "1");
        targets.settle("1", Err(Refusal::Denied), now);
        let later = now + DENIED_FOR;
        assert!(
            targets
                .find(b"1", later - Duration::from_nanos(1))
                .is_some()
        );
        assert_eq!(targets.find(b"1", later), None);
        assert!(targets.ask(b"1", "1").is_some());
    }
}
