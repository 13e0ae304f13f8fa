#![allow(clippy::unwrap_used)]

mod life;
mod server;
mod service;

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use self::server::Server;
use super::system::SystemFiles;
use super::{Answer, Lookup, Resolver};
use crate::plan::{DnsProtocol, ResolverPlan};

/// Far longer than any look-up may take.
const LIMIT: Duration = Duration::from_secs(20);

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is: it shows that any will do.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park_timeout(LIMIT);
        assert!(start.elapsed() < LIMIT, "never woken");
    }
}

fn resolve(resolver: &Arc<Resolver>, host: &str) -> Answer {
    match resolver.lookup(host) {
        Lookup::Ready(answer) => answer,
        Lookup::Pending(future) => wait(future),
    }
}

/// The answer if it was there already.
fn kept(resolver: &Arc<Resolver>, host: &str) -> Option<Answer> {
    match resolver.lookup(host) {
        Lookup::Ready(answer) => Some(answer),
        Lookup::Pending(_) => None,
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn texts(answer: Answer) -> Vec<String> {
    let addresses = answer.unwrap();
    addresses.iter().map(IpAddr::to_string).collect()
}

/// Over TCP, where nothing is sent twice when the machine is slow: questions can be counted.
fn plan(server: &Server) -> ResolverPlan {
    ResolverPlan {
        protocol: DnsProtocol::Tcp,
        nameservers: vec![server.address.to_string()],
        ..ResolverPlan::default()
    }
}

/// With the plan, and no word from this machine's own files.
fn resolver(plan: ResolverPlan) -> Arc<Resolver> {
    let nothing = Files::new();
    resolver_with(plan, &nothing, 53)
}

fn resolver_with(plan: ResolverPlan, files: &Files, port: u16) -> Arc<Resolver> {
    let files = SystemFiles {
        resolv_conf: files.path("resolv.conf"),
        hosts: files.path("hosts"),
        port,
    };
    Arc::new(Resolver::with_files(plan, files))
}

impl Resolver {
    fn advance(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap();
        self.skew.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

/// A folder of one test, gone with it.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("qanat-resolve-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// As a whole at once, as those who write such files should.
    fn write(&self, name: &str, text: &str) {
        let part = self.path("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.path(name)).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
