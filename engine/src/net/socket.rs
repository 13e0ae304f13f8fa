//! Making sockets and setting their options; each call is one system call with its error.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::addr::RawAddr;
use super::fd::Fd;

const BACKLOG: libc::c_int = 4096;

/// The result of a system call: -1 becomes the error in `errno`.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As `check`, for calls that return a byte count.
pub fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Receives into `buf`; `None` when nothing is there now.
pub fn recv(fd: &impl AsRawFd, buf: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        // SAFETY: the pointer and length describe `buf`.
        let result = check_len(unsafe {
            libc::recv(
                fd.as_raw_fd(),
                buf.as_mut_ptr().cast(),
                buf.len(),
                libc::MSG_DONTWAIT,
            )
        });
        return match result {
            Ok(count) => Ok(Some(count)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                io::ErrorKind::Interrupted => continue,
                _ => Err(error),
            },
        };
    }
}

/// Whether the process or the system has run out of descriptors or socket memory.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// A TCP socket for `addr`'s family. MPTCP falls back to TCP where the kernel has none.
pub fn stream(addr: &SocketAddr, mptcp: bool) -> io::Result<Fd> {
    if mptcp && let Ok(fd) = open(addr, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) {
        return Ok(fd);
    }
    open(addr, libc::SOCK_STREAM, libc::IPPROTO_TCP)
}

/// A UDP socket for `addr`'s family.
pub fn datagram(addr: &SocketAddr) -> io::Result<Fd> {
    open(addr, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
}

fn open(addr: &SocketAddr, kind: libc::c_int, protocol: libc::c_int) -> io::Result<Fd> {
    let family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain arguments.
    check(unsafe { libc::socket(family, kind, protocol) }).map(Fd::own)
}

/// Sets an integer option.
pub fn set(
    fd: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Reads an integer option.
pub fn get(fd: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to live locals of the stated size.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    })?;
    Ok(value)
}

/// Binds the socket to a network device.
pub fn bind_device(fd: &impl AsRawFd, device: &str) -> io::Result<()> {
    // SAFETY: the pointer and length describe `device`.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            device.len() as libc::socklen_t,
        )
    })?;
    Ok(())
}

pub fn nodelay(fd: &impl AsRawFd) -> io::Result<()> {
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

/// Probes after `seconds` of silence, and again every `seconds`, at most `probes` times.
pub fn keepalive(fd: &impl AsRawFd, seconds: u32, probes: u32) -> io::Result<()> {
    if seconds == 0 {
        return set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0);
    }
    let seconds = seconds as libc::c_int;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds)?;
    set(
        fd,
        libc::IPPROTO_TCP,
        libc::TCP_KEEPCNT,
        probes as libc::c_int,
    )?;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
}

/// From now on, closing the socket sends a reset and drops what was not sent.
pub fn reset_on_close(fd: &impl AsRawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the pointer and length describe `linger`. A failure leaves an orderly close, which
    // is all that can be done then.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}

pub fn bind(fd: &impl AsRawFd, addr: &SocketAddr) -> io::Result<()> {
    let raw = RawAddr::from(*addr);
    // SAFETY: the pointer and length describe `raw`.
    check(unsafe { libc::bind(fd.as_raw_fd(), raw.as_ptr(), raw.len) })?;
    Ok(())
}

pub fn listen(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain arguments.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(())
}

/// Starts to connect. `Ok(true)` when connected at once, `Ok(false)` while under way.
pub fn connect(fd: &impl AsRawFd, addr: &SocketAddr) -> io::Result<bool> {
    let raw = RawAddr::from(*addr);
    // SAFETY: the pointer and length describe `raw`.
    match check(unsafe { libc::connect(fd.as_raw_fd(), raw.as_ptr(), raw.len) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The error that the socket holds, taken out of it.
pub fn take_error(fd: &impl AsRawFd) -> io::Result<()> {
    match get(fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Takes one connection from the queue, ready for the event loop.
pub fn accept(listener: RawFd) -> io::Result<(Fd, SocketAddr)> {
    let mut raw = RawAddr::empty();
    // SAFETY: the pointers are to a live RawAddr whose length says how large it is.
    let fd = check(unsafe {
        libc::accept4(
            listener,
            raw.as_mut_ptr(),
            &raw mut raw.len,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    })
    .map(Fd::own)?;
    match raw.get() {
        Some(addr) => Ok((fd, addr)),
        None => Err(io::Error::from_raw_os_error(libc::ECONNABORTED)),
    }
}

pub fn shutdown_write(fd: &impl AsRawFd) {
    // SAFETY: plain arguments. An error means that the connection is gone, which the next read
    // tells.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

pub fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain arguments.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: plain arguments.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: plain arguments.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Makes a descriptor from outside one that doesn't block, if it is a stream socket that can be
/// connected. Whether it still is turns out at the first read.
pub fn take_stream(raw: RawFd) -> io::Result<()> {
    let kind = get(&raw, libc::SOL_SOCKET, libc::SO_TYPE)?;
    let listens = get(&raw, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0;
    if kind != libc::SOCK_STREAM || listens {
        return Err(io::Error::from_raw_os_error(libc::ESOCKTNOSUPPORT));
    }
    // SAFETY: plain arguments.
    let flags = check(unsafe { libc::fcntl(raw, libc::F_GETFL) })?;
    match flags & libc::O_NONBLOCK {
        0 => set_nonblocking(&raw),
        _ => Ok(()),
    }
}

/// As `take_stream`, for a socket that listens.
pub fn take_listener(raw: RawFd) -> io::Result<()> {
    match get(&raw, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? {
        0 => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        _ => set_nonblocking(&raw),
    }
}

pub fn local_addr(fd: RawFd) -> Option<SocketAddr> {
    let mut raw = RawAddr::empty();
    // SAFETY: the pointers are to a live RawAddr whose length says how large it is.
    let result = unsafe { libc::getsockname(fd, raw.as_mut_ptr(), &raw mut raw.len) };
    if result == 0 { raw.get() } else { None }
}

/// Bytes that were written and that the peer has not acknowledged yet.
pub fn unsent(fd: &impl AsRawFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ on sockets) writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result == 0 {
        count.max(0) as usize
    } else {
        0
    }
}

/// The first address of the device in the given family: what `through = "eth0"` means right now.
pub fn device_addr(device: &str, v4: bool) -> io::Result<IpAddr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs writes a list that is freed below.
    check(unsafe { libc::getifaddrs(&raw mut list) })?;
    let mut found = None;
    let mut entry = list;
    while !entry.is_null() && found.is_none() {
        // SAFETY: the list's entries live until freeifaddrs.
        let item = unsafe { &*entry };
        entry = item.ifa_next;
        // SAFETY: names in the list are NUL-terminated.
        let name = unsafe { std::ffi::CStr::from_ptr(item.ifa_name) };
        if item.ifa_addr.is_null() || name.to_bytes() != device.as_bytes() {
            continue;
        }
        found = listed_addr(item.ifa_addr).filter(|ip| ip.is_ipv4() == v4 && !is_link_local(ip));
    }
    // SAFETY: `list` came from getifaddrs and is freed once.
    unsafe { libc::freeifaddrs(list) };
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
}

fn listed_addr(addr: *const libc::sockaddr) -> Option<IpAddr> {
    let mut raw = RawAddr::empty();
    // SAFETY: every sockaddr begins with its family.
    let len = match i32::from(unsafe { (*addr).sa_family }) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    // SAFETY: the family says how long the source is; the target is larger.
    unsafe { std::ptr::copy_nonoverlapping(addr.cast::<u8>(), raw.as_mut_ptr().cast(), len) };
    raw.get().map(|addr| addr.ip())
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What a listening socket is asked to be.
pub struct Listening<'a> {
    pub addr: SocketAddr,
    pub ipv6_only: bool,
    pub device: Option<&'a str>,
    /// Another socket of this process may still hold the address (a changed endpoint).
    pub takeover: bool,
}

impl Listening<'_> {
    pub fn tcp(&self, mptcp: bool) -> io::Result<Fd> {
        let fd = stream(&self.addr, mptcp)?;
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        self.bind(&fd)?;
        listen(&fd)?;
        Ok(fd)
    }

    /// No SO_REUSEADDR: for UDP it would let a second program share the port unnoticed.
    pub fn udp(&self) -> io::Result<Fd> {
        let fd = datagram(&self.addr)?;
        self.bind(&fd)?;
        Ok(fd)
    }

    fn bind(&self, fd: &Fd) -> io::Result<()> {
        if self.addr.is_ipv6() {
            let only = libc::c_int::from(self.ipv6_only);
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
        }
        if let Some(device) = self.device {
            bind_device(fd, device)?;
        }
        // SO_REUSEPORT before bind would share the port with whoever else asks for it; after bind
        // it only allows a later socket of this user that asks for it too, which a takeover does.
        if self.takeover {
            set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        bind(fd, &self.addr)?;
        if !self.takeover {
            let _ = set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        }
        Ok(())
    }
}

/// `timeout` in the kernel's milliseconds, rounded up so that a timer is never early.
pub fn millis(timeout: Duration) -> libc::c_int {
    let up = timeout.as_millis() + u128::from(!timeout.subsec_nanos().is_multiple_of(1_000_000));
    libc::c_int::try_from(up).unwrap_or(libc::c_int::MAX)
}
