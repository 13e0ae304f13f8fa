//! Sending many datagrams at once, in trains where the kernel takes them.

use std::io;
use std::os::fd::RawFd;

use super::control::{Control, empty_head, write_control};
use super::{Inbound, Local, send_buffer};
use crate::net::addr::RawAddr;
use crate::net::socket::{check, check_len};

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

/// A piece of a message.
#[derive(Clone, Copy)]
struct Span {
    origin: Origin,
    at: usize,
    len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A position in the inbound bytes.
    Inbound,
    Own,
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
    spans: Vec<Span>,
    /// Bytes that go before what was received.
    own: Vec<u8>,
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
        self.push(Origin::Inbound, Inbound::position(slot, offset), len);
        if let Some(message) = self.messages.last_mut() {
            message.packets += packets;
            if message.segment == 0 {
                message.segment = segment;
            }
        }
    }

    /// Adds bytes that go before those added next, in the same datagram.
    pub fn add_own(&mut self, bytes: &[u8]) {
        let at = self.own.len();
        self.own.extend_from_slice(bytes);
        self.push(Origin::Own, at, bytes.len());
    }

    fn push(&mut self, origin: Origin, at: usize, len: usize) {
        self.spans.push(Span { origin, at, len });
        if let Some(message) = self.messages.last_mut() {
            message.spans.1 = self.spans.len();
            message.bytes += len;
        }
    }

    /// Sends everything and forgets it. A message that can't be sent doesn't keep the others.
    pub fn send(&mut self, fd: RawFd, inbound: &Inbound, mut told: impl FnMut(usize, Fate<'_>)) {
        if self.send_only(fd, inbound, &mut told) {
            self.forget();
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
        self.forget();
    }

    fn forget(&mut self) {
        self.messages.clear();
        self.spans.clear();
        self.own.clear();
    }

    fn bytes<'a>(&'a self, inbound: &'a Inbound, span: &Span) -> &'a [u8] {
        match span.origin {
            Origin::Inbound => inbound.at(span.at, span.len),
            Origin::Own => &self.own[span.at..span.at + span.len],
        }
    }

    /// The short way for a lone datagram; false when it could not be sent so.
    fn send_only(
        &self,
        fd: RawFd,
        inbound: &Inbound,
        told: &mut impl FnMut(usize, Fate<'_>),
    ) -> bool {
        let ([message], [span]) = (&*self.messages, &*self.spans) else {
            return false;
        };
        if message.packets > 1 || message.local.is_some() {
            return false;
        }
        let datagram = self.bytes(inbound, span);
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
        let (bytes, packets) = (span.len, 1);
        told(message.tag, Fate::Sent { bytes, packets });
        true
    }

    /// Makes the kernel's structures, once nothing is added any more.
    fn prepare(&mut self, inbound: &Inbound) {
        let mut iovs = std::mem::take(&mut self.iovs);
        iovs.clear();
        iovs.extend(self.spans.iter().map(|span| libc::iovec {
            iov_base: self.bytes(inbound, span).as_ptr().cast_mut().cast(),
            iov_len: span.len,
        }));
        self.iovs = iovs;
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
        let spans = &self.spans[message.spans.0..message.spans.1];
        let bytes: Vec<u8> = spans
            .iter()
            .flat_map(|span| self.bytes(inbound, span))
            .copied()
            .collect();
        for datagram in bytes.chunks(message.segment) {
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

/// Sends one datagram from elsewhere than a slot.
pub fn send_to(fd: RawFd, to: &RawAddr, datagram: &[u8]) -> io::Result<()> {
    let mut head = empty_head().msg_hdr;
    head.msg_name = to.as_ptr().cast_mut().cast();
    head.msg_namelen = to.len;
    send_one(fd, &mut head, datagram)
}

/// Sends one datagram from an address of ours, where it matters which.
pub fn send_from(fd: RawFd, to: &RawAddr, local: Option<Local>, datagram: &[u8]) -> io::Result<()> {
    let mut head = empty_head().msg_hdr;
    head.msg_name = to.as_ptr().cast_mut().cast();
    head.msg_namelen = to.len;
    let mut control = Control::default();
    let v4 = to.get().is_some_and(|to| to.is_ipv4());
    write_control(&mut head, &mut control, v4, local, None);
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

/// What a send buffer grows to when it was once too small.
const GROWN_SEND_BUFFER: usize = 1 << 20;

fn grow_send_buffer(fd: RawFd) {
    send_buffer(&fd, GROWN_SEND_BUFFER);
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::net::socket::set;

    fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let addr = socket.local_addr().expect("bound");
        (socket, addr)
    }

    /// Slots that hold datagrams of these sizes, each filled with its number.
    fn filled(sizes: &[usize]) -> Inbound {
        let (socket, addr) = socket();
        for (number, size) in sizes.iter().enumerate() {
            let sent = socket.send_to(&vec![number as u8; *size], addr);
            assert_eq!(sent.expect("room"), *size);
        }
        let mut inbound = Inbound::new(sizes.len(), true);
        let count = inbound.receive(socket.as_raw_fd(), sizes.len());
        assert_eq!(count.expect("datagrams"), sizes.len());
        inbound
    }

    fn received(socket: &UdpSocket) -> Vec<(u8, usize)> {
        socket.set_nonblocking(true).expect("an option");
        let mut buffer = [0; 2_000];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|len| (buffer[0], len))).collect()
    }

    #[test]
    fn a_refused_train_goes_datagram_by_datagram() {
        let inbound = filled(&[1_000, 1_000, 400]);
        let (target, addr) = socket();
        let (sender, _) = socket();
        // Without checksums the kernel makes no trains.
        set(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("an option");
        let mut out = Outbound::default();
        out.begin(&addr.into(), None, 7);
        for slot in 0..3 {
            out.add(slot, 0, inbound.arrival(slot).len, 1_000, 1);
        }
        let (mut refused, mut sent) = (None, 0);
        out.send(sender.as_raw_fd(), &inbound, |tag, fate| match fate {
            Fate::Sent { bytes, packets } => sent += bytes * packets,
            Fate::NoTrain { segment, .. } => refused = Some((tag, segment)),
            Fate::Lost { error, .. } => panic!("{error}"),
        });
        assert_eq!(refused, Some((7, 1_000)));
        assert_eq!(sent, 2_400);
        assert_eq!(received(&target), [(0, 1_000), (1, 1_000), (2, 400)]);
    }

    #[test]
    fn bytes_of_our_own_go_before_each_datagram_of_a_train() {
        // With checksums as a train; without, the kernel takes them one by one.
        for apart in [0, 1] {
            let inbound = filled(&[1_000, 1_000, 400]);
            let (target, addr) = socket();
            let (sender, _) = socket();
            set(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, apart).expect("an option");
            let mut out = Outbound::default();
            out.begin(&addr.into(), None, 0);
            for slot in 0..3 {
                out.add_own(&[b'a' + slot as u8; 10]);
                out.add(slot, 0, inbound.arrival(slot).len, 1_010, 1);
            }
            let mut sent = 0;
            out.send(sender.as_raw_fd(), &inbound, |_, fate| {
                if let Fate::Sent { bytes, .. } = fate {
                    sent += bytes;
                }
            });
            assert_eq!(sent, 2_430);
            let expected = [(b'a', 1_010), (b'b', 1_010), (b'c', 410)];
            assert_eq!(received(&target), expected);
        }
    }

    #[test]
    fn a_message_that_cannot_be_sent_keeps_no_other() {
        let inbound = filled(&[10, 20, 30]);
        let (target, addr) = socket();
        let nowhere = SocketAddr::new(addr.ip(), 0);
        let mut out = Outbound::default();
        for (slot, to) in [addr, nowhere, addr].into_iter().enumerate() {
            let len = inbound.arrival(slot).len;
            out.begin(&to.into(), None, slot);
            out.add(slot, 0, len, len, 1);
        }
        let mut fates = Vec::new();
        let (sender, _) = socket();
        out.send(sender.as_raw_fd(), &inbound, |tag, fate| {
            fates.push((tag, matches!(fate, Fate::Sent { .. })));
        });
        assert_eq!(fates, [(0, true), (1, false), (2, true)]);
        assert_eq!(received(&target), [(0, 10), (2, 30)]);
        assert!(out.is_empty());
    }

    #[test]
    fn an_error_of_an_earlier_datagram_eats_no_later_one() {
        let inbound = filled(&[10]);
        let (sender, _) = socket();
        crate::net::udp::receive_errors(&sender, true).expect("an option");
        let (gone, addr) = socket();
        drop(gone);
        // Refused: on loopback the answer is there when the call returns.
        sender.send_to(b"x", addr).expect("sent");
        let target = UdpSocket::bind(addr).expect("the same port");
        let mut out = Outbound::default();
        out.begin(&addr.into(), None, 0);
        out.add(0, 0, 10, 10, 1);
        let mut sent = false;
        out.send(sender.as_raw_fd(), &inbound, |_, fate| {
            sent = matches!(fate, Fate::Sent { .. });
        });
        assert!(sent);
        assert_eq!(received(&target), [(0, 10)]);
    }
}
