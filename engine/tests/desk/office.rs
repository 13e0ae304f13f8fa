//! An engine with a desk, and calls that wait for what they want to hear.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use _engine::desk::Desk;
use _engine::desk::plan::JoinPlan;
use _engine::desk::reports::Report;
use _engine::engine::Engine;
use _engine::plan::LimitsPlan;
use serde_json::Value;

use crate::support::LIMIT;

pub struct Office {
    pub desk: Desk,
    pub engine: Arc<Engine>,
    pub group: u32,
    pub endpoint: u32,
    heard: Mutex<Vec<Report>>,
}

impl Office {
    pub fn open(workers: usize) -> Self {
        Self::with_reports(workers, 65_536)
    }

    /// So many reports may wait.
    pub fn with_reports(workers: usize, most: usize) -> Self {
        let engine = Arc::new(Engine::start(workers, 0).unwrap());
        let group = engine.open_group(&LimitsPlan::default()).unwrap();
        let desk = Desk::open(&engine, group, most).unwrap();
        let endpoint = desk.endpoint("office", "").unwrap();
        Self {
            desk,
            engine,
            group,
            endpoint,
            heard: Mutex::default(),
        }
    }

    /// What a report of that kind says, once it has come.
    pub fn hear(&self, handle: u64, kind: &str) -> Value {
        let until = Instant::now() + LIMIT;
        loop {
            let mut heard = self.heard.lock().unwrap();
            heard.extend(self.desk.take());
            let wanted = |report: &Report| report.handle == handle && report.kind == kind;
            if let Some(at) = heard.iter().position(wanted) {
                let text = heard.remove(at).text;
                return serde_json::from_str(&text).unwrap_or(Value::Null);
            }
            drop(heard);
            assert!(Instant::now() < until, "no {kind} for {handle}");
            std::thread::yield_now();
        }
    }

    pub fn plan(&self) -> JoinPlan {
        JoinPlan::new(self.endpoint, "target.test:80")
    }

    /// A leg, and the other end of it.
    pub fn adopt(&self) -> (u64, TcpStream) {
        let (ours, theirs) = pair();
        (self.desk.adopt(ours, Vec::new()).unwrap(), theirs)
    }

    /// So many bytes of a leg.
    pub fn read(&self, leg: u64, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let look = |incoming: &std::collections::VecDeque<u8>, count: usize| {
                incoming.iter().take(count).copied().collect::<Vec<_>>()
            };
            match self.desk.read(leg, count - bytes.len(), look).unwrap() {
                None => drop(self.hear(leg, "readable")),
                Some(part) if part.is_empty() => break,
                Some(part) => bytes.extend(part),
            }
        }
        bytes
    }
}

/// A socket to give away, and the other end of it.
pub fn pair() -> (i32, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(LIMIT)).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (ours.into_raw_fd(), theirs)
}

pub fn hear_out(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}
