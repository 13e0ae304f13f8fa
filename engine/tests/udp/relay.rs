//! A running relay, targets and clients for the tests.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use _engine::binding::Inherited;
use _engine::engine::Engine;
use _engine::plan::{EndpointPlan, LimitsPlan, UdpPlan};
use serde_json::Value;

pub const LIMIT: Duration = Duration::from_secs(10);

pub fn plan(listen: &str, remote: SocketAddr) -> EndpointPlan {
    let (host, port) = (remote.ip().to_string(), remote.port());
    EndpointPlan {
        tcp: None,
        udp: Some(UdpPlan::default()),
        ..EndpointPlan::new("test", listen, &host, port)
    }
}

pub struct Relay {
    pub engine: Engine,
    pub group: u32,
    pub handle: u32,
    pub addr: SocketAddr,
}

impl Relay {
    pub fn start(plan: EndpointPlan) -> Self {
        Self::limited(plan, &LimitsPlan::default())
    }

    pub fn limited(plan: EndpointPlan, limits: &LimitsPlan) -> Self {
        let engine = Engine::start(1, 0).unwrap();
        let group = engine.open_group(limits).unwrap();
        engine.watch_group(group, true).unwrap();
        let bound = engine
            .bind(group, plan, Inherited::default(), false)
            .unwrap();
        engine.serve(&[bound.handle]).unwrap();
        Self {
            engine,
            group,
            handle: bound.handle,
            addr: bound.udp.unwrap(),
        }
    }

    /// Serves another endpoint of the same group; its address.
    pub fn add(&self, plan: EndpointPlan, takeover: bool) -> SocketAddr {
        let inherited = Inherited::default();
        let bound = self
            .engine
            .bind(self.group, plan, inherited, takeover)
            .unwrap();
        self.engine.serve(&[bound.handle]).unwrap();
        bound.udp.unwrap()
    }

    pub fn flows(&self) -> Vec<Value> {
        serde_json::from_str(&self.engine.flows(self.group).unwrap()).unwrap()
    }

    /// What was counted for UDP at the one endpoint.
    pub fn udp(&self) -> Value {
        let stats: Value = serde_json::from_str(&self.engine.stats(self.group).unwrap()).unwrap();
        stats["endpoints"][0]["udp"].clone()
    }

    pub fn count(&self, path: &str) -> u64 {
        self.udp()
            .pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    pub fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < LIMIT, "{what}: {}", self.udp());
            std::thread::yield_now();
        }
    }
}

pub fn socket(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// A client that talks to the relay alone: datagrams from elsewhere are dropped by the kernel.
pub fn client(relay: SocketAddr) -> UdpSocket {
    let socket = socket(if relay.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    });
    socket.connect(relay).unwrap();
    socket
}

pub fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let len = socket.recv(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    buffer
}

pub fn ask(client: &UdpSocket, message: &[u8]) -> Vec<u8> {
    client.send(message).unwrap();
    receive(client)
}

/// Sends back what it gets, behind a label.
pub struct Echo {
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start(addr: &str) -> Self {
        Self::labelled(addr, "")
    }

    pub fn labelled(addr: &str, label: &'static str) -> Self {
        let socket = UdpSocket::bind(addr).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let addr = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                match socket.recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        let answer = [label.as_bytes(), &buffer[..len]].concat();
                        let _ = socket.send_to(&answer, from);
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock
                                | ErrorKind::TimedOut
                                | ErrorKind::ConnectionRefused
                        ) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        Self {
            addr,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}
