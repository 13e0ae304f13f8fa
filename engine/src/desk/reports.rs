//! What happened to legs and flows of a desk, on its way to the owner's thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flow::exchange::Left;
use crate::net::fd::Fd;
use crate::net::socket::check;

/// Fetched at a time, so that the owner's thread gets to other things between.
const BATCH: usize = 1_024;

/// One thing that happened.
#[derive(Debug)]
pub struct Report {
    /// To whom.
    pub handle: u64,
    /// The leg that it is of no use without, if any.
    pub leg: Option<u64>,
    pub kind: &'static str,
    /// More about it as JSON, or nothing.
    pub text: String,
}

pub struct Reports {
    queue: Mutex<Queue>,
    /// When so many wait, nothing new is begun.
    most: usize,
}

struct Queue {
    waiting: VecDeque<Report>,
    /// What flows have left to the owner, until it is fetched.
    left: HashMap<u64, Left>,
    /// Readable while reports wait. Gone when the desk is closed.
    bell: Option<Fd>,
}

impl Reports {
    pub fn open(most: usize) -> io::Result<Self> {
        // SAFETY: plain arguments.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        let bell = Fd::own(check(raw)?);
        Ok(Self {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                left: HashMap::new(),
                bell: Some(bell),
            }),
            most,
        })
    }

    /// The descriptor that is readable while reports wait; `None` when the desk is closed.
    pub fn bell(&self) -> Option<RawFd> {
        self.lock().bell.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Each leg and flow has few reports under way, so that the queue is bounded by what is begun:
    /// `is_full` bounds that.
    pub fn put(&self, report: Report) {
        let mut queue = self.lock();
        let Some(bell) = queue.bell.as_ref().map(AsRawFd::as_raw_fd) else {
            return;
        };
        queue.waiting.push_back(report);
        if queue.waiting.len() == 1 {
            let one: u64 = 1;
            // SAFETY: eventfd takes 8 bytes. It is open for as long as the queue is locked.
            unsafe { libc::write(bell, (&raw const one).cast(), 8) };
        }
    }

    /// Before the report that the flow has ended. Nobody fetches it from a closed desk.
    pub fn leave(&self, flow: u64, left: Left) {
        let mut queue = self.lock();
        if queue.bell.is_some() {
            queue.left.insert(flow, left);
        }
    }

    /// What a flow has left.
    pub fn fetch(&self, flow: u64) -> Option<Left> {
        self.lock().left.remove(&flow)
    }

    /// Whether the owner must fetch before anything new begins.
    pub fn is_full(&self) -> bool {
        self.lock().waiting.len() >= self.most
    }

    /// Some of those that wait, in order.
    pub fn take(&self) -> Vec<Report> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(BATCH);
        let batch = queue.waiting.drain(..count).collect();
        if queue.waiting.is_empty()
            && let Some(bell) = queue.bell.as_ref().map(AsRawFd::as_raw_fd)
        {
            let mut count: u64 = 0;
            // SAFETY: eventfd gives 8 bytes. It is open for as long as the queue is locked.
            unsafe { libc::read(bell, (&raw mut count).cast(), 8) };
        }
        batch
    }

    /// Legs that reports about somebody else offer.
    pub fn legs_of(&self, handle: u64) -> Vec<u64> {
        let queue = self.lock();
        let mine = queue
            .waiting
            .iter()
            .filter(|report| report.handle == handle);
        mine.filter_map(|report| report.leg).collect()
    }

    /// From now on nobody is told anything.
    pub fn close(&self) {
        let mut queue = self.lock();
        let forgotten = (
            queue.bell.take(),
            std::mem::take(&mut queue.waiting),
            std::mem::take(&mut queue.left),
        );
        drop(queue);
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(handle: u64) -> Report {
        Report {
            handle,
            leg: None,
            kind: "ended",
            text: String::new(),
        }
    }

    fn rings(reports: &Reports) -> bool {
        let mut poll = libc::pollfd {
            fd: reports.bell().unwrap_or(-1),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the pointer is to one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn the_bell_rings_while_reports_wait() {
        let reports = Reports::open(10).expect("eventfd");
        assert!(!rings(&reports));
        for number in 0..BATCH as u64 + 1 {
            reports.put(ended(number));
        }
        assert!(rings(&reports));
        assert_eq!(reports.take().len(), BATCH);
        assert!(rings(&reports));
        assert_eq!(reports.take().len(), 1);
        assert!(!rings(&reports) && reports.take().is_empty());
    }

    #[test]
    fn it_is_full_at_its_bound_and_still_tells() {
        let reports = Reports::open(2).expect("eventfd");
        reports.put(ended(1));
        assert!(!reports.is_full());
        reports.put(ended(2));
        assert!(reports.is_full());
        reports.put(ended(3));
        assert_eq!(reports.take().len(), 3);
        assert!(!reports.is_full());
    }

    #[test]
    fn a_closed_queue_forgets_everything() {
        let reports = Reports::open(2).expect("eventfd");
        reports.put(ended(1));
        reports.close();
        reports.put(ended(2));
        assert!(reports.take().is_empty() && reports.bell().is_none());
    }
}
