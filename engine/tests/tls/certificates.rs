//! Which certificate is shown, who is let in, and what happens when files change.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use _engine::binding::Inherited;
use _engine::plan::{EndpointPlan, TlsListenPlan};
use rustls::HandshakeKind;

use crate::material::Material;
use crate::support::*;
use crate::{peer, plans};

/// Answers "hello" to whoever comes.
fn greeter() -> std::net::SocketAddr {
    let (listener, addr) = target();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                say(&mut stream, "hello");
                let _ = read_all(&mut stream);
            });
        }
    });
    addr
}

fn refused(relay: &Relay, plan: EndpointPlan) -> String {
    let inherited = Inherited::default();
    let bound = relay.engine.bind(relay.group, plan, inherited, false);
    bound.expect_err("refused").to_string()
}

#[test]
fn the_name_chooses_the_certificate() {
    let material = Material::new();
    material.issue("one", "DNS:one.test");
    material.issue("two", "DNS:two.test,DNS:*.wild.test");
    let relay = Relay::new();
    let bound = relay.serve(plans::accepting(
        greeter(),
        plans::listen(&material, &["one", "two"]),
    ));
    let config = Arc::new(peer::config(&material, None));
    for (name, shown) in [
        ("one.test", "one"),
        ("two.test", "two"),
        ("a.wild.test", "two"),
    ] {
        let mut client = peer::connect(bound.tcp.unwrap(), &config, name);
        peer::hear(&mut client, "hello");
        assert_eq!(peer::shown(&client), peer::der(&material, shown), "{name}");
        assert_eq!(relay.flows()[0]["sni"], name);
        drop(client);
        relay.event("ended");
    }
    // Made out to none of them: the first one.
    let mut client = peer::connect(bound.tcp.unwrap(), &config, "b.a.wild.test");
    let error = peer::shake(&mut client).unwrap_err().to_string();
    assert!(error.contains("one.test"), "{error}");
}

#[test]
fn keys_of_every_usual_kind_and_form_serve() {
    let material = Material::new();
    material.issue("ec", "DNS:server.test");
    material.openssl("ec -in ec.key -out sec1.key");
    material.issue_with("rsa", "DNS:server.test", "rsa:2048");
    material.openssl("rsa -in rsa.key -traditional -out pkcs1.key");
    material.issue_with("ed", "DNS:server.test", "ed25519");
    material.openssl("x509 -in ec.crt -outform DER -out der.crt");
    material.openssl("pkcs8 -topk8 -nocrypt -in ec.key -outform DER -out der.key");
    for (cert, key) in [
        ("ec", "ec"),
        ("ec", "sec1"),
        ("rsa", "rsa"),
        ("rsa", "pkcs1"),
        ("ed", "ed"),
        ("der", "der"),
    ] {
        let relay = Relay::new();
        let mut tls = plans::listen(&material, &[cert]);
        tls.certificates[0].key = material.path(&format!("{key}.key"));
        let bound = relay.serve(plans::accepting(greeter(), tls));
        let config = Arc::new(peer::config(&material, None));
        let mut client = peer::connect(bound.tcp.unwrap(), &config, "server.test");
        peer::hear(&mut client, "hello");
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let material = Material::new();
    material.issue("one", "DNS:one.test");
    material.issue("two", "DNS:two.test");
    material.openssl("pkcs8 -topk8 -passout pass:x -in one.key -out locked.key");
    fs::write(material.dir().join("empty.crt"), "").unwrap();
    let relay = Relay::new();
    let (_listener, addr) = target();
    let cases = [
        (
            "one.crt",
            "two.key",
            "tls.key",
            "does not belong to the certificate",
        ),
        ("one.crt", "locked.key", "tls.key", "encrypted"),
        ("one.crt", "one.crt", "tls.key", "no private key"),
        ("none.crt", "one.key", "tls.cert", "No such file"),
        ("one.key", "one.key", "tls.cert", "no certificate"),
        ("empty.crt", "one.key", "tls.cert", "not a certificate"),
    ];
    for (cert, key, field, why) in cases {
        let mut tls = plans::listen(&material, &["one"]);
        tls.certificates[0].cert = material.path(cert);
        tls.certificates[0].key = material.path(key);
        let text = refused(&relay, plans::accepting(addr, tls));
        assert!(text.contains(field) && text.contains(why), "{text}");
        let file = if field == "tls.key" { key } else { cert };
        assert!(text.contains(&material.path(file)), "{text}");
    }
}

#[test]
fn only_clients_of_the_authority_come_in() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    material.issue("friend", "DNS:friend.test");
    let stranger = Material::new();
    stranger.issue("stranger", "DNS:stranger.test");
    fs::copy(material.path("ca.crt"), stranger.path("ca.crt")).unwrap();
    let relay = Relay::new();
    let mut tls = plans::listen(&material, &["server"]);
    tls.client_ca = Some(material.path("ca.crt"));
    let bound = relay.serve(plans::accepting(greeter(), tls.clone()));
    let come = |addr, config| {
        let mut client = peer::connect(addr, &Arc::new(config), "server.test");
        peer::shake(&mut client)?;
        let mut bytes = [0; 5];
        std::io::Read::read_exact(&mut client, &mut bytes)
    };
    let addr = bound.tcp.unwrap();
    come(addr, peer::config(&material, Some("friend"))).unwrap();
    let ended = relay.event("ended");
    assert_eq!(ended["client_certificate"], "CN=friend,O=tests");
    let error = come(addr, peer::config(&material, None)).unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "client_handshake_failed");
    assert_eq!(ended["detail"], "the client showed no certificate");
    come(addr, peer::config(&stranger, Some("stranger"))).unwrap_err();
    let ended = relay.event("ended");
    assert_eq!(
        ended["detail"],
        "the client's certificate is not from an authority that we trust"
    );
    tls.client_optional = true;
    let bound = relay.serve(plans::accepting(greeter(), tls));
    come(bound.tcp.unwrap(), peer::config(&material, None)).unwrap();
    come(
        bound.tcp.unwrap(),
        peer::config(&stranger, Some("stranger")),
    )
    .unwrap_err();
}

#[test]
fn a_self_signed_certificate_is_made_for_a_name() {
    let material = Material::new();
    let relay = Relay::new();
    let tls = || TlsListenPlan {
        self_signed: Some("made.test".to_owned()),
        ..TlsListenPlan::default()
    };
    let config = Arc::new(peer::config(&material, None));
    let bound = relay.serve(plans::accepting(greeter(), tls()));
    let mut client = peer::connect(bound.tcp.unwrap(), &config, "made.test");
    let error = peer::shake(&mut client).unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let ended = relay.event("ended");
    assert!(
        ended["detail"]
            .as_str()
            .unwrap()
            .contains("authority of our certificate"),
        "{ended}"
    );
    // Our own sending side, which is told not to look.
    let mut send = plans::send(&material, "made.test");
    send.insecure = true;
    let front = relay.serve(plans::sending(bound.tcp.unwrap(), send));
    let mut client = connect(&front);
    hear(&mut client, "hello");
}

#[test]
fn clients_come_back_to_their_sessions() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let relay = Relay::new();
        let tls = plans::listen(&material, &["server"]);
        let bound = relay.serve(plans::accepting(greeter(), tls));
        let provider = _engine::transport::tls::provider();
        let template = peer::config(&material, None);
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from(peer::der(
                &material, "ca",
            )))
            .unwrap();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(template.crypto_provider()),
        );
        config
            .dangerous()
            .set_certificate_verifier(verifier.build().unwrap());
        let config = Arc::new(config);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = peer::connect(bound.tcp.unwrap(), &config, "server.test");
            peer::hear(&mut client, "hello");
            assert_eq!(client.conn.handshake_kind(), Some(kind));
            peer::end(&mut client);
            drop(client);
            let ended = relay.event("ended");
            assert_eq!(ended["resumed"], kind == HandshakeKind::Resumed);
        }
    }
}

#[test]
fn protocols_are_agreed_on_or_refused() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    let relay = Relay::new();
    let mut tls = plans::listen(&material, &["server"]);
    tls.alpn = vec!["h2".to_owned(), "http/1.1".to_owned()];
    let bound = relay.serve(plans::accepting(greeter(), tls));
    let mut config = peer::config(&material, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let mut client = peer::connect(bound.tcp.unwrap(), &Arc::new(config), "server.test");
    peer::hear(&mut client, "hello");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"h2"[..]));
    drop(client);
    assert_eq!(relay.event("ended")["alpn"], "h2");
    let mut config = peer::config(&material, None);
    config.alpn_protocols = vec![b"smtp".to_vec()];
    let mut client = peer::connect(bound.tcp.unwrap(), &Arc::new(config), "server.test");
    peer::shake(&mut client).unwrap_err();
    let detail = relay.event("ended")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("ALPN"), "{detail}");
}

/// The certificate that a new client sees.
fn seen(addr: std::net::SocketAddr, config: &Arc<rustls::ClientConfig>) -> Vec<u8> {
    let mut config = rustls::ClientConfig::clone(config);
    config.resumption = rustls::client::Resumption::disabled();
    let mut client = peer::connect(addr, &Arc::new(config), "server.test");
    peer::hear(&mut client, "hello");
    peer::shown(&client)
}

#[test]
fn changed_files_are_picked_up_and_no_flow_is_lost() {
    let material = Material::new();
    material.issue("server", "DNS:server.test");
    material.issue("renewed", "DNS:server.test");
    let relay = Relay::new();
    let tls = plans::listen(&material, &["server"]);
    let bound = relay.serve(plans::accepting(greeter(), tls));
    let addr = bound.tcp.unwrap();
    let config = Arc::new(peer::config(&material, None));
    let mut standing = peer::connect(addr, &config, "server.test");
    peer::hear(&mut standing, "hello");
    let old = peer::der(&material, "server");
    let new = peer::der(&material, "renewed");
    assert_eq!(seen(addr, &config), old);
    // The new key alone: half of a renewal.
    fs::copy(material.path("renewed.key"), material.path("server.key")).unwrap();
    let until = Instant::now() + LIMIT;
    let kept = loop {
        assert!(Instant::now() < until, "never looked");
        assert_eq!(seen(addr, &config), old);
        let events = relay
            .engine
            .next_events(Duration::from_millis(100))
            .unwrap();
        if let Some(event) = events.iter().find(|event| event.contains("certificates_")) {
            break event.clone();
        }
    };
    assert!(kept.contains("certificates_kept"), "{kept}");
    assert!(kept.contains("does not belong"), "{kept}");
    // Whoever asks for the same anew is told as often as it is asked.
    for _ in 0..2 {
        let again = plans::accepting(greeter(), plans::listen(&material, &["server"]));
        let text = refused(&relay, again);
        assert!(text.contains("does not belong"), "{text}");
    }
    fs::rename(material.path("renewed.crt"), material.path("server.crt")).unwrap();
    eventually("the new certificate", || {
        std::thread::sleep(Duration::from_millis(100));
        seen(addr, &config) == new
    });
    peer::end(&mut standing);
    assert_eq!(
        std::io::Read::read(&mut standing, &mut [0; 8]).unwrap_or(0),
        0
    );
}
