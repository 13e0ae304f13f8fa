//! Limits, floods and failures.

use std::net::{SocketAddr, UdpSocket};

use _engine::plan::LimitsPlan;

use crate::relay::{Echo, Relay, ask, client, plan, receive, socket};

fn associations(most: u32) -> LimitsPlan {
    LimitsPlan {
        associations: most,
        ..LimitsPlan::default()
    }
}

/// Three clients where there is room for two, and the first is in use.
fn third_client(relay: &Relay) {
    let clients = [0; 3].map(|_| client(relay.addr));
    ask(&clients[0], b"a");
    ask(&clients[1], b"b");
    ask(&clients[0], b"a");
    ask(&clients[2], b"c");
    assert_eq!(relay.count("/ended/evicted"), 1);
    let left: Vec<_> = relay
        .flows()
        .iter()
        .map(|flow| flow["client"].as_str().unwrap().to_owned())
        .collect();
    let expected = [0, 2].map(|index: usize| clients[index].local_addr().unwrap().to_string());
    assert_eq!(left, expected);
    // Evicting ended an association, and kept nobody from a new one.
    assert_eq!(ask(&clients[1], b"again"), b"again");
}

#[test]
fn the_least_recently_used_gives_way_at_the_limit_of_the_endpoint() {
    let echo = Echo::start("127.0.0.1:0");
    let mut plan = plan("127.0.0.1:0", echo.addr);
    plan.limits = associations(2);
    third_client(&Relay::start(plan));
}

#[test]
fn the_least_recently_used_gives_way_at_the_limit_of_all() {
    let echo = Echo::start("127.0.0.1:0");
    let plan = plan("127.0.0.1:0", echo.addr);
    third_client(&Relay::limited(plan, &associations(2)));
}

#[test]
fn an_endpoint_without_associations_can_evict_none_of_another() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::limited(plan("127.0.0.1:0", echo.addr), &associations(1));
    let first = client(relay.addr);
    ask(&first, b"a");
    let second = relay.add(plan("127.0.0.1:0", echo.addr), false);
    client(second).send(b"b").unwrap();
    relay.wait_for("dropped", |relay| {
        relay
            .engine
            .stats(relay.group)
            .unwrap()
            .contains(r#""overall_connections":1"#)
    });
    assert_eq!(ask(&first, b"a"), b"a");
    // The place of one that ended is free again.
    relay.engine.kill_all(relay.group).unwrap();
    assert_eq!(ask(&client(second), b"b"), b"b");
}

#[test]
fn a_lower_limit_holds_from_the_next_client_on() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", echo.addr));
    for _ in 0..5 {
        ask(&client(relay.addr), b"a");
    }
    let mut lower = plan("127.0.0.1:0", echo.addr);
    lower.limits = associations(2);
    relay.engine.update(relay.handle, lower, None).unwrap();
    assert_eq!(relay.flows().len(), 5);
    ask(&client(relay.addr), b"a");
    assert_eq!(relay.flows().len(), 2);
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_flood_of_sources_stays_within_the_limit() {
    const SOURCES: u32 = 20_000;
    const MOST: u32 = 64;
    let target = socket("127.0.0.1:0");
    let mut plan = plan("127.0.0.1:0", target.local_addr().unwrap());
    plan.limits = associations(MOST);
    let relay = Relay::start(plan);
    relay.engine.watch_group(relay.group, false).unwrap();
    let before = resident_bytes();
    let mut most_open = 0;
    for number in 0..SOURCES {
        // Every source is an address of its own, as if they were spoofed.
        let [_, a, b, c] = (number + 2).to_be_bytes();
        let source = UdpSocket::bind(SocketAddr::from(([127, a, b, c], 0))).unwrap();
        source.send_to(&[0; 1_000], relay.addr).unwrap();
        if number % 256 == 0 {
            // Lets the relay take part, or the kernel would drop most of them.
            most_open = most_open.max(relay.count("/open"));
        }
    }
    relay.wait_for("all evicted but the last", |relay| {
        relay.count("/total") >= u64::from(SOURCES) * 9 / 10
    });
    assert!(most_open <= u64::from(MOST), "{most_open}");
    assert_eq!(relay.flows().len(), MOST as usize);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    // And it still serves.
    let client = client(relay.addr);
    while target.recv(&mut [0; 16]).is_ok_and(|len| len != 5) {
        client.send(b"hello").unwrap();
    }
}

#[test]
fn a_target_that_refuses_is_counted_and_served_when_it_is_back() {
    let target = socket("127.0.0.1:0");
    let addr = target.local_addr().unwrap();
    drop(target);
    let relay = Relay::start(plan("127.0.0.1:0", addr));
    let client = client(relay.addr);
    for number in 1..=5 {
        client.send(b"lost").unwrap();
        relay.wait_for("refused", |relay| relay.count("/icmp_errors") == number);
    }
    client.send(b"lost").unwrap();
    let target = socket(&addr.to_string());
    // The error of the last one doesn't eat the first that can arrive.
    client.send(b"found").unwrap();
    let mut message = receive(&target);
    if message == b"lost" {
        message = receive(&target);
    }
    assert_eq!(message, b"found");
    assert_eq!(relay.flows().len(), 1);
}

#[test]
fn a_datagram_that_is_too_big_spoils_no_other() {
    let target = socket("127.0.0.1:0");
    let relay = Relay::start(plan("[::1]:0", target.local_addr().unwrap()));
    let client = client(relay.addr);
    client.send(b"before").unwrap();
    // IPv6 carries 20 bytes more than IPv4.
    client.send(&[0; 65_527]).unwrap();
    client.send(b"after").unwrap();
    assert_eq!(receive(&target), b"before");
    assert_eq!(receive(&target), b"after");
    assert_eq!(relay.count("/dropped/too_big"), 1);
}
