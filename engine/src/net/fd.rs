//! Descriptors the engine owns, and the list of them that a forked child needs.
//!
//! Every descriptor is close-on-exec, but a child made by `fork` alone inherits copies. A copy of a
//! flow's socket would keep the peer from ever seeing our close, so the child closes them all.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const WORDS: usize = (1 << 20) / 64;

static OWNED: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// An owned descriptor; closed when dropped.
#[derive(Debug)]
pub struct Fd(RawFd);

impl Fd {
    /// Takes ownership of a descriptor that a system call just returned.
    pub fn own(raw: RawFd) -> Self {
        mark(raw, true);
        COUNT.fetch_add(1, Ordering::Relaxed);
        Self(raw)
    }

    /// Whether the engine owns this descriptor.
    pub fn is_owned(raw: RawFd) -> bool {
        let fd = raw as usize;
        OWNED
            .get(fd / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (fd % 64)) != 0)
    }

    /// The descriptor alone, which is the caller's from now on.
    pub fn give_away(self) -> RawFd {
        let raw = self.0;
        mark(raw, false);
        COUNT.fetch_sub(1, Ordering::Relaxed);
        std::mem::forget(self);
        raw
    }

    /// Another descriptor of the same socket.
    pub fn share(&self) -> io::Result<Self> {
        // SAFETY: plain arguments.
        let raw = unsafe { libc::fcntl(self.0, libc::F_DUPFD_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::own(raw))
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // Unmark first: once closed, the number may be another thread's.
        mark(self.0, false);
        COUNT.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: we own the descriptor, and nobody uses it after this.
        unsafe { libc::close(self.0) };
    }
}

/// How many descriptors the engine holds.
pub fn open_count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// How many descriptors the process may have.
pub fn limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live local.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// Closes every descriptor of the engine: only for a freshly forked child, where no engine thread
/// exists any more and none of these are of use.
pub fn close_all_after_fork() {
    for (index, word) in OWNED.iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let fd = index * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            // SAFETY: the bit says that the parent's engine owned it when it forked.
            unsafe { libc::close(fd as RawFd) };
        }
    }
    COUNT.store(0, Ordering::Relaxed);
}

fn mark(raw: RawFd, owned: bool) {
    let fd = raw as usize;
    let Some(word) = OWNED.get(fd / 64) else {
        return;
    };
    let bit = 1 << (fd % 64);
    if owned {
        word.fetch_or(bit, Ordering::Relaxed);
    } else {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}
