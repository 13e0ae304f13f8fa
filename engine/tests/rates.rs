//! Limits on bytes: how fast they go and how many, with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Instant;

use _engine::plan::{EndpointPlan, RatesPlan, UdpPlan};
use support::*;

/// Bytes a second that arrive while a sender gives all it can.
fn rate_of(mut from: TcpStream, mut to: TcpStream, seconds: f64) -> f64 {
    let writer = std::thread::spawn(move || {
        let chunk = vec![1; 65536];
        while from.write_all(&chunk).is_ok() {}
    });
    let mut buf = vec![0; 1 << 20];
    to.read_exact(&mut buf[..1]).unwrap();
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed().as_secs_f64() < seconds {
        count += to.read(&mut buf).unwrap();
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    reset(to);
    writer.join().unwrap();
    rate
}

fn within(share: f64, what: f64, wanted: f64) -> bool {
    (what / wanted - 1.0).abs() <= share
}

#[test]
fn a_flow_is_held_to_its_rate_in_each_direction() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(EndpointPlan {
        rates: RatesPlan {
            flow_up: 4_000_000,
            flow_down: 20_000_000,
            ..RatesPlan::default()
        },
        ..plan(addr)
    });
    let (client, server) = pair(&listener, &bound);
    let up = rate_of(client, server, 1.5);
    assert!(within(0.1, up, 4e6), "{up}");
    let (client, server) = pair(&listener, &bound);
    let down = rate_of(server, client, 1.5);
    assert!(within(0.1, down, 20e6), "{down}");
}

#[test]
fn flows_share_the_rate_of_their_client_and_endpoint() {
    for (client_up, endpoint_up) in [(6_000_000, 0), (0, 6_000_000)] {
        let relay = Relay::new();
        let (listener, addr) = target();
        let bound = relay.serve(EndpointPlan {
            rates: RatesPlan {
                client_up,
                endpoint_up,
                ..RatesPlan::default()
            },
            ..plan(addr)
        });
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (client, server) = pair(&listener, &bound);
                std::thread::spawn(move || rate_of(client, server, 1.5))
            })
            .collect();
        let sum: f64 = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert!(within(0.15, sum, 6e6), "{sum}");
    }
}

#[test]
fn a_rate_changes_for_living_flows() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = plan(addr);
    let bound = relay.serve(plan.clone());
    let (mut client, mut server) = pair(&listener, &bound);
    say(&mut client, "before");
    hear(&mut server, "before");
    plan.rates.flow_up = 3_000_000;
    relay.engine.update(bound.handle, plan, None).unwrap();
    let rate = rate_of(client, server, 1.0);
    assert!(within(0.15, rate, 3e6), "{rate}");
}

#[test]
fn a_quota_ends_flows_and_refuses_new_ones() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = plan(addr);
    plan.quota = 1_000_000;
    let bound = relay.serve(plan.clone());
    let (mut client, mut server) = pair(&listener, &bound);
    let reader = std::thread::spawn(move || read_all(&mut server));
    let chunk = vec![1; 65536];
    while client.write_all(&chunk).is_ok() {}
    assert!(reader.join().unwrap().is_err());
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "quota");
    let bytes = ended["bytes_up"].as_u64().unwrap();
    assert!((1_000_000..3_500_000).contains(&bytes), "{bytes}");
    let error = read_all(&mut connect(&bound)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let stats = relay.stats();
    let endpoint = &stats["endpoints"][0];
    assert_eq!(endpoint["tcp"]["refused"]["quota"], 1);
    assert_eq!(endpoint["quota"]["limit"], 1_000_000);
    assert!(endpoint["quota"]["used"].as_u64().unwrap() >= 1_000_000);
    // A larger quota lets flows in again at once.
    plan.quota = 100_000_000;
    relay.engine.update(bound.handle, plan, None).unwrap();
    let (mut client, mut server) = pair(&listener, &bound);
    say(&mut client, "again");
    hear(&mut server, "again");
}

/// Datagrams beyond the rate are dropped and counted, the others go on; a quota ends them all.
#[test]
fn datagrams_are_held_to_rates_and_quotas() {
    let relay = Relay::new();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(LIMIT)).unwrap();
    let mut plan = EndpointPlan {
        tcp: None,
        udp: Some(UdpPlan::default()),
        rates: RatesPlan {
            flow_up: 1_000_000,
            ..RatesPlan::default()
        },
        ..plan(target.local_addr().unwrap())
    };
    let bound = relay.serve(plan.clone());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(bound.udp.unwrap()).unwrap();
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < 1.0 {
        client.send(&[1; 1000]).unwrap();
    }
    let counted = |what: &str| {
        let udp = relay.stats()["endpoints"][0]["udp"].clone();
        udp["dropped"][what].as_u64().unwrap_or(0)
    };
    let passed = relay.stats()["endpoints"][0]["udp"]["bytes_up"]
        .as_f64()
        .unwrap();
    assert!(
        within(0.2, passed / began.elapsed().as_secs_f64(), 1e6),
        "{passed}"
    );
    assert!(counted("rate_limited") > 100);
    plan.quota = 1;
    relay.engine.update(bound.handle, plan, None).unwrap();
    client.send(b"too late").unwrap();
    eventually("the quota is used up", || counted("quota") > 0);
}
