//! Handshakes that come to nothing, and what is said about them.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::material::Material;
use crate::support::*;
use crate::{peer, plans};

#[test]
fn a_client_that_speaks_something_else_is_told_apart() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (_listener, addr) = target();
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    for (words, detail) in [
        ("GET / HTTP/1.1\r\n\r\n", "the client speaks plain HTTP"),
        ("SSH-2.0-OpenSSH_9\r\n", "the client speaks SSH"),
    ] {
        let mut client = connect(&bound);
        say(&mut client, words);
        let _ = read_all(&mut client);
        let ended = relay.event("ended");
        assert_eq!(ended["reason"], "client_handshake_failed");
        assert_eq!(ended["detail"], detail);
    }
    drop(connect(&bound));
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "client_handshake_failed");
}

#[test]
fn slow_handshakes_are_ended() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (_listener, addr) = target();
    let mut plan = plans::accepting(addr, plans::listen(&material, &["server"]));
    plan.listen_transport.as_mut().unwrap().handshake_timeout = 0.5;
    let bound = relay.serve(plan);
    let mut client = connect(&bound);
    let began = Instant::now();
    // One byte of a hello at a time, for ever.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for byte in hello.iter().cycle() {
        if client.write_all(&[*byte]).is_err() || began.elapsed() > LIMIT {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "handshake_timeout");
    assert!(ended["duration"].as_f64().unwrap() < 3.0);
}

#[test]
fn a_target_that_never_answers_is_given_up() {
    let material = Material::new();
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = plans::sending(addr, plans::send(&material, "server.test"));
    plan.remote_transport.as_mut().unwrap().handshake_timeout = 0.3;
    let bound = relay.serve(plan);
    let (mut client, _server) = pair(&listener, &bound);
    assert!(client.read(&mut [0]).is_err());
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "handshake_timeout");
    assert!(ended["detail"].as_str().unwrap().contains("target"));
}

#[test]
fn a_target_that_can_not_prove_its_name_gets_nothing() {
    let material = Material::new();
    material.issue("server", "DNS:server.test,IP:127.0.0.1");
    let relay = Relay::new();
    let (listener, addr) = target();
    let back = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    let back = back.tcp.unwrap();
    let come = |tls| {
        let front = relay.serve(plans::sending(back, tls));
        let mut client = connect(&front);
        // Which of both fails first tells of the reset.
        let _ = client.write_all(b"secret");
        client
    };
    let mut client = come(plans::send(&material, "other.test"));
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    let mut details = [relay.event("ended"), relay.event("ended")]
        .map(|ended| ended["detail"].as_str().unwrap_or_default().to_owned());
    details.sort();
    assert_eq!(
        details[1],
        "the target's certificate is not made out to other.test, but to: \
         DnsName(\"server.test\"), IpAddress(127.0.0.1)"
    );
    let stranger = Material::new();
    let mut client = come(plans::send(&stranger, "server.test"));
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));
    let reasons = [relay.event("ended"), relay.event("ended")]
        .map(|ended| format!("{} {}", ended["reason"], ended["detail"]));
    assert!(
        reasons
            .iter()
            .any(|text| text.contains("target_handshake_failed") && text.contains("authority")),
        "{reasons:?}"
    );
    // Its address is in the certificate, and none of the others got through.
    let _client = come(plans::send(&material, "127.0.0.1"));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    hear(&mut server, "secret");
}

#[test]
fn our_own_certificate_is_shown_when_asked_for() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    material.issue("friend", "DNS:friend.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut tls = plans::listen(&material, &["server"]);
    tls.client_ca = Some(material.path("ca.crt"));
    let back = relay.serve(plans::accepting(addr, tls));
    let mut send = plans::send(&material, "server.test");
    send.cert = Some(material.path("friend.crt"));
    send.key = Some(material.path("friend.key"));
    let front = relay.serve(plans::sending(back.tcp.unwrap(), send));
    let (mut client, mut server) = pair(&listener, &front);
    say(&mut client, "it is me");
    hear(&mut server, "it is me");
}

/// Records that were changed on their way end the flow, and what came before them is delivered.
#[test]
fn a_forged_record_ends_the_flow() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    let config = Arc::new(peer::config(&material, None));
    let mut client = peer::connect(bound.tcp.unwrap(), &config, "server.test");
    peer::say(&mut client, "genuine");
    client
        .sock
        .write_all(b"\x17\x03\x03\x00\x20AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        .unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    hear(&mut server, "genuine");
    assert!(server.read(&mut [0]).is_err());
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "error");
    assert!(
        ended["detail"]
            .as_str()
            .unwrap()
            .contains("TLS with the client")
    );
}

/// Random bytes and cut and changed hellos: never more than an ended flow.
#[test]
fn any_bytes_are_survived() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    let config = Arc::new(peer::config(&material, None));
    let mut hello = Vec::new();
    let name = rustls::pki_types::ServerName::try_from("server.test").unwrap();
    rustls::ClientConnection::new(Arc::clone(&config), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let noise = pattern(64 * 1024);
    for round in 0..60 {
        let mut bytes = hello.clone();
        let place = usize::from(noise[round * 2]) * hello.len() / 256;
        match round % 3 {
            0 => bytes = noise[round * 100..round * 100 + 700].to_vec(),
            1 => bytes[place] ^= noise[round] | 1,
            _ => bytes.truncate(place),
        }
        let mut client = connect(&bound);
        let _ = client.write_all(&bytes);
        end_writing(&client);
        let _ = read_all(&mut client);
    }
    let mut client = peer::connect(bound.tcp.unwrap(), &config, "server.test");
    peer::say(&mut client, "still here");
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    hear(&mut server, "still here");
}
