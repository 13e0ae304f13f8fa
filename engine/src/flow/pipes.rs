//! Pipes for splice: lent to a flow while bytes move, never held by an idle one.
//!
//! The size of a pipe decides what bulk costs (CPU seconds per GB measured with one connection:
//! 64 KiB 0.47, 256 KiB 0.33, 1 MiB 0.17), and large pipes are a bounded resource of the user. So a
//! pipe starts at the kernel's default, grows when a flow fills it, and is kept for the next flow.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsRawFd;

use crate::net::fd::Fd;
use crate::net::socket::check;

const LARGEST: usize = 1024 * 1024;
/// Pipes that one worker lends at once; flows beyond it copy.
const MOST_LENT: usize = 512;
/// Pipes that wait for the next flow.
const MOST_IDLE: usize = 32;

/// One pipe, empty whenever it is in the pool.
pub struct Pipe {
    pub read: Fd,
    pub write: Fd,
    size: usize,
}

impl Pipe {
    pub fn size(&self) -> usize {
        self.size
    }

    fn open() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the pointer is to an array of two.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        let (read, write) = (Fd::own(ends[0]), Fd::own(ends[1]));
        // A user beyond the allowance gets pipes of a page or two, without an error.
        // SAFETY: plain arguments.
        let size = check(unsafe { libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ) })? as usize;
        Ok(Self { read, write, size })
    }

    fn resize(&mut self, size: usize) -> io::Result<()> {
        // SAFETY: plain arguments.
        let got = check(unsafe {
            libc::fcntl(
                self.write.as_raw_fd(),
                libc::F_SETPIPE_SZ,
                size as libc::c_int,
            )
        })?;
        self.size = got as usize;
        Ok(())
    }
}

/// The pool of one worker.
pub struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
    /// Size to which pipes may grow; lowered for good when the kernel refuses more.
    most: Cell<usize>,
    /// A size that the configuration asks for.
    fixed: usize,
    /// Bytes of capacity in all pipes of this worker.
    bytes: Cell<usize>,
    /// The kernel can't splice at all.
    refused: Cell<bool>,
}

/// How the pool is doing.
#[derive(Clone, Copy, Debug)]
pub struct PipeStats {
    pub lent: usize,
    pub idle: usize,
    pub bytes: usize,
}

impl Pipes {
    /// `fixed` is the size of every pipe; 0 adapts.
    pub fn new(fixed: usize) -> Self {
        Self {
            idle: RefCell::default(),
            lent: Cell::new(0),
            most: Cell::new(if fixed == 0 { LARGEST } else { fixed }),
            fixed,
            bytes: Cell::new(0),
            refused: Cell::new(false),
        }
    }

    /// Lends a pipe, the one used last first. `None`: copy instead.
    pub fn borrow(&self) -> Option<Pipe> {
        if self.refused.get() || self.lent.get() >= MOST_LENT {
            return None;
        }
        let recycled = self.idle.borrow_mut().pop();
        let pipe = match recycled {
            Some(pipe) => pipe,
            None => {
                let mut pipe = Pipe::open().ok()?;
                if self.fixed != 0 && self.fixed != pipe.size {
                    // Refused (EPERM beyond the user's allowance): the default will do.
                    let _ = pipe.resize(self.fixed);
                }
                self.bytes.set(self.bytes.get() + pipe.size);
                pipe
            }
        };
        self.lent.set(self.lent.get() + 1);
        Some(pipe)
    }

    /// Takes an empty pipe back.
    pub fn give_back(&self, pipe: Pipe) {
        self.lent.set(self.lent.get() - 1);
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST_IDLE {
            idle.push(pipe);
        } else {
            self.bytes.set(self.bytes.get() - pipe.size);
        }
    }

    /// Closes a pipe that still holds bytes nobody will read.
    pub fn discard(&self, pipe: Pipe) {
        self.lent.set(self.lent.get() - 1);
        self.bytes.set(self.bytes.get() - pipe.size);
    }

    /// A flow filled the pipe: make it larger while the kernel lets us.
    pub fn grow(&self, pipe: &mut Pipe) {
        if self.fixed != 0 || pipe.size >= self.most.get() {
            return;
        }
        let before = pipe.size;
        let wanted = (before * 4).min(self.most.get());
        if pipe.resize(wanted).is_ok() {
            self.bytes.set(self.bytes.get() + pipe.size - before);
        } else {
            // EPERM: the user's allowance or pipe-max-size is reached. Stay at what we have.
            self.most.set(before);
        }
    }

    /// The kernel has no splice.
    pub fn refuse(&self) {
        self.refused.set(true);
    }

    pub fn stats(&self) -> PipeStats {
        PipeStats {
            lent: self.lent.get(),
            idle: self.idle.borrow().len(),
            bytes: self.bytes.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT_SIZE: usize = 64 * 1024;

    #[test]
    fn a_pipe_is_lent_again_with_the_size_it_grew_to() {
        let pipes = Pipes::new(0);
        let mut pipe = pipes.borrow().expect("pipe");
        assert_eq!(pipe.size(), DEFAULT_SIZE);
        pipes.grow(&mut pipe);
        let grown = pipe.size();
        assert!(grown > DEFAULT_SIZE);
        pipes.give_back(pipe);
        assert_eq!(pipes.borrow().expect("pipe").size(), grown);
        assert_eq!(pipes.stats().bytes, grown);
    }

    #[test]
    fn growth_stops_at_the_largest() {
        let pipes = Pipes::new(0);
        let mut pipe = pipes.borrow().expect("pipe");
        for _ in 0..10 {
            pipes.grow(&mut pipe);
        }
        assert!(pipe.size() <= LARGEST);
    }

    #[test]
    fn the_pool_is_bounded_both_ways() {
        let pipes = Pipes::new(0);
        let lent: Vec<_> = (0..MOST_LENT).filter_map(|_| pipes.borrow()).collect();
        assert_eq!(lent.len(), MOST_LENT);
        assert!(pipes.borrow().is_none());
        for pipe in lent {
            pipes.give_back(pipe);
        }
        let stats = pipes.stats();
        assert_eq!((stats.lent, stats.idle), (0, MOST_IDLE));
        assert_eq!(stats.bytes, MOST_IDLE * DEFAULT_SIZE);
    }

    #[test]
    fn a_fixed_size_does_not_grow() {
        let pipes = Pipes::new(128 * 1024);
        let mut pipe = pipes.borrow().expect("pipe");
        assert_eq!(pipe.size(), 128 * 1024);
        pipes.grow(&mut pipe);
        assert_eq!(pipe.size(), 128 * 1024);
    }
}
