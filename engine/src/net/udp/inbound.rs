//! Receiving many datagrams at once.

use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::Local;
use super::control::{Control, empty_head, empty_iov, read_control};
use crate::net::addr::RawAddr;
use crate::net::socket::{check, check_len};

/// Room for one receive: a received train may be 64 KiB long. The odd lines keep the starts of
/// consecutive slots out of the same sets of the CPU's caches.
const SLOT: usize = 65_536 + 17 * 64;

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

    /// The part of all bytes that begins at `offset` of a slot.
    pub(super) fn position(slot: usize, offset: usize) -> usize {
        slot * SLOT + offset
    }

    /// Bytes at a position.
    pub(super) fn at(&self, position: usize, len: usize) -> &[u8] {
        &self.bytes[position..position + len]
    }

    /// The bytes received into a slot.
    pub fn bytes(&self, slot: usize) -> &[u8] {
        &self.bytes[slot * SLOT..slot * SLOT + self.arrivals[slot].len]
    }
}
