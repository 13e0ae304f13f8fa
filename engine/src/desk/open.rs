//! A leg that is open to the owner: what moves between its queues and its socket.

use std::io;
use std::task::Poll;

use super::leg::{Leg, Phase, Remains, State, Trouble};
use super::lifted::Lifted;
use crate::runtime::Worker;
use crate::runtime::io::Io;
use crate::transport::tls::Tls;
use crate::transport::{Plain, Stream};

/// Bytes that a leg moves before others get their turn.
const TURN: usize = 256 * 1024;

pub struct Open {
    pub wire: Wire,
    /// Taken from the owner's queue and not yet accepted by the wire.
    sending: Vec<u8>,
    sent: usize,
    said_end: bool,
}

/// What a leg speaks through.
pub enum Wire {
    Plain(Plain),
    Tls(Box<Tls>),
}

impl Wire {
    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Plain(plain) => plain,
            Self::Tls(tls) => &mut **tls,
        }
    }

    pub fn into_io(self) -> Io {
        match self {
            Self::Plain(plain) => plain.0,
            Self::Tls(tls) => tls.into_io(),
        }
    }

    fn lift(self) -> Lifted {
        match self {
            Self::Plain(plain) => Lifted::Plain(plain.0.into_fd()),
            Self::Tls(tls) => {
                let (io, parts) = tls.take_apart();
                Lifted::Tls(io.into_fd(), Box::new(parts))
            }
        }
    }
}

impl Open {
    pub fn new(wire: Wire) -> Self {
        Self {
            wire,
            sending: Vec::new(),
            sent: 0,
            said_end: false,
        }
    }

    pub fn is_empty(&self, state: &State) -> bool {
        self.sending.is_empty() && state.outgoing.is_empty()
    }

    /// Moves what can be moved; whether there is more to do after others had their turn.
    pub fn turn(&mut self, worker: &Worker, leg: &Leg) -> bool {
        if let Err(error) = self.send(leg) {
            let trouble = Trouble::of(&error, self.is_wrapped());
            let mut state = leg.lock();
            state.broken = Some(trouble);
            state.outgoing = Vec::new();
            state.queued = 0;
            state.unflushed = false;
            leg.tell(state);
            self.sending = Vec::new();
        }
        self.receive(worker, leg)
    }

    fn send(&mut self, leg: &Leg) -> io::Result<()> {
        loop {
            let mut state = leg.lock();
            if self.sending.is_empty() {
                self.take(&mut state);
            }
            let finish = state.finished && !self.said_end && state.broken.is_none();
            drop(state);
            if self.sending.is_empty() {
                let flushed = match finish {
                    true => self.wire.stream().end(),
                    false => self.wire.stream().flush(),
                };
                match flushed {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(done) => done?,
                }
                self.said_end |= finish;
                let mut state = leg.lock();
                if state.unflushed {
                    state.unflushed = false;
                    leg.tell(state);
                }
                return Ok(());
            }
            while self.sent < self.sending.len() {
                let accepted = match self.wire.stream().write(&self.sending[self.sent..]) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(accepted) => accepted?,
                };
                self.sent += accepted;
                let mut state = leg.lock();
                state.queued -= accepted;
                state.unflushed = true;
                leg.tell(state);
            }
            self.sending = Vec::new();
            self.sent = 0;
        }
    }

    /// Takes what the owner has given.
    pub fn take(&mut self, state: &mut State) {
        match self.sending.is_empty() {
            true => {
                self.sending = std::mem::take(&mut state.outgoing);
                self.sent = 0;
            }
            false => self.sending.append(&mut state.outgoing),
        }
    }

    fn receive(&mut self, worker: &Worker, leg: &Leg) -> bool {
        let mut scratch = worker.scratch.borrow_mut();
        let mut turn = 0;
        while turn < TURN {
            let room = leg.lock().room().min(scratch.len());
            if room == 0 {
                return false;
            }
            let read = match self.wire.stream().read(&mut scratch[..room]) {
                Poll::Pending => return false,
                Poll::Ready(read) => read,
            };
            let mut state = leg.lock();
            match read {
                Ok(0) => state.end = Some(Ok(())),
                Ok(count) => {
                    turn += count;
                    state.incoming.extend(&scratch[..count]);
                }
                Err(error) => state.end = Some(Err(Trouble::of(&error, self.is_wrapped()))),
            }
            leg.tell(state);
        }
        true
    }

    fn is_wrapped(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    /// Says what is left to say and our end, and hears the peer out; whether that is done.
    pub fn part(&mut self, worker: &Worker) -> bool {
        while self.sent < self.sending.len() {
            match self.wire.stream().write(&self.sending[self.sent..]) {
                Poll::Pending => return false,
                Poll::Ready(Ok(accepted)) => self.sent += accepted,
                Poll::Ready(Err(_)) => return true,
            }
        }
        if !self.said_end {
            match self.wire.stream().end() {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => self.said_end = true,
                Poll::Ready(Err(_)) => return true,
            }
        }
        // Closing with unread bytes would reset what the peer still reads.
        let mut scratch = worker.scratch.borrow_mut();
        for _ in 0..TURN / scratch.len() {
            match self.wire.stream().read(&mut scratch) {
                Poll::Pending => return false,
                Poll::Ready(Ok(0) | Err(_)) => return true,
                Poll::Ready(Ok(_)) => {}
            }
        }
        worker.tasks.wake_current();
        false
    }

    pub fn lift(mut self, state: &mut State) -> Remains {
        self.take(state);
        state.phase = Phase::Gone;
        Remains {
            leg: self.wire.lift(),
            incoming: std::mem::take(&mut state.incoming).into(),
            outgoing: self.sending.split_off(self.sent),
        }
    }
}
