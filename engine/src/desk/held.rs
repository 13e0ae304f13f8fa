//! A leg as its worker carries it: dialled, shaking hands, open to the owner, closing.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::json;

use super::leg::{Leg, Order, Phase, Remains, Shake, State, Trouble};
use super::lifted::Lifted;
use super::listening::Guest;
use super::shaking::Shaking;
use crate::net::fd::Fd;
use crate::relay::dial::{Dial, DialError};
use crate::runtime::io::Io;
use crate::runtime::{Sleep, TaskId, Worker, ready};
use crate::transport::tls::Tls;
use crate::transport::{Plain, Stream};

/// How long a leg that the owner closed may take to come to its end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes that a leg moves before others get their turn.
const TURN: usize = 256 * 1024;

/// Starts a dial on the worker, for that task.
pub type StartDial = Box<dyn FnOnce(&Rc<Worker>, TaskId) -> Result<Dial, DialError> + Send>;

/// How a leg begins.
pub enum Beginning {
    Socket(Fd),
    Dial {
        dial: StartDial,
        limit: Option<Duration>,
    },
    /// By a listener, which is told when its hands are shaken.
    Guest(Fd, Guest),
}

/// What a leg speaks through.
pub enum Wire {
    Plain(Plain),
    Tls(Box<Tls>),
}

impl Wire {
    pub fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Self::Plain(plain) => plain,
            Self::Tls(tls) => &mut **tls,
        }
    }

    fn into_io(self) -> Io {
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

enum Stage {
    Begin(Beginning),
    Dial(Box<Dial>, Sleep),
    Shake(Box<Shaking>, Option<Guest>),
    Open(Open),
    Close(Open, Sleep),
    Over,
}

struct Open {
    wire: Wire,
    /// Taken from the owner's queue and not yet accepted by the wire.
    sending: Vec<u8>,
    sent: usize,
    said_end: bool,
}

/// The life of a leg on its worker, as one future.
struct Held {
    worker: Rc<Worker>,
    task: TaskId,
    leg: Arc<Leg>,
    stage: Stage,
}

/// Has the worker carry the leg from now on.
pub fn begin(worker: &Rc<Worker>, leg: Arc<Leg>, beginning: Beginning) {
    let here = Rc::clone(worker);
    worker.tasks.spawn(|task| Held {
        worker: here,
        task,
        leg,
        stage: Stage::Begin(beginning),
    });
}

impl Future for Held {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        drop(self.leg.attend(cx.waker()));
        loop {
            if self.obey() {
                return Poll::Ready(());
            }
            match self.step(cx) {
                None if self.may_obey() => {}
                None => return Poll::Pending,
                Some(Stage::Over) => {
                    self.stage = Stage::Over;
                    return Poll::Ready(());
                }
                Some(next) => self.stage = next,
            }
        }
    }
}

impl Drop for Held {
    /// Early only when the engine ends, or after a bug of ours: nobody shall take what is cut off
    /// for complete.
    fn drop(&mut self) {
        std::mem::replace(&mut self.stage, Stage::Over).reset();
        let text = "the engine has let go of this leg";
        self.leg.fail(Trouble::new("closed", text));
    }
}

impl Held {
    /// Does what the owner wants, if it can be done now; whether that was the end of it.
    fn obey(&mut self) -> bool {
        let mut state = self.leg.lock();
        let Some(order) = state.order.take() else {
            return false;
        };
        match (order, std::mem::replace(&mut self.stage, Stage::Over)) {
            (Order::Abort, stage) => {
                drop(state);
                stage.reset();
                true
            }
            (Order::Close, Stage::Open(mut open)) => {
                open.take(&mut state);
                drop(state);
                let until = self.worker.now() + FAREWELL;
                self.stage = Stage::Close(open, Sleep::new(&self.worker, Some(until)));
                false
            }
            // There is nothing yet that could be brought to an end.
            (Order::Close, stage @ (Stage::Dial(..) | Stage::Shake(..) | Stage::Over)) => {
                drop(state);
                stage.reset();
                true
            }
            (Order::Lift(lift), Stage::Open(open)) => {
                let remains = open.lift(&mut state);
                drop(state);
                lift(&self.worker, remains);
                true
            }
            (
                Order::Shake {
                    shake,
                    limit,
                    unread,
                },
                Stage::Open(open),
            ) if open.is_empty(&state) => {
                let mut staged = unread;
                staged.extend(state.incoming.drain(..));
                state.wanted = false;
                drop(state);
                self.shake(open.wire, shake, limit, staged, None);
                false
            }
            // Begun first, or what was written before the handshake goes before it.
            (order, stage) => {
                state.order = Some(order);
                self.stage = stage;
                false
            }
        }
    }
}

impl Held {
    /// Whether what had to wait for the last byte can be done now.
    fn may_obey(&self) -> bool {
        let state = self.leg.lock();
        state.order.is_some()
            && match &self.stage {
                Stage::Open(open) => open.is_empty(&state),
                _ => false,
            }
    }

    /// The next stage, or `None` while the present one goes on.
    fn step(&mut self, cx: &mut Context<'_>) -> Option<Stage> {
        match &mut self.stage {
            Stage::Begin(_) => Some(self.start()),
            Stage::Dial(dial, limit) => match dial.poll(cx) {
                Poll::Ready(Ok((io, peer))) => Some(self.connected(io, peer)),
                Poll::Ready(Err(error)) => Some(self.not_dialled(&error)),
                Poll::Pending if limit.is_due() => Some(self.failed(Trouble {
                    code: "connect_timeout",
                    errno: Some(libc::ETIMEDOUT),
                    text: "nobody answered in time".to_owned(),
                })),
                Poll::Pending => None,
            },
            Stage::Shake(shaking, _) => match shaking.poll() {
                Poll::Ready(done) => Some(self.shaken(done)),
                Poll::Pending => None,
            },
            Stage::Open(open) => {
                if open.turn(&self.worker, &self.leg) {
                    self.worker.tasks.wake_current();
                }
                None
            }
            Stage::Close(open, limit) => {
                let over = open.part(&self.worker) || limit.is_due();
                over.then_some(Stage::Over)
            }
            Stage::Over => Some(Stage::Over),
        }
    }

    fn start(&mut self) -> Stage {
        let Stage::Begin(beginning) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        let io = |fd| -> io::Result<Io> {
            let io = Io::new(&self.worker, fd, self.task)?;
            io.assume(ready::WRITE);
            Ok(io)
        };
        match beginning {
            Beginning::Socket(fd) => match io(fd) {
                Ok(io) => Stage::Open(Open::new(Wire::Plain(Plain(io)))),
                Err(error) => self.failed(Trouble::of(&error, false)),
            },
            Beginning::Guest(fd, guest) => match io(fd) {
                Ok(io) => {
                    let wire = Wire::Plain(Plain(io));
                    let Some((shake, limit)) = guest.shake() else {
                        return Stage::Over;
                    };
                    self.shake(wire, shake, limit, Vec::new(), Some(guest));
                    std::mem::replace(&mut self.stage, Stage::Over)
                }
                Err(error) => self.failed(Trouble::of(&error, false)),
            },
            Beginning::Dial { dial, limit } => match dial(&self.worker, self.task) {
                Ok(dial) => {
                    let until = limit.map(|limit| self.worker.now() + limit);
                    Stage::Dial(Box::new(dial), Sleep::new(&self.worker, until))
                }
                Err(error) => self.not_dialled(&error),
            },
        }
    }

    fn connected(&mut self, io: Io, peer: SocketAddr) -> Stage {
        let text = json!({"peer": peer, "local": io.local_addr()});
        self.opened("connected", &text);
        Stage::Open(Open::new(Wire::Plain(Plain(io))))
    }

    fn not_dialled(&mut self, error: &DialError) -> Stage {
        let errno = match error {
            DialError::Connect(error) => error.raw_os_error(),
            DialError::Resolve(_) => None,
        };
        self.failed(Trouble {
            code: error.reason().name(),
            errno,
            text: error.text(),
        })
    }

    fn shake(
        &mut self,
        wire: Wire,
        shake: Shake,
        limit: Option<Duration>,
        staged: Vec<u8>,
        guest: Option<Guest>,
    ) {
        let shaking = Shaking::begin(&self.worker, wire.into_io(), shake, limit, staged);
        self.stage = match shaking {
            Ok(shaking) => Stage::Shake(Box::new(shaking), guest),
            Err(trouble) => self.failed(trouble),
        };
    }

    fn shaken(&mut self, done: Result<(), Trouble>) -> Stage {
        let Stage::Shake(shaking, guest) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Stage::Over;
        };
        match (done, guest) {
            (Ok(()), None) => {
                let facts = shaking.facts();
                self.opened("shaken", &facts);
                Stage::Open(Open::new(Wire::Tls(Box::new(shaking.into_tls()))))
            }
            (Ok(()), Some(guest)) => {
                let facts = shaking.facts();
                let tls = shaking.into_tls();
                self.open();
                guest.introduce(&self.leg, Some(facts));
                Stage::Open(Open::new(Wire::Tls(Box::new(tls))))
            }
            (Err(trouble), None) => {
                shaking.leave();
                self.failed(trouble)
            }
            (Err(trouble), Some(guest)) => {
                shaking.leave();
                guest.turn_away(&self.worker, &trouble);
                Stage::Over
            }
        }
    }

    fn open(&self) {
        let mut state = self.leg.lock();
        if let Phase::Busy(worker) = state.phase {
            state.phase = Phase::Open(worker);
        }
    }

    fn opened(&self, kind: &'static str, facts: &serde_json::Value) {
        self.open();
        self.leg.report(kind, facts.to_string());
    }

    fn failed(&self, trouble: Trouble) -> Stage {
        self.leg.fail(trouble);
        Stage::Over
    }
}

impl Stage {
    fn reset(self) {
        match self {
            Self::Begin(Beginning::Socket(fd) | Beginning::Guest(fd, _)) => {
                crate::net::socket::reset_on_close(&fd);
            }
            Self::Begin(Beginning::Dial { .. }) | Self::Dial(..) | Self::Over => {}
            Self::Shake(shaking, _) => Box::new(shaking.into_tls()).into_io().reset(),
            Self::Open(open) | Self::Close(open, _) => open.wire.into_io().reset(),
        }
    }
}

impl Open {
    fn new(wire: Wire) -> Self {
        Self {
            wire,
            sending: Vec::new(),
            sent: 0,
            said_end: false,
        }
    }

    fn is_empty(&self, state: &State) -> bool {
        self.sending.is_empty() && state.outgoing.is_empty()
    }

    /// Moves what can be moved; whether there is more to do after others had their turn.
    fn turn(&mut self, worker: &Worker, leg: &Leg) -> bool {
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
    fn take(&mut self, state: &mut State) {
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
    fn part(&mut self, worker: &Worker) -> bool {
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

    fn lift(mut self, state: &mut State) -> Remains {
        self.take(state);
        state.phase = Phase::Gone;
        Remains {
            leg: self.wire.lift(),
            incoming: std::mem::take(&mut state.incoming).into(),
            outgoing: self.sending.split_off(self.sent),
        }
    }
}
