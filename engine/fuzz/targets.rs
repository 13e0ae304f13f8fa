//! One function for each thing that reads bytes from outside. None may panic, whatever the bytes.
//!
//! Plain Rust, included in two places: `tests/fuzz_targets.rs` runs every function over the seeds
//! and their mutations in each `cargo test`; `fuzz_targets/` hands them to libFuzzer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use _engine::desk::plan::{
    DeskListenPlan, DialPlan, ExchangePlan, JoinPlan, TlsAcceptPlan, TlsConnectPlan,
};
use _engine::first_words::{self, Found};
use _engine::flow::limits::Gate;
use _engine::http::chunks::Chunks;
use _engine::http::head as http;
use _engine::http::ordinary::{self, Agreed, Credentials};
use _engine::net::addr::{RawAddr, unmapped};
use _engine::net::network::Networks;
use _engine::plan::{EndpointPlan, LimitsPlan, ResolverPlan};
use _engine::relay::health::probe::{Status, status_of};
use _engine::transport::proxy;
use _engine::transport::socks_udp;
use _engine::transport::tls::{hello, subject};
use _engine::transport::uot::{Backlog, Unpacker};
use _engine::transport::ws::{frame, head};
use hickory_resolver::proto::op::Message;
use hickory_resolver::system_conf::parse_resolv_conf;
use serde::{Serialize, de::DeserializeOwned};

pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 15] = [
    ("plan_json", plan_json),
    ("kernel_address", kernel_address),
    ("gate", gate),
    ("resolv_conf", resolv_conf),
    ("dns_answer", dns_answer),
    ("proxy_header", proxy_header),
    ("networks", networks),
    ("first_words", first_words),
    ("certificate_subject", certificate_subject),
    ("ws_head", ws_head),
    ("ws_frames", ws_frames),
    ("http_status", http_status),
    ("http_messages", http_messages),
    ("uot_stream", uot_stream),
    ("socks_udp", socks_udp),
];

/// Plans: what is taken must come back as it was.
pub fn plan_json(bytes: &[u8]) {
    fn round<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(plan) = serde_json::from_slice::<T>(bytes) else {
            return;
        };
        let text = serde_json::to_vec(&plan).expect("a plan can be written");
        let again: T = serde_json::from_slice(&text).expect("what we wrote can be read");
        assert_eq!(plan, again);
    }
    round::<EndpointPlan>(bytes);
    round::<LimitsPlan>(bytes);
    round::<ResolverPlan>(bytes);
    round::<JoinPlan>(bytes);
    round::<ExchangePlan>(bytes);
    round::<DialPlan>(bytes);
    round::<DeskListenPlan>(bytes);
    round::<TlsAcceptPlan>(bytes);
    round::<TlsConnectPlan>(bytes);
}

/// Socket addresses as the kernel writes them: any bytes, any family.
pub fn kernel_address(bytes: &[u8]) {
    let mut raw = RawAddr::empty();
    let room = size_of_val(&raw.storage);
    let len = bytes.len().min(room);
    // SAFETY: both are valid for `len` bytes, and any bytes are a valid sockaddr_storage.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), raw.as_mut_ptr().cast::<u8>(), len) };
    if let Some(addr) = raw.get() {
        assert_eq!(RawAddr::from(addr).get(), Some(addr));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(addr) = text.parse::<SocketAddr>()
    {
        assert_eq!(RawAddr::from(addr).get(), Some(addr));
    }
}

/// Limits: bytes are connections that come, go and wait. The gate never holds more than it may, and
/// gives everything back.
pub fn gate(bytes: &[u8]) {
    let [total, rate, client, rest @ ..] = bytes else {
        return;
    };
    let limits = LimitsPlan {
        connections: u32::from(total % 8),
        connection_rate: u32::from(rate % 8),
        connections_per_client: u32::from(client % 4),
        associations: 0,
    };
    let gate = Gate::new(&limits);
    let mut now = Instant::now();
    let mut open = Vec::new();
    for byte in rest {
        let ip = match byte & 0x0f {
            low @ 0..=7 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, low)),
            low => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, low.into(), 0, 0, 0, 1)),
        };
        match byte >> 4 {
            0..=8 => {
                if let Ok(pass) = gate.admit(Some(ip), now) {
                    open.push((ip, pass));
                }
            }
            9..=13 => {
                if !open.is_empty() {
                    drop(open.swap_remove(usize::from(byte & 0x0f) % open.len()));
                }
            }
            _ => now += Duration::from_millis(u64::from(byte & 0x0f) * 100),
        }
        let held = u32::try_from(open.len()).expect("few");
        assert_eq!(gate.open(), held);
        assert!(limits.connections == 0 || held <= limits.connections);
        if limits.connections_per_client > 0 {
            let same = open.iter().filter(|(other, _)| *other == ip).count();
            assert!(same <= limits.connections_per_client as usize);
        }
    }
    drop(open);
    assert_eq!(gate.open(), 0);
}

/// `/etc/resolv.conf`, read by the resolver's library.
pub fn resolv_conf(bytes: &[u8]) {
    let _ = parse_resolv_conf(bytes);
}

/// Answers of name servers, read by the resolver's library.
pub fn dns_answer(bytes: &[u8]) {
    let _ = Message::from_vec(bytes);
}

/// PROXY protocol headers: what was read can be written, and is read again as it was.
pub fn proxy_header(bytes: &[u8]) {
    let _ = proxy::start(bytes);
    if let Ok(Some(end)) = proxy::line_end(bytes)
        && let Ok(header) = proxy::parse_line(&bytes[..end])
        && let Some(addresses) = header.addresses
    {
        let again = proxy::parse_line(&proxy::line(&addresses)).expect("our own line");
        assert_eq!(again.addresses, Some(addresses));
    }
    if let Ok(header) = proxy::parse_binary(bytes)
        && let Some(addresses) = header.addresses
    {
        let written = proxy::binary(&addresses, proxy::Kind::Stream, &header.tlvs);
        assert_eq!(proxy::parse_binary(&written), Ok(header));
    }
}

/// Access lists.
pub fn networks(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(networks) = Networks::parse(&[text.to_owned()])
    {
        // Whatever the network, asking it does no harm, and one without bits holds its family.
        let base: Option<IpAddr> = text.split('/').next().and_then(|ip| ip.parse().ok());
        let base = base.expect("an address");
        assert!(networks.contain(base) || base != unmapped(base));
    }
}

/// What clients say first: once an answer is final, more bytes don't change it.
pub fn first_words(bytes: &[u8]) {
    for ask in [first_words::server_name, first_words::http_host] {
        let whole = ask(bytes);
        for len in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
            let part = ask(&bytes[..len]);
            assert!(part == whole || part == Found::More, "{len}");
        }
    }
    let whole = hello::message(bytes);
    for len in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
        let part = hello::message(&bytes[..len]);
        assert!(part.is_none() || part == whole, "{len}");
    }
    assert!(whole.is_none_or(|message| message.len() <= hello::MOST));
}

/// Subjects of client certificates: one line of bounded length, whatever they hold.
pub fn certificate_subject(bytes: &[u8]) {
    let text = subject::name(bytes);
    assert!(text.chars().count() <= 256);
    assert!(!text.chars().any(char::is_control));
    let _ = subject::of(bytes);
}

/// WebSocket heads, of either side.
pub fn ws_head(bytes: &[u8]) {
    let _ = head::hopeless_request(bytes);
    let _ = head::hopeless_answer(bytes);
    let Some(end) = head::end(bytes, 0) else {
        return;
    };
    for seen in 0..end {
        assert_eq!(head::end(bytes, seen), Some(end));
    }
    if let Ok(accepted) = head::read_request(&bytes[..end], "example.com", "/chat") {
        assert_eq!(accepted.accept.len(), 28);
    }
    let _ = head::read_answer(&bytes[..end], "dGhlIHNhbXBsZSBub25jZQ==");
}

/// Messages of HTTP: what goes on is a whole head again, with nothing in it for one hop alone, and
/// a chunked body ends at the same place however its bytes come.
pub fn http_messages(bytes: &[u8]) {
    fn whole(text: &[u8], first: &[u8]) {
        let head = http::split(text).expect("what goes on is a head");
        assert!(head.line.starts_with(first) || first.is_empty());
        assert_eq!(http::end_of(text, 0), Some(text.len()));
        let count = |wanted: &str| {
            let same = |name: &&[u8]| name.eq_ignore_ascii_case(wanted.as_bytes());
            head.fields
                .iter()
                .map(|(name, _)| *name)
                .filter(same)
                .count()
        };
        for hop in [
            "connection",
            "proxy-authorization",
            "keep-alive",
            "upgrade",
            "te",
        ] {
            assert_eq!(count(hop), 0, "{hop}");
        }
        assert!(count("content-length") + count("transfer-encoding") <= 1);
        assert_eq!(count("via"), 1);
        if !first.is_empty() {
            assert_eq!(count("host"), 1);
        }
    }
    fn fed(bytes: &[u8], size: usize) -> Option<(usize, bool)> {
        let (mut chunks, mut used) = (Chunks::default(), 0);
        for piece in bytes.chunks(size) {
            used += chunks.feed(piece).ok()?;
        }
        Some((used, chunks.is_done()))
    }
    let agreed = Agreed {
        authority: b"a.test".to_vec(),
        via: b"us".to_vec(),
        credentials: Credentials::Whatever,
    };
    if let Some(end) = http::end_of(bytes, 0) {
        if let Some(request) = ordinary::request(&bytes[..end], &agreed) {
            let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
            whole(&request.text, method);
        }
        for head_only in [false, true] {
            if let Some(answer) = ordinary::answer(&bytes[..end], head_only, b"us") {
                assert!((200..1000).contains(&answer.status));
                whole(&answer.text, b"");
            }
        }
    }
    let at_once = fed(bytes, bytes.len().max(1));
    assert_eq!(at_once, fed(bytes, 1));
    assert_eq!(at_once, fed(bytes, 7));
}

/// WebSocket frames: however the bytes are cut, the same comes out.
pub fn ws_frames(bytes: &[u8]) {
    fn decode(bytes: &[u8], size: usize) -> (Vec<u8>, [Option<Vec<u8>>; 2], bool) {
        let mut decoder = frame::Decoder::default();
        let (mut payload, mut ping) = (Vec::new(), None);
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece);
            payload.extend_from_slice(&piece[..decoded.payload]);
            ping = decoded.ping.map(|ping| ping.bytes().to_vec()).or(ping);
            let close = decoded.close.map(|close| close.bytes().to_vec());
            if close.is_some() || decoded.violation.is_some() {
                return (payload, [ping, close], decoded.violation.is_some());
            }
        }
        (payload, [ping, None], false)
    }
    let whole = decode(bytes, bytes.len().max(1));
    for size in [1, 3, 7] {
        assert_eq!(decode(bytes, size), whole);
    }
}

/// The answer to a health check: more bytes never take back what fewer have said.
pub fn http_status(bytes: &[u8]) {
    let mut known = Status::Incomplete;
    for length in 0..=bytes.len().min(64) {
        let status = status_of(&bytes[..length]);
        assert!(known == Status::Incomplete || known == status);
        known = status;
    }
    assert!(bytes.len() < 13 || known != Status::Incomplete);
}

/// Datagrams in a stream: however it is cut, the same come out, and they pack to the same bytes.
pub fn uot_stream(bytes: &[u8]) {
    for size in [bytes.len().max(1), 1, 5] {
        let mut unpacker = Unpacker::default();
        let mut backlog = Backlog::new(usize::MAX);
        for piece in bytes.chunks(size) {
            unpacker.feed(piece, |datagram| assert!(backlog.add(datagram)));
        }
        let packed = backlog.waiting();
        assert!(bytes.starts_with(packed));
        assert_eq!(unpacker.is_inside(), packed.len() < bytes.len());
    }
}

/// Datagrams of SOCKS5 clients: a target that was read is one line without surprises, and an answer
/// from there names it alike.
pub fn socks_udp(bytes: &[u8]) {
    let Some((address, header)) = socks_udp::split(bytes) else {
        return;
    };
    assert_eq!(bytes.get(3..header), Some(address));
    for len in 0..header {
        assert_eq!(socks_udp::split(&bytes[..len]), None);
    }
    let Some(target) = socks_udp::destination(address) else {
        return;
    };
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
    let (host, port) = target.rsplit_once(':').expect("host:port");
    assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if let Ok(sender) = target.parse::<SocketAddr>() {
        let header = socks_udp::Header::of(&sender);
        let (address, len) = socks_udp::split(header.bytes()).expect("our own");
        assert_eq!(len, header.bytes().len());
        assert_eq!(socks_udp::destination(address), Some(target));
    }
}
