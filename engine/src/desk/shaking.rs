//! The TLS handshake of a leg that the owner holds.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::{Value, json};

use super::leg::{Shake, Trouble};
use crate::runtime::io::Io;
use crate::runtime::{Sleep, Worker};
use crate::transport::tls::{Fault, Tls, hello};

pub struct Shaking {
    tls: Tls,
    limit: Sleep,
    wanted: Option<Duration>,
    /// Whether we are the side that calls.
    calling: bool,
}

impl Shaking {
    /// `staged` was read from the socket before.
    pub fn begin(
        worker: &Rc<Worker>,
        io: Io,
        shake: Shake,
        limit: Option<Duration>,
        staged: Vec<u8>,
    ) -> Result<Self, Trouble> {
        let now = worker.now();
        let calling = matches!(shake, Shake::Connect(_));
        let tls = match shake {
            Shake::Accept { acceptor, hello } => {
                Tls::server(io, acceptor.config(now).0).map(|tls| match hello {
                    true => tls.keeping_hello(),
                    false => tls,
                })
            }
            Shake::Connect(connector) => {
                Tls::client(io, Arc::clone(&connector.config), connector.name.clone())
            }
        };
        Ok(Self {
            tls: tls.map_err(|fault| trouble(fault, calling))?.after(staged),
            limit: Sleep::new(worker, limit.map(|limit| now + limit)),
            wanted: limit,
            calling,
        })
    }

    pub fn poll(&mut self) -> Poll<Result<(), Trouble>> {
        match self.tls.shake() {
            Poll::Ready(done) => Poll::Ready(done.map_err(|fault| trouble(fault, self.calling))),
            Poll::Pending if self.limit.is_due() => {
                let seconds = self.wanted.unwrap_or_default().as_secs_f64();
                let text = format!("the TLS handshake took longer than {seconds} s");
                Poll::Ready(Err(Trouble::new("handshake_timeout", text)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// What the owner is told of a handshake that is done.
    pub fn facts(&self) -> Value {
        let handshake = self.tls.handshake();
        let mut facts = json!({
            "version": handshake.version,
            "cipher": handshake.cipher,
            "sni": handshake.sni,
            "alpn": handshake.alpn,
            "client_certificate": handshake.subject,
            "resumed": handshake.resumed,
        });
        if let Some(said) = self.tls.kept_hello() {
            facts["hello"] = hello::message(said).map(|message| hex(&message)).into();
        }
        if self.calling {
            facts["certificate"] = self.tls.peer_certificate().map(hex).into();
        }
        facts
    }

    pub fn into_tls(self) -> Tls {
        self.tls.without_hello()
    }

    /// Closes in order, so that the alert which says what was wrong reaches the peer.
    pub fn leave(self) {
        self.tls.leave();
    }
}

fn trouble(fault: Fault, calling: bool) -> Trouble {
    let peer = match calling {
        true => "target",
        false => "client",
    };
    match fault {
        Fault::Tls(why) => Trouble::new("tls", why),
        Fault::Closed => Trouble::new(
            "closed",
            format!("the {peer} closed the connection during the TLS handshake"),
        ),
        Fault::Socket(error) => Trouble::of(&error, false),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string doesn't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
