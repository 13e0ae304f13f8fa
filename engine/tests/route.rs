//! Routing by the client's first words, with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use _engine::engine::Bound;
use _engine::plan::{EndpointPlan, RemotePlan, RoutingPlan, RuleKind, RulePlan};
use support::*;

/// Targets behind one endpoint: those of the rules in order, then the default.
struct Site {
    relay: Relay,
    bound: Bound,
    targets: Vec<TcpListener>,
}

impl Site {
    fn new(rules: &[(RuleKind, &str)], timeout: f64) -> Self {
        let relay = Relay::new();
        let (targets, addrs): (Vec<_>, Vec<_>) = (0..=rules.len()).map(|_| target()).unzip();
        let remote = |addr: &SocketAddr| RemotePlan {
            host: addr.ip().to_string(),
            port: addr.port(),
        };
        let rules = rules
            .iter()
            .zip(&addrs)
            .map(|((kind, pattern), addr)| RulePlan {
                kind: *kind,
                pattern: (*pattern).to_owned(),
                remotes: vec![remote(addr)],
            })
            .collect();
        let bound = relay.serve(EndpointPlan {
            routing: Some(RoutingPlan { rules, timeout }),
            ..plan(*addrs.last().unwrap())
        });
        Self {
            relay,
            bound,
            targets,
        }
    }

    /// Sends the bytes in pieces; the connection as target number `at` sees it.
    fn arrives(&self, bytes: &[u8], piece: usize, at: usize) -> (TcpStream, TcpStream) {
        let mut client = connect(&self.bound);
        client.set_nodelay(true).unwrap();
        for piece in bytes.chunks(piece) {
            client.write_all(piece).unwrap();
        }
        let (server, _) = self.targets[at].accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        (client, server)
    }

    fn carries(&self, bytes: &[u8], piece: usize, at: usize) {
        let (client, mut server) = self.arrives(bytes, piece, at);
        end_writing(&client);
        assert!(
            read_all(&mut server).unwrap() == bytes,
            "not a byte was taken"
        );
    }
}

/// A ClientHello of the size that post-quantum key shares make.
fn hello(name: &str) -> Vec<u8> {
    let list = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let entry = [&[0][..], &list(name.as_bytes())].concat();
    let extensions = [
        &[0, 51][..],
        &list(&pattern(1_800)),
        &[0, 0],
        &list(&list(&entry)),
    ]
    .concat();
    let message = [
        &[3, 3][..],
        &[9; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &list(&extensions),
    ]
    .concat();
    let len = message.len();
    let handshake = [&[1, 0, (len >> 8) as u8, len as u8][..], &message].concat();
    [&[22, 3, 1][..], &list(&handshake)].concat()
}

#[test]
fn names_in_hellos_choose_the_target_and_are_not_touched() {
    let site = Site::new(
        &[(RuleKind::Sni, "one.test"), (RuleKind::Sni, "*.two.test")],
        5.0,
    );
    for piece in [1, 100, 5_000] {
        site.carries(&hello("ONE.test"), piece, 0);
        site.carries(&hello("a.two.test"), piece, 1);
        site.carries(&hello("three.test"), piece, 2);
    }
    let (client, _server) = site.arrives(&hello("one.test"), 4_000, 0);
    let local = client.local_addr().unwrap().to_string();
    let chosen = site.targets[0].local_addr().unwrap().to_string();
    eventually("the record names the target that was chosen", || {
        site.relay
            .flows()
            .iter()
            .any(|flow| flow["client"] == local && flow["target"] == chosen)
    });
}

#[test]
fn hosts_and_first_bytes_choose_the_target() {
    let site = Site::new(
        &[(RuleKind::Bytes, "5353482d"), (RuleKind::Host, "web.test")],
        5.0,
    );
    site.carries(b"SSH-2.0-test\r\n", 3, 0);
    site.carries(b"GET / HTTP/1.1\r\nHost: web.test:80\r\n\r\n", 7, 1);
    site.carries(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n", 7, 2);
    site.carries(&hello("web.test"), 5_000, 2);
}

#[test]
fn a_client_that_waits_for_the_server_goes_to_the_default() {
    let site = Site::new(&[(RuleKind::Sni, "one.test")], 0.2);
    let (mut client, mut server) = site.arrives(b"", 1, 1);
    say(&mut server, "220 hello");
    hear(&mut client, "220 hello");
    say(&mut client, "EHLO");
    hear(&mut server, "EHLO");
}

#[test]
fn a_hello_that_never_ends_goes_to_the_default_when_the_time_is_over() {
    let site = Site::new(&[(RuleKind::Sni, "one.test")], 0.3);
    let bytes = hello("one.test");
    site.carries(&bytes[..100], 100, 1);
    // And one that is larger than anyone may send.
    let endless = [&[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0][..], &[0; 40_000]].concat();
    site.carries(&endless, 4_096, 1);
}

/// What has come by then still counts for rules that it is enough for.
#[test]
fn when_the_time_is_over_the_next_rule_has_its_turn() {
    let site = Site::new(
        &[(RuleKind::Host, "web.test"), (RuleKind::Bytes, "474554")],
        0.3,
    );
    let (mut client, mut server) = site.arrives(b"GET / HT", 8, 1);
    say(&mut client, "TP/1.1");
    hear(&mut server, "GET / HTTP/1.1");
}

/// After its first words, a flow is like any other.
#[test]
fn bulk_behind_a_decision_is_whole() {
    let site = Site::new(&[(RuleKind::Sni, "one.test")], 5.0);
    let first = hello("one.test");
    let (mut client, mut server) = site.arrives(&first, 5_000, 0);
    let bulk = pattern(20_000_000);
    let sent = bulk.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        end_writing(&client);
        client
    });
    let heard = read_all(&mut server).unwrap();
    drop(writer.join().unwrap());
    assert!(heard == [first, bulk].concat());
}
