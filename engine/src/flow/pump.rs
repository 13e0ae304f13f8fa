//! Moving bytes between the two legs of a TCP flow.
//!
//! Each direction is a lane. A lane starts with plain reads and writes through the worker's buffer;
//! when it proves to be bulk it moves to `splice` through a pipe borrowed for as long as bytes are
//! under way, and goes back when bursts become small. Between bursts a lane holds nothing.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;

use super::ending::{
    Course, End, Gone, LaneState, Other, Outcome, Side, Step, Track, reset_by_peer,
};
use super::pipes::Pipe;
use super::table::Flow;
use crate::net::socket;
use crate::runtime::io::{Io, Read};
use crate::runtime::{Worker, ready};

/// Bytes that a lane moves before others get their turn.
const COPY_TURN: usize = 256 * 1024;
const SPLICE_TURN: usize = 1024 * 1024;
/// Asked of one splice; the pipe's slots decide how much comes.
const SPLICE_ASK: usize = 1024 * 1024;
/// A burst below this counts against bulk.
const SMALL: usize = 16 * 1024;
/// Score at which a lane turns to splice. A full buffer counts twice.
const BULK: u8 = 4;

/// Bytes read and not yet written.
enum Carry {
    Nothing,
    Bytes { bytes: Box<[u8]>, sent: usize },
    Pipe { pipe: Pipe, left: usize },
}

impl Carry {
    fn of(bytes: Vec<u8>) -> Self {
        match bytes.is_empty() {
            true => Self::Nothing,
            false => Self::Bytes {
                bytes: bytes.into_boxed_slice(),
                sent: 0,
            },
        }
    }
}

struct Lane {
    track: Track,
    carry: Carry,
    score: u8,
    may_splice: bool,
    /// Whether the last splice to the receiving socket stopped early.
    cut_short: bool,
    delay: Delay,
}

/// When the receiving socket is told not to delay small segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// Before its second write: the first one never waits, and many flows have no second.
    AfterFirst,
    Next,
    Off,
}

pub struct Pump {
    pub client: Io,
    pub target: Io,
    up: Lane,
    down: Lane,
    course: Course,
}

impl Pump {
    pub fn new(worker: &Rc<Worker>, client: Io, target: Io, flow: &Flow) -> Self {
        Self {
            client,
            target,
            up: Lane::new(Side::Client),
            down: Lane::new(Side::Target),
            course: Course::new(worker, flow),
        }
    }

    /// Bytes that were read before: they go first. The client's socket may not have come from a
    /// listener of ours.
    pub fn after(mut self, up: Vec<u8>, down: Vec<u8>) -> Self {
        self.up.carry = Carry::of(up);
        self.down.carry = Carry::of(down);
        self.down.delay = Delay::AfterFirst;
        self
    }

    pub fn poll(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Poll<End> {
        let (client, target) = (&self.client, &self.target);
        let other = self.down.track.as_seen_by_other();
        let up = self.up.run(client, target, other, worker, flow);
        let other = self.up.track.as_seen_by_other();
        let down = self.down.run(target, client, other, worker, flow);
        let outcome = self.course.conclude(
            (&mut self.up.track, up),
            (&mut self.down.track, down),
            Gone {
                client: client.is(ready::ERROR),
                target: target.is(ready::ERROR),
            },
            worker,
            flow,
        );
        match outcome {
            Outcome::Idle => Poll::Pending,
            Outcome::Busy => {
                worker.tasks.wake_current();
                Poll::Pending
            }
            Outcome::Ended(end) => Poll::Ready(end),
        }
    }

    /// Gives up what the lanes hold.
    pub fn release(&mut self, worker: &Worker) {
        self.up.release(worker);
        self.down.release(worker);
    }
}

impl Lane {
    fn new(from: Side) -> Self {
        Self {
            track: Track::new(from),
            carry: Carry::Nothing,
            score: 0,
            may_splice: true,
            cut_short: false,
            // The client's socket inherits it from the listener.
            delay: match from {
                Side::Client => Delay::AfterFirst,
                Side::Target => Delay::Off,
            },
        }
    }

    fn release(&mut self, worker: &Worker) {
        if let Carry::Pipe { pipe, .. } = std::mem::replace(&mut self.carry, Carry::Nothing) {
            worker.pipes.discard(pipe);
        }
    }

    fn run(&mut self, src: &Io, dst: &Io, other: Other, worker: &Rc<Worker>, flow: &Flow) -> Step {
        match self.track.state {
            LaneState::Open | LaneState::Ending => {}
            LaneState::Done | LaneState::Broken => return Step::Blocked,
            LaneState::Sink => return self.drain(src, worker),
        }
        match self.forward(src, dst, other, worker, flow) {
            Ok(step) => step,
            Err(error) => {
                self.release(worker);
                self.track.break_off(error);
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
        worker: &Rc<Worker>,
        flow: &Flow,
    ) -> io::Result<Step> {
        if !self.flush(dst, worker, flow)? {
            return Ok(Step::Blocked);
        }
        if self.track.state == LaneState::Open {
            // Splice stops before urgent data, and can't tell that from the end.
            let bulk = self.score >= BULK && self.may_splice && !src.is(ready::URGENT);
            let step = if bulk {
                self.splice(src, dst, worker, flow)?
            } else {
                self.copy(src, dst, worker, flow)?
            };
            if self.track.state == LaneState::Open || !matches!(self.carry, Carry::Nothing) {
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
        self.track.state = LaneState::Done;
        Ok(Step::Blocked)
    }

    /// Writes what is carried; whether nothing is left.
    fn flush(&mut self, dst: &Io, worker: &Rc<Worker>, flow: &Flow) -> io::Result<bool> {
        match std::mem::replace(&mut self.carry, Carry::Nothing) {
            Carry::Nothing => Ok(true),
            Carry::Bytes { bytes, mut sent } => {
                while sent < bytes.len() {
                    match dst.write(&bytes[sent..]) {
                        Poll::Ready(count) => {
                            let count = count?;
                            sent += count;
                            self.track.moved(flow, count, worker.now());
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

    fn copy(&mut self, src: &Io, dst: &Io, worker: &Rc<Worker>, flow: &Flow) -> io::Result<Step> {
        let mut scratch = worker.scratch.borrow_mut();
        let mut turn = 0;
        loop {
            if !src.is(ready::READ) {
                return Ok(Step::Blocked);
            }
            let room = match flow.allowance(worker, self.track.from) {
                0 => return Ok(Step::Blocked),
                most => most.min(scratch.len()),
            };
            let count = match src.read(&mut scratch[..room]) {
                Poll::Pending => return Ok(Step::Blocked),
                Poll::Ready(Err(error)) => return Ok(Step::ReadFailed(error)),
                Poll::Ready(Ok(Read::End)) => {
                    self.track.state = LaneState::Ending;
                    return Ok(Step::Blocked);
                }
                Poll::Ready(Ok(Read::Some(count, last))) => {
                    if last {
                        self.track.state = LaneState::Ending;
                    }
                    count
                }
            };
            flow.spend(worker, self.track.from, count);
            self.rate(count, count == scratch.len());
            self.undelay(dst);
            let sent = match dst.write(&scratch[..count]) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            self.track.moved(flow, sent, worker.now());
            if sent < count {
                self.carry = Carry::Bytes {
                    bytes: scratch[sent..count].into(),
                    sent: 0,
                };
                return Ok(Step::Blocked);
            }
            if self.track.state == LaneState::Ending {
                return Ok(Step::Blocked);
            }
            turn += count;
            let bulk = self.score >= BULK && self.may_splice && !src.is(ready::URGENT);
            if turn >= COPY_TURN || bulk {
                return Ok(Step::Busy);
            }
        }
    }

    fn splice(&mut self, src: &Io, dst: &Io, worker: &Rc<Worker>, flow: &Flow) -> io::Result<Step> {
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
            let ask = match flow.allowance(worker, self.track.from) {
                0 => break Step::Blocked,
                most => most.min(SPLICE_ASK),
            };
            let mut left = match splice(src.as_raw_fd(), pipe.write.as_raw_fd(), ask) {
                // Most likely the end. A read will tell.
                Ok(0) => {
                    worker.pipes.give_back(pipe);
                    self.score = 0;
                    return Ok(Step::Busy);
                }
                Ok(count) => count,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) if src.is(ready::URGENT) => break Step::Busy,
                    Some(libc::EAGAIN) => {
                        src.clear(ready::READ);
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
            flow.spend(worker, self.track.from, left);
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
        worker: &Rc<Worker>,
        flow: &Flow,
    ) -> io::Result<()> {
        while *left > 0 && dst.is(ready::WRITE) {
            match splice(pipe.read.as_raw_fd(), dst.as_raw_fd(), *left) {
                Ok(count) => {
                    *left -= count;
                    self.track.moved(flow, count, worker.now());
                    self.cut_short = *left > 0;
                    if self.cut_short {
                        // Short: the socket is full.
                        dst.clear(ready::WRITE);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => dst.clear(ready::WRITE),
                    Some(libc::EINTR) => {}
                    // A splice that meets a reset behind its first pages returns these and swallows
                    // the error: what is left of it looks like an end.
                    Some(libc::EPIPE) if self.cut_short => return Err(reset_by_peer()),
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
                    self.track.state = LaneState::Done;
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
