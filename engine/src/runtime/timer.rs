//! Times at which a task or a source wants to be called.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Worker;
use super::reactor::Owner;

/// Names an armed timer, in the order in which they fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId(Instant, u64);

#[derive(Default)]
pub struct Timers {
    armed: RefCell<BTreeMap<TimerId, Owner>>,
    serial: Cell<u64>,
}

impl Timers {
    pub fn arm(&self, at: Instant, owner: Owner) -> TimerId {
        let id = TimerId(at, self.serial.get());
        self.serial.set(id.1 + 1);
        self.armed.borrow_mut().insert(id, owner);
        id
    }

    pub fn disarm(&self, id: TimerId) {
        self.armed.borrow_mut().remove(&id);
    }

    /// How long until the next one is due.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let armed = self.armed.borrow();
        let (id, _) = armed.first_key_value()?;
        Some(id.0.saturating_duration_since(now))
    }

    pub fn take_due(&self, now: Instant) -> Option<Owner> {
        let mut armed = self.armed.borrow_mut();
        let first = armed.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        Some(first.remove())
    }

    pub fn clear(&self) {
        let armed = std::mem::take(&mut *self.armed.borrow_mut());
        drop(armed);
    }
}

/// Waits until a time that may be moved; dropped, it costs nothing more.
pub struct Sleep {
    worker: Rc<Worker>,
    until: Option<Instant>,
    armed: Option<TimerId>,
}

impl Sleep {
    /// `None` sleeps for ever.
    pub fn new(worker: &Rc<Worker>, until: Option<Instant>) -> Self {
        Self {
            worker: Rc::clone(worker),
            until,
            armed: None,
        }
    }

    pub fn reset(&mut self, until: Option<Instant>) {
        if self.until != until {
            self.until = until;
            self.disarm();
        }
    }

    /// Whether the time has come; otherwise the current task is called when it has.
    pub fn is_due(&mut self) -> bool {
        let Some(until) = self.until else {
            return false;
        };
        if self.worker.now() >= until {
            self.disarm();
            return true;
        }
        if self.armed.is_none()
            && let Some(task) = self.worker.tasks.current()
        {
            self.armed = Some(self.worker.timers.arm(until, Owner::Task(task)));
        }
        false
    }

    fn disarm(&mut self) {
        if let Some(id) = self.armed.take() {
            self.worker.timers.disarm(id);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.is_due() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}
