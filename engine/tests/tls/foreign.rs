//! openssl at the other end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::material::Material;
use crate::plans;
use crate::support::*;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(material: &Material, words: &str) -> Child {
    Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(material.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn s_client_is_served_with_every_version_and_cipher() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    for (options, version, cipher) in [
        (
            "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256",
            "TLSv1.3",
            "TLS13_AES_128_GCM_SHA256",
        ),
        (
            "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
            "TLSv1.3",
            "TLS13_CHACHA20_POLY1305_SHA256",
        ),
        (
            "-tls1_2",
            "TLSv1.2",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ),
    ] {
        let mut client = openssl(
            &material,
            &format!(
                "s_client -quiet -verify_return_error -CAfile ca.crt -verify_hostname server.test \
                 -servername server.test {options} -connect {}",
                bound.tcp.unwrap()
            ),
        );
        let mut said = client.stdin.take().unwrap();
        said.write_all(b"from openssl").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        hear(&mut server, "from openssl");
        say(&mut server, "to openssl");
        drop(server);
        let mut heard = String::new();
        client
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut heard)
            .unwrap();
        assert_eq!(heard, "to openssl");
        drop(Ended(client));
        let ended = relay.event("ended");
        assert_eq!(ended["tls"], version);
        assert_eq!(ended["cipher"], cipher);
        assert_eq!(ended["sni"], "server.test");
    }
}

#[test]
fn s_client_comes_back_to_its_session() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let (listener, addr) = target();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            say(&mut stream, "hello");
        }
    });
    let bound = relay.serve(plans::accepting(
        addr,
        plans::listen(&material, &["server"]),
    ));
    for (options, resumed) in [("-sess_out session", false), ("-sess_in session", true)] {
        let client = openssl(
            &material,
            &format!(
                "s_client -ign_eof -CAfile ca.crt {options} -connect {}",
                bound.tcp.unwrap()
            ),
        );
        let done = client.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.contains("hello"), "{text}");
        assert_eq!(relay.event("ended")["resumed"], resumed, "{text}");
    }
}

#[test]
fn the_staple_is_shown() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    std::fs::write(material.dir().join("staple"), "not a response, but ours").unwrap();
    let relay = Relay::new();
    let (_listener, addr) = target();
    let mut tls = plans::listen(&material, &["server"]);
    tls.certificates[0].ocsp = Some(material.path("staple"));
    let bound = relay.serve(plans::accepting(addr, tls));
    let mut client = openssl(
        &material,
        &format!(
            "s_client -status -CAfile ca.crt -connect {}",
            bound.tcp.unwrap()
        ),
    );
    drop(client.stdin.take());
    let done = client.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(text.contains("OCSP response"), "{text}");
    assert!(!text.contains("no response sent"), "{text}");
}

/// The port of a server of openssl's that answers each line turned around.
fn reverser(material: &Material, options: &str) -> (Ended, std::net::SocketAddr) {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = Ended(openssl(
        material,
        &format!("s_server -rev -cert server.crt -key server.key {options} -accept {addr}"),
    ));
    let until = Instant::now() + LIMIT;
    while TcpStream::connect(addr).is_err() {
        assert!(Instant::now() < until, "openssl does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    (server, addr)
}

#[test]
fn s_server_is_reached_and_verified() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    for (options, version) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let (_server, addr) = reverser(&material, &format!("{options} -alpn one,two"));
        let relay = Relay::new();
        let mut tls = plans::send(&material, "server.test");
        tls.alpn = vec!["two".to_owned()];
        let front = relay.serve(plans::sending(addr, tls));
        let mut client = connect(&front);
        say(&mut client, "abc\n");
        hear(&mut client, "cba\n");
        drop(client);
        let ended = relay.event("ended");
        assert_eq!(ended["target_tls"], version);
        assert_eq!(ended["target_alpn"], "two");
    }
}
