//! What the UDP relay does without descriptors: a process of its own, since the limit is one of the
//! process.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "udp/relay.rs"]
mod relay;

use std::fs::File;

use _engine::net::fd::open_count;

use self::relay::{Echo, Relay, ask, client, plan};

fn set_limit(descriptors: u64) {
    let limit = libc::rlimit {
        rlim_cur: descriptors,
        rlim_max: descriptors,
    };
    // SAFETY: the pointer is to a live local.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(result, 0);
}

#[test]
fn descriptors_are_made_do_with_and_given_back() {
    set_limit(128);
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", echo.addr));
    let clients = [0; 4].map(|_| client(relay.addr));
    for client in &clients[..2] {
        ask(client, b"hello");
    }
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // No new association can be opened: one of the old ones makes room for it.
    assert_eq!(ask(&clients[2], b"a"), b"a");
    assert_eq!(relay.count("/ended/evicted"), 1);
    assert_eq!(ask(&clients[1], b"b"), b"b");
    assert_eq!(relay.flows().len(), 2);

    // Where there is none to give way, datagrams are dropped, and counted.
    relay.engine.kill_all(relay.group).unwrap();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    clients[3].send(b"lost").unwrap();
    relay.wait_for("dropped", |relay| relay.count("/dropped/descriptors") == 1);

    taken.clear();
    assert_eq!(ask(&clients[3], b"back"), b"back");

    // An engine that ends gives everything back, also what draining endpoints hold.
    ask(&clients[2], b"drains");
    relay.engine.close(relay.handle, None).unwrap();
    relay.add(plan("127.0.0.1:0", echo.addr), false);
    assert!(open_count() > 2);
    drop(relay);
    assert_eq!(open_count(), 0);
}
