//! The system calls that the standard library lacks; all `unsafe` of this program stands here.

use std::io;
use std::mem;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::{Duration, Instant};

pub const READ: u32 = libc::EPOLLIN as u32;
pub const WRITE: u32 = libc::EPOLLOUT as u32;
/// End of the peer's stream or an error: reported even where nothing is read.
pub const HANG_UP: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 256],
        })
    }

    fn control(&self, operation: i32, fd: RawFd, token: usize, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token as u64,
        };
        // SAFETY: `event` lives through the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }

    pub fn add(&self, fd: &impl AsRawFd, token: usize, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, interest)
    }

    pub fn change(&self, fd: &impl AsRawFd, token: usize, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, interest)
    }

    /// The number of events, to be fetched with `event`; 0 on time-out or signal.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        // Rounded up: a wait must not spin through the last millisecond.
        let milliseconds = timeout.as_micros().div_ceil(1_000).min(i32::MAX as u128) as i32;
        // SAFETY: the pointer and the length describe one live vector.
        let count = unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                milliseconds,
            )
        };
        match check(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other,
        }
    }

    pub fn event(&self, index: usize) -> (usize, u32) {
        let event = self.events[index];
        (event.u64 as usize, event.events)
    }
}

/// Takes received bytes off a TCP socket without copying them.
pub fn discard(stream: &TcpStream, limit: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, which may then be null.
    check_size(unsafe {
        libc::recv(
            stream.as_raw_fd(),
            ptr::null_mut(),
            limit,
            libc::MSG_TRUNC | libc::MSG_DONTWAIT,
        )
    })
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// A listener with a long queue whose connections inherit no-delay, which saves a call for each.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    set_option(
        listener.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_NODELAY,
        1,
    )?;
    // SAFETY: no pointers; listening again on the same socket only changes the queue's length.
    check(unsafe { libc::listen(listener.as_raw_fd(), 4096) })?;
    Ok(listener)
}

pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Large buffers, so that what is lost was lost by the relay.
pub fn udp_socket(address: SocketAddr, gro: bool) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    let fd = socket.as_raw_fd();
    for name in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        set_option(fd, libc::SOL_SOCKET, name, 4 << 20)?;
    }
    if gro {
        set_option(fd, libc::IPPROTO_UDP, libc::UDP_GRO, 1)?;
    }
    Ok(socket)
}

/// The kernel cuts each send into datagrams of `size` bytes.
pub fn set_segment_size(socket: &UdpSocket, size: usize) -> io::Result<()> {
    set_option(
        socket.as_raw_fd(),
        libc::IPPROTO_UDP,
        libc::UDP_SEGMENT,
        size as i32,
    )
}

/// A batch of datagrams for recvmmsg and sendmmsg with its buffers, addresses and headers.
pub struct Batch {
    width: usize,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    addresses: Vec<libc::sockaddr_in>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

impl Batch {
    pub fn new(count: usize, width: usize) -> Self {
        // SAFETY: all three are plain C structs for which zero bytes are a valid value.
        let (address, header, vector) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            width,
            bytes: vec![0; count * width],
            lengths: vec![0; count],
            addresses: vec![address; count],
            headers: vec![header; count],
            vectors: vec![vector; count],
        }
    }

    pub fn slot(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[index * self.width..(index + 1) * self.width]
    }

    pub fn datagram(&self, index: usize) -> &[u8] {
        let start = index * self.width;
        &self.bytes[start..start + self.lengths[index]]
    }

    pub fn sender(&self, index: usize) -> SocketAddr {
        let address = self.addresses[index];
        let ip = u32::from_be(address.sin_addr.s_addr).into();
        SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into()
    }

    fn prepare(&mut self, count: usize, addressed: bool) {
        for index in 0..count {
            self.vectors[index] = libc::iovec {
                iov_base: self.bytes[index * self.width..].as_mut_ptr().cast(),
                iov_len: self.lengths[index],
            };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
            if addressed {
                header.msg_name = (&raw mut self.addresses[index]).cast();
                header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            } else {
                header.msg_name = ptr::null_mut();
                header.msg_namelen = 0;
            }
        }
    }

    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.lengths.fill(self.width);
        self.prepare(self.lengths.len(), true);
        // SAFETY: `prepare` has just pointed every header at live parts of this batch, none of
        // which moves before the call returns.
        let count = check(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        })?;
        for index in 0..count {
            self.lengths[index] = self.headers[index].msg_len as usize;
        }
        Ok(count)
    }

    /// Sends `count` whole slots on a connected socket; how many the kernel took.
    pub fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<usize> {
        self.lengths.fill(self.width);
        self.prepare(count, false);
        self.send_prepared(socket, 0, count)
    }

    /// Sends the `count` datagrams just received back to where they came from.
    pub fn send_back(&mut self, socket: &UdpSocket, count: usize) -> io::Result<()> {
        self.prepare(count, true);
        let mut sent = 0;
        while sent < count {
            sent += self.send_prepared(socket, sent, count)?;
        }
        Ok(())
    }

    fn send_prepared(&mut self, socket: &UdpSocket, from: usize, to: usize) -> io::Result<usize> {
        let headers = &mut self.headers[from..to];
        // SAFETY: the headers were pointed at live parts of this batch by `prepare`.
        check(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                0,
            )
        })
    }
}

/// Sleeps until `moment` with the precision of the kernel's timers.
pub fn sleep_until(moment: Instant) {
    let rest = moment.saturating_duration_since(Instant::now());
    if !rest.is_zero() {
        std::thread::sleep(rest);
    }
}

/// The default slack of 50 µs would blur the pacing.
pub fn precise_timers() {
    // SAFETY: PR_SET_TIMERSLACK takes one number.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
}

pub fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
