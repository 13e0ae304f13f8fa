//! The header before each datagram between a SOCKS5 client and us (RFC 1928 section 7). No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V4: u8 = 0x01;
const NAME: u8 = 0x03;
const V6: u8 = 0x04;
/// Two bytes kept for later, and the number of the fragment.
const BEFORE: usize = 3;
const PORT: usize = 2;
/// The longest header that we write.
const LONGEST: usize = BEFORE + 1 + 16 + PORT;

/// Cuts a datagram of the client: where it is to go, as it came, and how long the header is. `None`
/// when it is no such datagram, or a fragment: those may be dropped, and everybody does.
pub fn split(datagram: &[u8]) -> Option<(&[u8], usize)> {
    let [0, 0, 0, kind, rest @ ..] = datagram else {
        return None;
    };
    let host = match *kind {
        V4 => 4,
        V6 => 16,
        NAME => match rest {
            [0, ..] | [] => return None,
            [len, ..] => 1 + usize::from(*len),
        },
        _ => return None,
    };
    let header = BEFORE + 1 + host + PORT;
    datagram
        .get(BEFORE..header)
        .map(|address| (address, header))
}

/// Where `split` says that a datagram is to go, as `host:port`. `None` for a name that can't be one
/// and for port 0.
pub fn destination(address: &[u8]) -> Option<String> {
    let (host, port) = address.split_last_chunk::<PORT>()?;
    let port = u16::from_be_bytes(*port);
    if port == 0 {
        return None;
    }
    let ip = match *host {
        [V4, a, b, c, d] => IpAddr::from([a, b, c, d]),
        [V6, ref ip @ ..] => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        [NAME, _, ref name @ ..] => match literal(name) {
            Some(ip) => ip,
            None if is_name(name) => {
                let name = std::str::from_utf8(name).ok()?;
                return Some(format!("{name}:{port}"));
            }
            None => return None,
        },
        _ => return None,
    };
    Some(SocketAddr::new(ip, port).to_string())
}

/// Some clients send addresses as names.
fn literal(name: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// What a name of a host may consist of; owners need not look for surprises in it.
fn is_name(name: &[u8]) -> bool {
    name.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The header of an answer: who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Header {
    pub fn of(sender: &SocketAddr) -> Self {
        let mut header = Self {
            bytes: [0; LONGEST],
            len: BEFORE,
        };
        match sender.ip() {
            IpAddr::V4(ip) => header.put(V4, &Ipv4Addr::octets(&ip)),
            IpAddr::V6(ip) => header.put(V6, &Ipv6Addr::octets(&ip)),
        }
        header.add(&sender.port().to_be_bytes());
        header
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, kind: u8, ip: &[u8]) {
        self.add(&[kind]);
        self.add(ip);
    }

    fn add(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(datagram: &[u8]) -> Option<(String, &[u8])> {
        let (address, header) = split(datagram)?;
        Some((destination(address)?, &datagram[header..]))
    }

    fn named(name: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0, 0, 0, NAME, name.len() as u8];
        datagram.extend_from_slice(name);
        datagram.extend_from_slice(&[0, 53, b'x']);
        datagram
    }

    #[test]
    fn the_three_kinds_of_addresses_are_read() {
        let v4 = [0, 0, 0, 1, 192, 0, 2, 7, 0, 53, b'h', b'i'];
        assert_eq!(read(&v4), Some(("192.0.2.7:53".to_owned(), &b"hi"[..])));
        let mut v6 = vec![0, 0, 0, 4];
        v6.extend_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().expect("literal").octets());
        v6.extend_from_slice(&[1, 0]);
        assert_eq!(read(&v6), Some(("[2001:db8::7]:256".to_owned(), &b""[..])));
        let name = named(b"dns.example");
        assert_eq!(read(&name), Some(("dns.example:53".to_owned(), &b"x"[..])));
    }

    #[test]
    fn an_address_written_as_a_name_is_an_address() {
        let read = |name: &[u8]| read(&named(name)).map(|(target, _)| target);
        assert_eq!(read(b"192.0.2.7").as_deref(), Some("192.0.2.7:53"));
        assert_eq!(read(b"2001:db8::7").as_deref(), Some("[2001:db8::7]:53"));
    }

    #[test]
    fn what_is_no_datagram_of_a_client_is_told_apart() {
        let whole = named(b"dns.example");
        let header = whole.len() - 1;
        for len in 0..header {
            assert_eq!(split(&whole[..len]), None, "{len}");
        }
        assert!(split(&whole[..header]).is_some());
        for (place, byte) in [(0, 1), (1, 1), (2, 1), (2, 0x80), (3, 0), (3, 2), (4, 0)] {
            let mut changed = whole.clone();
            changed[place] = byte;
            assert_eq!(split(&changed), None, "{place}");
        }
        for name in [
            &b"a b"[..],
            b"a\0b",
            b"a\nb",
            b"a:1",
            b"\xff",
            b"a/b",
            b"[::1]",
        ] {
            let datagram = named(name);
            assert!(split(&datagram).is_some());
            assert_eq!(read(&datagram), None, "{name:?}");
        }
        let nowhere = [0, 0, 0, 1, 192, 0, 2, 7, 0, 0, b'x'];
        assert_eq!(read(&nowhere), None);
    }

    #[test]
    fn a_header_that_we_write_is_one_that_we_read() {
        for text in ["192.0.2.7:65535", "[2001:db8::7]:1", "[::ffff:192.0.2.7]:9"] {
            let sender: SocketAddr = text.parse().expect("literal");
            let header = Header::of(&sender);
            let (address, len) = split(header.bytes()).expect("our own");
            assert_eq!(len, header.bytes().len());
            assert_eq!(destination(address), Some(sender.to_string()));
        }
    }
}
