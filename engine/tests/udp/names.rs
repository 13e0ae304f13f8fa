//! Targets with names.

use std::time::{Duration, Instant};

use _engine::plan::{DnsMode, EndpointPlan, ResolverPlan};

use crate::relay::{Echo, LIMIT, Relay, ask, client, plan, receive};
use crate::server::{A, Reply, Server};

fn named(echo: &Echo, server: &Server) -> EndpointPlan {
    let mut plan = plan("127.0.0.1:0", echo.addr);
    plan.remotes[0].host = "target.test".to_owned();
    plan.resolver = ResolverPlan {
        mode: DnsMode::Ipv4Only,
        nameservers: vec![server.address.to_string()],
        ..ResolverPlan::default()
    };
    plan
}

#[test]
fn datagrams_wait_for_the_name_in_order() {
    let echo = Echo::start("127.0.0.1:0");
    let server = Server::start();
    let reply = Reply::addresses(&["127.0.0.1"], 60).after(Duration::from_millis(200));
    server.tell("target.test", A, reply);
    let relay = Relay::start(named(&echo, &server));
    let client = client(relay.addr);
    for number in 0..3_u8 {
        client.send(&[number]).unwrap();
    }
    relay.wait_for("resolving", |relay| relay.count("/total") == 1);
    assert_eq!(relay.flows()[0]["state"], "resolving");
    for number in 0..3_u8 {
        assert_eq!(receive(&client), [number]);
    }
    let flow = &relay.flows()[0];
    assert_eq!(flow["target"], format!("target.test:{}", echo.addr.port()));
    assert_eq!(flow["peer"], echo.addr.to_string());
    assert_eq!(flow["packets_up"], 3);
}

#[test]
fn few_wait_for_a_name_and_none_is_left_when_there_is_none() {
    let echo = Echo::start("127.0.0.1:0");
    let server = Server::start();
    let reply = Reply::code(crate::server::NXDOMAIN).after(Duration::from_millis(200));
    server.tell("target.test", A, reply);
    let relay = Relay::start(named(&echo, &server));
    let client = client(relay.addr);
    for _ in 0..20 {
        client.send(b"hello").unwrap();
    }
    relay.wait_for("more than may wait", |relay| {
        relay.count("/dropped/resolve_failed") == 4
    });
    relay.wait_for("failed", |relay| relay.count("/ended/resolve_failed") == 1);
    assert_eq!(relay.count("/dropped/resolve_failed"), 20);
    assert!(relay.flows().is_empty());
}

#[test]
fn an_association_follows_the_name() {
    let before = Echo::labelled("127.0.0.1:0", "before ");
    let server = Server::start();
    server.tell("target.test", A, Reply::addresses(&["127.0.0.1"], 1));
    let relay = Relay::start(named(&before, &server));
    let client = client(relay.addr);
    assert_eq!(ask(&client, b"a"), b"before a");
    let after = Echo::labelled(&format!("127.0.0.9:{}", before.addr.port()), "after ");
    server.tell("target.test", A, Reply::addresses(&["127.0.0.9"], 1));
    let start = Instant::now();
    while ask(&client, b"a") != b"after a" {
        assert!(start.elapsed() < LIMIT);
        // The name is looked at once a second: nothing else to wait for.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(relay.count("/total"), 1);
    assert_eq!(relay.flows()[0]["peer"], after.addr.to_string());
}

#[test]
fn an_association_follows_the_name_to_the_other_family() {
    let before = Echo::labelled("127.0.0.1:0", "before ");
    let server = Server::start();
    server.tell("target.test", A, Reply::addresses(&["127.0.0.1"], 1));
    let mut plan = named(&before, &server);
    plan.resolver.mode = DnsMode::Ipv4AndIpv6;
    let relay = Relay::start(plan);
    let client = client(relay.addr);
    assert_eq!(ask(&client, b"a"), b"before a");
    let _after = Echo::labelled(&format!("[::1]:{}", before.addr.port()), "after ");
    server.tell("target.test", A, Reply::code(crate::server::NOERROR));
    let reply = Reply::addresses(&["::1"], 1);
    server.tell("target.test", crate::server::AAAA, reply);
    let start = Instant::now();
    while ask(&client, b"a") != b"after a" {
        assert!(start.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(relay.count("/total"), 1);
}
