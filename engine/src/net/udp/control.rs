//! Control messages: local addresses and segment sizes, from and to the kernel.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Local;

/// Room for IPV6_PKTINFO and UDP_GRO or UDP_SEGMENT, aligned as control messages must be.
pub(super) type Control = [u64; 10];

/// Segment size and local address out of a received header.
pub(super) fn read_control(head: &libc::msghdr) -> (Option<usize>, Option<Local>) {
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

/// Writes the control messages for a source address and a segment size.
pub(super) fn write_control(
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

pub(super) fn empty_head() -> libc::mmsghdr {
    // SAFETY: null pointers and zero lengths are valid in every field.
    unsafe { std::mem::zeroed() }
}

pub(super) fn empty_iov() -> libc::iovec {
    libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }
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
