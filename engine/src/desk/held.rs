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

use super::leg::{Leg, Order, Phase, Shake, Trouble};
use super::listening::Guest;
use super::open::{Open, Wire};
use super::shaking::Shaking;
use crate::net::fd::Fd;
use crate::relay::dial::{Dial, DialError};
use crate::runtime::io::Io;
use crate::runtime::{Sleep, TaskId, Worker, ready};
use crate::transport::{Plain, Stream};

/// How long a leg that the owner closed may take to come to its end.
const FAREWELL: Duration = Duration::from_secs(5);

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

enum Stage {
    Begin(Beginning),
    Dial(Box<Dial>, Sleep),
    Shake(Box<Shaking>, Option<Guest>),
    Open(Open),
    Close(Open, Sleep),
    Over,
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
