//! System calls for datagrams: many at a time, in trains, with the addresses they were sent to.
//!
//! A train is a run of datagrams of one size (the last may be shorter) that the kernel takes or
//! gives as one piece (UDP_SEGMENT, UDP_GRO). Knows nothing of endpoints and associations.

mod control;
mod inbound;
mod outbound;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

pub use self::inbound::{Arrival, Inbound};
pub use self::outbound::{Fate, Outbound, send_from, send_to};
use super::addr::unmapped;
use super::socket::{connect, get, set};

/// The longest datagram, and the most that one train may hold.
pub const MAX_BYTES: usize = 65_507;
/// Datagrams in one train (UDP_MAX_SEGMENTS before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// The address of ours that a datagram came to, which is where its answers must come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub ip: IpAddr,
    /// The device's index, for addresses that mean something else on each (link-local); else 0.
    pub device: u32,
}

/// Whether the network can't reach the address, as opposed to an error of ours.
pub fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EACCES
                | libc::EPERM
                | libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT
                | libc::EINVAL
        )
    )
}

/// Has the kernel tell to which address each datagram was sent.
pub fn receive_local(fd: &impl AsRawFd, v4: bool) -> io::Result<()> {
    if v4 {
        set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    } else {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    }
}

/// Has the kernel hand over trains as they came. Kernels before 5.0 can't.
pub fn receive_trains(fd: &impl AsRawFd) {
    let _ = set(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
}

/// Has the kernel keep ICMP errors for `take_errors`; without this, an unconnected socket never
/// hears of them.
pub fn receive_errors(fd: &impl AsRawFd, v4: bool) -> io::Result<()> {
    if v4 {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    } else {
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    }
}

/// Takes up to `most` kept errors; how many there were. The one that is pending goes with them.
pub fn take_errors(fd: RawFd, most: usize) -> usize {
    for count in 0..most {
        let mut head = control::empty_head().msg_hdr;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: a head without any buffer receives nothing but the fact.
        if unsafe { libc::recvmsg(fd, &raw mut head, flags) } < 0 {
            return count;
        }
    }
    most
}

/// Asks for a receive buffer of `bytes`, past the system's limit if we may.
pub fn receive_buffer(fd: &impl AsRawFd, bytes: usize) {
    buffer(fd, libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, bytes);
}

/// As `receive_buffer`, for sending.
pub fn send_buffer(fd: &impl AsRawFd, bytes: usize) {
    buffer(fd, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, bytes);
}

fn buffer(fd: &impl AsRawFd, plain: libc::c_int, force: libc::c_int, bytes: usize) {
    let bytes = bytes as libc::c_int;
    // Never smaller than what somebody chose; the kernel tells twice of what was asked.
    if get(fd, libc::SOL_SOCKET, plain).is_ok_and(|now| now / 2 >= bytes) {
        return;
    }
    if set(fd, libc::SOL_SOCKET, force, bytes).is_err() {
        let _ = set(fd, libc::SOL_SOCKET, plain, bytes);
    }
}

/// Has an unconnected socket hear nobody any more, so that others bound to its port do. It can send
/// as before.
pub fn mute(fd: &impl AsRawFd, bound: &SocketAddr) -> io::Result<()> {
    let ip: IpAddr = match bound {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    // The discard service: whoever else sends is not who the socket is connected to.
    connect(fd, &SocketAddr::new(ip, 9)).map(drop)
}

/// Whether a socket bound to this address gets datagrams for many addresses.
pub fn is_wildcard(addr: &SocketAddr) -> bool {
    unmapped(addr.ip()).is_unspecified()
}
