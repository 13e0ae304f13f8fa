//! Bytes and ends through TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::material::Material;
use crate::support::*;
use crate::{peer, plans};

/// Plain client, our TLS out, our TLS in, plain target.
struct Pair {
    relay: Relay,
    listener: std::net::TcpListener,
    front: _engine::engine::Bound,
    _material: Material,
}

impl Pair {
    fn new() -> Self {
        let material = Material::new();
        material.issue("server", "DNS:server.test");
        let relay = Relay::new();
        let (listener, addr) = target();
        let mut accept = plans::accepting(addr, plans::listen(&material, &["server"]));
        accept.id = "back".to_owned();
        let back = relay.serve(accept);
        let mut send = plans::sending(back.tcp.unwrap(), plans::send(&material, "server.test"));
        send.id = "front".to_owned();
        let front = relay.serve(send);
        Self {
            relay,
            listener,
            front,
            _material: material,
        }
    }
}

#[test]
fn bytes_and_both_ends_pass_through_a_pair() {
    let pair = Pair::new();
    let (mut client, mut server) = crate::support::pair(&pair.listener, &pair.front);
    say(&mut client, "question");
    hear(&mut server, "question");
    end_writing(&client);
    assert_eq!(read_all(&mut server).unwrap(), b"");
    say(&mut server, "a long answer");
    drop(server);
    assert_eq!(read_all(&mut client).unwrap(), b"a long answer");
    for _ in 0..2 {
        let ended = pair.relay.event("ended");
        assert_eq!(ended["reason"], "client_closed", "{ended}");
        assert_eq!(ended["bytes_up"], 8);
        assert_eq!(ended["bytes_down"], 13);
        assert_eq!(ended["detail"], serde_json::Value::Null);
        let leg = if ended["endpoint"] == "front" {
            "target_tls"
        } else {
            assert_eq!(ended["sni"], "server.test");
            "tls"
        };
        assert_eq!(ended[leg], "TLSv1.3");
    }
}

#[test]
fn the_target_may_speak_first_and_end_first() {
    let pair = Pair::new();
    let (mut client, mut server) = crate::support::pair(&pair.listener, &pair.front);
    say(&mut server, "220 hello");
    end_writing(&server);
    assert_eq!(read_all(&mut client).unwrap(), b"220 hello");
    say(&mut client, "still there");
    drop(client);
    assert_eq!(read_all(&mut server).unwrap(), b"still there");
    assert_eq!(pair.relay.event("ended")["reason"], "target_closed");
}

/// 50 MB up and 30 MB down at once, with small reads on one side.
#[test]
fn bulk_is_whole_in_both_directions() {
    let pair = Pair::new();
    let (client, server) = crate::support::pair(&pair.listener, &pair.front);
    let up = pattern(50_000_017);
    let down = pattern(30_000_001);
    let send = |mut stream: TcpStream, bytes: Vec<u8>| {
        std::thread::spawn(move || {
            stream.write_all(&bytes).unwrap();
            end_writing(&stream);
        })
    };
    let receive = |mut stream: TcpStream, chunk: usize| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut buf = vec![0; chunk];
            loop {
                match stream.read(&mut buf).unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&buf[..count]),
                }
            }
        })
    };
    let senders = [
        send(client.try_clone().unwrap(), up.clone()),
        send(server.try_clone().unwrap(), down.clone()),
    ];
    let received_down = receive(client, 7_001);
    let received_up = receive(server, 65_536);
    for sender in senders {
        sender.join().unwrap();
    }
    assert!(received_up.join().unwrap() == up);
    assert!(received_down.join().unwrap() == down);
}

/// Bytes that come in the same packet as the end of the handshake, and bytes in every size around
/// that of a record.
#[test]
fn sizes_around_a_record_arrive_whole() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    let config = Arc::new(peer::config(&material, None));
    for size in [
        1, 2, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 200_000,
    ] {
        let mut client = peer::connect(bound.tcp.unwrap(), &config, "server.test");
        let bytes = pattern(size);
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&sent).unwrap();
            peer::end(&mut client);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        });
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let got = read_all(&mut server).unwrap();
        assert!(got == bytes, "{size} up");
        server.write_all(&got).unwrap();
        drop(server);
        assert!(writer.join().unwrap() == bytes, "{size} down");
    }
}

/// A client that does not read holds up nobody but itself, and costs a bounded amount.
#[test]
fn a_receiver_that_rests_holds_the_sender_back() {
    let pair = Pair::new();
    let (mut client, server) = crate::support::pair(&pair.listener, &pair.front);
    client.set_nonblocking(true).unwrap();
    let piece = pattern(1 << 20);
    let mut sent = 0;
    let mut rested = std::time::Instant::now();
    while rested.elapsed() < std::time::Duration::from_millis(300) {
        match client.write(&piece) {
            Ok(count) => {
                sent += count;
                rested = std::time::Instant::now();
                assert!(sent < 200 << 20, "nobody holds it back");
            }
            Err(_) => std::thread::yield_now(),
        }
    }
    let counting = std::thread::spawn(move || {
        let mut server = server;
        let mut buf = vec![0; 1 << 16];
        let mut all = 0;
        loop {
            match server.read(&mut buf).unwrap() {
                0 => return all,
                count => all += count,
            }
        }
    });
    drop(client);
    assert_eq!(counting.join().unwrap(), sent);
}

/// What arrived is delivered; that the end was not said is told.
#[test]
fn an_end_without_close_notify_is_told() {
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
    peer::say(&mut client, "cut here");
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    hear(&mut server, "cut here");
    end_writing(&client.sock);
    assert_eq!(read_all(&mut server).unwrap(), b"");
    drop(server);
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "client_closed");
    assert_eq!(ended["detail"], "the client ended without TLS close_notify");
}

/// Handshake and payload cut into pieces of every size, as a bad line would.
#[test]
fn pieces_of_any_size_make_the_same_flow() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    let config = Arc::new(peer::config(&material, None));
    for piece in [1, 2, 3, 7, 100, 1_461] {
        let (mut near, far) = middle(bound.tcp.unwrap(), piece);
        let name = rustls::pki_types::ServerName::try_from("server.test").unwrap();
        let conn = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        near.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = rustls::StreamOwned::new(conn, near.try_clone().unwrap());
        let bytes = pattern(1_000);
        client.write_all(&bytes).unwrap();
        client.flush().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let mut got = vec![0; bytes.len()];
        server.read_exact(&mut got).unwrap();
        assert!(got == bytes, "{piece}");
        server.write_all(&got).unwrap();
        end_writing(&server);
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{piece}");
        peer::end(&mut client);
        end_writing(&near);
        let _ = near.read(&mut [0]);
        far.join().unwrap();
    }
}

/// A line to `addr` on which what the client says comes in pieces of this size.
fn middle(addr: std::net::SocketAddr, piece: usize) -> (TcpStream, std::thread::JoinHandle<()>) {
    let (listener, here) = target();
    let near = TcpStream::connect(here).unwrap();
    let (mut client, _) = listener.accept().unwrap();
    let mut relay = TcpStream::connect(addr).unwrap();
    relay.set_nodelay(true).unwrap();
    let mut from = relay.try_clone().unwrap();
    let mut to = client.try_clone().unwrap();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let far = std::thread::spawn(move || {
        let mut buf = vec![0; 4_096];
        while let Ok(count @ 1..) = client.read(&mut buf) {
            for bytes in buf[..count].chunks(piece) {
                if relay.write_all(bytes).is_err() {
                    return;
                }
            }
        }
        let _ = relay.shutdown(std::net::Shutdown::Write);
    });
    (near, far)
}
