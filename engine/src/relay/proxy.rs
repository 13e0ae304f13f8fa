//! The steps of the PROXY protocol: who the client really is, and telling the target.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use super::access;
use super::road::{Stop, Walk, write_all};
use crate::flow::reason::Reason;
use crate::flow::table::{Announced, State};
use crate::plan::AcceptProxy;
use crate::runtime::io::{Io, Read};
use crate::runtime::{Sleep, ready};
use crate::transport::proxy::{self, Addresses, Header, Kind, Start};

/// A line of version 1 has at most so many bytes.
const LINE: usize = 107;

/// Takes the header off the client's connection. What follows it stays to be read.
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
    let mut reader = Reader::default();
    let header = poll_fn(|_| match reader.poll(client) {
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
        // Nothing was said in time: then the other side speaks first.
        Err(Failed::Late) if !required && reader.taken.is_empty() => {
            client.has_unread();
            access::admit_announced(walk)
        }
        Ok(None) => access::admit_announced(walk),
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
    let version = walk.flow.route.plan.proxy.send;
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
    write_all(target, &bytes).await.map_err(|error| {
        Stop::new(
            Reason::TargetReset,
            format!("the target took no PROXY protocol header: {error}"),
        )
    })
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

/// Reads a header that may come byte by byte, and not one byte more.
#[derive(Default)]
struct Reader {
    /// Bytes of a version 2 header that were taken off the socket.
    taken: Vec<u8>,
    size: Option<usize>,
}

impl Reader {
    /// `None` when the first bytes are no header.
    fn poll(&mut self, client: &Io) -> Poll<Result<Option<Header>, Failed>> {
        if let Some(size) = self.size {
            return self.take(client, size).map(|taken| {
                taken?;
                proxy::parse_binary(&self.taken)
                    .map(Some)
                    .map_err(Failed::Wrong)
            });
        }
        let mut seen = [0; LINE];
        let last = client.is(ready::HANGUP | ready::ERROR);
        let count = match client.peek(&mut seen) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Io(error))),
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failed::Ended)),
            Poll::Ready(Ok(count)) => count,
        };
        let seen = &seen[..count];
        match proxy::start(seen) {
            Start::Other => Poll::Ready(Ok(None)),
            Start::Binary(size) => {
                self.size = Some(size);
                self.poll(client)
            }
            Start::Line => match proxy::line_end(seen) {
                Err(why) => Poll::Ready(Err(Failed::Wrong(why))),
                Ok(None) => Self::more(client, last),
                // The whole line is there.
                Ok(Some(size)) => self.take(client, size).map(|taken| {
                    taken?;
                    proxy::parse_line(&self.taken)
                        .map(Some)
                        .map_err(Failed::Wrong)
                }),
            },
            Start::Unsure => Self::more(client, last),
        }
    }

    fn more(client: &Io, last: bool) -> Poll<Result<Option<Header>, Failed>> {
        if last {
            return Poll::Ready(Err(Failed::Ended));
        }
        client.await_more();
        Poll::Pending
    }

    /// Takes up to `size` bytes in all off the socket.
    fn take(&mut self, client: &Io, size: usize) -> Poll<Result<(), Failed>> {
        let mut chunk = [0; 4096];
        while self.taken.len() < size {
            let wanted = (size - self.taken.len()).min(chunk.len());
            match client.read(&mut chunk[..wanted]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Io(error))),
                Poll::Ready(Ok(Read::End)) => return Poll::Ready(Err(Failed::Ended)),
                Poll::Ready(Ok(Read::Some(count, _))) => {
                    self.taken.extend_from_slice(&chunk[..count]);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
