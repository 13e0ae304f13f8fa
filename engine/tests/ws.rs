//! WebSocket on either leg, with real sockets and peers that are byte for byte what we say.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use _engine::engine::Bound;
use _engine::plan::{EndpointPlan, ListenTransportPlan, Mask, RemoteTransportPlan, WebSocketPlan};
use _engine::transport::ws::frame::{Header, Opcode, mask};
use _engine::transport::ws::{head, secret};
use support::*;

const HALF_CLOSE: &[u8] = b"\x88\x0c\x03\xe8half-close";

fn ws(mask: Mask) -> WebSocketPlan {
    WebSocketPlan {
        host: "example.com".to_owned(),
        path: "/chat".to_owned(),
        mask,
    }
}

fn listening(target: SocketAddr) -> EndpointPlan {
    EndpointPlan {
        listen_transport: Some(ListenTransportPlan {
            ws: Some(ws(Mask::Zero)),
            handshake_timeout: 0.5,
            ..ListenTransportPlan::default()
        }),
        ..plan(target)
    }
}

fn sending(target: SocketAddr, mask: Mask) -> EndpointPlan {
    EndpointPlan {
        remote_transport: Some(RemoteTransportPlan {
            ws: Some(ws(mask)),
            handshake_timeout: 0.5,
            ..RemoteTransportPlan::default()
        }),
        ..plan(target)
    }
}

fn frame(opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let header = Header::new(opcode, payload.len(), key);
    let mut frame = [header.bytes(), payload].concat();
    mask(
        &mut frame[header.bytes().len()..],
        key.unwrap_or_default(),
        0,
    );
    frame
}

fn binary(payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    frame(Opcode::Binary, payload, key)
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while head::end(&head, 0).is_none() {
        head.extend(read_exactly(stream, 1));
    }
    String::from_utf8(head).unwrap()
}

/// The request of a foreign client; realm's own form holds back what the server says first.
fn foreign_request(key: &str) -> Vec<u8> {
    format!(
        "GET /chat HTTP/1.1\r\nHost: example.com:1234\r\nUser-Agent: test\r\n\
         Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    .into_bytes()
}

/// A foreign client after its handshake.
fn client(bound: &Bound) -> TcpStream {
    let mut client = connect(bound);
    client.set_nodelay(true).unwrap();
    let key = secret::key();
    client.write_all(&foreign_request(&key)).unwrap();
    let head = read_head(&mut client);
    assert_eq!(
        head.as_bytes(),
        head::answer(&secret::accept(key.as_bytes()))
    );
    client
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    server.set_nodelay(true).unwrap();
    server
}

/// A server's side after the handshake with us.
fn server(listener: &TcpListener) -> TcpStream {
    let mut server = accepted(listener);
    let head = read_head(&mut server);
    let (_, rest) = head.split_once("sec-websocket-key: ").unwrap();
    let key = rest.split("\r\n").next().unwrap();
    assert_eq!(head.as_bytes(), head::request("example.com", "/chat", key));
    let answer = head::answer(&secret::accept(key.as_bytes()));
    server.write_all(&answer).unwrap();
    server
}

#[test]
fn a_client_that_writes_byte_by_byte_with_random_keys_is_understood() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = connect(&bound);
    client.set_nodelay(true).unwrap();
    let key = secret::key();
    let mut bytes = foreign_request(&key);
    let text = pattern(300);
    bytes.extend(binary(&text[..7], Some([1, 2, 3, 4])));
    bytes.extend(frame(Opcode::Pong, b"nobody asked", Some([9; 4])));
    bytes.extend(binary(&text[7..], Some([0xfe, 0xdc, 0xba, 0x98])));
    for byte in &bytes {
        client.write_all(std::slice::from_ref(byte)).unwrap();
    }
    let head = read_head(&mut client);
    assert!(head.contains(&secret::accept(key.as_bytes())));
    let mut target = accepted(&listener);
    assert_eq!(read_exactly(&mut target, 300), text);
    target.write_all(b"an answer").unwrap();
    assert_eq!(read_exactly(&mut client, 11), binary(b"an answer", None));
}

#[test]
fn data_right_behind_either_head_is_kept() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = connect(&bound);
    let mut bytes = foreign_request(&secret::key());
    bytes.extend(binary(b"early", Some([5, 6, 7, 8])));
    client.write_all(&bytes).unwrap();
    hear(&mut accepted(&listener), "early");

    let bound = relay.serve(sending(addr, Mask::Zero));
    let mut client = connect(&bound);
    let mut server = accepted(&listener);
    let head = read_head(&mut server);
    let key = head.split("sec-websocket-key: ").nth(1).unwrap();
    let accept = secret::accept(key.split("\r\n").next().unwrap().as_bytes());
    let mut bytes = head::answer(&accept);
    bytes.extend(binary(b"early too", None));
    server.write_all(&bytes).unwrap();
    hear(&mut client, "early too");
}

#[test]
fn our_frames_are_those_of_realm() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(sending(addr, Mask::Zero));
    let mut client = connect(&bound);
    let mut server = server(&listener);
    say(&mut client, "hi");
    assert_eq!(
        read_exactly(&mut server, 8),
        [0x82, 0x82, 0, 0, 0, 0, 0x68, 0x69]
    );
    client.write_all(&[7; 200]).unwrap();
    let bytes = read_exactly(&mut server, 8 + 200);
    assert_eq!(bytes[..8], [0x82, 0xfe, 0, 0xc8, 0, 0, 0, 0]);
    end_writing(&client);
    let end = read_all(&mut server).unwrap();
    assert_eq!(end, [b"\x88\x8c\0\0\0\0", &HALF_CLOSE[2..]].concat());
    // As realm does: masked or not, and no close frame.
    server.write_all(&binary(b"still ", None)).unwrap();
    server.write_all(&binary(b"there", Some([0; 4]))).unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).unwrap(), b"still there");
    assert_eq!(relay.event("ended")["reason"], "client_closed");
}

#[test]
fn random_keys_differ_and_are_undone() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(sending(addr, Mask::Random));
    let mut client = connect(&bound);
    let mut server = server(&listener);
    let mut keys = Vec::new();
    for _ in 0..4 {
        say(&mut client, "same words");
        let mut bytes = read_exactly(&mut server, 6 + 10);
        assert_eq!(bytes[..2], [0x82, 0x8a]);
        let key: [u8; 4] = bytes[2..6].try_into().unwrap();
        mask(&mut bytes[6..], key, 0);
        assert_eq!(&bytes[6..], b"same words");
        keys.push(key);
    }
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() > 1);
}

#[test]
fn pings_are_answered_and_pongs_are_nothing() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    client
        .write_all(&frame(Opcode::Ping, b"are you there", Some([1, 2, 3, 4])))
        .unwrap();
    let pong = frame(Opcode::Pong, b"are you there", None);
    assert_eq!(read_exactly(&mut client, pong.len()), pong);
    client
        .write_all(&frame(Opcode::Pong, b"", Some([1, 2, 3, 4])))
        .unwrap();
    client
        .write_all(&frame(Opcode::Text, b"text", Some([4; 4])))
        .unwrap();
    hear(&mut target, "text");
}

#[test]
fn a_flood_of_pings_from_who_reads_nothing_is_bounded() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    let flood = frame(Opcode::Ping, &[0; 125], Some([1, 2, 3, 4])).repeat(1000);
    for _ in 0..100 {
        client.write_all(&flood).unwrap();
    }
    client.write_all(&binary(b"after all", None)).unwrap();
    hear(&mut target, "after all");
    say(&mut target, "and back");
    // Whole pongs, and then what was said.
    let answer = binary(b"and back", None);
    let mut bytes = Vec::new();
    let mut chunk = [0; 65_536];
    while !bytes.ends_with(&answer) {
        let count = client.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..count]);
    }
    let pongs = &bytes[..bytes.len() - answer.len()];
    assert_eq!(pongs.len() % 127, 0);
    assert!(
        pongs
            .chunks(127)
            .all(|pong| pong == frame(Opcode::Pong, &[0; 125], None))
    );
}

#[test]
fn a_close_is_answered_and_ends_the_connection() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    let mut bytes = binary(b"last words", Some([1, 2, 3, 4]));
    bytes.extend(frame(
        Opcode::Close,
        b"\x03\xe9going away",
        Some([1, 2, 3, 4]),
    ));
    client.write_all(&bytes).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), [0x88, 2, 0x03, 0xe9]);
    assert_eq!(read_all(&mut target).unwrap(), b"last words");
    drop(target);
    assert_eq!(relay.event("ended")["reason"], "client_closed");
}

#[test]
fn the_target_ends_with_a_close_that_says_all_is_well() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    say(&mut target, "goodbye");
    drop(target);
    let expected = [&binary(b"goodbye", None), HALF_CLOSE].concat();
    assert_eq!(read_exactly(&mut client, expected.len()), expected);
    let close = frame(Opcode::Close, b"\x03\xe8", Some([1, 2, 3, 4]));
    client.write_all(&close).unwrap();
    assert_eq!(relay.event("ended")["reason"], "target_closed");
    assert_eq!(read_all(&mut client).unwrap(), b"");
}

#[test]
fn who_only_ends_the_connection_below_still_gets_the_rest() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    client.write_all(&binary(b"question", None)).unwrap();
    end_writing(&client);
    assert_eq!(read_all(&mut target).unwrap(), b"question");
    say(&mut target, "answer");
    drop(target);
    let expected = [&binary(b"answer", None), HALF_CLOSE].concat();
    assert_eq!(read_all(&mut client).unwrap(), expected);
}

#[test]
fn an_end_inside_a_frame_is_no_end() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    client.write_all(&binary(b"half of it", None)[..6]).unwrap();
    end_writing(&client);
    hear(&mut target, "half");
    let error = read_all(&mut target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "error");
    assert!(
        ended["detail"]
            .as_str()
            .unwrap()
            .contains("middle of a WebSocket frame")
    );
}

#[test]
fn what_is_no_frame_ends_the_flow_after_what_came_before() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = client(&bound);
    let mut target = accepted(&listener);
    let mut bytes = binary(b"good", None);
    bytes.extend([0xc2, 0x80, 1, 2, 3, 4]);
    client.write_all(&bytes).unwrap();
    hear(&mut target, "good");
    let error = read_all(&mut target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "error");
    assert!(ended["detail"].as_str().unwrap().contains("reserved bits"));
}

#[test]
fn who_asks_for_something_else_is_told_so() {
    let relay = Relay::new();
    let (_listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let good = String::from_utf8(foreign_request("dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
    for (request, status, why) in [
        (
            good.replace("/chat", "/other"),
            "404 Not Found",
            "the path \"/other\" and not",
        ),
        (
            good.replace("example.com:1234", "example.org"),
            "404 Not Found",
            "example.org",
        ),
        (
            good.replace("Upgrade: WebSocket\r\n", ""),
            "426 Upgrade Required",
            "without asking",
        ),
        (
            good.replace("GET", "HEAD"),
            "400 Bad Request",
            "and not GET",
        ),
        ("\x16\x03\x01".to_owned(), "400 Bad Request", "TLS"),
    ] {
        let mut client = connect(&bound);
        client.write_all(request.as_bytes()).unwrap();
        let answer = String::from_utf8(read_all(&mut client).unwrap()).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answer}"
        );
        let ended = relay.event("ended");
        assert_eq!(ended["reason"], "client_handshake_failed");
        let detail = ended["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{detail}");
    }
}

#[test]
fn a_mismatch_is_noticed() {
    let relay = Relay::new();
    let (_listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = connect(&bound);
    say(&mut client, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(
        read_head(&mut client).lines().next(),
        Some("HTTP/1.1 404 Not Found")
    );
    let notice = relay.event("notice").to_string();
    assert!(notice.contains("client_handshake_failed"), "{notice}");
    assert!(notice.contains("asked for the path"), "{notice}");
}

#[test]
fn a_head_that_never_ends_is_not_kept() {
    let relay = Relay::new();
    let (_listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut client = connect(&bound);
    let _ = client.write_all(&[b'G'; 64 * 1024]);
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "client_handshake_failed");
    assert!(
        ended["detail"]
            .as_str()
            .unwrap()
            .contains("more than 16384 bytes")
    );
}

#[test]
fn a_slow_handshake_is_ended_on_either_leg() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    let mut slow = connect(&bound);
    say(&mut slow, "GET /chat HTTP/1.1\r\n");
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "handshake_timeout");
    assert!(ended["detail"].as_str().unwrap().contains("the client"));

    let bound = relay.serve(sending(addr, Mask::Zero));
    let _client = connect(&bound);
    let mut silent = accepted(&listener);
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "handshake_timeout");
    assert!(ended["detail"].as_str().unwrap().contains("the target"));
    assert!(read_all(&mut silent).is_err());
}

#[test]
fn a_target_that_answers_otherwise_is_told_apart() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(sending(addr, Mask::Zero));
    for (answer, why) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        ("SSH-2.0-OpenSSH_9\r\n", "SSH-2.0"),
        ("", "closed the connection during"),
    ] {
        let mut client = connect(&bound);
        let mut server = accepted(&listener);
        read_head(&mut server);
        say(&mut server, answer);
        drop(server);
        let ended = relay.event("ended");
        assert_eq!(ended["reason"], "target_handshake_failed");
        assert!(ended["detail"].as_str().unwrap().contains(why), "{ended}");
        assert!(read_all(&mut client).is_err());
    }
}

#[test]
fn realms_client_does_not_lose_what_the_server_says_first() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(listening(addr));
    for speaks in [false, true] {
        let mut client = connect(&bound);
        let request = head::request("example.com", "/chat", &secret::key());
        client.write_all(&request).unwrap();
        let mut target = accepted(&listener);
        say(&mut target, "welcome");
        read_head(&mut client);
        let answered = Instant::now();
        if speaks {
            client.write_all(&binary(b"hello", Some([0; 4]))).unwrap();
            hear(&mut target, "hello");
        }
        assert_eq!(read_exactly(&mut client, 9), binary(b"welcome", None));
        let waited = answered.elapsed();
        if !speaks {
            assert!(waited >= Duration::from_millis(30), "{waited:?}");
        }
        assert!(waited < Duration::from_secs(5));
    }
}

/// Our own two ends, one behind the other.
fn tunnel(relay: &Relay, addr: SocketAddr, mask: Mask) -> Bound {
    let exit = relay.serve(listening(addr));
    relay.serve(EndpointPlan {
        id: "entry".to_owned(),
        ..sending(exit.tcp.unwrap(), mask)
    })
}

#[test]
fn our_two_ends_carry_anything_both_ways() {
    let relay = Relay::new();
    let (listener, addr) = target();
    for mask in [Mask::Zero, Mask::Random] {
        let entry = tunnel(&relay, addr, mask);
        for size in [1, 8 << 10, 1 << 20] {
            let mut client = connect(&entry);
            let sent = pattern(size);
            let writer = {
                let (mut client, sent) = (client.try_clone().unwrap(), sent.clone());
                thread::spawn(move || {
                    client.write_all(&sent).unwrap();
                    end_writing(&client);
                })
            };
            let mut server = accepted(&listener);
            assert_eq!(read_all(&mut server).unwrap(), sent);
            writer.join().unwrap();
            let back = thread::spawn(move || server.write_all(&sent).map(|()| drop(server)));
            assert_eq!(read_all(&mut client).unwrap(), pattern(size));
            back.join().unwrap().unwrap();
        }
    }
}

#[test]
fn our_two_ends_let_the_server_speak_first_and_end_first() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let entry = tunnel(&relay, addr, Mask::Zero);
    let mut client = connect(&entry);
    let mut server = accepted(&listener);
    say(&mut server, "220 welcome");
    hear(&mut client, "220 welcome");
    end_writing(&server);
    assert_eq!(read_all(&mut client).unwrap(), b"");
    say(&mut client, "i still speak");
    drop(client);
    assert_eq!(read_all(&mut server).unwrap(), b"i still speak");
    for _ in 0..2 {
        assert_eq!(relay.event("ended")["reason"], "target_closed");
    }
}

#[test]
fn resets_pass_through_our_two_ends() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let entry = tunnel(&relay, addr, Mask::Zero);
    let mut client = connect(&entry);
    let mut server = accepted(&listener);
    say(&mut client, "hello");
    hear(&mut server, "hello");
    reset(client);
    let error = read_all(&mut server).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
