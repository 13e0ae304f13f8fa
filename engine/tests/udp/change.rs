//! Endpoints that change, leave and come back while associations live.

use std::net::SocketAddr;

use _engine::plan::{EndpointPlan, UdpPlan};

use crate::relay::{Echo, Relay, ask, client, plan, socket};

/// A relay to a target that says "old", another target, and a plan for it at the same address.
fn old_and_new(listen: &str) -> (Relay, [Echo; 2], EndpointPlan) {
    let echoes = [
        Echo::labelled("127.0.0.1:0", "old "),
        Echo::labelled("127.0.0.1:0", "new "),
    ];
    let relay = Relay::start(plan(listen, echoes[0].addr));
    let plan = plan(&relay.addr.to_string(), echoes[1].addr);
    (relay, echoes, plan)
}

/// Many clients, since the kernel may share them out among sockets by their addresses.
fn all_get(relay: SocketAddr, expected: &[u8]) {
    for _ in 0..16 {
        assert_eq!(ask(&client(relay), b"x"), expected);
    }
}

#[test]
fn a_new_target_is_for_new_clients() {
    let (relay, _echoes, plan) = old_and_new("127.0.0.1:0");
    let first = client(relay.addr);
    assert_eq!(ask(&first, b"a"), b"old a");
    relay.engine.update(relay.handle, plan, None).unwrap();
    assert_eq!(ask(&first, b"b"), b"old b");
    all_get(relay.addr, b"new x");
}

#[test]
fn a_new_timeout_is_for_all() {
    let target = socket("127.0.0.1:0");
    let with_timeout = |timeout| EndpointPlan {
        udp: Some(UdpPlan { timeout }),
        ..plan("127.0.0.1:0", target.local_addr().unwrap())
    };
    let relay = Relay::start(with_timeout(0.0));
    client(relay.addr).send(b"hello").unwrap();
    relay.wait_for("open", |relay| relay.count("/open") == 1);
    let plan = with_timeout(0.05);
    relay.engine.update(relay.handle, plan, None).unwrap();
    relay.wait_for("expired", |relay| relay.count("/ended/expired") == 1);
}

#[test]
fn a_stopped_endpoint_serves_those_it_knows() {
    let (relay, _echoes, _) = old_and_new("127.0.0.1:0");
    let known = client(relay.addr);
    ask(&known, b"hello");
    relay.engine.close(relay.handle, None).unwrap();
    assert_eq!(ask(&known, b"still there"), b"old still there");
    let stranger = client(relay.addr);
    stranger.send(b"hello").unwrap();
    relay.wait_for("dropped", |relay| relay.count("/dropped/unreachable") == 1);
    assert_eq!(relay.flows().len(), 1);
    // With the last association the socket goes.
    assert_eq!(relay.engine.kill_all(relay.group).unwrap(), 1);
    relay.wait_for("closed", |relay| {
        std::net::UdpSocket::bind(relay.addr).is_ok()
    });
}

/// The clients belong to the heir; an answer that comes late still reaches its client.
fn heir(listen: &str, takeover: bool, first_close: bool, change: impl Fn(&mut EndpointPlan)) {
    let slow = socket("127.0.0.1:0");
    let new = Echo::labelled("127.0.0.1:0", "new ");
    let relay = Relay::start(plan(listen, slow.local_addr().unwrap()));
    let known = client(relay.addr);
    known.send(b"slow").unwrap();
    let (_, source) = slow.recv_from(&mut [0; 16]).unwrap();
    let mut plan = plan(&relay.addr.to_string(), new.addr);
    change(&mut plan);
    if first_close {
        relay.engine.close(relay.handle, None).unwrap();
    }
    relay.add(plan, takeover);
    if !first_close {
        relay.engine.close(relay.handle, None).unwrap();
    }
    assert_eq!(ask(&known, b"a"), b"new a");
    all_get(relay.addr, b"new x");
    slow.send_to(b"late", source).unwrap();
    assert_eq!(crate::relay::receive(&known), b"late");
}

#[test]
fn an_endpoint_that_is_replaced_hands_its_socket_over() {
    heir("127.0.0.1:0", true, false, |_| {});
}

#[test]
fn an_endpoint_that_comes_back_takes_its_socket_back() {
    heir("127.0.0.1:0", false, true, |_| {});
}

#[test]
fn an_endpoint_that_listens_in_another_way_gets_all_clients() {
    heir("[::1]:0", true, false, |plan| plan.ipv6_only = true);
}
