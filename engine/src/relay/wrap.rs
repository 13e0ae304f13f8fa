//! The handshakes of wrapped legs: with the client before a remote is chosen, with the target
//! after it was reached.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::endpoint::{PlanError, limit};
use super::road::{Leg, Stop, Walk};
use super::websocket;
use crate::flow::reason::Reason;
use crate::flow::table::State;
use crate::plan::EndpointPlan;
use crate::runtime::io::Io;
use crate::runtime::{Sleep, ready};
use crate::transport::tls::acceptor::{Acceptor, News};
use crate::transport::tls::connector::Connector;
use crate::transport::tls::{Fault, Tls};

/// What the legs of an endpoint's flows are wrapped in, made ready.
pub struct Wraps {
    pub accept: Option<Arc<Acceptor>>,
    pub connect: Option<Arc<Connector>>,
    pub client_timeout: Option<Duration>,
    pub target_timeout: Option<Duration>,
}

impl Wraps {
    pub fn prepare(plan: &EndpointPlan) -> Result<Self, PlanError> {
        let listen = plan.listen_transport.as_ref();
        let remote = plan.remote_transport.as_ref();
        Ok(Self {
            accept: listen
                .and_then(|listen| listen.tls.as_ref())
                .map(Acceptor::shared)
                .transpose()?,
            connect: remote
                .and_then(|remote| remote.tls.as_ref())
                .map(Connector::shared)
                .transpose()?,
            client_timeout: limit(
                "listen_transport.handshake_timeout",
                listen.map_or(0.0, |listen| listen.handshake_timeout),
            )?,
            target_timeout: limit(
                "remote_transport.handshake_timeout",
                remote.map_or(0.0, |remote| remote.handshake_timeout),
            )?,
        })
    }
}

/// Unwraps the client's leg.
pub async fn client(walk: &Walk, leg: Leg) -> Result<Leg, Stop> {
    let leg = match (&walk.flow.route.wraps.accept, leg) {
        (Some(acceptor), Leg::Plain(io)) => {
            Leg::Wrapped(Box::new(accept_tls(walk, acceptor, io).await?))
        }
        (_, leg) => leg,
    };
    websocket::accept(walk, leg).await
}

/// Wraps the target's leg. `client` is watched meanwhile: without it there is nobody to work for.
pub async fn target(walk: &Walk, leg: Leg, client: Option<&Io>) -> Result<Leg, Stop> {
    let leg = match (&walk.flow.route.wraps.connect, leg) {
        (Some(connector), Leg::Plain(io)) => {
            Leg::Wrapped(Box::new(connect_tls(walk, connector, io, client).await?))
        }
        (_, leg) => leg,
    };
    websocket::connect(walk, leg, client).await
}

async fn accept_tls(walk: &Walk, acceptor: &Acceptor, io: Io) -> Result<Tls, Stop> {
    let (config, news) = acceptor.config(walk.worker.now());
    if let Some(news) = news {
        announce(walk, news);
    }
    let failed = |fault| {
        stop(
            Reason::ClientHandshakeFailed,
            Reason::ClientReset,
            "client",
            fault,
        )
    };
    let mut tls = Tls::server(io, config).map_err(failed)?;
    walk.flow.state.set(State::Handshake);
    let limit = walk.flow.route.wraps.client_timeout;
    match shake(walk, &mut tls, limit, None).await {
        Ok(()) => {
            walk.flow.tls.borrow_mut().client = Some(tls.handshake());
            Ok(tls)
        }
        Err(Stuck::Fault(fault)) => {
            tls.leave();
            Err(failed(fault))
        }
        Err(Stuck::Timeout) => Err(late("client", limit)),
        Err(Stuck::ClientGone) => Err(Stop::bare(Reason::ClientReset)),
    }
}

async fn connect_tls(
    walk: &Walk,
    connector: &Connector,
    io: Io,
    client: Option<&Io>,
) -> Result<Tls, Stop> {
    let failed = |fault| {
        stop(
            Reason::TargetHandshakeFailed,
            Reason::TargetReset,
            "target",
            fault,
        )
    };
    let config = Arc::clone(&connector.config);
    let mut tls = Tls::client(io, config, connector.name.clone()).map_err(failed)?;
    walk.flow.state.set(State::Handshake);
    let limit = walk.flow.route.wraps.target_timeout;
    match shake(walk, &mut tls, limit, client).await {
        Ok(()) => {
            walk.flow.tls.borrow_mut().target = Some(tls.handshake());
            walk.flow.state.set(State::Open);
            Ok(tls)
        }
        Err(Stuck::Fault(fault)) => {
            tls.leave();
            Err(failed(fault))
        }
        Err(Stuck::Timeout) => Err(late("target", limit)),
        Err(Stuck::ClientGone) => Err(Stop::bare(Reason::ClientReset)),
    }
}

enum Stuck {
    Fault(Fault),
    Timeout,
    ClientGone,
}

async fn shake(
    walk: &Walk,
    tls: &mut Tls,
    limit: Option<Duration>,
    client: Option<&Io>,
) -> Result<(), Stuck> {
    let now = walk.worker.now();
    let mut sleep = Sleep::new(&Rc::clone(&walk.worker), limit.map(|limit| now + limit));
    poll_fn(|_| {
        if client.is_some_and(|client| client.is(ready::ERROR)) {
            return Poll::Ready(Err(Stuck::ClientGone));
        }
        match tls.shake() {
            Poll::Ready(done) => Poll::Ready(done.map_err(Stuck::Fault)),
            Poll::Pending if sleep.is_due() => Poll::Ready(Err(Stuck::Timeout)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn late(peer: &str, limit: Option<Duration>) -> Stop {
    let seconds = limit.unwrap_or_default().as_secs_f64();
    Stop::new(
        Reason::HandshakeTimeout,
        format!("the {peer} did not finish the TLS handshake within {seconds} s"),
    )
}

/// `failed` unless the peer's connection was simply lost.
fn stop(failed: Reason, lost: Reason, peer: &str, fault: Fault) -> Stop {
    match fault {
        Fault::Tls(why) => Stop::new(failed, why),
        Fault::Closed => Stop::new(
            failed,
            format!("the {peer} closed the connection during the TLS handshake"),
        ),
        Fault::Socket(error) => match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => Stop::new(
                lost,
                format!("the {peer} reset the connection during the TLS handshake"),
            ),
            _ => Stop::new(failed, error.to_string()),
        },
    }
}

fn announce(walk: &Walk, news: News) {
    let endpoint = &walk.flow.endpoint.shared;
    let (code, text) = match news {
        News::Renewed(text) => ("certificates_renewed", text),
        News::Kept(text) => ("certificates_kept", text),
    };
    let events = &walk.worker.shared.events;
    events.notice(endpoint.group.id, &endpoint.id, code, text);
}
