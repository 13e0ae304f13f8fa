//! Which addresses datagrams leave from.

use std::net::SocketAddr;

use crate::relay::{Echo, Relay, ask, client, plan, socket};

fn to(ip: &str, relay: &Relay) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), relay.addr.port())
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("0.0.0.0:0", echo.addr));
    for ip in ["127.0.0.2", "127.0.0.3"] {
        // A connected socket gets nothing from any other address.
        assert_eq!(ask(&client(to(ip, &relay)), b"hello"), b"hello");
    }
}

#[test]
fn a_client_of_two_addresses_has_two_associations() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("0.0.0.0:0", echo.addr));
    let client = socket("127.0.0.1:0");
    let mut buffer = [0; 16];
    for ip in ["127.0.0.2", "127.0.0.3", "127.0.0.2"] {
        client.send_to(ip.as_bytes(), to(ip, &relay)).unwrap();
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], ip.as_bytes());
        assert_eq!(from, to(ip, &relay));
    }
    assert_eq!(relay.flows().len(), 2);
}

#[test]
fn ipv6_on_both_sides() {
    let echo = Echo::start("[::1]:0");
    for listen in ["[::1]:0", "[::]:0"] {
        let relay = Relay::start(plan(listen, echo.addr));
        let client = client(to("::1", &relay));
        assert_eq!(ask(&client, b"hello"), b"hello", "{listen}");
        assert_eq!(relay.flows()[0]["peer"], echo.addr.to_string());
    }
}

#[test]
fn a_dual_stack_socket_answers_from_the_ipv4_address_that_was_asked() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("[::]:0", echo.addr));
    for ip in ["127.0.0.1", "127.0.0.2", "::1"] {
        let client = client(to(ip, &relay));
        assert_eq!(ask(&client, ip.as_bytes()), ip.as_bytes());
    }
}

#[test]
fn the_source_towards_the_target_is_as_planned() {
    let target = socket("127.0.0.1:0");
    let mut plan = plan("127.0.0.1:0", target.local_addr().unwrap());
    // A port that is free a moment before.
    let port = socket("127.0.0.7:0").local_addr().unwrap().port();
    plan.through = Some(format!("127.0.0.7:{port}"));
    let relay = Relay::start(plan);
    let clients = [client(relay.addr), client(relay.addr)];
    let sources = clients.each_ref().map(|client| {
        client.send(b"hello").unwrap();
        target.recv_from(&mut [0; 16]).unwrap().1
    });
    assert_eq!(sources[0].to_string(), format!("127.0.0.7:{port}"));
    // The port is taken; the second client is served nevertheless, and apart from the first.
    assert_eq!(sources[1].ip(), sources[0].ip());
    for (client, source) in clients.iter().zip(sources) {
        target
            .send_to(source.to_string().as_bytes(), source)
            .unwrap();
        let answer = crate::relay::receive(client);
        assert_eq!(answer, source.to_string().as_bytes());
    }
}

#[test]
fn a_target_of_another_family_than_the_source_is_unreachable() {
    let target = socket("127.0.0.1:0");
    let mut plan = plan("127.0.0.1:0", target.local_addr().unwrap());
    plan.through = Some("[::1]:0".to_owned());
    let relay = Relay::start(plan);
    client(relay.addr).send(b"hello").unwrap();
    relay.wait_for("dropped", |relay| relay.count("/dropped/unreachable") == 1);
    assert!(relay.flows().is_empty());
}
