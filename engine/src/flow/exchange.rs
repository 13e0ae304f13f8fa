//! Messages between one client and one server, one after the other: requests are looked at, go on
//! as the owner would send them, and are answered likewise. Whatever is out of the ordinary goes
//! back to the owner with both sockets, before anything of it has gone anywhere.

use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::ending::Side;
use super::reason::Reason;
use super::table::Flow;
use crate::desk::reports::Report;
use crate::http::chunks::Chunks;
use crate::http::head::{self, HEAD_CAP};
use crate::http::ordinary::{self, Agreed, Body, Request};
use crate::net::fd::Fd;
use crate::runtime::io::{Io, Read};
use crate::runtime::{SCRATCH, Sleep, Worker, ready};

/// Bytes of a request's body, which goes on with its head. The owner takes larger ones.
const BODY_CAP: u64 = SCRATCH as u64;
/// Messages, or pieces of one, before others get their turn.
const TURN: usize = 16;

/// What holds for all messages.
#[derive(Clone, Debug)]
pub struct Course {
    pub agreed: Agreed,
    /// For a head that has begun, and a small body.
    pub head_timeout: Option<Duration>,
    /// For the next request.
    pub next_timeout: Option<Duration>,
    /// For the beginning of an answer, and each piece of it.
    pub answer_timeout: Option<Duration>,
    /// Whether the owner wants to hear of each request.
    pub told: bool,
}

/// What an exchange leaves to its owner.
#[derive(Debug)]
pub struct Left {
    /// None when it has ended.
    pub client: Option<Fd>,
    pub target: Option<Fd>,
    /// Read from the client, and not gone on.
    pub unread: Vec<u8>,
    /// The head of a request that has gone on, if it was not answered yet.
    pub asked: Vec<u8>,
    /// What has come of the answer.
    pub answered: Vec<u8>,
    pub why: &'static str,
    /// Requests that were answered, or were about to be.
    pub requests: u64,
    /// Bytes of the unanswered one.
    pub up: u64,
}

/// How it ended.
pub enum End {
    Over(Reason, Option<io::Error>),
    /// The owner is to go on, and why.
    Left(&'static str),
}

pub struct Exchange {
    client: Io,
    target: Io,
    course: Box<Course>,
    stage: Stage,
    /// Read from the client: a request that is not complete, and what follows one.
    asked: Vec<u8>,
    /// So many of these are known to hold no end of a head.
    searched: usize,
    /// The request at their beginning, once its head is there.
    coming: Option<Box<Coming>>,
    requests: u64,
    /// When anything happened last.
    since: Instant,
    watchdog: Sleep,
}

enum Stage {
    /// The next request comes, or will.
    Ask,
    Send(Box<Asked>),
    Await(Box<Asked>),
    Answer(Box<Answering>),
    /// Only while one stage follows another.
    Between,
}

/// A request whose body may still be on its way to us.
struct Coming {
    request: Request,
    /// Bytes of its head, and of the whole.
    size: usize,
    whole: usize,
}

/// A request on its way.
struct Asked {
    head: Vec<u8>,
    text: Vec<u8>,
    sent: usize,
    head_only: bool,
    began: Instant,
    /// What has come of the answer.
    answered: Vec<u8>,
    searched: usize,
}

struct Answering {
    /// To be written to the client, before anything more is read.
    text: Vec<u8>,
    sent: usize,
    left: Remains,
    /// The server said more than its answer.
    spoiled: bool,
    record: Record,
}

enum Remains {
    Length(u64),
    Chunks(Chunks),
}

struct Record {
    method: String,
    status: u16,
    began: Instant,
    up: u64,
    down: u64,
}

enum Step {
    Go,
    Wait,
    Done(End),
}

impl Exchange {
    /// `unread` was read from the client before.
    pub fn new(
        worker: &Rc<Worker>,
        client: Io,
        target: Io,
        course: Box<Course>,
        unread: Vec<u8>,
    ) -> Self {
        let now = worker.now();
        let mut exchange = Self {
            client,
            target,
            course,
            stage: Stage::Ask,
            asked: unread,
            searched: 0,
            coming: None,
            requests: 0,
            since: now,
            watchdog: Sleep::new(worker, None),
        };
        let first = exchange.shortest().map(|limit| now + limit);
        exchange.watchdog.reset(first);
        exchange
    }

    pub fn poll(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Poll<End> {
        for _ in 0..TURN {
            if self.client.is(ready::ERROR) && !matches!(self.stage, Stage::Ask) {
                return Poll::Ready(End::Over(Reason::ClientReset, None));
            }
            let step = match &mut self.stage {
                Stage::Ask => self.ask(worker, flow),
                Stage::Send(_) => self.send(worker, flow),
                Stage::Await(_) => self.await_answer(worker, flow),
                Stage::Answer(_) => self.answer(worker, flow),
                Stage::Between => Step::Wait,
            };
            match step {
                Step::Go => {}
                Step::Wait => return self.watch(worker),
                Step::Done(end) => return Poll::Ready(end),
            }
        }
        worker.tasks.wake_current();
        Poll::Pending
    }

    fn shortest(&self) -> Option<Duration> {
        let Course {
            head_timeout,
            next_timeout,
            answer_timeout,
            ..
        } = &*self.course;
        [head_timeout, next_timeout, answer_timeout]
            .into_iter()
            .flatten()
            .min()
            .copied()
    }

    /// The timer is set anew when it has fired, not with every message.
    fn watch(&mut self, worker: &Rc<Worker>) -> Poll<End> {
        while self.watchdog.is_due() {
            let (limit, why) = match &self.stage {
                Stage::Ask if self.asked.is_empty() => (self.course.next_timeout, "idle"),
                Stage::Ask => (self.course.head_timeout, "head_timeout"),
                _ => (self.course.answer_timeout, "answer_timeout"),
            };
            let now = worker.now();
            let due = limit.map(|limit| self.since + limit);
            if due.is_some_and(|due| due <= now) {
                return Poll::Ready(match self.stage {
                    Stage::Ask | Stage::Await(_) => End::Left(why),
                    // A part of a message has gone on.
                    _ => End::Over(Reason::IdleTimeout, None),
                });
            }
            let look = self.shortest().map(|limit| now + limit);
            self.watchdog.reset(due.into_iter().chain(look).min());
        }
        Poll::Pending
    }

    /// The present stage, to be followed by another one.
    fn turn_over(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Between)
    }

    fn ask(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Step {
        if self.target.is(ready::READ | ready::ERROR) && self.target_has_spoken(worker) {
            return Step::Done(End::Left("spoiled"));
        }
        if let Some(coming) = &self.coming {
            return match coming.whole.saturating_sub(self.asked.len()) {
                0 => self.begin(worker, flow),
                missing => self.hear(worker, missing),
            };
        }
        let Some(size) = head::end_of(&self.asked, self.searched) else {
            self.searched = self.asked.len();
            return match self.asked.len() > HEAD_CAP {
                true => Step::Done(End::Left("head")),
                false => self.hear(worker, SCRATCH),
            };
        };
        if size > HEAD_CAP {
            return Step::Done(End::Left("head"));
        }
        let Some(request) = ordinary::request(&self.asked[..size], &self.course.agreed) else {
            return Step::Done(End::Left("request"));
        };
        if request.body > BODY_CAP {
            return Step::Done(End::Left("body"));
        }
        let whole = size + request.body as usize;
        self.coming = Some(Box::new(Coming {
            request,
            size,
            whole,
        }));
        Step::Go
    }

    /// Reads more of a request. It is not paid for before it goes on, as it may be the owner's.
    fn hear(&mut self, worker: &Rc<Worker>, most: usize) -> Step {
        let mut scratch = worker.scratch.borrow_mut();
        let room = most.min(scratch.len());
        match self.client.read(&mut scratch[..room]) {
            Poll::Pending => Step::Wait,
            Poll::Ready(Ok(Read::Some(count, _))) => {
                if self.asked.is_empty() {
                    self.since = worker.now();
                }
                self.asked.extend_from_slice(&scratch[..count]);
                Step::Go
            }
            Poll::Ready(Ok(Read::End)) if self.asked.is_empty() => {
                Step::Done(End::Over(Reason::ClientClosed, None))
            }
            Poll::Ready(Ok(Read::End)) => {
                drop(scratch);
                Step::Done(End::Left("cut short"))
            }
            Poll::Ready(Err(error)) => Step::Done(End::Over(Reason::ClientReset, Some(error))),
        }
    }

    /// A request is complete. Its body goes on with its head.
    fn begin(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Step {
        if flow.allowance(worker, Side::Client) == 0 {
            return Step::Wait;
        }
        let Some(coming) = self.coming.take() else {
            return Step::Wait;
        };
        let Coming {
            request,
            size,
            whole,
        } = *coming;
        flow.spend(worker, Side::Client, whole);
        let mut text = request.text;
        text.extend_from_slice(&self.asked[size..whole]);
        let rest = self.asked.split_off(whole);
        let mut head = std::mem::replace(&mut self.asked, rest);
        head.truncate(size);
        self.searched = 0;
        self.since = worker.now();
        self.stage = Stage::Send(Box::new(Asked {
            head,
            text,
            sent: 0,
            head_only: request.head_only,
            began: worker.now(),
            answered: Vec::new(),
            searched: 0,
        }));
        Step::Go
    }

    fn send(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Step {
        let Stage::Send(asked) = &mut self.stage else {
            return Step::Wait;
        };
        while asked.sent < asked.text.len() {
            match self.target.write(&asked.text[asked.sent..]) {
                Poll::Pending => return Step::Wait,
                Poll::Ready(Ok(count)) => {
                    asked.sent += count;
                    self.since = worker.now();
                    flow.moved_up(count, worker.now());
                }
                // It may have said something before: the owner looks.
                Poll::Ready(Err(_)) => break,
            }
        }
        let whole = asked.sent == asked.text.len();
        let Stage::Send(asked) = self.turn_over() else {
            return Step::Wait;
        };
        self.stage = Stage::Await(asked);
        match whole {
            true => Step::Go,
            false => Step::Done(End::Left("target")),
        }
    }

    fn await_answer(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Step {
        let Stage::Await(asked) = &mut self.stage else {
            return Step::Wait;
        };
        let mut scratch = worker.scratch.borrow_mut();
        let room = match flow.allowance(worker, Side::Target) {
            0 => return Step::Wait,
            most => most.min(scratch.len()),
        };
        let read = match self.target.read(&mut scratch[..room]) {
            Poll::Pending => return Step::Wait,
            Poll::Ready(read) => read,
        };
        let Ok(Read::Some(count, _)) = read else {
            return Step::Done(End::Left("target"));
        };
        asked.answered.extend_from_slice(&scratch[..count]);
        drop(scratch);
        let Some(size) = head::end_of(&asked.answered, asked.searched) else {
            asked.searched = asked.answered.len();
            return match asked.answered.len() > HEAD_CAP {
                true => Step::Done(End::Left("answer")),
                false => Step::Go,
            };
        };
        let via = &self.course.agreed.via;
        let answer = ordinary::answer(&asked.answered[..size], asked.head_only, via);
        let Some(answer) = answer else {
            return Step::Done(End::Left("answer"));
        };
        let mut left = match answer.body {
            Body::Length(length) => Remains::Length(length),
            Body::Chunked => Remains::Chunks(Chunks::default()),
        };
        let body = &asked.answered[size..];
        let Some(used) = left.take(body) else {
            return Step::Done(End::Left("answer"));
        };
        // What is the owner's is paid for by the owner.
        flow.spend(worker, Side::Target, asked.answered.len());
        let mut text = answer.text;
        text.extend_from_slice(&body[..used]);
        let answering = Answering {
            text,
            sent: 0,
            left,
            spoiled: used < body.len(),
            record: Record {
                method: asked.method().to_owned(),
                status: answer.status,
                began: asked.began,
                up: asked.sent as u64,
                down: 0,
            },
        };
        self.since = worker.now();
        self.stage = Stage::Answer(Box::new(answering));
        Step::Go
    }

    fn answer(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Step {
        let Stage::Answer(answering) = &mut self.stage else {
            return Step::Wait;
        };
        while answering.sent < answering.text.len() {
            match self.client.write(&answering.text[answering.sent..]) {
                Poll::Pending => return Step::Wait,
                Poll::Ready(Ok(count)) => {
                    answering.sent += count;
                    answering.record.down += count as u64;
                    self.since = worker.now();
                    flow.moved_down(count, worker.now());
                }
                Poll::Ready(Err(error)) => {
                    return Step::Done(End::Over(Reason::ClientReset, Some(error)));
                }
            }
        }
        // An exchange at rest holds no buffer.
        answering.text = Vec::new();
        answering.sent = 0;
        if answering.left.is_nothing() {
            return self.answered(worker, flow);
        }
        let mut scratch = worker.scratch.borrow_mut();
        let room = match flow.allowance(worker, Side::Target) {
            0 => return Step::Wait,
            most => most.min(answering.left.room(scratch.len())),
        };
        match self.target.read(&mut scratch[..room]) {
            Poll::Pending => Step::Wait,
            Poll::Ready(Ok(Read::Some(count, _))) => {
                flow.spend(worker, Side::Target, count);
                let bytes = &scratch[..count];
                let Some(used) = answering.left.take(bytes) else {
                    let error = io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the target sent a malformed chunk",
                    );
                    return Step::Done(End::Over(Reason::Error, Some(error)));
                };
                answering.spoiled = used < count;
                let sent = match self.client.write(&bytes[..used]) {
                    Poll::Pending => 0,
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(error)) => {
                        return Step::Done(End::Over(Reason::ClientReset, Some(error)));
                    }
                };
                answering.record.down += sent as u64;
                self.since = worker.now();
                flow.moved_down(sent, worker.now());
                answering.text.extend_from_slice(&bytes[sent..used]);
                Step::Go
            }
            Poll::Ready(Ok(Read::End)) => {
                let error = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the target cut its answer short",
                );
                Step::Done(End::Over(Reason::TargetClosed, Some(error)))
            }
            Poll::Ready(Err(error)) => Step::Done(End::Over(Reason::TargetReset, Some(error))),
        }
    }

    /// One request is done with.
    fn answered(&mut self, worker: &Rc<Worker>, flow: &Flow) -> Step {
        let Stage::Answer(answering) = self.turn_over() else {
            return Step::Wait;
        };
        self.stage = Stage::Ask;
        self.requests += 1;
        self.since = worker.now();
        let keeps_up = !self.course.told || tell(flow, answering.record, worker.now());
        match (answering.spoiled, keeps_up) {
            (false, true) => Step::Go,
            (true, _) => Step::Done(End::Left("spoiled")),
            // An owner that can't keep up with what it is told does the work itself.
            (false, false) => Step::Done(End::Left("reports")),
        }
    }

    /// Lets go of both sockets, and tells the owner what was done, or gives it all that it needs to
    /// go on.
    pub fn end(self, end: End, flow: &Flow) -> (Reason, Option<String>) {
        let (why, reason, detail) = match end {
            End::Left(why) => (why, Reason::HandedBack, Some(why.to_owned())),
            End::Over(reason, error) => ("", reason, error.map(|error| error.to_string())),
        };
        let (mut asked, mut answered, mut up) = Default::default();
        let mut requests = self.requests;
        match self.stage {
            Stage::Await(request) if reason == Reason::HandedBack => {
                up = request.sent as u64;
                (asked, answered) = (request.head, request.answered);
            }
            // It is the last one, and what has come of it was not all.
            Stage::Answer(answering) => {
                requests += 1;
                if self.course.told {
                    tell(flow, answering.record, Instant::now());
                }
            }
            _ => {}
        }
        let (client, target) = match (reason, why) {
            (Reason::HandedBack, "spoiled") => (Some(self.client.into_fd()), None),
            (Reason::HandedBack, _) => (Some(self.client.into_fd()), Some(self.target.into_fd())),
            // Between two messages: both end in order.
            (Reason::ClientClosed, _) => (None, None),
            // Within one: nobody shall take it for whole.
            _ => {
                self.client.reset();
                self.target.reset();
                (None, None)
            }
        };
        let left = Left {
            client,
            target,
            unread: self.asked,
            asked,
            answered,
            why,
            requests,
            up,
        };
        if let Some(terms) = &flow.terms {
            terms.reports.leave(flow.id, left);
        }
        (reason, detail)
    }

    /// Whether a server that has nothing to say has said or ended something. It is of no use then.
    fn target_has_spoken(&self, worker: &Worker) -> bool {
        let mut scratch = worker.scratch.borrow_mut();
        self.target.read(&mut scratch[..1]).is_ready()
    }
}

impl Asked {
    fn method(&self) -> &str {
        let end = self.head.iter().position(|byte| *byte == b' ');
        std::str::from_utf8(&self.head[..end.unwrap_or(0)]).unwrap_or_default()
    }
}

impl Remains {
    /// How many of these bytes belong to the body; `None` if it is malformed.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Chunks(chunks) => chunks.feed(bytes).ok(),
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                Some(taken)
            }
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_done(),
        }
    }

    /// How many bytes may be read at once.
    fn room(&self, most: usize) -> usize {
        match self {
            Self::Length(left) => usize::try_from(*left).map_or(most, |left| left.min(most)),
            Self::Chunks(_) => most,
        }
    }
}

/// Reports a request; whether the owner keeps up with that.
fn tell(flow: &Flow, record: Record, now: Instant) -> bool {
    let Some(terms) = &flow.terms else {
        return true;
    };
    let told = Told {
        method: record.method,
        status: record.status,
        up: record.up,
        down: record.down,
        seconds: now.saturating_duration_since(record.began).as_secs_f64(),
    };
    terms.reports.put(Report {
        handle: flow.id,
        leg: None,
        kind: "answered",
        // It holds nothing that JSON can't say.
        text: serde_json::to_string(&told).unwrap_or_default(),
    });
    !terms.reports.is_full()
}

/// One request that was answered, as JSON.
#[derive(Serialize)]
struct Told {
    method: String,
    status: u16,
    up: u64,
    down: u64,
    seconds: f64,
}
