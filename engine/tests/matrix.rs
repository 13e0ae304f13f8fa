//! Every listening transport with every remote transport, between our own ends: whole bytes of
//! every size, whoever speaks first, and each side's end by itself.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;

use _engine::engine::Bound;
use _engine::plan::{
    EndpointPlan, ListenTransportPlan, RemoteTransportPlan, TlsListenPlan, TlsSendPlan,
    WebSocketPlan,
};
use support::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wrap {
    tls: bool,
    ws: bool,
}

const WRAPS: [Wrap; 4] = [
    Wrap {
        tls: false,
        ws: false,
    },
    Wrap {
        tls: false,
        ws: true,
    },
    Wrap {
        tls: true,
        ws: false,
    },
    Wrap {
        tls: true,
        ws: true,
    },
];

impl Wrap {
    fn ws(self) -> Option<WebSocketPlan> {
        self.ws.then(|| WebSocketPlan {
            host: "matrix.test".to_owned(),
            path: "/chat".to_owned(),
            mask: Default::default(),
        })
    }

    fn listen(self) -> Option<ListenTransportPlan> {
        (self.tls || self.ws).then(|| ListenTransportPlan {
            tls: self.tls.then(|| TlsListenPlan {
                self_signed: Some("matrix.test".to_owned()),
                ..TlsListenPlan::default()
            }),
            ws: self.ws(),
            ..ListenTransportPlan::default()
        })
    }

    fn remote(self) -> Option<RemoteTransportPlan> {
        (self.tls || self.ws).then(|| RemoteTransportPlan {
            tls: self.tls.then(|| TlsSendPlan {
                sni: "matrix.test".to_owned(),
                alpn: Vec::new(),
                insecure: true,
                ca: None,
                cert: None,
                key: None,
                key_log: false,
            }),
            ws: self.ws(),
            ..RemoteTransportPlan::default()
        })
    }
}

/// Three hops: into the first transport, from the first to the second, and out of the second.
fn chain(relay: &Relay, first: Wrap, second: Wrap, target: SocketAddr) -> Bound {
    let hop = |to: SocketAddr, listen, remote| {
        relay.serve(EndpointPlan {
            listen_transport: listen,
            remote_transport: remote,
            ..plan(to)
        })
    };
    let out = hop(target, second.listen(), None);
    let middle = hop(out.tcp.unwrap(), first.listen(), second.remote());
    hop(middle.tcp.unwrap(), None, first.remote())
}

fn through_all(check: impl Fn(&Relay, &std::net::TcpListener, &Bound)) {
    for first in WRAPS {
        for second in WRAPS {
            let relay = Relay::new();
            let (listener, addr) = target();
            let bound = chain(&relay, first, second, addr);
            println!("{first:?} in, {second:?} out");
            check(&relay, &listener, &bound);
        }
    }
}

#[test]
fn bytes_of_every_size_are_whole_in_both_directions() {
    through_all(|_, listener, bound| {
        for size in [1, 8 * 1024, 1024 * 1024] {
            let bytes = pattern(size);
            let mut client = connect(bound);
            let sent = bytes.clone();
            let mut writer = client.try_clone().unwrap();
            let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
            let (mut server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(LIMIT)).unwrap();
            let mut heard = vec![0; size];
            server.read_exact(&mut heard).unwrap();
            writing.join().unwrap();
            assert!(heard == bytes, "up, {size}");
            let sent = bytes.clone();
            let writing = std::thread::spawn(move || {
                server.write_all(&sent).unwrap();
                server
            });
            let mut heard = vec![0; size];
            client.read_exact(&mut heard).unwrap();
            drop(writing.join().unwrap());
            assert!(heard == bytes, "down, {size}");
        }
    });
}

#[test]
fn the_target_may_speak_first() {
    through_all(|_, listener, bound| {
        let (mut client, mut server) = pair(listener, bound);
        say(&mut server, "220 welcome");
        hear(&mut client, "220 welcome");
        say(&mut client, "EHLO");
        hear(&mut server, "EHLO");
    });
}

#[test]
fn each_side_may_end_and_still_listen() {
    through_all(|_, listener, bound| {
        let (mut client, mut server) = pair(listener, bound);
        say(&mut client, "question");
        end_writing(&client);
        assert_eq!(read_all(&mut server).unwrap(), b"question");
        say(&mut server, "answer");
        drop(server);
        assert_eq!(read_all(&mut client).unwrap(), b"answer");
        let (mut client, mut server) = pair(listener, bound);
        say(&mut server, "all I have to say");
        end_writing(&server);
        assert_eq!(read_all(&mut client).unwrap(), b"all I have to say");
        say(&mut client, "thank you");
        drop(client);
        assert_eq!(read_all(&mut server).unwrap(), b"thank you");
    });
}
