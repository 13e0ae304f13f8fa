//! Datagrams through streams between two of ours, with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use _engine::binding::Inherited;
use _engine::engine::Bound;
use _engine::plan::{
    EndpointPlan, ListenTransportPlan, Mask, ProxyProtocolPlan, RemoteTransportPlan, TlsListenPlan,
    TlsSendPlan, UdpPlan, WebSocketPlan,
};
use support::*;

#[derive(Clone, Copy, Debug, Default)]
struct Layers {
    tls: bool,
    ws: bool,
}

fn web_socket() -> WebSocketPlan {
    WebSocketPlan {
        host: "example.com".to_owned(),
        path: "/udp".to_owned(),
        mask: Mask::Zero,
    }
}

fn exit_plan(target: SocketAddr, layers: Layers) -> EndpointPlan {
    EndpointPlan {
        id: "exit".to_owned(),
        listen_transport: Some(ListenTransportPlan {
            tls: layers.tls.then(|| TlsListenPlan {
                self_signed: Some("example.com".to_owned()),
                ..TlsListenPlan::default()
            }),
            ws: layers.ws.then(web_socket),
            uot: true,
            ..ListenTransportPlan::default()
        }),
        ..plan(target)
    }
}

fn entry_plan(exit: SocketAddr, layers: Layers) -> EndpointPlan {
    EndpointPlan {
        id: "entry".to_owned(),
        tcp: None,
        udp: Some(UdpPlan::default()),
        remote_transport: Some(RemoteTransportPlan {
            tls: layers.tls.then(|| TlsSendPlan {
                sni: "example.com".to_owned(),
                alpn: Vec::new(),
                insecure: true,
                ca: None,
                cert: None,
                key: None,
                key_log: false,
            }),
            ws: layers.ws.then(web_socket),
            uot: true,
            ..RemoteTransportPlan::default()
        }),
        ..plan(exit)
    }
}

/// Both ends, with a target behind them.
fn tunnel(relay: &Relay, layers: Layers) -> (Bound, UdpSocket) {
    let target = socket();
    let exit = relay.serve(exit_plan(target.local_addr().unwrap(), layers));
    let entry = relay.serve(entry_plan(exit.tcp.unwrap(), layers));
    (entry, target)
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn client(bound: &Bound) -> UdpSocket {
    let client = socket();
    client.connect(bound.udp.unwrap()).unwrap();
    client
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = vec![0; 70_000];
    let (count, from) = socket.recv_from(&mut buf).unwrap();
    buf.truncate(count);
    (buf, from)
}

#[test]
fn datagrams_of_every_size_pass_both_ways_through_every_transport() {
    for (tls, ws) in [(false, false), (false, true), (true, false), (true, true)] {
        let relay = Relay::new();
        let (entry, target) = tunnel(&relay, Layers { tls, ws });
        let client = client(&entry);
        for size in [0, 1, 1200, 1472, 9000, 65_507] {
            let datagram = pattern(size);
            client.send(&datagram).unwrap();
            let (got, from) = receive(&target);
            assert_eq!(got, datagram, "{size} bytes, tls {tls}, ws {ws}");
            target.send_to(&datagram, from).unwrap();
            assert_eq!(receive(&client).0, datagram);
        }
    }
}

#[test]
fn each_client_has_a_stream_and_a_socket_of_its_own() {
    let relay = Relay::new();
    let (entry, target) = tunnel(&relay, Layers::default());
    let clients: Vec<UdpSocket> = (0..10).map(|_| client(&entry)).collect();
    let mut sources = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        client.send(&[at as u8]).unwrap();
        let (got, from) = receive(&target);
        assert_eq!(got, [at as u8]);
        sources.push(from);
    }
    for (at, from) in sources.iter().enumerate().rev() {
        target.send_to(&[at as u8, 1], from).unwrap();
    }
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(receive(client).0, [at as u8, 1]);
    }
    sources.sort_unstable();
    sources.dedup();
    assert_eq!(sources.len(), 10);
    let flows = relay.flows();
    assert_eq!(
        flows
            .iter()
            .filter(|flow| flow["protocol"] == "udp")
            .count(),
        10
    );
    assert_eq!(
        flows
            .iter()
            .filter(|flow| flow["protocol"] == "tcp")
            .count(),
        10
    );
    let one = flows.iter().find(|flow| flow["protocol"] == "udp").unwrap();
    assert_eq!(one["bytes_up"], 1);
    assert_eq!(one["packets_down"], 1);
}

#[test]
fn what_comes_while_the_stream_is_made_is_kept_in_order() {
    let relay = Relay::new();
    let (entry, target) = tunnel(
        &relay,
        Layers {
            tls: true,
            ws: true,
        },
    );
    let client = client(&entry);
    for number in 0..20_u8 {
        client.send(&[number; 100]).unwrap();
    }
    for number in 0..20_u8 {
        assert_eq!(receive(&target).0, [number; 100]);
    }
}

#[test]
fn the_silence_of_an_association_ends_both_ends() {
    let relay = Relay::new();
    let target = socket();
    let exit = relay.serve(exit_plan(target.local_addr().unwrap(), Layers::default()));
    let entry = relay.serve(EndpointPlan {
        udp: Some(UdpPlan { timeout: 0.2 }),
        ..entry_plan(exit.tcp.unwrap(), Layers::default())
    });
    let client = client(&entry);
    client.send(b"once").unwrap();
    receive(&target);
    let mut reasons = [relay.event("ended"), relay.event("ended")]
        .map(|ended| format!("{} {}", ended["protocol"], ended["reason"]));
    reasons.sort();
    assert_eq!(
        reasons,
        ["\"tcp\" \"client_closed\"", "\"udp\" \"expired\""]
    );
    // A new one begins with the next datagram.
    client.send(b"again").unwrap();
    assert_eq!(receive(&target).0, b"again");
}

#[test]
fn the_exit_ends_silent_associations_too() {
    let relay = Relay::new();
    let target = socket();
    let exit = relay.serve(EndpointPlan {
        udp: Some(UdpPlan { timeout: 0.2 }),
        ..exit_plan(target.local_addr().unwrap(), Layers::default())
    });
    let entry = relay.serve(entry_plan(exit.tcp.unwrap(), Layers::default()));
    let client = client(&entry);
    client.send(b"once").unwrap();
    receive(&target);
    let mut reasons = [relay.event("ended"), relay.event("ended")]
        .map(|ended| format!("{} {}", ended["protocol"], ended["reason"]));
    reasons.sort();
    assert_eq!(
        reasons,
        ["\"tcp\" \"expired\"", "\"udp\" \"target_closed\""]
    );
}

#[test]
fn without_a_stream_the_association_ends_with_the_reason() {
    let relay = Relay::new();
    let (listener, addr) = support::target();
    drop(listener);
    let entry = relay.serve(entry_plan(addr, Layers::default()));
    client(&entry).send(b"in vain").unwrap();
    let ended = relay.event("ended");
    assert_eq!(ended["protocol"], "udp");
    assert_eq!(ended["reason"], "connect_refused");
}

#[test]
fn an_association_that_is_killed_takes_its_stream_along() {
    let relay = Relay::new();
    let (entry, target) = tunnel(
        &relay,
        Layers {
            tls: false,
            ws: true,
        },
    );
    let client = client(&entry);
    client.send(b"hello").unwrap();
    receive(&target);
    let flow = relay
        .flows()
        .into_iter()
        .find(|flow| flow["protocol"] == "udp")
        .unwrap();
    let id = flow["id"].as_u64().unwrap();
    assert!(relay.engine.kill(relay.group, id).unwrap());
    let mut reasons = [relay.event("ended"), relay.event("ended")]
        .map(|ended| format!("{} {}", ended["protocol"], ended["reason"]));
    reasons.sort();
    assert_eq!(reasons, ["\"tcp\" \"client_closed\"", "\"udp\" \"killed\""]);
}

/// A stream that nobody reads: what doesn't fit is dropped and counted, and nothing grows.
#[test]
fn a_stream_that_is_stuck_drops_what_does_not_fit() {
    let relay = Relay::new();
    let (listener, addr) = support::target();
    let entry = relay.serve(entry_plan(addr, Layers::default()));
    let client = client(&entry);
    client.send(&[1; 1000]).unwrap();
    let (mut stuck, _) = listener.accept().unwrap();
    let mut sent = 1_u64;
    eventually("datagrams are dropped", || {
        for _ in 0..20 {
            client.send(&[1; 60_000]).unwrap();
            sent += 1;
        }
        let stats = relay.stats();
        let dropped = &stats["endpoints"][0]["udp"]["dropped"]["send_failed"];
        dropped.as_u64().unwrap_or(0) > 20
    });
    // Those that were taken come whole.
    stuck
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let mut length = [0; 2];
    for size in [1000, 60_000, 60_000] {
        stuck.read_exact(&mut length).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes(length)), size);
        let mut datagram = vec![0; size];
        stuck.read_exact(&mut datagram).unwrap();
        assert!(datagram.iter().all(|byte| *byte == 1));
    }
}

#[test]
fn the_form_in_the_stream_is_a_length_and_the_datagram() {
    let relay = Relay::new();
    let target = socket();
    let exit = relay.serve(exit_plan(target.local_addr().unwrap(), Layers::default()));
    let mut stream = connect(&exit);
    stream.set_nodelay(true).unwrap();
    for byte in b"\0\x05hello\0\0\0\x02yo" {
        stream.write_all(std::slice::from_ref(byte)).unwrap();
    }
    assert_eq!(receive(&target).0, b"hello");
    assert_eq!(receive(&target).0, b"");
    let (got, from) = receive(&target);
    assert_eq!(got, b"yo");
    target.send_to(b"answer", from).unwrap();
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\x06answer");
    // Who ends the stream ends the association.
    end_writing(&stream);
    assert_eq!(relay.event("ended")["reason"], "client_closed");
    assert_eq!(read_all(&mut stream).unwrap(), b"");
}

#[test]
fn the_exit_learns_the_client_from_a_proxy_header() {
    let relay = Relay::new();
    let (listener, addr) = support::target();
    let entry = relay.serve(EndpointPlan {
        proxy: ProxyProtocolPlan {
            send: 1,
            ..ProxyProtocolPlan::default()
        },
        ..entry_plan(addr, Layers::default())
    });
    let client = client(&entry);
    client.send(b"x").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let source = client.local_addr().unwrap();
    let destination = entry.udp.unwrap();
    let line = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        source.port(),
        destination.port()
    );
    hear(&mut stream, &line);
    hear(&mut stream, "\0\x01x");
}

#[test]
fn streams_pass_untouched_between_two_that_carry_datagrams() {
    let relay = Relay::new();
    let (entry, target) = {
        let target = socket();
        let exit = relay.serve(exit_plan(target.local_addr().unwrap(), Layers::default()));
        let middle = relay.serve(EndpointPlan {
            id: "middle".to_owned(),
            remote_transport: Some(RemoteTransportPlan {
                uot: true,
                ..RemoteTransportPlan::default()
            }),
            ..exit_plan(
                exit.tcp.unwrap(),
                Layers {
                    tls: false,
                    ws: true,
                },
            )
        });
        let layers = Layers {
            tls: false,
            ws: true,
        };
        (relay.serve(entry_plan(middle.tcp.unwrap(), layers)), target)
    };
    let client = client(&entry);
    client.send(b"through three").unwrap();
    let (got, from) = receive(&target);
    assert_eq!(got, b"through three");
    target.send_to(b"and back", from).unwrap();
    assert_eq!(receive(&client).0, b"and back");
}

#[test]
fn plans_that_can_not_be_meant_are_refused() {
    let relay = Relay::new();
    let addr: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let good = entry_plan(addr, Layers::default());
    for wrong in [
        EndpointPlan {
            tcp: plan(addr).tcp,
            ..good.clone()
        },
        EndpointPlan { udp: None, ..good },
        EndpointPlan {
            tcp: None,
            udp: Some(UdpPlan::default()),
            ..exit_plan(addr, Layers::default())
        },
    ] {
        let error = relay
            .engine
            .bind(relay.group, wrong, Inherited::default(), false)
            .err()
            .unwrap();
        assert!(error.to_string().contains("uot"), "{error}");
    }
}
