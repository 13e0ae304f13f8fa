//! Moving bytes between two legs of which at least one is wrapped: always through the worker's
//! buffer, with the same endings as the plain pump.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::ending::{
    Course, End, Gone, LaneState, Other, Outcome, Side, Step, Track, reset_by_peer,
};
use super::table::Flow;
use crate::runtime::io::Io;
use crate::runtime::{Worker, ready};
use crate::transport::Stream;

/// Bytes that a lane moves before others get their turn.
const TURN: usize = 256 * 1024;

/// Two streams and what goes between them.
pub struct Bridge {
    client: Box<dyn Stream>,
    target: Box<dyn Stream>,
    up: Lane,
    down: Lane,
    course: Course,
}

struct Lane {
    track: Track,
    /// Read and not yet accepted by the receiving side.
    carry: Vec<u8>,
    sent: usize,
    /// Accepted and perhaps not yet on its way.
    unflushed: bool,
}

impl Bridge {
    pub fn new(
        worker: &Rc<Worker>,
        client: Box<dyn Stream>,
        target: Box<dyn Stream>,
        flow: &Flow,
    ) -> Self {
        Self {
            client,
            target,
            up: Lane::new(Side::Client),
            down: Lane::new(Side::Target),
            course: Course::new(worker, flow),
        }
    }

    /// Bytes that were read before: they go first.
    pub fn after(mut self, up: Vec<u8>, down: Vec<u8>) -> Self {
        self.up.carry = up;
        self.down.carry = down;
        self
    }

    pub fn poll(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Poll<End> {
        let (client, target) = (&mut *self.client, &mut *self.target);
        let other = self.down.track.as_seen_by_other();
        let up = self.up.run(client, target, other, worker, flow);
        let other = self.up.track.as_seen_by_other();
        let down = self.down.run(target, client, other, worker, flow);
        let outcome = self.course.conclude(
            (&mut self.up.track, up),
            (&mut self.down.track, down),
            Gone {
                client: client.io().is(ready::ERROR),
                target: target.io().is(ready::ERROR),
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

    /// The sockets alone.
    pub fn into_ios(self) -> (Io, Io) {
        (self.client.into_io(), self.target.into_io())
    }
}

impl Lane {
    fn new(from: Side) -> Self {
        Self {
            track: Track::new(from),
            carry: Vec::new(),
            sent: 0,
            unflushed: false,
        }
    }

    fn run(
        &mut self,
        src: &mut dyn Stream,
        dst: &mut dyn Stream,
        other: Other,
        worker: &Rc<Worker>,
        flow: &Flow,
    ) -> Step {
        match self.track.state {
            LaneState::Open | LaneState::Ending => {}
            LaneState::Done | LaneState::Broken => return Step::Blocked,
            LaneState::Sink => return self.drain(src, worker),
        }
        match self.forward(src, dst, other, worker, flow) {
            Ok(step) => step,
            Err(error) => {
                self.carry = Vec::new();
                self.track.break_off(error);
                Step::Blocked
            }
        }
    }

    /// Errors are those of the receiving side.
    fn forward(
        &mut self,
        src: &mut dyn Stream,
        dst: &mut dyn Stream,
        other: Other,
        worker: &Rc<Worker>,
        flow: &Flow,
    ) -> io::Result<Step> {
        if !self.flush(dst, worker, flow)? {
            return Ok(Step::Blocked);
        }
        if self.track.state == LaneState::Open {
            let step = self.copy(src, dst, worker, flow)?;
            if self.track.state == LaneState::Open {
                return Ok(step);
            }
            if !self.flush(dst, worker, flow)? {
                return Ok(Step::Blocked);
            }
        }
        if other == Other::Reset {
            return Ok(Step::ReadFailed(reset_by_peer()));
        }
        // Unlike a plain socket, a wrapped one says its end in its own way, also as the second.
        match dst.end() {
            Poll::Pending => return Ok(Step::Blocked),
            Poll::Ready(done) => done?,
        }
        self.track.state = LaneState::Done;
        Ok(Step::Blocked)
    }

    /// Gives on what is carried; whether nothing is left on its way.
    fn flush(
        &mut self,
        dst: &mut dyn Stream,
        worker: &Rc<Worker>,
        flow: &Flow,
    ) -> io::Result<bool> {
        while self.sent < self.carry.len() {
            match dst.write(&self.carry[self.sent..]) {
                Poll::Pending => return Ok(false),
                Poll::Ready(count) => {
                    let count = count?;
                    self.sent += count;
                    self.unflushed = true;
                    self.track.moved(flow, count, worker.now());
                }
            }
        }
        // An idle lane holds no buffer.
        self.carry = Vec::new();
        self.sent = 0;
        if self.unflushed {
            match dst.flush() {
                Poll::Pending => return Ok(false),
                Poll::Ready(done) => done?,
            }
            self.unflushed = false;
        }
        Ok(true)
    }

    fn copy(
        &mut self,
        src: &mut dyn Stream,
        dst: &mut dyn Stream,
        worker: &Rc<Worker>,
        flow: &Flow,
    ) -> io::Result<Step> {
        let mut scratch = worker.scratch.borrow_mut();
        let mut turn = 0;
        while turn < TURN {
            let room = match flow.allowance(worker, self.track.from) {
                0 => return self.flush(dst, worker, flow).map(|_| Step::Blocked),
                most => most.min(scratch.len()),
            };
            let count = match src.read(&mut scratch[..room]) {
                Poll::Pending => {
                    return self.flush(dst, worker, flow).map(|_| Step::Blocked);
                }
                Poll::Ready(Err(error)) => return Ok(Step::ReadFailed(error)),
                Poll::Ready(Ok(0)) => {
                    self.track.state = LaneState::Ending;
                    return Ok(Step::Blocked);
                }
                Poll::Ready(Ok(count)) => count,
            };
            flow.spend(worker, self.track.from, count);
            turn += count;
            let mut sent = 0;
            while sent < count {
                match dst.write(&scratch[sent..count]) {
                    Poll::Pending => break,
                    Poll::Ready(accepted) => {
                        let accepted = accepted?;
                        sent += accepted;
                        self.unflushed = true;
                        self.track.moved(flow, accepted, worker.now());
                    }
                }
            }
            if sent < count {
                self.carry.extend_from_slice(&scratch[sent..count]);
                return Ok(Step::Blocked);
            }
        }
        drop(scratch);
        self.flush(dst, worker, flow)?;
        Ok(Step::Busy)
    }

    /// Reads and throws away.
    fn drain(&mut self, src: &mut dyn Stream, worker: &Worker) -> Step {
        let mut scratch = worker.scratch.borrow_mut();
        let mut turn = 0;
        while turn < TURN {
            match src.read(&mut scratch) {
                Poll::Pending => return Step::Blocked,
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.track.state = LaneState::Done;
                    return Step::Blocked;
                }
                Poll::Ready(Ok(count)) => turn += count,
            }
        }
        Step::Busy
    }
}
