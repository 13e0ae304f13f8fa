//! How other threads reach a worker: closures to run on its thread, and tasks to wake.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::Worker;
use super::executor::TaskId;
use crate::net::fd::Fd;
use crate::net::socket::check;

/// At most so many workers can be told apart by a waker (12 bits).
pub const MAX_WORKERS: usize = 1 << 12;

type Call = Box<dyn FnOnce(&Rc<Worker>) + Send>;

#[derive(Default)]
struct Letters {
    calls: Vec<Call>,
    wakes: Vec<TaskId>,
    closed: bool,
}

pub struct Inbox {
    letters: Mutex<Letters>,
    bell: Fd,
}

static INBOXES: RwLock<Vec<Option<Arc<Inbox>>>> = RwLock::new(Vec::new());

thread_local! {
    static HERE: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

impl Inbox {
    /// A new inbox and the number that wakers know it by.
    pub fn open() -> io::Result<(usize, Arc<Self>)> {
        // SAFETY: plain arguments.
        let bell = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
            .map(Fd::own)?;
        let inbox = Arc::new(Self {
            letters: Mutex::default(),
            bell,
        });
        let mut all = INBOXES.write().unwrap_or_else(PoisonError::into_inner);
        let number = match all.iter().position(Option::is_none) {
            Some(free) => free,
            None if all.len() < MAX_WORKERS => {
                all.push(None);
                all.len() - 1
            }
            None => return Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        };
        all[number] = Some(Arc::clone(&inbox));
        Ok((number, inbox))
    }

    /// The worker is gone: nothing more is taken.
    pub fn close(&self, number: usize) {
        let mut letters = self.lock();
        letters.closed = true;
        letters.calls.clear();
        letters.wakes.clear();
        drop(letters);
        if let Some(place) = INBOXES
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(number)
        {
            *place = None;
        }
    }

    /// Runs the closure on the worker's thread soon. False when the worker has ended.
    pub fn call(&self, call: impl FnOnce(&Rc<Worker>) + Send + 'static) -> bool {
        self.deliver(|letters| letters.calls.push(Box::new(call)))
    }

    fn deliver(&self, write: impl FnOnce(&mut Letters)) -> bool {
        let mut letters = self.lock();
        if letters.closed {
            return false;
        }
        let ring = letters.calls.is_empty() && letters.wakes.is_empty();
        write(&mut letters);
        drop(letters);
        if ring {
            let one: u64 = 1;
            // SAFETY: eventfd takes 8 bytes. It cannot fail below 2^64 - 1 unread rings.
            unsafe { libc::write(self.bell.as_raw_fd(), (&raw const one).cast(), 8) };
        }
        true
    }

    pub(super) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Takes everything out and runs it.
    pub(super) fn empty(&self, worker: &Rc<Worker>) {
        let mut count: u64 = 0;
        // SAFETY: eventfd gives 8 bytes.
        unsafe { libc::read(self.bell.as_raw_fd(), (&raw mut count).cast(), 8) };
        let (calls, wakes) = {
            let mut letters = self.lock();
            (
                std::mem::take(&mut letters.calls),
                std::mem::take(&mut letters.wakes),
            )
        };
        for id in wakes {
            worker.tasks.wake(id);
        }
        for call in calls {
            call(worker);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which worker the current thread is.
pub(super) fn enter(worker: Option<Rc<Worker>>) {
    HERE.with(|here| *here.borrow_mut() = worker);
}

/// Wakes a task of any worker from any thread.
pub(super) fn wake(number: usize, id: TaskId) {
    let here = HERE
        .try_with(|here| {
            if let Some(worker) = &*here.borrow()
                && worker.number == number
            {
                worker.tasks.wake(id);
                return true;
            }
            false
        })
        .unwrap_or(false);
    if here {
        return;
    }
    let inbox = INBOXES
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(number)
        .cloned()
        .flatten();
    if let Some(inbox) = inbox {
        inbox.deliver(|letters| letters.wakes.push(id));
    }
}

/// Forgets every inbox: for a forked child, which has no workers.
pub fn abandon_after_fork() {
    if let Ok(mut all) = INBOXES.try_write() {
        for place in all.iter_mut() {
            // The descriptors are closed by number; dropping would close them twice.
            if let Some(inbox) = place.take() {
                std::mem::forget(inbox);
            }
        }
    }
}
