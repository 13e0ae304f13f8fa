//! Moving bytes between the two legs of a TCP flow.
//!
//! Each direction is a lane. A lane starts with plain reads and writes through the worker's buffer;
//! when it proves to be bulk it moves to `splice` through a pipe borrowed for as long as bytes are
//! under way, and goes back when bursts become small. Between bursts a lane holds nothing.

use std::io;
use std::os::fd::AsRawFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::pipes::Pipe;
use super::reason::Reason;
use super::table::{Flow, State};
use crate::net::socket;
use crate::runtime::io::{Io, Read};
use crate::runtime::{Sleep, Worker, ready};

/// Bytes that a lane moves before others get their turn.
const COPY_TURN: usize = 256 * 1024;
const SPLICE_TURN: usize = 1024 * 1024;
/// Asked of one splice; the pipe's slots decide how much comes.
const SPLICE_ASK: usize = 1024 * 1024;
/// A burst below this counts against bulk.
const SMALL: usize = 16 * 1024;
/// Score at which a lane turns to splice. A full buffer counts twice.
const BULK: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
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

/// Bytes read and not yet written.
enum Carry {
    Nothing,
    Bytes { bytes: Box<[u8]>, sent: usize },
    Pipe { pipe: Pipe, left: usize },
}

struct Lane {
    from: Side,
    state: LaneState,
    carry: Carry,
    score: u8,
    may_splice: bool,
    delay: Delay,
    error: Option<io::Error>,
}

/// When the receiving socket is told not to delay small segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// Before its second write: the first one never waits, and many flows have no second.
    AfterFirst,
    Next,
    Off,
}

enum Step {
    /// Nothing to do until the kernel says so.
    Blocked,
    /// There is more to do, after others had their turn.
    Busy,
    ReadFailed(io::Error),
}

/// What a lane must know of the one in the other direction when it reads the end.
#[derive(Clone, Copy)]
enum Other {
    Open,
    Done,
    Reset,
}

/// How a pump came to its end.
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

pub struct Pump {
    pub client: Io,
    pub target: Io,
    up: Lane,
    down: Lane,
    first_end: Option<Side>,
    half_closed: Option<Instant>,
    watchdog: Sleep,
}

impl Pump {
    pub fn new(worker: &std::rc::Rc<Worker>, client: Io, target: Io, flow: &Flow) -> Self {
        let idle = flow.route.idle_timeout;
        Self {
            client,
            target,
            up: Lane::new(Side::Client),
            down: Lane::new(Side::Target),
            first_end: None,
            half_closed: None,
            watchdog: Sleep::new(worker, idle.map(|limit| worker.now() + limit)),
        }
    }

    pub fn poll(&mut self, worker: &Worker, flow: &Flow) -> Poll<End> {
        let other = self.down.as_seen_by_other();
        let up = self.up.run(&self.client, &self.target, other, worker, flow);
        let other = self.up.as_seen_by_other();
        let down = self
            .down
            .run(&self.target, &self.client, other, worker, flow);
        let mut busy = false;
        for (step, side) in [(up, Side::Client), (down, Side::Target)] {
            match step {
                Step::Blocked => {}
                Step::Busy => busy = true,
                Step::ReadFailed(error) => return Poll::Ready(self.failed(side, error)),
            }
        }
        if let Some(end) = self.settle(worker, flow) {
            return Poll::Ready(end);
        }
        if self.is_overdue(worker.now(), flow) {
            return Poll::Ready(self.timed_out());
        }
        if busy && let Some(task) = worker.tasks.current() {
            worker.tasks.wake(task);
        }
        Poll::Pending
    }

    /// Gives up what the lanes hold.
    pub fn release(&mut self, worker: &Worker) {
        self.up.release(worker);
        self.down.release(worker);
    }

    /// Draws the conclusions from the lanes' states.
    fn settle(&mut self, worker: &Worker, flow: &Flow) -> Option<End> {
        use LaneState::{Broken, Done, Sink};
        for lane in [&self.up, &self.down] {
            if self.first_end.is_none() && lane.has_ended() {
                self.first_end = Some(lane.from);
            }
        }
        if self.half_closed.is_none() && (self.up.is_over() || self.down.is_over()) {
            self.half_closed = Some(worker.now());
            flow.state.set(State::HalfClosed);
            self.watchdog.reset(self.deadline(flow));
        }
        match (self.up.state, self.down.state) {
            (Done, Done) => {
                let reason = match self.first_end {
                    Some(Side::Target) => Reason::TargetClosed,
                    _ => Reason::ClientClosed,
                };
                Some(End::closed(reason))
            }
            // The target had said its last word before it went: let the client finish reading.
            (Broken, Done) => {
                self.up.state = Sink;
                None
            }
            (Done, Broken) => {
                self.down.state = Sink;
                None
            }
            (Broken, Broken) => {
                let error = self.up.error.take();
                Some(self.failed(Side::Target, error.unwrap_or_else(reset_by_peer)))
            }
            _ => None,
        }
    }

    /// `side` is gone; the other side learns of it after what it was already given.
    fn failed(&mut self, side: Side, error: io::Error) -> End {
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
        let reason = match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => reason,
            _ => Reason::Error,
        };
        End {
            reason,
            error: (reason == Reason::Error).then_some(error),
            client,
            target,
        }
    }

    fn deadline(&self, flow: &Flow) -> Option<Instant> {
        // What a sink throws away is not counted as moved: no progress worth waiting for.
        let (since, limit) = match self.half_closed {
            Some(at) => (at.max(flow.moved.get()), flow.route.linger),
            None => (flow.moved.get(), flow.route.idle_timeout),
        };
        limit.map(|limit: Duration| since + limit)
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

    fn timed_out(&self) -> End {
        let reason = if self.half_closed.is_some() {
            Reason::LingerTimeout
        } else {
            Reason::IdleTimeout
        };
        End {
            reason,
            error: None,
            client: Farewell::Reset,
            target: Farewell::Reset,
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

impl Lane {
    fn new(from: Side) -> Self {
        Self {
            from,
            state: LaneState::Open,
            carry: Carry::Nothing,
            score: 0,
            may_splice: true,
            // The client's socket inherits it from the listener.
            delay: match from {
                Side::Client => Delay::AfterFirst,
                Side::Target => Delay::Off,
            },
            error: None,
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

    fn release(&mut self, worker: &Worker) {
        if let Carry::Pipe { pipe, .. } = std::mem::replace(&mut self.carry, Carry::Nothing) {
            worker.pipes.discard(pipe);
        }
    }

    fn as_seen_by_other(&self) -> Other {
        match (self.state, &self.error) {
            (LaneState::Done | LaneState::Sink, _) => Other::Done,
            // EPIPE says that the peer had sent its end before it went; anything else cut it off.
            (LaneState::Broken, Some(error)) if error.raw_os_error() != Some(libc::EPIPE) => {
                Other::Reset
            }
            _ => Other::Open,
        }
    }

    fn run(&mut self, src: &Io, dst: &Io, other: Other, worker: &Worker, flow: &Flow) -> Step {
        match self.state {
            LaneState::Open | LaneState::Ending => {}
            LaneState::Done | LaneState::Broken => return Step::Blocked,
            LaneState::Sink => return self.drain(src, worker),
        }
        match self.forward(src, dst, other, worker, flow) {
            Ok(step) => step,
            Err(error) => {
                self.release(worker);
                self.state = LaneState::Broken;
                self.error = Some(error);
                Step::Blocked
            }
        }
    }

    /// Errors are those of the receiving side.
    fn forward(
        &mut self,
        src: &Io,
        dst: &Io,
        other: Other,
        worker: &Worker,
        flow: &Flow,
    ) -> io::Result<Step> {
        if !self.flush(dst, worker, flow)? {
            return Ok(Step::Blocked);
        }
        if self.state == LaneState::Open {
            let step = if self.score >= BULK && self.may_splice {
                self.splice(src, dst, worker, flow)?
            } else {
                self.copy(src, dst, worker, flow)?
            };
            if self.state == LaneState::Open || !matches!(self.carry, Carry::Nothing) {
                return Ok(step);
            }
        }
        match other {
            Other::Open => dst.shutdown_write(),
            // Both are closed next, which says the same with one call less.
            Other::Done => {}
            // What looks like an end is the reset that the other lane met.
            Other::Reset => return Ok(Step::ReadFailed(reset_by_peer())),
        }
        self.state = LaneState::Done;
        Ok(Step::Blocked)
    }

    /// Writes what is carried; whether nothing is left.
    fn flush(&mut self, dst: &Io, worker: &Worker, flow: &Flow) -> io::Result<bool> {
        match std::mem::replace(&mut self.carry, Carry::Nothing) {
            Carry::Nothing => Ok(true),
            Carry::Bytes { bytes, mut sent } => {
                while sent < bytes.len() {
                    match dst.write(&bytes[sent..]) {
                        Poll::Ready(count) => {
                            let count = count?;
                            sent += count;
                            self.moved(flow, count, worker.now());
                        }
                        Poll::Pending => {
                            self.carry = Carry::Bytes { bytes, sent };
                            return Ok(false);
                        }
                    }
                }
                Ok(true)
            }
            Carry::Pipe { pipe, mut left } => {
                let result = self.splice_out(&pipe, &mut left, dst, worker, flow);
                match result {
                    Ok(()) if left == 0 => {
                        worker.pipes.give_back(pipe);
                        Ok(true)
                    }
                    Ok(()) => {
                        self.carry = Carry::Pipe { pipe, left };
                        Ok(false)
                    }
                    Err(error) => {
                        worker.pipes.discard(pipe);
                        Err(error)
                    }
                }
            }
        }
    }

    fn copy(&mut self, src: &Io, dst: &Io, worker: &Worker, flow: &Flow) -> io::Result<Step> {
        let mut scratch = worker.scratch.borrow_mut();
        let mut turn = 0;
        loop {
            let count = match src.read(&mut scratch) {
                Poll::Pending => return Ok(Step::Blocked),
                Poll::Ready(Err(error)) => return Ok(Step::ReadFailed(error)),
                Poll::Ready(Ok(Read::End)) => {
                    self.state = LaneState::Ending;
                    return Ok(Step::Blocked);
                }
                Poll::Ready(Ok(Read::Some(count, last))) => {
                    if last {
                        self.state = LaneState::Ending;
                    }
                    count
                }
            };
            self.rate(count, count == scratch.len());
            self.undelay(dst);
            let sent = match dst.write(&scratch[..count]) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            self.moved(flow, sent, worker.now());
            if sent < count {
                self.carry = Carry::Bytes {
                    bytes: scratch[sent..count].into(),
                    sent: 0,
                };
                return Ok(Step::Blocked);
            }
            if self.state == LaneState::Ending {
                return Ok(Step::Blocked);
            }
            turn += count;
            if turn >= COPY_TURN || (self.score >= BULK && self.may_splice) {
                return Ok(Step::Busy);
            }
        }
    }

    fn splice(&mut self, src: &Io, dst: &Io, worker: &Worker, flow: &Flow) -> io::Result<Step> {
        let Some(mut pipe) = worker.pipes.borrow() else {
            return self.copy(src, dst, worker, flow);
        };
        self.undelay(dst);
        let mut turn = 0;
        let step = loop {
            if !src.is(ready::READ) {
                break Step::Blocked;
            }
            if turn >= SPLICE_TURN {
                break Step::Busy;
            }
            let mut left = match splice(src.as_raw_fd(), pipe.write.as_raw_fd(), SPLICE_ASK) {
                Ok(0) => {
                    self.state = LaneState::Ending;
                    break Step::Blocked;
                }
                Ok(count) => count,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        src.clear(ready::READ | ready::URGENT);
                        break Step::Blocked;
                    }
                    Some(libc::EINTR) => continue,
                    Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                        self.may_splice = false;
                        break Step::Busy;
                    }
                    Some(libc::ENOSYS) => {
                        self.may_splice = false;
                        worker.pipes.refuse();
                        break Step::Busy;
                    }
                    _ => break Step::ReadFailed(error),
                },
            };
            turn += left;
            let filled = left * 2 >= pipe.size();
            if let Err(error) = self.splice_out(&pipe, &mut left, dst, worker, flow) {
                worker.pipes.discard(pipe);
                return Err(error);
            }
            if left > 0 {
                self.carry = Carry::Pipe { pipe, left };
                return Ok(Step::Blocked);
            }
            if filled {
                worker.pipes.grow(&mut pipe);
            }
        };
        worker.pipes.give_back(pipe);
        if matches!(step, Step::Blocked) && turn < SMALL {
            self.score -= 1;
        } else {
            self.score = BULK * 2;
        }
        Ok(step)
    }

    fn splice_out(
        &mut self,
        pipe: &Pipe,
        left: &mut usize,
        dst: &Io,
        worker: &Worker,
        flow: &Flow,
    ) -> io::Result<()> {
        while *left > 0 && dst.is(ready::WRITE) {
            match splice(pipe.read.as_raw_fd(), dst.as_raw_fd(), *left) {
                Ok(count) => {
                    *left -= count;
                    self.moved(flow, count, worker.now());
                    if *left > 0 {
                        // Short: the socket is full.
                        dst.clear(ready::WRITE);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => dst.clear(ready::WRITE),
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Reads and throws away.
    fn drain(&mut self, src: &Io, worker: &Worker) -> Step {
        let mut scratch = worker.scratch.borrow_mut();
        let mut turn = 0;
        while turn < COPY_TURN {
            match src.read(&mut scratch) {
                Poll::Pending => return Step::Blocked,
                Poll::Ready(Ok(Read::Some(count, false))) => turn += count,
                Poll::Ready(Ok(Read::End | Read::Some(_, true)) | Err(_)) => {
                    self.state = LaneState::Done;
                    return Step::Blocked;
                }
            }
        }
        Step::Busy
    }

    /// Learns from one read whether this lane is bulk.
    fn rate(&mut self, count: usize, full: bool) {
        if full {
            self.score = self.score.saturating_add(2).min(BULK);
        } else if count >= SMALL {
            self.score = self.score.saturating_add(1).min(BULK);
        } else {
            self.score = 0;
        }
    }

    fn undelay(&mut self, dst: &Io) {
        match self.delay {
            Delay::Off => {}
            Delay::AfterFirst => self.delay = Delay::Next,
            Delay::Next => {
                let _ = socket::nodelay(dst);
                self.delay = Delay::Off;
            }
        }
    }

    fn moved(&self, flow: &Flow, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        match self.from {
            Side::Client => flow.moved_up(count, now),
            Side::Target => flow.moved_down(count, now),
        }
    }
}

fn splice(from: i32, to: i32, len: usize) -> io::Result<usize> {
    // SAFETY: plain arguments; null offsets are right for sockets and pipes.
    socket::check_len(unsafe {
        libc::splice(
            from,
            std::ptr::null_mut(),
            to,
            std::ptr::null_mut(),
            len,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    })
}

fn reset_by_peer() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNRESET)
}
