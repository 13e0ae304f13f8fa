//! A name server for tests: answers on UDP and TCP of one loopback port as it is told, and counts.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const CNAME: u16 = 5;
const SOA: u16 = 6;
pub const NOERROR: u8 = 0;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;

#[derive(Clone, Default)]
pub struct Reply {
    code: u8,
    records: Vec<(Option<String>, u16, u32, Vec<u8>)>,
    soa: Option<u32>,
    delay: Duration,
    truncate: bool,
    raw: Option<Vec<u8>>,
    silent: bool,
}

/// What is asked: the name without its last dot, in lower case, and the record type.
pub type Asked = (String, u16);

pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    replies: Mutex<HashMap<Asked, Reply>>,
    /// Given to everything that has no reply of its own; nothing means NXDOMAIN.
    fallback: Mutex<Option<Reply>>,
    asked: Mutex<Vec<(Asked, bool)>>,
    streams: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

impl Reply {
    pub fn code(code: u8) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }

    pub fn silence() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }

    /// These bytes, after the id of the query.
    pub fn raw(bytes: &[u8]) -> Self {
        Self {
            raw: Some(bytes.to_vec()),
            ..Self::default()
        }
    }

    pub fn addresses(addresses: &[&str], ttl: u32) -> Self {
        let records = addresses.iter().map(|text| match text.parse().unwrap() {
            IpAddr::V4(address) => (None, A, ttl, address.octets().to_vec()),
            IpAddr::V6(address) => (None, AAAA, ttl, address.octets().to_vec()),
        });
        Self {
            records: records.collect(),
            ..Self::default()
        }
    }

    /// The name is another name for `target`, which has `address`.
    pub fn alias(target: &str, ttl: u32, address: &str, address_ttl: u32) -> Self {
        let mut reply = Self::addresses(&[address], address_ttl);
        reply.records[0].0 = Some(target.to_owned());
        reply.records.insert(0, (None, CNAME, ttl, encode(target)));
        reply
    }

    /// An address of a name that was not asked for.
    pub fn address_of(name: &str, address: &str) -> Self {
        let mut reply = Self::addresses(&[address], 60);
        reply.records[0].0 = Some(name.to_owned());
        reply
    }

    pub fn soa(mut self, negative_ttl: u32) -> Self {
        self.soa = Some(negative_ttl);
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Cut short on UDP, whole on TCP.
    pub fn truncated(mut self) -> Self {
        self.truncate = true;
        self
    }

    fn encode(&self, query: &[u8], tcp: bool) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return [&query[..2], raw].concat();
        }
        let (name, end) = decode(query);
        let truncate = self.truncate && !tcp;
        let records = if truncate { &[][..] } else { &self.records[..] };
        let mut reply = query[..2].to_vec();
        reply.push(0x81 | if truncate { 0x02 } else { 0 });
        reply.push(0x80 | self.code);
        for count in [1, records.len(), usize::from(self.soa.is_some()), 0] {
            reply.extend(u16::try_from(count).unwrap().to_be_bytes());
        }
        reply.extend(&query[12..end]);
        for (owner, kind, ttl, content) in records {
            let owner = owner.as_deref().unwrap_or(&name);
            put_record(&mut reply, owner, *kind, *ttl, content);
        }
        if let Some(ttl) = self.soa {
            let mut content = [encode("ns.test"), encode("root.test")].concat();
            for number in [1, 60, 60, 60, ttl] {
                content.extend(number.to_be_bytes());
            }
            put_record(&mut reply, "test", SOA, ttl, &content);
        }
        reply
    }
}

impl Server {
    pub fn start() -> Self {
        let (tcp, udp) = bind();
        let address = tcp.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        udp.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (for_udp, for_tcp) = (shared.clone(), shared.clone());
        let threads = vec![
            thread::spawn(move || serve_udp(&udp, &for_udp)),
            thread::spawn(move || serve_tcp(&tcp, &for_tcp)),
        ];
        Self {
            address,
            shared,
            threads,
        }
    }

    pub fn tell(&self, name: &str, kind: u16, reply: Reply) -> &Self {
        let asked = (name.to_owned(), kind);
        self.shared.replies.lock().unwrap().insert(asked, reply);
        self
    }

    pub fn tell_all(&self, reply: Reply) -> &Self {
        *self.shared.fallback.lock().unwrap() = Some(reply);
        self
    }

    /// How often this was asked, on UDP and TCP together.
    pub fn count(&self, name: &str, kind: u16) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked
            .iter()
            .filter(|((n, k), _)| n == name && *k == kind)
            .count()
    }

    pub fn counted(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    pub fn counted_tcp(&self) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|(_, tcp)| *tcp).count()
    }

    /// The names asked for, each time anew, in order.
    pub fn names(&self) -> Vec<String> {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().map(|((name, _), _)| name.clone()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn bind() -> (TcpListener, UdpSocket) {
    for _ in 0..50 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port that is free for both UDP and TCP");
}

fn serve_udp(socket: &UdpSocket, shared: &Arc<Shared>) {
    let mut buffer = [0; 4096];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let query = buffer[..length].to_vec();
        let reply = shared.reply(&query, false);
        let socket = socket.try_clone().unwrap();
        thread::spawn(move || {
            thread::sleep(reply.delay);
            if !reply.silent {
                let _ = socket.send_to(&reply.encode(&query, false), client);
            }
        });
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(mut stream), shared) = (stream, shared.clone()) else {
            continue;
        };
        shared
            .streams
            .lock()
            .unwrap()
            .push(stream.try_clone().unwrap());
        thread::spawn(move || {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut query).is_err() {
                    return;
                }
                let reply = shared.reply(&query, true);
                let mut stream = stream.try_clone().unwrap();
                // Later queries of the connection don't wait for this one.
                thread::spawn(move || {
                    thread::sleep(reply.delay);
                    if !reply.silent {
                        let bytes = reply.encode(&query, true);
                        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
                        let _ = stream.write_all(&[&length[..], &bytes].concat());
                    }
                });
            }
        });
    }
}

impl Shared {
    fn reply(&self, query: &[u8], tcp: bool) -> Reply {
        let (name, end) = decode(query);
        let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
        let asked = (name, kind);
        let reply = self.replies.lock().unwrap().get(&asked).cloned();
        self.asked.lock().unwrap().push((asked, tcp));
        reply
            .or_else(|| self.fallback.lock().unwrap().clone())
            .unwrap_or_else(|| Reply::code(NXDOMAIN).soa(60))
    }
}

/// The name asked for, and where the question ends.
fn decode(query: &[u8]) -> (String, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        let label = &query[at + 1..=at + length];
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length + 1;
    }
    (labels.join("."), at + 5)
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn put_record(reply: &mut Vec<u8>, owner: &str, kind: u16, ttl: u32, content: &[u8]) {
    reply.extend(encode(owner));
    reply.extend(kind.to_be_bytes());
    reply.extend(1u16.to_be_bytes());
    reply.extend(ttl.to_be_bytes());
    reply.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    reply.extend(content);
}
