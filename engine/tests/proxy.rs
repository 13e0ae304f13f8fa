//! The PROXY protocol and access lists, with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use _engine::plan::{AcceptProxy, EndpointPlan, LimitsPlan, ProxyProtocolPlan, UdpPlan};
use _engine::transport::proxy::{Addresses, Kind, binary, line, parse_binary};
use support::*;

fn addresses() -> Addresses {
    Addresses {
        source: "192.0.2.7:51000".parse().unwrap(),
        destination: "198.51.100.1:443".parse().unwrap(),
    }
}

fn with_proxy(target: SocketAddr, accept: AcceptProxy, send: u8) -> EndpointPlan {
    EndpointPlan {
        proxy: ProxyProtocolPlan {
            accept,
            send,
            accept_timeout: 0.5,
            ..ProxyProtocolPlan::default()
        },
        ..plan(target)
    }
}

/// What a target reads until the client's end.
fn heard(server: &mut TcpStream) -> Vec<u8> {
    read_all(server).unwrap()
}

fn is_reset(stream: &mut TcpStream) {
    assert_eq!(
        read_all(stream).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn the_target_is_told_the_client_and_where_it_connected_to() {
    let relay = Relay::new();
    let (listener, addr) = target();
    for version in [1, 2] {
        let bound = relay.serve(with_proxy(addr, AcceptProxy::Off, version));
        let mut client = connect(&bound);
        say(&mut client, "payload");
        end_writing(&client);
        let (mut server, _) = listener.accept().unwrap();
        let real = Addresses {
            source: client.local_addr().unwrap(),
            destination: bound.tcp.unwrap(),
        };
        let mut expected = if version == 1 {
            line(&real)
        } else {
            binary(&real, Kind::Stream, b"")
        };
        expected.extend(b"payload");
        assert_eq!(heard(&mut server), expected);
    }
}

#[test]
fn a_header_is_taken_off_however_it_comes() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(with_proxy(addr, AcceptProxy::Required, 0));
    for header in [line(&addresses()), binary(&addresses(), Kind::Stream, b"")] {
        let mut bytes = header.clone();
        bytes.extend(b"behind it");
        for chunk in [1, 7, bytes.len()] {
            let mut client = connect(&bound);
            client.set_nodelay(true).unwrap();
            for piece in bytes.chunks(chunk) {
                client.write_all(piece).unwrap();
            }
            end_writing(&client);
            let (mut server, _) = listener.accept().unwrap();
            let mut first = [0; 9];
            server.read_exact(&mut first).unwrap();
            assert_eq!(&first, b"behind it");
            let flow = relay.flows().pop().unwrap();
            assert_eq!(flow["client"], "192.0.2.7:51000");
            assert_eq!(flow["via"], client.local_addr().unwrap().to_string());
            drop((client, server));
            relay.event("ended");
        }
    }
}

#[test]
fn what_came_in_goes_out_again_with_its_tlvs() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(with_proxy(addr, AcceptProxy::Required, 2));
    let tlvs = [0x04, 0, 3, 1, 2, 3];
    let mut client = connect(&bound);
    let header = binary(&addresses(), Kind::Stream, &tlvs);
    client.write_all(&header).unwrap();
    end_writing(&client);
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(heard(&mut server), header);
    // Version 1 in, version 2 out.
    let mut client = connect(&bound);
    client.write_all(&line(&addresses())).unwrap();
    end_writing(&client);
    let (mut server, _) = listener.accept().unwrap();
    let out = parse_binary(&heard(&mut server)).unwrap();
    assert_eq!(out.addresses, Some(addresses()));
}

#[test]
fn long_tlvs_pass() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(with_proxy(addr, AcceptProxy::Required, 2));
    let mut tlvs = vec![0xee, 0xea, 0x60];
    tlvs.extend(pattern(60_000));
    let mut client = connect(&bound);
    let header = binary(&addresses(), Kind::Stream, &tlvs);
    let sent = header.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        end_writing(&client);
        client
    });
    let (mut server, _) = listener.accept().unwrap();
    assert!(heard(&mut server) == header);
    drop(writer.join().unwrap());
}

#[test]
fn a_required_header_that_is_missing_wrong_or_late_resets_the_client() {
    let relay = Relay::new();
    let (_listener, addr) = target();
    let bound = relay.serve(with_proxy(addr, AcceptProxy::Required, 0));
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PROXY TCP4 nonsense\r\n",
        b"PRO",
    ] {
        let mut client = connect(&bound);
        client.write_all(bytes).unwrap();
        is_reset(&mut client);
        let ended = relay.event("ended");
        assert_eq!(ended["reason"], "proxy_header");
        assert!(ended["peer"].is_null(), "the target was not dialled");
    }
    let mut silent = connect(&bound);
    is_reset(&mut silent);
    assert_eq!(relay.event("ended")["reason"], "proxy_header");
    // An end in the middle of a header.
    let mut client = connect(&bound);
    client.write_all(b"PROXY TCP4").unwrap();
    end_writing(&client);
    is_reset(&mut client);
    let detail = relay.event("ended")["detail"].to_string();
    assert!(detail.contains("ended first"), "{detail}");
}

#[test]
fn an_optional_header_may_be_left_out() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(with_proxy(addr, AcceptProxy::Optional, 0));
    let (mut client, mut server) = {
        let mut client = connect(&bound);
        say(&mut client, "plain");
        (client, listener.accept().unwrap().0)
    };
    hear(&mut server, "plain");
    say(&mut client, " words");
    hear(&mut server, " words");
    let mut announced = connect(&bound);
    announced.write_all(&line(&addresses())).unwrap();
    say(&mut announced, "with header");
    let (mut server, _) = listener.accept().unwrap();
    hear(&mut server, "with header");
    // A client that waits for the server to speak is let through when the time is over.
    let mut silent = connect(&bound);
    let (mut server, _) = listener.accept().unwrap();
    say(&mut server, "220 welcome");
    hear(&mut silent, "220 welcome");
    say(&mut silent, "EHLO");
    hear(&mut server, "EHLO");
    // So is one that ends before it has said enough to tell.
    let mut brief = connect(&bound);
    say(&mut brief, "PRO");
    end_writing(&brief);
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(heard(&mut server), b"PRO");
    // A header that was begun has to come whole.
    for begun in [
        &b"PROXY TCP4 192"[..],
        &binary(&addresses(), Kind::Stream, b"")[..20],
    ] {
        let mut client = connect(&bound);
        client.write_all(begun).unwrap();
        is_reset(&mut client);
    }
}

#[test]
fn header_and_first_words_go_out_as_one_segment_and_are_counted_apart() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(with_proxy(addr, AcceptProxy::Required, 2));
    let header = binary(&addresses(), Kind::Stream, b"");
    let mut bytes = header.clone();
    bytes.extend(b"first words");
    let mut client = connect(&bound);
    client.write_all(&bytes).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut seen = [0; 1024];
    let count = server.read(&mut seen).unwrap();
    assert_eq!(seen[..count], bytes);
    end_writing(&client);
    end_writing(&server);
    assert_eq!(relay.event("ended")["bytes_up"], 11);
}

/// A rate that lets only a part of the first words pass.
#[test]
fn a_rate_holds_for_what_came_with_the_header() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = with_proxy(addr, AcceptProxy::Required, 1);
    plan.rates.flow_up = 20_000;
    let bound = relay.serve(plan);
    let words: Vec<u8> = (0..12_000_u32).map(|number| number as u8).collect();
    let mut expected = line(&addresses());
    expected.extend(&words);
    let mut client = connect(&bound);
    client.write_all(&expected).unwrap();
    end_writing(&client);
    let began = Instant::now();
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(heard(&mut server), expected);
    assert!(began.elapsed() > Duration::from_millis(300));
}

#[test]
fn the_first_datagram_of_an_association_takes_a_header_along() {
    let relay = Relay::new();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(LIMIT)).unwrap();
    let at = target.local_addr().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let bound = relay.serve(EndpointPlan {
            tcp: None,
            udp: Some(UdpPlan::default()),
            proxy: ProxyProtocolPlan {
                send_udp: true,
                ..ProxyProtocolPlan::default()
            },
            ..plan_for(host, at.port())
        });
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.connect(bound.udp.unwrap()).unwrap();
        let mut buf = [0; 2048];
        for (round, text) in ["first", "second", "third"].into_iter().enumerate() {
            client.send(text.as_bytes()).unwrap();
            let (count, from) = target.recv_from(&mut buf).unwrap();
            let mut expected = Vec::new();
            if round == 0 {
                let real = Addresses {
                    source: client.local_addr().unwrap(),
                    destination: bound.udp.unwrap(),
                };
                expected = binary(&real, Kind::Datagram, b"");
            }
            expected.extend(text.as_bytes());
            assert_eq!(&buf[..count], expected);
            target.send_to(b"answer", from).unwrap();
            let count = client.recv(&mut buf).unwrap();
            assert_eq!(&buf[..count], b"answer");
        }
    }
}

#[test]
fn headers_count_only_from_trusted_addresses() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut required = with_proxy(addr, AcceptProxy::Required, 0);
    required.proxy.trusted = vec!["127.0.0.2/32".to_owned()];
    let bound = relay.serve(required.clone());
    is_reset(&mut connect(&bound));
    assert_eq!(relay.event("ended")["reason"], "proxy_header");
    required.proxy.trusted.push("127.0.0.0/8".to_owned());
    let bound = relay.serve(required);
    let mut client = connect(&bound);
    client.write_all(&line(&addresses())).unwrap();
    say(&mut client, "hello");
    hear(&mut listener.accept().unwrap().0, "hello");
}

/// Who may leave the header out is judged by the address that it comes from.
#[test]
fn lists_and_limits_hold_for_the_untrusted_too() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = with_proxy(addr, AcceptProxy::Optional, 0);
    plan.proxy.trusted = vec!["192.0.2.0/24".to_owned()];
    plan.limits.connections_per_client = 1;
    let bound = relay.serve(plan.clone());
    let _first = pair(&listener, &bound);
    is_reset(&mut connect(&bound));
    assert_eq!(relay.event("ended")["reason"], "over_limit");
    plan.deny = vec!["127.0.0.0/8".to_owned()];
    relay.engine.update(bound.handle, plan, None).unwrap();
    is_reset(&mut connect(&bound));
    assert_eq!(relay.event("ended")["reason"], "denied");
}

#[test]
fn limits_and_lists_are_about_the_announced_client() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = with_proxy(addr, AcceptProxy::Required, 0);
    plan.deny = vec!["203.0.113.0/24".to_owned()];
    plan.limits = LimitsPlan {
        connections_per_client: 1,
        ..LimitsPlan::default()
    };
    let bound = relay.serve(plan);
    let announce = |source: &str| {
        let mut client = connect(&bound);
        let header = line(&Addresses {
            source: source.parse().unwrap(),
            ..addresses()
        });
        client.write_all(&header).unwrap();
        client
    };
    let first = announce("192.0.2.7:1");
    let _served = listener.accept().unwrap();
    is_reset(&mut announce("192.0.2.7:2"));
    assert_eq!(relay.event("ended")["reason"], "over_limit");
    let _other = announce("192.0.2.8:1");
    let _served_too = listener.accept().unwrap();
    is_reset(&mut announce("203.0.113.9:1"));
    assert_eq!(relay.event("ended")["reason"], "denied");
    drop(first);
}

#[test]
fn the_lists_refuse_at_once_without_a_header() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut denying = plan(addr);
    denying.deny = vec!["127.0.0.0/8".to_owned()];
    let bound = relay.serve(denying);
    is_reset(&mut connect(&bound));
    let mut allowing = plan(addr);
    allowing.id = "allowing".to_owned();
    allowing.allow = vec!["10.0.0.0/8".to_owned()];
    let bound_too = relay.serve(allowing.clone());
    is_reset(&mut connect(&bound_too));
    // Changed while it runs: who is named may come in.
    allowing.allow.push("127.0.0.1".to_owned());
    relay
        .engine
        .update(bound_too.handle, allowing, None)
        .unwrap();
    let _pair = pair(&listener, &bound_too);
    let stats = relay.stats();
    for endpoint in stats["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["tcp"]["refused"]["denied"], 1, "{endpoint}");
    }
}
