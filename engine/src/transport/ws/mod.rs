//! WebSocket on a leg, over a plain socket or TLS: `head` and `frame` know the bytes, this moves
//! them.
//!
//! The payload of binary and text messages is one stream of bytes. What we send stays within what
//! realm reads; what we read is what the standard allows, masked or not.

pub mod frame;
pub mod head;
pub mod secret;
mod shaking;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use self::frame::{Decoder, Header, Key, Opcode, Payload, Violation};
pub use self::shaking::{Fault, Shaking};
use super::Stream;
use crate::plan::Mask;
use crate::runtime::io::Io;
use crate::runtime::{SCRATCH, Sleep, Worker};

/// How long a server's first frame waits for one of a client that would lose it if it came together
/// with the answer.
const HOLD: Duration = Duration::from_millis(50);
/// Reads in a row that may give no payload before others get their turn.
const FRUITLESS: usize = 16;
/// With this we say that our direction has ended and the other one goes on. To all but us it says
/// that the connection has come to its normal end.
const HALF_CLOSE: &[u8] = b"\x03\xe8half-close";

thread_local! {
    /// Where payload is masked.
    static MASKED: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// How our frames are keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Servers mask nothing.
    None,
    Zero,
    Random,
}

impl Keys {
    pub fn of_client(mask: Mask) -> Self {
        match mask {
            Mask::Zero => Self::Zero,
            Mask::Random => Self::Random,
        }
    }

    fn next(self) -> Option<Key> {
        match self {
            Self::None => None,
            Self::Zero => Some([0; 4]),
            Self::Random => Some(secret::random()),
        }
    }
}

/// A WebSocket after its handshake.
pub struct Ws<S> {
    inner: S,
    worker: Rc<Worker>,
    keys: Keys,
    /// Until when nothing is sent, unless the peer speaks.
    hold: Option<Sleep>,
    decoder: Decoder,
    /// Came behind the head, or with the end of something else.
    surplus: Vec<u8>,
    /// To be told after the payload that came before it.
    violation: Option<Violation>,
    close: Option<Payload>,
    /// The peer's direction has ended.
    ended: bool,
    /// What was last asked by a ping and not answered yet.
    ping: Option<Payload>,
    /// Headers and control frames, which go before anything else.
    first: Vec<u8>,
    /// Payload bytes of the begun frame that are still to come, and what they are masked with.
    owed: usize,
    key: Key,
    phase: u64,
    said_close: bool,
    /// Both sides have said their end.
    over: bool,
}

impl<S: Stream> Ws<S> {
    /// `surplus` was read behind the head. `hasty` is a client that loses what it reads together
    /// with our answer.
    pub fn new(inner: S, worker: &Rc<Worker>, keys: Keys, surplus: Vec<u8>, hasty: bool) -> Self {
        let hold = hasty.then(|| Sleep::new(worker, Some(worker.now() + HOLD)));
        Self {
            inner,
            worker: Rc::clone(worker),
            keys,
            hold,
            decoder: Decoder::default(),
            surplus,
            violation: None,
            close: None,
            ended: false,
            ping: None,
            first: Vec::new(),
            owed: 0,
            key: [0; 4],
            phase: 0,
            said_close: false,
            over: false,
        }
    }

    /// Bytes as they come, decoded: how many are payload. `None` when there was none among them.
    fn fill(&mut self, buf: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        let count = if self.surplus.is_empty() {
            match self.inner.read(buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(count) => count?,
            }
        } else {
            let count = self.surplus.len().min(buf.len());
            buf[..count].copy_from_slice(&self.surplus[..count]);
            self.surplus.drain(..count);
            if self.surplus.is_empty() {
                self.surplus = Vec::new();
            }
            count
        };
        if count == 0 {
            self.ended = true;
            if self.decoder.is_inside() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended in the middle of a WebSocket frame",
                )));
            }
            return Poll::Ready(Ok(Some(0)));
        }
        let decoded = self.decoder.decode(&mut buf[..count]);
        if decoded.frames > 0 {
            self.hold = None;
        }
        if decoded.ping.is_some() && !self.said_close {
            self.ping = decoded.ping;
        }
        self.close = decoded.close;
        self.violation = decoded.violation;
        Poll::Ready(Ok((decoded.payload > 0).then_some(decoded.payload)))
    }

    /// The peer said its end. One of us goes on listening; everybody else wants to hear ours and
    /// nothing more.
    fn closed(&mut self, close: Payload) {
        self.ended = true;
        if close.bytes() == HALF_CLOSE {
            return;
        }
        self.over = true;
        self.say_close(close.bytes().get(..2).unwrap_or_default());
        if !matches!(self.push(), Poll::Ready(Err(_))) {
            // What of it doesn't fit now is not worth waiting for.
            let _ = self.inner.end();
        }
    }

    fn violated(&mut self, violation: Violation) -> io::Error {
        self.ended = true;
        self.over = true;
        self.say_close(&Violation::CODE.to_be_bytes());
        let _ = self.push();
        io::Error::other(format!("sent what is no WebSocket: {}", violation.why))
    }

    fn say_close(&mut self, payload: &[u8]) {
        // In the middle of a frame it would be payload.
        if !self.said_close && self.owed == 0 {
            let frame = frame::control(Opcode::Close, payload, self.keys.next());
            self.first.extend_from_slice(&frame);
        }
        self.said_close = true;
        self.ping = None;
    }

    /// One answer at a time: who sends pings and reads no answers gets only the last one.
    fn answer_ping(&mut self) {
        if self.owed == 0
            && self.first.is_empty()
            && let Some(ping) = self.ping.take()
        {
            let frame = frame::control(Opcode::Pong, ping.bytes(), self.keys.next());
            self.first.extend_from_slice(&frame);
        }
    }

    /// Writes what goes first.
    fn push(&mut self) -> Poll<io::Result<()>> {
        self.answer_ping();
        while !self.first.is_empty() {
            match self.inner.write(&self.first) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(count) => drop(self.first.drain(..count?)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A pong that can't go now goes before the next frame.
    fn push_answers(&mut self) {
        if (self.ping.is_some() || !self.first.is_empty())
            && self.owed == 0
            && self.push().is_ready()
        {
            // An error is met again by whoever writes next.
            let _ = self.inner.flush();
        }
    }

    fn is_held(&mut self) -> bool {
        let held = self.hold.as_mut().is_some_and(|hold| !hold.is_due());
        if !held {
            self.hold = None;
        }
        held
    }

    /// Writes what goes first and `payload`, which is masked already; how much of the latter.
    fn send(first: &mut Vec<u8>, inner: &mut S, payload: &[u8]) -> Poll<io::Result<usize>> {
        let count = if first.is_empty() {
            return inner.write(payload);
        } else {
            match inner.write_vectored(&[IoSlice::new(first), IoSlice::new(payload)]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(count) => count?,
            }
        };
        let before = count.min(first.len());
        first.drain(..before);
        Poll::Ready(Ok(count - before))
    }
}

impl<S: Stream> Stream for Ws<S> {
    fn read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        for _ in 0..FRUITLESS {
            if let Some(close) = self.close.take() {
                self.closed(close);
            }
            if let Some(violation) = self.violation.take() {
                return Poll::Ready(Err(self.violated(violation)));
            }
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            let filled = self.fill(buf);
            self.push_answers();
            match filled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(Some(count))) => return Poll::Ready(Ok(count)),
                Poll::Ready(Ok(None)) => {}
            }
        }
        self.worker.tasks.wake_current();
        Poll::Pending
    }

    /// Each call begins a frame, unless the last one could not be written as a whole: then the
    /// rest of it comes first.
    fn write(&mut self, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.over || self.said_close {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EPIPE)));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.is_held() {
            return Poll::Pending;
        }
        if self.owed == 0 {
            self.answer_ping();
            let key = self.keys.next();
            let header = Header::new(Opcode::Binary, buf.len(), key);
            self.first.extend_from_slice(header.bytes());
            self.owed = buf.len();
            self.key = key.unwrap_or_default();
            self.phase = 0;
        }
        let most = self.owed.min(buf.len());
        let (first, inner) = (&mut self.first, &mut self.inner);
        loop {
            let sent = if self.key == [0; 4] {
                Self::send(first, inner, &buf[..most])
            } else {
                MASKED.with_borrow_mut(|masked| {
                    let part = &mut masked[..most.min(SCRATCH)];
                    part.copy_from_slice(&buf[..part.len()]);
                    frame::mask(part, self.key, self.phase);
                    Self::send(first, inner, part)
                })
            };
            match sent {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // Only of what goes first.
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(count)) => {
                    self.owed -= count;
                    self.phase += count as u64;
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        if self.owed == 0 {
            match self.push() {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        self.inner.flush()
    }

    fn end(&mut self) -> Poll<io::Result<()>> {
        if !self.said_close {
            self.say_close(HALF_CLOSE);
        }
        match self.push() {
            Poll::Ready(Ok(())) => self.inner.end(),
            // The peer has left after its own end.
            Poll::Ready(Err(_)) if self.over => Poll::Ready(Ok(())),
            other => other,
        }
    }

    fn io(&self) -> &Io {
        self.inner.io()
    }

    fn into_io(self: Box<Self>) -> Io {
        Box::new(self.inner).into_io()
    }
}
