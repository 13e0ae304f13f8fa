//! What concerns the whole process: stopping the resolver's thread, starting it anew, and forking.
//! A process of its own, and one test after the other in it.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../src/resolve/tests/server.rs"]
mod server;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use _engine::plan::{DnsMode, DnsProtocol, ResolverPlan};
use _engine::resolve::{
    self, Answer, Lookup, LookupFuture, ResolveError, Resolver, abandon_after_fork, shutdown,
};

use self::server::{A, Reply, Server};

const LIMIT: Duration = Duration::from_secs(20);

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(future: LookupFuture) -> Answer {
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

/// Over TCP: nothing is sent twice, and its connection belongs to the thread that is stopped.
fn plan(server: &Server) -> ResolverPlan {
    ResolverPlan {
        protocol: DnsProtocol::Tcp,
        mode: DnsMode::Ipv4Only,
        nameservers: vec![server.address.to_string()],
        ..ResolverPlan::default()
    }
}

/// Whether there are so many threads soon: the kernel names and forgets them in its own time.
fn threads_become(number: usize) -> bool {
    let start = Instant::now();
    let named = |comm: &String| comm.trim() == "qanat-dns";
    loop {
        let comms = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        if comms.filter(named).count() == number {
            return true;
        }
        if start.elapsed() > LIMIT {
            return false;
        }
        thread::yield_now();
    }
}

#[test]
fn the_thread_stops_starts_anew_and_is_left_behind_by_a_fork() {
    stopping_answers_those_who_wait();
    it_starts_anew_with_the_answers_it_had();
    numbers_outlive_their_resolver();
    a_child_starts_afresh();
    stopping_races_with_looking_up();
}

fn stopping_answers_those_who_wait() {
    shutdown();
    assert!(threads_become(0), "started before it is needed");
    let server = Server::start();
    server.tell_all(Reply::silence());
    let resolver = Resolver::shared(&plan(&server));
    let Lookup::Pending(future) = resolver.lookup("db.test") else {
        panic!("answered before it could be asked");
    };
    assert!(threads_become(1));
    let (told, answer) = mpsc::channel();
    let waiting = thread::spawn(move || told.send(wait(future)).unwrap());
    shutdown();
    let stopped = answer.recv_timeout(LIMIT).unwrap().unwrap_err();
    assert_eq!(stopped, ResolveError::Stopped("db.test".into()));
    waiting.join().unwrap();
    assert!(threads_become(0));
    assert_eq!(resolver.stats().inflight, 0);
    shutdown();
}

fn it_starts_anew_with_the_answers_it_had() {
    let server = Server::start();
    server.tell_all(Reply::addresses(&["192.0.2.1"], 60));
    let resolver = Resolver::shared(&plan(&server));
    resolve(&resolver, "one.test").unwrap();
    shutdown();
    assert!(matches!(resolver.lookup("one.test"), Lookup::Ready(Ok(_))));
    assert!(threads_become(0));
    resolve(&resolver, "two.test").unwrap();
    assert!(threads_become(1));
    assert_eq!(server.counted(), 2);
    shutdown();
}

fn numbers_outlive_their_resolver() {
    let server = Server::start();
    server.tell("db.test", A, Reply::addresses(&["192.0.2.1"], 60));
    let before = resolve::stats();
    let resolver = Resolver::shared(&plan(&server));
    resolve(&resolver, "db.test").unwrap();
    resolve(&resolver, "db.test").unwrap();
    resolve(&resolver, "no.test").unwrap_err();
    let during = resolve::stats();
    assert_eq!(during.lookups - before.lookups, 3);
    assert_eq!(during.entries, before.entries + 2);
    drop(resolver);
    let mut expected = during;
    expected.entries = before.entries;
    let start = Instant::now();
    // The look-up itself holds its resolver for a moment longer.
    while resolve::stats() != expected {
        assert!(start.elapsed() < LIMIT, "{:?}", resolve::stats());
        thread::yield_now();
    }
}

fn a_child_starts_afresh() {
    let server = Server::start();
    server.tell_all(Reply::addresses(&["192.0.2.1"], 60));
    let plan = plan(&server);
    let resolver = Resolver::shared(&plan);
    resolve(&resolver, "db.test").unwrap();
    // SAFETY: the child takes no lock that a thread of its parent can hold: it allocates, which the
    // C library allows after a fork, resolves with a resolver of its own and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let fine = std::panic::catch_unwind(|| {
            abandon_after_fork();
            let own = Resolver::shared(&plan);
            let fresh = own.stats().lookups == 0 && threads_become(0);
            let found = resolve(&own, "db.test").is_ok();
            shutdown();
            fresh && found && threads_become(0)
        });
        // SAFETY: ends the child at once, without the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!matches!(fine, Ok(true)))) };
    }
    assert!(child > 0);
    let start = Instant::now();
    let mut status = 0;
    // SAFETY: `child` is a child of this process, and `status` outlives the call.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if start.elapsed() > LIMIT {
            // SAFETY: it has not been waited for yet, so the id is still its own.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0, "the child failed");
    resolve(&resolver, "other.test").unwrap();
    assert_eq!(server.count("db.test", A), 2);
    shutdown();
}

fn stopping_races_with_looking_up() {
    let server = Server::start();
    server.tell_all(Reply::addresses(&["192.0.2.1"], 0));
    let plan = ResolverPlan {
        stale: 0,
        ..plan(&server)
    };
    let resolver = Resolver::shared(&plan);
    let until = Instant::now() + Duration::from_millis(500);
    thread::scope(|scope| {
        for number in 0..3 {
            let resolver = &resolver;
            scope.spawn(move || {
                while Instant::now() < until {
                    match resolve(resolver, &format!("n{number}.test")) {
                        Ok(_) | Err(ResolveError::Stopped(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        scope.spawn(move || {
            while Instant::now() < until {
                thread::sleep(Duration::from_millis(3));
                shutdown();
            }
        });
    });
    shutdown();
    assert_eq!(resolver.stats().inflight, 0);
    resolve(&resolver, "after.test").unwrap();
    shutdown();
}
