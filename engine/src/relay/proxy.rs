//! The steps of the PROXY protocol: who the client really is, and telling the target.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::Poll;

use super::access;
use super::road::{Stop, Walk, write_all};
use crate::flow::ending::Side;
use crate::flow::reason::Reason;
use crate::flow::table::{Announced, State};
use crate::net::socket;
use crate::plan::AcceptProxy;
use crate::runtime::Sleep;
use crate::runtime::io::Io;
use crate::transport::proxy::{self, Addresses, Header, Kind, Start};

/// Takes the header off the client's connection. What follows it is read next.
pub async fn accept(walk: &Walk, client: &Io) -> Result<(), Stop> {
    let route = &walk.flow.route;
    let required = match route.plan.proxy.accept {
        AcceptProxy::Off => return Ok(()),
        AcceptProxy::Required => true,
        AcceptProxy::Optional => false,
    };
    let comes_from = walk.flow.client.ip();
    if !route.trusted.is_empty() && !route.trusted.contain(comes_from) {
        return if required {
            Err(refused(format!("{comes_from} is not trusted to send one")))
        } else {
            // It is the client itself.
            access::admit_announced(walk)
        };
    }
    walk.flow.state.set(State::Handshake);
    let until = route
        .accept_proxy_timeout
        .map(|limit| walk.flow.started + limit);
    let mut deadline = Sleep::new(&walk.worker, until);
    let header = poll_fn(|_| match look(walk, client) {
        Poll::Pending if deadline.is_due() => Poll::Ready(Err(Failed::Late)),
        other => other,
    })
    .await;
    match header {
        Ok(Some(header)) => {
            walk.flow.announce(Announced {
                addresses: header.addresses,
                tlvs: header.tlvs.into_boxed_slice(),
            });
            // Limits and lists are about the client, not about who stands in front of it.
            access::admit_announced(walk)
        }
        Ok(None) if required => Err(refused("the first bytes are none".to_owned())),
        Ok(None) => access::admit_announced(walk),
        // Too little was said to be one: perhaps the other side speaks first.
        Err(Failed::Late | Failed::Ended)
            if !required && proxy::start(&client.early()) == Start::Unsure =>
        {
            access::admit_announced(walk)
        }
        Err(failed) => Err(refused(failed.text())),
    }
}

fn refused(why: String) -> Stop {
    Stop::new(
        Reason::ProxyHeader,
        format!("expected a PROXY protocol header: {why}"),
    )
}

/// Tells the target who the client is, before anything else.
pub async fn send(walk: &Walk, client: Option<&Io>, target: &Io) -> Result<(), Stop> {
    let route = &walk.flow.route;
    let version = route.plan.proxy.send;
    if version == 0 {
        return Ok(());
    }
    let announced = walk.flow.announced();
    let addresses = announced
        .as_ref()
        .and_then(|announced| announced.addresses)
        .unwrap_or_else(|| Addresses {
            source: walk.flow.client,
            destination: client
                .map_or(walk.flow.endpoint.shared.udp_addr, Io::local_addr)
                .unwrap_or_else(|| unspecified(walk.flow.client)),
        });
    let bytes = if version == 1 {
        proxy::line(&addresses)
    } else {
        let tlvs = announced
            .as_ref()
            .map_or(&[][..], |announced| &announced.tlvs);
        proxy::binary(&addresses, Kind::Stream, tlvs)
    };
    let taken = match client {
        Some(client) if route.is_bare => send_with_early(walk, client, target, &bytes),
        _ => Ok(0),
    };
    let sent = match taken {
        Ok(taken) => write_all(target, &bytes[taken..]).await,
        Err(error) => Err(error),
    };
    // What the client says next is not the first segment any more, and shall not wait either.
    let _ = socket::nodelay(target);
    sent.map_err(|error| {
        Stop::new(
            Reason::TargetReset,
            format!("the target took no PROXY protocol header: {error}"),
        )
    })
}

/// Sends the header and what the client has said already as one segment. How much of the header was
/// sent.
fn send_with_early(walk: &Walk, client: &Io, target: &Io, header: &[u8]) -> io::Result<usize> {
    let Walk { worker, flow, .. } = walk;
    let sent = {
        let early = client.early();
        let count = early.len().min(flow.allowance(worker, Side::Client));
        match target.write_vectored(&[IoSlice::new(header), IoSlice::new(&early[..count])]) {
            Poll::Pending => 0,
            Poll::Ready(sent) => sent?,
        }
    };
    if sent > header.len() {
        let moved = sent - header.len();
        client.consume(moved);
        flow.spend(worker, Side::Client, moved);
        flow.moved_up(moved, worker.now());
    }
    Ok(sent.min(header.len()))
}

/// The all-zero address of the same family.
fn unspecified(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() {
        SocketAddr::from(([0; 4], 0))
    } else {
        SocketAddr::from(([0_u16; 8], 0))
    }
}

#[derive(Debug)]
enum Failed {
    Late,
    Ended,
    Wrong(&'static str),
    Io(io::Error),
}

impl Failed {
    fn text(&self) -> String {
        match self {
            Self::Late => "none came in time".to_owned(),
            Self::Ended => "the connection ended first".to_owned(),
            Self::Wrong(why) => (*why).to_owned(),
            Self::Io(error) => error.to_string(),
        }
    }
}

/// A first read takes so much: a header, and often all that the client says with it.
const FIRST: usize = 4096;

/// Takes a header off what was read early, which may come byte by byte. `None` when the first bytes
/// are no header.
fn look(walk: &Walk, client: &Io) -> Poll<Result<Option<Header>, Failed>> {
    let mut scratch = walk.worker.scratch.borrow_mut();
    let mut most = FIRST;
    loop {
        let (size, parse): (_, fn(&[u8]) -> _) = match proxy::start(&client.early()) {
            Start::Unsure => (None, proxy::parse_line),
            Start::Other => return Poll::Ready(Ok(None)),
            Start::Binary(size) => (Some(size), proxy::parse_binary),
            Start::Line => match proxy::line_end(&client.early()) {
                Ok(size) => (size, proxy::parse_line),
                Err(why) => return Poll::Ready(Err(Failed::Wrong(why))),
            },
        };
        if let Some(size) = size {
            let header = client.early().get(..size).map(parse);
            if let Some(header) = header {
                client.consume(size);
                return Poll::Ready(header.map(Some).map_err(Failed::Wrong));
            }
            most = most.max(size);
        }
        match client.gather(&mut scratch, most) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false)) => return Poll::Ready(Err(Failed::Ended)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Io(error))),
        }
    }
}
