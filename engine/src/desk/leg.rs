//! A leg as both sides see it: the owner's thread, which takes and gives bytes, and the worker that
//! carries it. They meet in two bounded queues under a lock that nobody holds for longer than it
//! takes to copy one of them.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use serde_json::json;

use super::lifted::Lifted;
use super::reports::{Report, Reports};
use crate::error::Error;
use crate::net::fd::Fd;
use crate::net::socket;
use crate::runtime::Worker;
use crate::transport::tls;

/// Bytes that wait in one direction; beyond that the peer, or the owner, waits.
pub const MOST_QUEUED: usize = 128 * 1024;
/// Below this a queue that was full is worth another look.
const ROOM: usize = MOST_QUEUED / 2;

pub struct Leg {
    pub handle: u64,
    pub reports: Arc<Reports>,
    state: Mutex<State>,
}

pub struct State {
    pub phase: Phase,
    /// Calls the task that carries the leg.
    waker: Option<Waker>,
    /// It was called and has not come yet.
    stirred: bool,
    /// What the owner wants of it next.
    pub order: Option<Order>,
    /// Read and not yet taken by the owner.
    pub incoming: VecDeque<u8>,
    /// The owner has begun to read.
    pub wanted: bool,
    /// `incoming` is full, and the worker waits until the owner has taken some.
    stalled: bool,
    /// Nothing comes behind `incoming`: the peer's end, or what went wrong.
    pub end: Option<Result<(), Trouble>>,
    /// Given by the owner and not yet taken by the worker.
    pub outgoing: Vec<u8>,
    /// Given by the owner and not yet taken by the socket.
    pub queued: usize,
    /// Some of it may wait inside of what wraps the leg.
    pub unflushed: bool,
    pub broken: Option<Trouble>,
    /// The owner has said its end.
    pub finished: bool,
    /// Hands were shaken, or are.
    pub wrapped: bool,
    ask_readable: bool,
    ask_writable: bool,
    ask_drained: bool,
}

pub enum Phase {
    /// No worker carries it yet.
    Parked(Fd),
    /// It is being dialled, or shakes hands.
    Busy(usize),
    /// On that worker.
    Open(usize),
    Failed(Trouble),
    /// It went into a flow, or is closed.
    Gone,
}

/// What went wrong: a stable code, and words.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub code: &'static str,
    pub errno: Option<i32>,
    pub text: String,
}

/// How to shake hands.
pub enum Shake {
    Accept {
        acceptor: Arc<tls::acceptor::Acceptor>,
        hello: bool,
    },
    Connect(Arc<tls::connector::Connector>),
}

pub enum Order {
    Shake {
        shake: Shake,
        limit: Option<Duration>,
        /// Read from the socket before.
        unread: Vec<u8>,
    },
    Lift(Lift),
    Close,
    Abort,
}

/// Where a leg goes on, with all that is left of it.
pub type Lift = Box<dyn FnOnce(&Rc<Worker>, Remains) + Send>;

/// A leg that nobody carries at the moment.
pub struct Remains {
    pub leg: Lifted,
    /// Read from it, and wanted by nobody yet.
    pub incoming: Vec<u8>,
    /// Given by the owner, and not yet written.
    pub outgoing: Vec<u8>,
}

impl Trouble {
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            errno: None,
            text: text.into(),
        }
    }

    /// Of a leg that was open.
    pub fn of(error: &io::Error, wrapped: bool) -> Self {
        let code = match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => "reset",
            None if wrapped => "tls",
            _ => "broken",
        };
        Self {
            code,
            errno: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        Self {
            code: trouble.code,
            message: trouble.text,
            errno: trouble.errno,
        }
    }
}

impl Leg {
    pub fn new(handle: u64, reports: &Arc<Reports>, phase: Phase, unread: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            handle,
            reports: Arc::clone(reports),
            state: Mutex::new(State {
                phase,
                waker: None,
                stirred: false,
                order: None,
                incoming: unread.into(),
                wanted: false,
                stalled: false,
                end: None,
                outgoing: Vec::new(),
                queued: 0,
                unflushed: false,
                broken: None,
                finished: false,
                wrapped: false,
                ask_readable: false,
                ask_writable: false,
                ask_drained: false,
            }),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the leg's task look what is wanted of it.
    pub fn stir(&self, mut state: MutexGuard<'_, State>) {
        if state.stirred {
            return;
        }
        // Without a waker it has not looked for the first time yet.
        let Some(waker) = state.waker.clone() else {
            return;
        };
        state.stirred = true;
        drop(state);
        waker.wake();
    }

    /// The task looks now.
    pub fn attend(&self, waker: &Waker) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.stirred = false;
        if state.waker.is_none() {
            state.waker = Some(waker.clone());
        }
        state
    }

    pub fn report(&self, kind: &'static str, text: String) {
        self.reports.put(Report {
            handle: self.handle,
            leg: Some(self.handle),
            kind,
            text,
        });
    }

    /// It came to nothing, and the owner is told.
    pub fn fail(&self, trouble: Trouble) {
        let text = json!({
            "code": trouble.code,
            "errno": trouble.errno,
            "text": trouble.text,
        });
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Busy(_) | Phase::Open(_)) {
            return;
        }
        state.phase = Phase::Failed(trouble);
        drop(state);
        self.report("failed", text.to_string());
    }

    /// Takes what has come, by a look at so many bytes; `None` when nothing has, and then a report
    /// follows once. None at all are the end.
    pub fn read<T>(
        &self,
        most: usize,
        look: impl FnOnce(&VecDeque<u8>, usize) -> T,
    ) -> Result<Option<T>, Error> {
        let mut state = self.lock();
        state.check()?;
        if !state.incoming.is_empty() {
            let count = state.incoming.len().min(most);
            let taken = look(&state.incoming, count);
            state.incoming.drain(..count);
            if state.incoming.is_empty() {
                // A leg that says little holds little.
                state.incoming = VecDeque::new();
            }
            if state.stalled && state.incoming.len() <= ROOM {
                state.stalled = false;
                self.stir(state);
            }
            return Ok(Some(taken));
        }
        match &state.end {
            Some(Ok(())) => return Ok(Some(look(&state.incoming, 0))),
            Some(Err(trouble)) => return Err(trouble.clone().into()),
            None => {}
        }
        state.ask_readable = true;
        if !state.wanted {
            state.wanted = true;
            self.stir(state);
        }
        Ok(None)
    }

    /// How many of the bytes were taken; when not all, a report follows once there is room.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Error> {
        let mut state = self.lock();
        state.check()?;
        if state.finished {
            return Err(Error::plain("finished", "the leg was finished".to_owned()));
        }
        if let Some(trouble) = &state.broken {
            return Err(trouble.clone().into());
        }
        let count = bytes.len().min(MOST_QUEUED - state.queued);
        state.ask_writable |= count < bytes.len();
        state.outgoing.extend_from_slice(&bytes[..count]);
        state.queued += count;
        if count > 0 {
            self.stir(state);
        }
        Ok(count)
    }

    /// Our end comes behind everything written.
    pub fn finish(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.check()?;
        if !state.finished {
            state.finished = true;
            self.stir(state);
        }
        Ok(())
    }

    /// Whether the kernel has everything; when not, a report follows once it does.
    pub fn is_drained(&self) -> Result<bool, Error> {
        let mut state = self.lock();
        state.check()?;
        if let Some(trouble) = &state.broken {
            return Err(trouble.clone().into());
        }
        let drained = state.is_drained();
        state.ask_drained |= !drained;
        Ok(drained)
    }

    /// Its task shakes hands when everything written before is on its way.
    pub fn shake(
        &self,
        shake: Shake,
        limit: Option<Duration>,
        unread: Vec<u8>,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        state.check()?;
        if state.wrapped {
            let text = "TLS within TLS is not supported".to_owned();
            return Err(Error::plain("wrapped", text));
        }
        if let Phase::Open(worker) = state.phase {
            state.phase = Phase::Busy(worker);
        }
        state.wrapped = true;
        state.order = Some(Order::Shake {
            shake,
            limit,
            unread,
        });
        self.stir(state);
        Ok(())
    }

    /// The owner is done with it: an orderly end in the background, or a reset at once.
    pub fn part(&self, order: Order) {
        let mut state = self.lock();
        match std::mem::replace(&mut state.phase, Phase::Gone) {
            Phase::Parked(fd) => {
                if let Order::Abort = order {
                    socket::reset_on_close(&fd);
                }
                drop(state);
                drop(fd);
            }
            Phase::Busy(_) | Phase::Open(_) => {
                state.order = Some(order);
                self.stir(state);
            }
            Phase::Failed(_) | Phase::Gone => {}
        }
    }

    /// There is no time for an orderly end any more.
    pub fn hurry(&self) {
        let mut state = self.lock();
        state.order = Some(Order::Abort);
        self.stir(state);
    }

    /// Tells the owner what it asked to be told.
    pub fn tell(&self, mut state: MutexGuard<'_, State>) {
        let readable = state.ask_readable && (!state.incoming.is_empty() || state.end.is_some());
        let writable = state.ask_writable && (state.queued <= ROOM || state.broken.is_some());
        let drained = state.ask_drained && (state.is_drained() || state.broken.is_some());
        state.ask_readable &= !readable;
        state.ask_writable &= !writable;
        state.ask_drained &= !drained;
        drop(state);
        for (told, kind) in [
            (readable, "readable"),
            (writable, "writable"),
            (drained, "drained"),
        ] {
            if told {
                self.report(kind, String::new());
            }
        }
    }
}

impl State {
    /// Whether the owner may read and write.
    fn check(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open(_) if self.order.is_none() => Ok(()),
            Phase::Open(_) | Phase::Busy(_) | Phase::Parked(_) => Err(busy()),
            Phase::Failed(trouble) => Err(trouble.clone().into()),
            Phase::Gone => Err(no_leg()),
        }
    }

    fn is_drained(&self) -> bool {
        self.queued == 0 && !self.unflushed
    }

    /// Room for what the peer says, or 0 when it must wait until the owner has taken some.
    pub fn room(&mut self) -> usize {
        let room = match self.wanted && self.end.is_none() {
            true => MOST_QUEUED.saturating_sub(self.incoming.len()),
            false => return 0,
        };
        self.stalled = room == 0;
        room
    }
}

pub fn busy() -> Error {
    let text = "the leg is being connected or shakes hands".to_owned();
    Error::plain("busy", text)
}

pub fn no_leg() -> Error {
    Error::plain("closed", "no such leg: it was closed or joined".to_owned())
}
