//! System calls for datagrams: many at a time, in trains, with the addresses they were sent to.
//!
//! A train is a run of datagrams of one size (the last may be shorter) that the kernel takes or
//! gives as one piece (UDP_SEGMENT, UDP_GRO). Knows nothing of endpoints and associations.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use super::addr::{RawAddr, unmapped};
use super::socket::{check, check_len, set};

/// The longest datagram, and the most that one train may hold.
pub const MAX_BYTES: usize = 65_507;
/// Datagrams in one train (UDP_MAX_SEGMENTS before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;

/// Room for one receive: a received train may be 64 KiB long. The odd lines keep the starts of
/// consecutive slots out of the same sets of the CPU's caches.
const SLOT: usize = 65_536 + 17 * 64;

/// Room for IPV6_PKTINFO and UDP_GRO or UDP_SEGMENT, aligned as control messages must be.
type Control = [u64; 10];

/// The address of ours that a datagram came to, which is where its answers must come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    pub ip: IpAddr,
    /// The device's index, for addresses that mean something else on each (link-local); else 0.
    pub device: u32,
}

/// What is known about a received datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub len: usize,
    /// Size of each datagram in it but the last; `len` when there is only one.
    pub segment: usize,
    pub sender: Option<SocketAddr>,
    pub local: Option<Local>,
}

/// Slots that datagrams are received into.
pub struct Inbound {
    bytes: Box<[u8]>,
    heads: Box<[libc::mmsghdr]>,
    /// What `heads` point to, besides `bytes`.
    iovs: Box<[libc::iovec]>,
    names: Box<[RawAddr]>,
    controls: Box<[Control]>,
    arrivals: Vec<Arrival>,
}

impl Inbound {
    /// Pages of the slots cost memory only once something was received into them. `named` is
    /// whether to ask for senders.
    pub fn new(slots: usize, named: bool) -> Self {
        let mut inbound = Self {
            bytes: vec![0; slots * SLOT].into_boxed_slice(),
            heads: vec![empty_head(); slots].into_boxed_slice(),
            iovs: vec![empty_iov(); slots].into_boxed_slice(),
            names: vec![RawAddr::empty(); if named { slots } else { 0 }].into_boxed_slice(),
            controls: vec![Control::default(); slots].into_boxed_slice(),
            arrivals: Vec::with_capacity(slots),
        };
        let base = inbound.bytes.as_mut_ptr();
        for slot in 0..slots {
            inbound.iovs[slot] = libc::iovec {
                iov_base: base.wrapping_add(slot * SLOT).cast(),
                iov_len: SLOT,
            };
            let head = &mut inbound.heads[slot].msg_hdr;
            head.msg_iov = &raw mut inbound.iovs[slot];
            head.msg_iovlen = 1;
            head.msg_control = inbound.controls[slot].as_mut_ptr().cast();
            head.msg_controllen = size_of::<Control>();
            if named {
                head.msg_name = inbound.names[slot].as_mut_ptr().cast();
                head.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            }
        }
        inbound
    }

    pub fn slots(&self) -> usize {
        self.heads.len()
    }

    /// How many slots are in use.
    pub fn used(&self) -> usize {
        self.arrivals.len()
    }

    pub fn clear(&mut self) {
        self.arrivals.clear();
    }

    /// Receives at most `most` times into the slots that are free; how many slots were filled.
    pub fn receive(&mut self, fd: RawFd, most: usize) -> io::Result<usize> {
        let first = self.arrivals.len();
        let end = self.heads.len().min(first + most);
        let heads = &mut self.heads[first..end];
        // SAFETY: each head points to an iovec, a name and a control buffer of its own in boxes
        // that live as long as `self`, with their true lengths (restored below after each use).
        let count = check(unsafe {
            libc::recvmmsg(
                fd,
                heads.as_mut_ptr(),
                heads.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        })? as usize;
        for slot in first..first + count {
            let head = &mut self.heads[slot];
            let len = head.msg_len as usize;
            let (segment, local) = read_control(&head.msg_hdr);
            let sender = self.names.get(slot).and_then(RawAddr::get);
            self.arrivals.push(Arrival {
                len,
                segment: segment.filter(|size| *size > 0).unwrap_or(len).min(len),
                sender,
                local,
            });
            head.msg_hdr.msg_controllen = size_of::<Control>();
            if !head.msg_hdr.msg_name.is_null() {
                head.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            }
        }
        Ok(count)
    }

    /// Receives once from a socket that gives neither trains nor addresses.
    pub fn receive_one(&mut self, fd: RawFd) -> io::Result<usize> {
        let slot = self.arrivals.len();
        if slot == self.heads.len() {
            return Ok(0);
        }
        let room = &mut self.bytes[slot * SLOT..(slot + 1) * SLOT];
        // SAFETY: the pointer and length describe `room`.
        let len = check_len(unsafe {
            libc::recv(fd, room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT)
        })?;
        self.arrivals.push(Arrival {
            len,
            segment: len,
            sender: None,
            local: None,
        });
        Ok(1)
    }

    pub fn arrival(&self, slot: usize) -> &Arrival {
        &self.arrivals[slot]
    }

    /// The bytes received into a slot.
    pub fn bytes(&self, slot: usize) -> &[u8] {
        &self.bytes[slot * SLOT..slot * SLOT + self.arrivals[slot].len]
    }
}

fn empty_head() -> libc::mmsghdr {
    // SAFETY: null pointers and zero lengths are valid in every field.
    unsafe { std::mem::zeroed() }
}

fn empty_iov() -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }
}

/// Segment size and local address out of a received header.
fn read_control(head: &libc::msghdr) -> (Option<usize>, Option<Local>) {
    let (mut segment, mut local) = (None, None);
    // SAFETY: the kernel filled the control buffer and set its length.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !control.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers that lie within the buffer.
        let kind = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(control) };
        match kind {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: UDP_GRO carries an int.
                let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                segment = usize::try_from(size).ok();
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: IP_PKTINFO carries an in_pktinfo. Its ipi_spec_dst is an address of
                // ours even when the datagram was sent to a broadcast address.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                let ip = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                local = Some(Local {
                    ip: ip.into(),
                    device: 0,
                });
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: IPV6_PKTINFO carries an in6_pktinfo.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // A group is nobody's source address.
                if !ip.is_multicast() {
                    let device = if ip.is_unicast_link_local() {
                        info.ipi6_ifindex
                    } else {
                        0
                    };
                    local = Some(Local {
                        ip: ip.into(),
                        device: device as u32,
                    });
                }
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        control = unsafe { libc::CMSG_NXTHDR(head, control) };
    }
    (segment, local)
}

/// One message to be sent: a datagram or a train.
struct Message {
    to: RawAddr,
    local: Option<Local>,
    /// The part of `spans` that it consists of.
    spans: (usize, usize),
    bytes: usize,
    segment: usize,
    packets: usize,
    tag: usize,
}

/// What became of a message.
pub enum Fate<'a> {
    Sent {
        bytes: usize,
        packets: usize,
    },
    Lost {
        packets: usize,
        error: &'a io::Error,
    },
    /// The kernel took the datagrams one by one that it had refused as a train.
    NoTrain {
        segment: usize,
        error: &'a io::Error,
    },
}

/// Messages gathered to be sent through one socket, all from slots of one `Inbound`.
#[derive(Default)]
pub struct Outbound {
    messages: Vec<Message>,
    /// Offset into the inbound bytes, and length.
    spans: Vec<(usize, usize)>,
    heads: Vec<libc::mmsghdr>,
    iovs: Vec<libc::iovec>,
    controls: Vec<Control>,
}

impl Outbound {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Begins a message. `tag` comes back with its fate.
    pub fn begin(&mut self, to: &RawAddr, local: Option<Local>, tag: usize) {
        let at = self.spans.len();
        self.messages.push(Message {
            to: *to,
            local,
            spans: (at, at),
            bytes: 0,
            segment: 0,
            packets: 0,
            tag,
        });
    }

    /// Adds `len` bytes of a slot from `offset` on, `packets` datagrams of `segment` bytes, to the
    /// message begun last.
    pub fn add(&mut self, slot: usize, offset: usize, len: usize, segment: usize, packets: usize) {
        self.spans.push((slot * SLOT + offset, len));
        if let Some(message) = self.messages.last_mut() {
            message.spans.1 = self.spans.len();
            message.bytes += len;
            message.packets += packets;
            if message.segment == 0 {
                message.segment = segment;
            }
        }
    }

    /// Sends everything and forgets it. A message that can't be sent doesn't keep the others.
    pub fn send(&mut self, fd: RawFd, inbound: &Inbound, mut told: impl FnMut(usize, Fate<'_>)) {
        if self.send_only(fd, inbound, &mut told) {
            self.messages.clear();
            self.spans.clear();
            return;
        }
        self.prepare(inbound);
        let mut at = 0;
        let mut retried = false;
        while at < self.messages.len() {
            let heads = &mut self.heads[at..];
            // SAFETY: `prepare` made the heads point to live buffers of the stated lengths, and
            // nothing was moved since.
            let result = check(unsafe {
                libc::sendmmsg(
                    fd,
                    heads.as_mut_ptr(),
                    heads.len() as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            });
            let message = &self.messages[at];
            match result {
                Ok(count) => {
                    for message in &self.messages[at..at + count as usize] {
                        told(
                            message.tag,
                            Fate::Sent {
                                bytes: message.bytes,
                                packets: message.packets,
                            },
                        );
                    }
                    at += count as usize;
                    retried = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if message.packets > 1 && refuses_train(&error) => {
                    self.send_apart(fd, inbound, at, &error, &mut told);
                    at += 1;
                    retried = false;
                }
                // An error left by an earlier datagram (ICMP), or a full queue: once more.
                Err(error) if !retried && is_worth_a_retry(&error) => {
                    retried = true;
                    if error.kind() == io::ErrorKind::WouldBlock {
                        grow_send_buffer(fd);
                    }
                }
                Err(error) => {
                    told(
                        message.tag,
                        Fate::Lost {
                            packets: message.packets,
                            error: &error,
                        },
                    );
                    at += 1;
                    retried = false;
                }
            }
        }
        self.messages.clear();
        self.spans.clear();
    }

    /// The short way for a lone datagram; false when it could not be sent so.
    fn send_only(
        &self,
        fd: RawFd,
        inbound: &Inbound,
        told: &mut impl FnMut(usize, Fate<'_>),
    ) -> bool {
        let ([message], [(offset, len)]) = (&*self.messages, &*self.spans) else {
            return false;
        };
        if message.packets > 1 || message.local.is_some() {
            return false;
        }
        let datagram = &inbound.bytes[*offset..*offset + *len];
        // SAFETY: the pointers and lengths describe `datagram` and the address.
        let sent = unsafe {
            libc::sendto(
                fd,
                datagram.as_ptr().cast(),
                datagram.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                message.to.as_ptr(),
                message.to.len,
            )
        };
        if sent < 0 {
            return false;
        }
        let (bytes, packets) = (*len, 1);
        told(message.tag, Fate::Sent { bytes, packets });
        true
    }

    /// Makes the kernel's structures, once nothing is added any more.
    fn prepare(&mut self, inbound: &Inbound) {
        self.iovs.clear();
        self.iovs.extend(self.spans.iter().map(|(offset, len)| {
            let bytes = &inbound.bytes[*offset..*offset + *len];
            libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: *len,
            }
        }));
        self.controls.clear();
        self.controls
            .resize(self.messages.len(), Control::default());
        self.heads.clear();
        for (index, message) in self.messages.iter().enumerate() {
            let mut head = empty_head();
            head.msg_hdr.msg_name = message.to.as_ptr().cast_mut().cast();
            head.msg_hdr.msg_namelen = message.to.len;
            let (first, end) = message.spans;
            head.msg_hdr.msg_iov = self.iovs[first..end].as_mut_ptr();
            head.msg_hdr.msg_iovlen = end - first;
            let segment = (message.packets > 1).then_some(message.segment);
            write_control(
                &mut head.msg_hdr,
                &mut self.controls[index],
                message.to.get().is_some_and(|to| to.is_ipv4()),
                message.local,
                segment,
            );
            self.heads.push(head);
        }
    }

    /// Sends the datagrams of a refused train one by one.
    fn send_apart(
        &self,
        fd: RawFd,
        inbound: &Inbound,
        at: usize,
        refusal: &io::Error,
        told: &mut impl FnMut(usize, Fate<'_>),
    ) {
        let message = &self.messages[at];
        let mut head = self.heads[at].msg_hdr;
        let mut control = Control::default();
        let v4 = message.to.get().is_some_and(|to| to.is_ipv4());
        write_control(&mut head, &mut control, v4, message.local, None);
        let mut said = false;
        for (offset, len) in &self.spans[message.spans.0..message.spans.1] {
            for datagram in inbound.bytes[*offset..*offset + *len].chunks(message.segment) {
                match send_one(fd, &mut head, datagram) {
                    Ok(()) => {
                        if !said {
                            said = true;
                            told(
                                message.tag,
                                Fate::NoTrain {
                                    segment: message.segment,
                                    error: refusal,
                                },
                            );
                        }
                        told(
                            message.tag,
                            Fate::Sent {
                                bytes: datagram.len(),
                                packets: 1,
                            },
                        );
                    }
                    Err(error) => told(
                        message.tag,
                        Fate::Lost {
                            packets: 1,
                            error: &error,
                        },
                    ),
                }
            }
        }
    }
}

/// Sends one datagram from elsewhere than a slot.
pub fn send_to(fd: RawFd, to: &RawAddr, datagram: &[u8]) -> io::Result<()> {
    let mut head = empty_head().msg_hdr;
    head.msg_name = to.as_ptr().cast_mut().cast();
    head.msg_namelen = to.len;
    send_one(fd, &mut head, datagram)
}

fn send_one(fd: RawFd, head: &mut libc::msghdr, datagram: &[u8]) -> io::Result<()> {
    let mut iov = libc::iovec {
        iov_base: datagram.as_ptr().cast_mut().cast(),
        iov_len: datagram.len(),
    };
    head.msg_iov = &raw mut iov;
    head.msg_iovlen = 1;
    let mut retried = false;
    loop {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the head points to live buffers of the stated lengths.
        match check_len(unsafe { libc::sendmsg(fd, head, flags) }) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if !retried && is_worth_a_retry(&error) => retried = true,
            Err(error) => return Err(error),
        }
    }
}

/// Writes the control messages for a source address and a segment size.
fn write_control(
    head: &mut libc::msghdr,
    control: &mut Control,
    v4: bool,
    local: Option<Local>,
    segment: Option<usize>,
) {
    head.msg_control = control.as_mut_ptr().cast();
    head.msg_controllen = size_of::<Control>();
    let mut len = 0;
    // SAFETY: the buffer has room for at least one header.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(head) };
    if let Some(local) = local {
        len += match (local.ip, v4) {
            (IpAddr::V4(ip), true) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from(ip).to_be(),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                put(next, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
            }
            (ip, _) => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: ip.octets(),
                    },
                    ipi6_ifindex: local.device as _,
                };
                put(next, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info)
            }
        };
        // SAFETY: the buffer has room for a second header behind either of these.
        next = unsafe { libc::CMSG_NXTHDR(head, next) };
    }
    if let Some(segment) = segment {
        let segment = u16::try_from(segment).unwrap_or(u16::MAX);
        len += put(next, (libc::SOL_UDP, libc::UDP_SEGMENT), segment);
    }
    head.msg_controllen = len;
    if len == 0 {
        head.msg_control = std::ptr::null_mut();
    }
}

/// Writes one control message; the room that it takes.
fn put<T>(at: *mut libc::cmsghdr, kind: (libc::c_int, libc::c_int), value: T) -> usize {
    if at.is_null() {
        return 0;
    }
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: `at` lies in a control buffer that has room for the largest messages we write.
    unsafe {
        (*at).cmsg_level = kind.0;
        (*at).cmsg_type = kind.1;
        (*at).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(size) as usize
    }
}

/// Errors by which kernels and devices say that they don't do trains, or not of this size.
fn refuses_train(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::EMSGSIZE)
    )
}

/// Errors that speak of an earlier datagram, and queues that may have been emptied meanwhile.
fn is_worth_a_retry(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EACCES
                | libc::EAGAIN
                | libc::ENOBUFS
        )
    )
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
        let mut head = empty_head().msg_hdr;
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
    if super::socket::get(fd, libc::SOL_SOCKET, plain).is_ok_and(|now| now / 2 >= bytes) {
        return;
    }
    if set(fd, libc::SOL_SOCKET, force, bytes).is_err() {
        let _ = set(fd, libc::SOL_SOCKET, plain, bytes);
    }
}

/// What a send buffer grows to when it was once too small.
const GROWN_SEND_BUFFER: usize = 1 << 20;

fn grow_send_buffer(fd: RawFd) {
    send_buffer(&fd, GROWN_SEND_BUFFER);
}

/// Has an unconnected socket hear nobody any more, so that others bound to its port do. It can send
/// as before.
pub fn mute(fd: &impl AsRawFd, bound: &SocketAddr) -> io::Result<()> {
    let ip: IpAddr = match bound {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    // The discard service: whoever else sends is not who the socket is connected to.
    super::socket::connect(fd, &SocketAddr::new(ip, 9)).map(drop)
}

/// Whether a socket bound to this address gets datagrams for many addresses.
pub fn is_wildcard(addr: &SocketAddr) -> bool {
    unmapped(addr.ip()).is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(v4: bool, local: Option<Local>, segment: Option<usize>) -> libc::msghdr {
        let control = Box::leak(Box::new(Control::default()));
        let mut head = empty_head().msg_hdr;
        write_control(&mut head, control, v4, local, segment);
        head
    }

    fn local(text: &str) -> Option<Local> {
        Some(Local {
            ip: text.parse().expect("literal"),
            device: 0,
        })
    }

    #[test]
    fn what_is_written_is_what_the_kernel_would_say() {
        for (v4, text) in [(true, "192.0.2.7"), (false, "2001:db8::7")] {
            let (segment, read) = read_control(&written(v4, local(text), None));
            assert_eq!(segment, None);
            assert_eq!(read, local(text));
        }
        // To a client on IPv6 the source is IPv6, mapped or not.
        let (_, read) = read_control(&written(false, local("192.0.2.7"), None));
        assert_eq!(read, local("::ffff:192.0.2.7"));
    }

    #[test]
    fn no_control_is_no_buffer() {
        let head = written(true, None, None);
        assert!(head.msg_control.is_null());
        assert_eq!(head.msg_controllen, 0);
    }

    #[test]
    fn both_control_messages_fit() {
        let head = written(false, local("2001:db8::7"), Some(1200));
        // SAFETY: the head was written above.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const head) };
        // SAFETY: as above.
        let second = unsafe { libc::CMSG_NXTHDR(&raw const head, first) };
        assert!(!second.is_null());
        // SAFETY: as above; UDP_SEGMENT carries a u16.
        let (kind, segment) = unsafe {
            (
                (*second).cmsg_type,
                libc::CMSG_DATA(second).cast::<u16>().read_unaligned(),
            )
        };
        assert_eq!((kind, segment), (libc::UDP_SEGMENT, 1200));
    }
}
