//! A stream socket of a task: reads and writes that know when they would block.

use std::cell::{Cell, Ref, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::task::Poll;

use super::reactor::{FLOW, Owner, WatchId, ready};
use super::{TaskId, Worker};
use crate::net::fd::Fd;
use crate::net::socket;

/// One connected (or connecting) socket, owned by one task.
pub struct Io {
    fd: Fd,
    watch: WatchId,
    worker: Rc<Worker>,
    doomed: Cell<bool>,
    /// Read by somebody who looked, and not yet consumed: the next read begins with it.
    early: RefCell<Option<Box<Early>>>,
}

/// Never empty: flows that rest hold no buffer.
struct Early {
    bytes: Vec<u8>,
    consumed: usize,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, and whether the stream is known to end right behind them.
    Some(usize, bool),
    End,
}

impl Io {
    /// Watches the socket for `task`, which is called at every change of readiness.
    pub fn new(worker: &Rc<Worker>, fd: Fd, task: TaskId) -> io::Result<Self> {
        let watch = worker
            .reactor
            .watch(fd.as_raw_fd(), FLOW, Owner::Task(task))?;
        Ok(Self {
            fd,
            watch,
            worker: Rc::clone(worker),
            doomed: Cell::new(false),
            early: RefCell::new(None),
        })
    }

    /// Of the socket, and of bytes that were read from it early.
    pub fn readiness(&self) -> u8 {
        let early = match *self.early.borrow() {
            None => 0,
            Some(_) => ready::READ,
        };
        self.worker.reactor.readiness(self.watch) | early
    }

    pub fn is(&self, bits: u8) -> bool {
        self.readiness() & bits != 0
    }

    /// Has the first call tried although no event has come yet.
    pub fn assume(&self, bits: u8) {
        self.worker.reactor.set(self.watch, bits);
    }

    /// The socket alone, watched by nobody. Nothing was read from it early.
    pub fn into_fd(self) -> Fd {
        debug_assert!(self.early.borrow().is_none());
        self.worker.reactor.unwatch(self.fd.as_raw_fd(), self.watch);
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: what is read out is not used or dropped through `this` any more.
        unsafe {
            drop(std::ptr::read(&raw const this.worker));
            drop(std::ptr::read(&raw const this.early));
            std::ptr::read(&raw const this.fd)
        }
    }

    pub fn clear(&self, bits: u8) {
        self.worker.reactor.clear(self.watch, bits);
    }

    /// Reads into `buf`. `Pending` means that the task is called when there is more.
    pub fn read(&self, buf: &mut [u8]) -> Poll<io::Result<Read>> {
        if self.early.borrow().is_some() {
            return Poll::Ready(Ok(Read::Some(self.consume_into(buf), false)));
        }
        self.read_socket(buf)
    }

    fn read_socket(&self, buf: &mut [u8]) -> Poll<io::Result<Read>> {
        let before = self.worker.reactor.readiness(self.watch);
        if before & ready::READ == 0 {
            return Poll::Pending;
        }
        match socket::recv(&self.fd, buf) {
            Ok(Some(0)) => Poll::Ready(Ok(Read::End)),
            Ok(Some(count)) => {
                // A short read emptied the socket: what comes later is a new event. After a
                // hangup nothing comes later, so the end is already known.
                let short = count < buf.len() && before & ready::URGENT == 0;
                let mut last = false;
                if short {
                    last = before & (ready::HANGUP | ready::ERROR) == ready::HANGUP;
                    if before & (ready::HANGUP | ready::ERROR) == 0 {
                        self.clear(ready::READ);
                    }
                }
                Poll::Ready(Ok(Read::Some(count, last)))
            }
            Ok(None) => {
                self.clear(ready::READ | ready::URGENT);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// What was read early and not consumed.
    pub fn early(&self) -> Ref<'_, [u8]> {
        Ref::map(self.early.borrow(), |early| match early {
            None => &[][..],
            Some(early) => &early.bytes[early.consumed..],
        })
    }

    /// Has the next read begin with these bytes, behind those that were read early before.
    pub fn add_early(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match &mut *self.early.borrow_mut() {
            Some(early) => early.bytes.extend_from_slice(bytes),
            none => {
                *none = Some(Box::new(Early {
                    bytes: bytes.to_vec(),
                    consumed: 0,
                }));
            }
        }
    }

    /// Reads early, through `scratch`, until there are `most` bytes. Whether some came; not so at
    /// the end of the stream. `Pending` when nothing new is there.
    pub fn gather(&self, scratch: &mut [u8], most: usize) -> Poll<io::Result<bool>> {
        let room = most.saturating_sub(self.early().len()).min(scratch.len());
        if room == 0 {
            return Poll::Ready(Ok(true));
        }
        self.read_socket(&mut scratch[..room])
            .map_ok(|read| match read {
                Read::End => false,
                Read::Some(count, _) => {
                    self.add_early(&scratch[..count]);
                    true
                }
            })
    }

    /// The first bytes of those that were read early are done with.
    pub fn consume(&self, count: usize) {
        let mut held = self.early.borrow_mut();
        if let Some(early) = &mut *held {
            early.consumed += count;
            if early.consumed >= early.bytes.len() {
                *held = None;
            }
        }
    }

    fn consume_into(&self, buf: &mut [u8]) -> usize {
        let count = {
            let early = self.early();
            let count = early.len().min(buf.len());
            buf[..count].copy_from_slice(&early[..count]);
            count
        };
        self.consume(count);
        count
    }

    /// Writes some of `buf`; fewer bytes than asked means that the socket is full.
    pub fn write(&self, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is(ready::WRITE) {
            return Poll::Pending;
        }
        loop {
            // SAFETY: the pointer and length describe `buf`.
            let result = socket::check_len(unsafe {
                libc::send(
                    self.fd.as_raw_fd(),
                    buf.as_ptr().cast(),
                    buf.len(),
                    libc::MSG_NOSIGNAL,
                )
            });
            return match result {
                Ok(count) => {
                    if count < buf.len() {
                        self.clear(ready::WRITE);
                    }
                    Poll::Ready(Ok(count))
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.clear(ready::WRITE);
                        Poll::Pending
                    }
                    io::ErrorKind::Interrupted => continue,
                    _ => Poll::Ready(Err(error)),
                },
            };
        }
    }

    /// Writes some of `bufs`, one behind the other, with one call.
    pub fn write_vectored(&self, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [buf] = bufs {
            return self.write(buf);
        }
        if !self.is(ready::WRITE) {
            return Poll::Pending;
        }
        // SAFETY: all zero is a message header without anything in it.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // An `IoSlice` has the layout of an `iovec`, and sending does not write to it.
        message.msg_iov = bufs.as_ptr().cast::<libc::iovec>().cast_mut();
        message.msg_iovlen = bufs.len();
        loop {
            // SAFETY: `message` points to the buffers of `bufs`, which live on.
            let result = socket::check_len(unsafe {
                libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
            });
            return match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.clear(ready::WRITE);
                    Poll::Pending
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => Poll::Ready(other),
            };
        }
    }

    pub fn shutdown_write(&self) {
        socket::shutdown_write(&self.fd);
    }

    /// The task that is being polled is called once more, after others had their turn.
    pub fn call_again(&self) {
        self.worker.tasks.wake_current();
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) {
        self.doom(true);
    }

    /// Whether dropping the socket resets the connection: so for as long as being dropped means
    /// that something went wrong.
    pub fn doom(&self, doomed: bool) {
        self.doomed.set(doomed);
    }

    pub fn unsent(&self) -> usize {
        socket::unsent(&self.fd)
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        socket::local_addr(self.fd.as_raw_fd())
    }

    pub fn fd(&self) -> &Fd {
        &self.fd
    }
}

impl AsRawFd for Io {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if self.doomed.get() {
            socket::reset_on_close(&self.fd);
        }
        self.worker.reactor.forget(self.watch);
    }
}
