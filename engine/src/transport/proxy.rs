//! The PROXY protocol, versions 1 and 2: reading and writing headers. No I/O here.
//!
//! Facts: version 1 is one line of at most 107 bytes. Version 2 is a signature of 12 bytes, command,
//! family and the length of the rest: addresses, then TLVs (type, length of two bytes, value). One
//! TLV is a CRC32C over the whole header with the checksum's four bytes taken as zero.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::net::addr::unmapped;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
const LONGEST_LINE: usize = 107;
const CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who the client is and where it connected to. `None` for LOCAL and UNKNOWN, and for what is
    /// neither TCP over IP nor UDP over IP.
    pub addresses: Option<Addresses>,
    /// TLVs of a version 2 header as they came, without the checksum.
    pub tlvs: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What kind of socket a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Datagram,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Too few to tell.
    Unsure,
    /// No header.
    Other,
    /// A line, which ends with CRLF.
    Line,
    /// A version 2 header of so many bytes in all.
    Binary(usize),
}

/// Tells what begins with `bytes`, without looking further than needed.
pub fn start(bytes: &[u8]) -> Start {
    let is_prefix = |of: &[u8]| {
        let len = bytes.len().min(of.len());
        bytes[..len] == of[..len]
    };
    if bytes.is_empty() {
        return Start::Unsure;
    }
    if is_prefix(b"PROXY ") {
        return if bytes.len() < 6 {
            Start::Unsure
        } else {
            Start::Line
        };
    }
    if !is_prefix(SIGNATURE) {
        return Start::Other;
    }
    match bytes.get(14..FIXED) {
        None => Start::Unsure,
        Some(len) => Start::Binary(FIXED + usize::from(u16::from_be_bytes([len[0], len[1]]))),
    }
}

/// Where the line of a version 1 header ends, its CRLF included. An error when it can't end any
/// more; `None` when more bytes are needed.
pub fn line_end(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
    match seen.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Ok(Some(at + 2)),
        None if bytes.len() >= LONGEST_LINE => Err("a line of more than 107 bytes"),
        None => Ok(None),
    }
}

/// Reads a whole version 1 line, CRLF included.
pub fn parse_line(line: &[u8]) -> Result<Header, &'static str> {
    let text = line
        .strip_suffix(b"\r\n")
        .and_then(|line| std::str::from_utf8(line).ok())
        .and_then(|line| line.strip_prefix("PROXY "))
        .ok_or("not a PROXY line")?;
    if text.split(' ').next().is_some_and(|word| word == "UNKNOWN") {
        return Ok(Header::default());
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else {
        return Err("not five words behind PROXY");
    };
    let ip = |word: &str| -> Result<IpAddr, &'static str> {
        let ip: IpAddr = word.parse().map_err(|_| "not an address")?;
        match (family, ip) {
            ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)) => Ok(ip),
            _ => Err("an address of another family than announced"),
        }
    };
    if family != "TCP4" && family != "TCP6" {
        return Err("neither TCP4, TCP6 nor UNKNOWN");
    }
    Ok(Header {
        addresses: Some(Addresses {
            source: SocketAddr::new(unmapped(ip(source)?), port(source_port)?),
            destination: SocketAddr::new(unmapped(ip(destination)?), port(destination_port)?),
        }),
        tlvs: Vec::new(),
    })
}

fn port(word: &str) -> Result<u16, &'static str> {
    let canonical = word.bytes().all(|byte| byte.is_ascii_digit())
        && (word.len() == 1 || !word.starts_with('0'));
    match word.parse() {
        Ok(port) if canonical => Ok(port),
        _ => Err("not a port"),
    }
}

/// Reads a whole version 2 header.
pub fn parse_binary(bytes: &[u8]) -> Result<Header, &'static str> {
    if start(bytes) != Start::Binary(bytes.len()) {
        return Err("not a whole version 2 header");
    }
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    if version != 2 {
        return Err("a version other than 2");
    }
    if command > 1 {
        return Err("a command other than LOCAL and PROXY");
    }
    let (family, transport) = (bytes[13] >> 4, bytes[13] & 15);
    if family > 3 || transport > 2 {
        return Err("an unknown address family or transport");
    }
    let body = &bytes[FIXED..];
    let size = match family {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let local = command == 0;
    if body.len() < size {
        // LOCAL may leave the addresses out, whatever family it names.
        return if local {
            Ok(Header::default())
        } else {
            Err("shorter than its addresses")
        };
    }
    let (addresses, tlvs) = body.split_at(size);
    let tlvs = read_tlvs(bytes, tlvs)?;
    let wanted = !local && transport != 0;
    Ok(Header {
        addresses: match family {
            1 if wanted => Some(v4_addresses(addresses)),
            2 if wanted => Some(v6_addresses(addresses)),
            _ => None,
        },
        tlvs,
    })
}

fn v4_addresses(bytes: &[u8]) -> Addresses {
    let ip = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    Addresses {
        source: (ip(0), be16(&bytes[8..10])).into(),
        destination: (ip(4), be16(&bytes[10..12])).into(),
    }
}

fn v6_addresses(bytes: &[u8]) -> Addresses {
    let ip = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        unmapped(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    Addresses {
        source: SocketAddr::new(ip(0), be16(&bytes[32..34])),
        destination: SocketAddr::new(ip(16), be16(&bytes[34..36])),
    }
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// The TLVs without the checksum, which is checked when it is there.
fn read_tlvs(whole: &[u8], tlvs: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut kept = Vec::with_capacity(tlvs.len());
    let mut at = 0;
    while at < tlvs.len() {
        let head = tlvs.get(at..at + 3).ok_or("a TLV that is cut off")?;
        let end = at + 3 + usize::from(be16(&head[1..3]));
        let value = tlvs
            .get(at + 3..end)
            .ok_or("a TLV longer than the header")?;
        if head[0] == CRC32C {
            let expected: [u8; 4] = value
                .try_into()
                .map_err(|_| "a checksum of no four bytes")?;
            let place = whole.len() - tlvs.len() + at + 3;
            if checksum(whole, place..place + 4) != u32::from_be_bytes(expected) {
                return Err("a wrong checksum");
            }
        } else {
            kept.extend_from_slice(&tlvs[at..end]);
        }
        at = end;
    }
    Ok(kept)
}

/// CRC32C of the header with the bytes in `zeroed` taken as zero.
fn checksum(bytes: &[u8], zeroed: Range<usize>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut crc = u32::MAX;
    for (index, byte) in bytes.iter().enumerate() {
        crc ^= if zeroed.contains(&index) {
            0
        } else {
            u32::from(*byte)
        };
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Writes a version 1 line.
pub fn line(addresses: &Addresses) -> Vec<u8> {
    let (source, destination) = one_family(addresses);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    )
    .into_bytes()
}

/// Writes a version 2 header, with TLVs as they came in. Those that no longer fit are left out.
pub fn binary(addresses: &Addresses, kind: Kind, tlvs: &[u8]) -> Vec<u8> {
    let (source, destination) = one_family(addresses);
    let transport = match kind {
        Kind::Stream => 1,
        Kind::Datagram => 2,
    };
    let family = if source.is_ipv4() { 0x10 } else { 0x20 };
    let size = if source.is_ipv4() { 12 } else { 36 };
    let tlvs = if size + tlvs.len() <= usize::from(u16::MAX) {
        tlvs
    } else {
        &[]
    };
    let mut out = Vec::with_capacity(FIXED + size + tlvs.len());
    out.extend_from_slice(SIGNATURE);
    out.push(0x21);
    out.push(family | transport);
    out.extend_from_slice(&((size + tlvs.len()) as u16).to_be_bytes());
    for addr in [source, destination] {
        match addr.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for addr in [source, destination] {
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
    out.extend_from_slice(tlvs);
    out
}

/// A header holds two addresses of one family: mapped ones become IPv4 where both can.
fn one_family(addresses: &Addresses) -> (SocketAddr, SocketAddr) {
    let Addresses {
        source,
        destination,
    } = *addresses;
    let plain = |addr: SocketAddr| SocketAddr::new(unmapped(addr.ip()), addr.port());
    let (source, destination) = (plain(source), plain(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), addr.port()),
        IpAddr::V6(_) => addr,
    };
    (mapped(source), mapped(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses {
            source: source.parse().expect("literal"),
            destination: destination.parse().expect("literal"),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let given = addresses("192.0.2.7:51000", "198.51.100.1:443");
        assert_eq!(
            line(&given),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n"
        );
        let mut expected = SIGNATURE.to_vec();
        expected.extend([0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1]);
        expected.extend([0xc7, 0x38, 0x01, 0xbb]);
        assert_eq!(binary(&given, Kind::Stream, b""), expected);
        let v6 = addresses("[2001:db8::7]:1", "[2001:db8::1]:2");
        assert_eq!(line(&v6), b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n");
        assert_eq!(binary(&v6, Kind::Stream, b"").len(), 52);
        assert_eq!(binary(&v6, Kind::Datagram, b"")[13], 0x22);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (source, destination) in [
            ("192.0.2.7:51000", "198.51.100.1:443"),
            ("[2001:db8::7]:0", "[::1]:65535"),
        ] {
            let given = addresses(source, destination);
            let read = parse_line(&line(&given)).expect("line");
            assert_eq!(read.addresses, Some(given));
            let tlvs = [4, 0, 2, 7, 7];
            let bytes = binary(&given, Kind::Stream, &tlvs);
            let read = parse_binary(&bytes).expect("binary");
            assert_eq!(read.addresses, Some(given));
            assert_eq!(read.tlvs, tlvs);
        }
    }

    #[test]
    fn mapped_and_mixed_addresses_share_a_family() {
        let mapped = addresses("[::ffff:192.0.2.7]:1", "127.0.0.1:2");
        assert_eq!(line(&mapped), b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n");
        let mixed = addresses("192.0.2.7:1", "[2001:db8::1]:2");
        assert_eq!(
            line(&mixed),
            b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"
        );
        let back = parse_line(&line(&mixed)).expect("line");
        assert_eq!(back.addresses, Some(mixed));
    }

    #[test]
    fn the_start_is_told_from_every_prefix() {
        let header = binary(&addresses("1.2.3.4:5", "6.7.8.9:10"), Kind::Stream, b"");
        for len in 0..16 {
            assert_eq!(start(&header[..len]), Start::Unsure, "{len}");
        }
        assert_eq!(start(&header), Start::Binary(28));
        for len in 0..6 {
            assert_eq!(start(&b"PROXY TCP4"[..len]), Start::Unsure, "{len}");
        }
        assert_eq!(start(b"PROXY "), Start::Line);
        for other in [&b"GET / HTTP/1.1"[..], b"P_", b"\r\n\r\n\0x", b"\x16\x03"] {
            assert_eq!(start(other), Start::Other);
        }
    }

    #[test]
    fn lines_end_or_are_too_long() {
        assert_eq!(line_end(b"PROXY TCP4"), Ok(None));
        assert_eq!(line_end(b"PROXY UNKNOWN\r\nGET"), Ok(Some(15)));
        assert!(line_end(&[b'x'; 107]).is_err());
        let mut longest = vec![b'x'; 105];
        longest.extend(b"\r\n");
        assert_eq!(line_end(&longest), Ok(Some(107)));
    }

    #[test]
    fn unusable_addresses_are_no_addresses() {
        assert_eq!(
            parse_line(b"PROXY UNKNOWN ffff::1 whatever\r\n"),
            Ok(Header::default())
        );
        let mut local = binary(&addresses("1.2.3.4:5", "6.7.8.9:10"), Kind::Stream, b"");
        local[12] = 0x20;
        assert_eq!(parse_binary(&local).expect("local").addresses, None);
        let mut bare = SIGNATURE.to_vec();
        bare.extend([0x20, 0x11, 0, 0]);
        assert_eq!(parse_binary(&bare), Ok(Header::default()));
        let mut unix = SIGNATURE.to_vec();
        unix.extend([0x21, 0x31, 0, 216]);
        unix.extend([0; 216]);
        assert_eq!(parse_binary(&unix).expect("unix").addresses, None);
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            &b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        ] {
            assert!(parse_line(line).is_err(), "{}", line.escape_ascii());
        }
        let good = binary(&addresses("1.2.3.4:5", "6.7.8.9:10"), Kind::Stream, b"");
        for (at, byte) in [(12, 0x11), (12, 0x22), (13, 0x41), (13, 0x13), (15, 11)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(parse_binary(&bad).is_err(), "{at} {byte:#x}");
        }
    }

    #[test]
    fn the_checksum_is_checked_and_not_passed_on() {
        // The check value of CRC-32C.
        assert_eq!(checksum(b"123456789", 0..0), 0xe306_9283);
        let given = addresses("1.2.3.4:5", "6.7.8.9:10");
        let mut bytes = binary(&given, Kind::Stream, &[CRC32C, 0, 4, 0, 0, 0, 0, 9, 0, 0]);
        let crc = checksum(&bytes, 31..35);
        bytes[31..35].copy_from_slice(&crc.to_be_bytes());
        let header = parse_binary(&bytes).expect("good checksum");
        assert_eq!(header.tlvs, [9, 0, 0]);
        bytes[20] ^= 1;
        assert_eq!(parse_binary(&bytes), Err("a wrong checksum"));
    }

    /// Whatever comes, the parsers answer: with random bytes, and with headers that were damaged.
    #[test]
    fn no_bytes_break_the_parsers() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let good = binary(
            &addresses("[2001:db8::7]:1", "[::1]:2"),
            Kind::Stream,
            &[1, 0, 3, 1, 2, 3, 5, 0, 0],
        );
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() as usize % (bytes.len() + 1));
            let _ = (start(&bytes), line_end(&bytes), parse_line(&bytes));
            if let Ok(header) = parse_binary(&bytes) {
                assert!(header.tlvs.len() <= bytes.len());
            }
        }
    }
}
