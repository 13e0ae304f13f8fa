//! How a flow comes to its end: what each direction has seen, and what follows from both.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::reason::Reason;
use super::table::{Flow, State};
use crate::runtime::{Sleep, Worker};

/// How long a sender may go on talking to nobody, while the other side's last words settle.
const SINK_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    Open,
    /// The end was read; what is carried goes first.
    Ending,
    /// The end was passed on.
    Done,
    /// The receiving side is gone; its own last bytes may still be on their way to the other side.
    Broken,
    /// The receiving side is gone after it had sent its end: what the sender still says is thrown
    /// away, because closing with unread bytes would reset the answer it is reading.
    Sink,
}

/// What one direction has come to.
pub struct Track {
    /// The side that this direction reads from.
    pub from: Side,
    pub state: LaneState,
    error: Option<io::Error>,
}

/// What a lane must know of the one in the other direction when it reads the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Other {
    Open,
    Done,
    Reset,
}

/// What moving the bytes of one direction came to.
pub enum Step {
    /// Nothing to do until the kernel says so.
    Blocked,
    /// There is more to do, after others had their turn.
    Busy,
    ReadFailed(io::Error),
}

/// How a flow's movement came to its end.
pub struct End {
    pub reason: Reason,
    pub error: Option<io::Error>,
    pub client: Farewell,
    pub target: Farewell,
}

/// What becomes of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    Close,
    Reset,
    /// Reset, but what was already written may still reach the peer first.
    FlushAndReset,
}

/// What follows for the flow.
pub enum Outcome {
    /// Wait for the next event.
    Idle,
    /// Go on after others had their turn.
    Busy,
    Ended(End),
}

/// Which sides are gone for good, whether or not there is anything to read or write that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    pub client: bool,
    pub target: bool,
}

/// The course of both directions together, with the time that they may rest.
pub struct Course {
    first_end: Option<Side>,
    half_closed: Option<Instant>,
    /// Since when one side's words are thrown away, and whose.
    sinking: Option<(Instant, Side)>,
    watchdog: Sleep,
}

impl Track {
    pub fn new(from: Side) -> Self {
        Self {
            from,
            state: LaneState::Open,
            error: None,
        }
    }

    /// Counts bytes that went in this direction.
    pub fn moved(&self, flow: &Flow, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        match self.from {
            Side::Client => flow.moved_up(count, now),
            Side::Target => flow.moved_down(count, now),
        }
    }

    /// The receiving side can't be written to any more.
    pub fn break_off(&mut self, error: io::Error) {
        self.state = LaneState::Broken;
        self.error = Some(error);
    }

    pub fn as_seen_by_other(&self) -> Other {
        match (self.state, &self.error) {
            (LaneState::Done | LaneState::Sink, _) => Other::Done,
            // EPIPE says that the peer had sent its end before it went; anything else cut it off.
            (LaneState::Broken, Some(error)) if error.raw_os_error() != Some(libc::EPIPE) => {
                Other::Reset
            }
            _ => Other::Open,
        }
    }

    /// The end was read.
    fn has_ended(&self) -> bool {
        !matches!(self.state, LaneState::Open | LaneState::Broken)
    }

    /// Nothing more will be written to the receiving side.
    fn is_over(&self) -> bool {
        !matches!(self.state, LaneState::Open | LaneState::Ending)
    }
}

impl Course {
    pub fn new(worker: &Rc<Worker>, flow: &Flow) -> Self {
        let idle = flow.idle_timeout();
        Self {
            first_end: None,
            half_closed: None,
            sinking: None,
            watchdog: Sleep::new(worker, idle.map(|limit| worker.now() + limit)),
        }
    }

    /// Draws the conclusions from what both directions came to.
    pub fn conclude(
        &mut self,
        up: (&mut Track, Step),
        down: (&mut Track, Step),
        gone: Gone,
        worker: &Worker,
        flow: &Flow,
    ) -> Outcome {
        let (up, up_step) = up;
        let (down, down_step) = down;
        let mut busy = false;
        for (step, side) in [(up_step, Side::Client), (down_step, Side::Target)] {
            match step {
                Step::Blocked => {}
                Step::Busy => busy = true,
                Step::ReadFailed(error) => return Outcome::Ended(failed(side, error)),
            }
        }
        let sank = self.sinking.is_some();
        if let Some(end) = self.settle(up, down, gone, worker, flow) {
            return Outcome::Ended(end);
        }
        if self.sinking.is_some() && !sank {
            self.watchdog.reset(self.deadline(flow));
            // The new sink has not looked yet at what is there to throw away, and a sender that
            // waits for us to read it makes no event.
            busy = true;
        }
        if self.is_overdue(worker.now(), flow) {
            return Outcome::Ended(self.timed_out(gone));
        }
        if busy { Outcome::Busy } else { Outcome::Idle }
    }

    fn settle(
        &mut self,
        up: &mut Track,
        down: &mut Track,
        gone: Gone,
        worker: &Worker,
        flow: &Flow,
    ) -> Option<End> {
        use LaneState::{Broken, Done, Sink};
        for track in [&*up, &*down] {
            if self.first_end.is_none() && track.has_ended() {
                self.first_end = Some(track.from);
            }
        }
        if self.half_closed.is_none() && (up.is_over() || down.is_over()) {
            self.half_closed = Some(worker.now());
            flow.state.set(State::HalfClosed);
            self.watchdog.reset(self.deadline(flow));
        }
        // The other side may not read what is carried for it, and nothing else would notice.
        if self.half_closed.is_none() && (gone.client || gone.target) {
            self.half_closed = Some(worker.now());
            self.watchdog.reset(self.deadline(flow));
        }
        match (up.state, down.state) {
            (Done, Done) => {
                let reason = match self.first_end {
                    Some(Side::Target) => Reason::TargetClosed,
                    _ => Reason::ClientClosed,
                };
                Some(End::closed(reason))
            }
            // The target had said its last word before it went: let the client finish reading.
            (Broken, Done) => {
                up.state = Sink;
                self.sinking = Some((worker.now(), Side::Client));
                None
            }
            // The client is gone before it heard the answer: nobody is left to work for.
            (Done, _) if gone.client => Some(failed(Side::Client, reset_by_peer())),
            (Done, Broken) => {
                down.state = Sink;
                self.sinking = Some((worker.now(), Side::Target));
                None
            }
            (Broken, Broken) => {
                let error = up.error.take().unwrap_or_else(reset_by_peer);
                Some(failed(Side::Target, error))
            }
            _ => None,
        }
    }

    fn deadline(&self, flow: &Flow) -> Option<Instant> {
        let (since, limit) = match self.half_closed {
            Some(at) => (at.max(flow.moved.get()), flow.linger()),
            None => (flow.moved.get(), flow.idle_timeout()),
        };
        let deadline = limit.map(|limit: Duration| since + limit);
        let sunk = self.sinking.map(|(at, _)| at + SINK_LIMIT);
        deadline.into_iter().chain(sunk).min()
    }

    fn is_overdue(&mut self, now: Instant, flow: &Flow) -> bool {
        if !self.watchdog.is_due() {
            return false;
        }
        let deadline = self.deadline(flow);
        if deadline.is_some_and(|at| at <= now) {
            return true;
        }
        // Something moved since the watch was set.
        self.watchdog.reset(deadline);
        self.watchdog.is_due();
        false
    }

    fn timed_out(&self, gone: Gone) -> End {
        let reason = if self.sinking.is_some() {
            Reason::LingerTimeout
        } else if gone.client {
            Reason::ClientReset
        } else if gone.target {
            Reason::TargetReset
        } else if self.half_closed.is_some() {
            Reason::LingerTimeout
        } else {
            Reason::IdleTimeout
        };
        // Who still speaks to nobody may not have read all that it was told.
        let farewell = |side| match self.sinking {
            Some((_, speaker)) if speaker == side => Farewell::FlushAndReset,
            _ => Farewell::Reset,
        };
        End {
            reason,
            error: None,
            client: farewell(Side::Client),
            target: farewell(Side::Target),
        }
    }
}

impl End {
    fn closed(reason: Reason) -> Self {
        Self {
            reason,
            error: None,
            client: Farewell::Close,
            target: Farewell::Close,
        }
    }
}

/// `side` is gone; the other side learns of it after what it was already given.
fn failed(side: Side, error: io::Error) -> End {
    let (reason, client, target) = match side {
        Side::Client => (
            Reason::ClientReset,
            Farewell::Reset,
            Farewell::FlushAndReset,
        ),
        Side::Target => (
            Reason::TargetReset,
            Farewell::FlushAndReset,
            Farewell::Reset,
        ),
    };
    let (reason, error) = match error.raw_os_error() {
        Some(libc::ECONNRESET | libc::EPIPE) => (reason, None),
        // Lost rather than reset: keepalive, or the network, gave it up.
        Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => (reason, Some(error)),
        _ => (Reason::Error, Some(error)),
    };
    End {
        reason,
        error,
        client,
        target,
    }
}

pub fn reset_by_peer() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNRESET)
}
