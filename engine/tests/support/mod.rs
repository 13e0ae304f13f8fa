//! Starts an engine with endpoints on loopback and reads what it tells.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use _engine::binding::Inherited;
use _engine::engine::{Bound, Engine};
use _engine::plan::{EndpointPlan, LimitsPlan};
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(10);

/// One engine, one group, and the records of its ended flows.
pub struct Relay {
    pub engine: Engine,
    pub group: u32,
    fetched: Mutex<VecDeque<Value>>,
}

impl Relay {
    pub fn new() -> Self {
        Self::with(2, &LimitsPlan::default())
    }

    pub fn with(workers: usize, limits: &LimitsPlan) -> Self {
        let engine = Engine::start(workers, 0).unwrap();
        let group = engine.open_group(limits).unwrap();
        engine.watch_group(group, true).unwrap();
        Self {
            engine,
            group,
            fetched: Mutex::default(),
        }
    }

    pub fn serve(&self, plan: EndpointPlan) -> Bound {
        let bound = self
            .engine
            .bind(self.group, plan, Inherited::default(), false)
            .unwrap();
        self.engine.serve(&[bound.handle]).unwrap();
        bound
    }

    /// The next event of a kind, within the limit.
    pub fn event(&self, kind: &str) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            loop {
                let Some(event) = self.fetched.lock().unwrap().pop_front() else {
                    break;
                };
                if event["kind"] == kind {
                    return event;
                }
            }
            assert!(Instant::now() < until, "no event {kind}");
            let events = self.engine.next_events(Duration::from_millis(100)).unwrap();
            let parsed = events
                .iter()
                .map(|event| serde_json::from_str(event).unwrap());
            self.fetched.lock().unwrap().extend(parsed);
        }
    }

    pub fn flows(&self) -> Vec<Value> {
        serde_json::from_str(&self.engine.flows(self.group).unwrap()).unwrap()
    }

    pub fn stats(&self) -> Value {
        serde_json::from_str(&self.engine.stats(self.group).unwrap()).unwrap()
    }
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::yield_now();
    }
}

pub fn plan(target: SocketAddr) -> EndpointPlan {
    plan_for(&target.ip().to_string(), target.port())
}

pub fn plan_for(host: &str, port: u16) -> EndpointPlan {
    EndpointPlan::new("test", "127.0.0.1:0", host, port)
}

pub fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A client connected through the relay, and the other end of it at the target.
pub fn pair(listener: &TcpListener, bound: &Bound) -> (TcpStream, TcpStream) {
    let client = connect(bound);
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    (client, server)
}

pub fn connect(bound: &Bound) -> TcpStream {
    let client = TcpStream::connect(bound.tcp.unwrap()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the pointer and length describe `linger`.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

pub fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Bytes that differ everywhere, so that a lost or doubled piece shows.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

pub fn hear(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

pub fn end_writing(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}
