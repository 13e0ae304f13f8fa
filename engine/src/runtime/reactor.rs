//! Readiness of descriptors: one epoll instance per worker.
//!
//! Sockets of tasks are watched edge-triggered for everything, once: their readiness is remembered
//! here and forgotten when a system call says "would block" or comes back short, so that an idle
//! or busy flow never costs an `epoll_ctl`. Closing the descriptor ends the watch.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use super::executor::TaskId;
use crate::net::fd::Fd;
use crate::net::socket::{check, millis};

/// What a descriptor is ready for.
pub mod ready {
    pub const READ: u8 = 1;
    pub const WRITE: u8 = 2;
    /// The peer has sent its end (or the connection is gone): short reads are final.
    pub const HANGUP: u8 = 4;
    pub const ERROR: u8 = 8;
    /// Urgent data is about: a short read doesn't mean that all was read.
    pub const URGENT: u8 = 16;
    /// Not from the kernel: the flow was cut.
    pub const CUT: u8 = 32;
    /// Not from the kernel: a timer came due.
    pub const TIMER: u8 = 64;
}

/// Something with its own event handler: a listener, a UDP endpoint.
pub trait Source {
    /// `token` is what was given when the descriptor was watched or the timer armed.
    fn ready(self: Rc<Self>, token: u64, readiness: u8);
}

/// Who is called when something happens.
#[derive(Clone)]
pub enum Owner {
    Task(TaskId),
    Source(Rc<dyn Source>, u64),
}

/// Names a watched descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(u32);

struct Watch {
    generation: u32,
    readiness: u8,
    owner: Owner,
}

pub struct Reactor {
    epoll: Fd,
    watches: RefCell<(Slab<Watch>, u32)>,
    /// The kernel waits for whole milliseconds alone.
    coarse: Cell<bool>,
}

/// Timeouts below this are told to the kernel in nanoseconds.
const PRECISE: Duration = Duration::from_millis(2);

pub const FLOW: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;
pub const LISTENER: u32 = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32;
/// Level-triggered reading, for datagram sockets.
pub const DATAGRAMS: u32 = libc::EPOLLIN as u32;
/// One event, and none more until the watch is modified again.
pub const ONCE: u32 = (libc::EPOLLIN | libc::EPOLLONESHOT) as u32;

impl Reactor {
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain arguments.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Fd::own)?;
        Ok(Self {
            epoll,
            watches: RefCell::default(),
            coarse: Cell::new(false),
        })
    }

    pub fn watch(&self, fd: RawFd, interest: u32, owner: Owner) -> io::Result<WatchId> {
        let (index, generation) = {
            let (watches, serial) = &mut *self.watches.borrow_mut();
            *serial = serial.wrapping_add(1);
            let generation = *serial;
            let index = watches.insert(Watch {
                generation,
                readiness: 0,
                owner,
            });
            (index, generation)
        };
        let mut event = libc::epoll_event {
            events: interest,
            u64: u64::from(generation) << 32 | index as u64,
        };
        // SAFETY: the pointer is to a live local.
        let result = check(unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd,
                &raw mut event,
            )
        });
        if let Err(error) = result {
            self.forget(WatchId(index as u32));
            return Err(error);
        }
        Ok(WatchId(index as u32))
    }

    /// Ends the watch of a descriptor that stays open elsewhere.
    pub fn unwatch(&self, fd: RawFd, id: WatchId) {
        // SAFETY: plain arguments. An error means that it was not watched, which is what we want.
        unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                fd,
                std::ptr::null_mut(),
            )
        };
        self.forget(id);
    }

    /// Forgets a watch whose descriptor is about to be closed, which ends it in the kernel.
    pub fn forget(&self, id: WatchId) {
        let watch = self.watches.borrow_mut().0.try_remove(id.0 as usize);
        // Dropped outside the borrow: the owner may hold watches itself.
        drop(watch);
    }

    pub fn readiness(&self, id: WatchId) -> u8 {
        self.watches
            .borrow()
            .0
            .get(id.0 as usize)
            .map_or(0, |watch| watch.readiness)
    }

    pub fn clear(&self, id: WatchId, bits: u8) {
        if let Some(watch) = self.watches.borrow_mut().0.get_mut(id.0 as usize) {
            watch.readiness &= !bits;
        }
    }

    pub fn set(&self, id: WatchId, bits: u8) {
        if let Some(watch) = self.watches.borrow_mut().0.get_mut(id.0 as usize) {
            watch.readiness |= bits;
        }
    }

    /// Changes what a descriptor is watched for.
    pub fn modify(&self, fd: RawFd, id: WatchId, interest: u32) {
        let Some(generation) = (self.watches.borrow().0)
            .get(id.0 as usize)
            .map(|watch| watch.generation)
        else {
            return;
        };
        let mut event = libc::epoll_event {
            events: interest,
            u64: u64::from(generation) << 32 | u64::from(id.0),
        };
        // SAFETY: the pointer is to a live local. An error means that it is not watched.
        unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_MOD,
                fd,
                &raw mut event,
            )
        };
    }

    /// Waits for events, for ever without a `timeout`.
    pub fn wait(&self, events: &mut [libc::epoll_event], timeout: Option<Duration>) -> usize {
        if let Some(timeout) = timeout
            && !timeout.is_zero()
            && timeout < PRECISE
            && !self.coarse.get()
        {
            match self.wait_precisely(events, timeout) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return 0,
                // Before Linux 5.11, or forbidden by a filter of system calls.
                Err(_) => self.coarse.set(true),
            }
        }
        // SAFETY: the pointer and length describe `events`.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                timeout.map_or(-1, millis),
            )
        };
        // The only error possible here is EINTR.
        count.max(0) as usize
    }

    fn wait_precisely(
        &self,
        events: &mut [libc::epoll_event],
        timeout: Duration,
    ) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        // SAFETY: the pointers are to `events`, with its length, and to a live local.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Who is to be told of an event, with the readiness it brings.
    pub fn note(&self, event: &libc::epoll_event) -> Option<(Owner, u8)> {
        let key = event.u64;
        let bits = translate(event.events);
        let mut borrowed = self.watches.borrow_mut();
        let watch = borrowed.0.get_mut(key as u32 as usize)?;
        if watch.generation != (key >> 32) as u32 {
            return None;
        }
        watch.readiness |= bits;
        Some((watch.owner.clone(), bits))
    }

    pub fn clear_all(&self) {
        let watches = std::mem::take(&mut self.watches.borrow_mut().0);
        drop(watches);
    }
}

fn translate(events: u32) -> u8 {
    let has = |flag: libc::c_int| events & flag as u32 != 0;
    let mut bits = 0;
    if has(libc::EPOLLIN) {
        bits |= ready::READ;
    }
    if has(libc::EPOLLOUT) {
        bits |= ready::WRITE;
    }
    if has(libc::EPOLLRDHUP) {
        bits |= ready::HANGUP | ready::READ;
    }
    if has(libc::EPOLLHUP) {
        bits |= ready::HANGUP | ready::READ | ready::WRITE;
    }
    if has(libc::EPOLLERR) {
        bits |= ready::ERROR | ready::READ | ready::WRITE;
    }
    if has(libc::EPOLLPRI) {
        bits |= ready::URGENT | ready::READ;
    }
    bits
}
