//! The WebSocket handshakes with the client and with the target, inside TLS where there is some.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::road::{Leg, Stop, Walk};
use crate::flow::reason::Reason;
use crate::flow::table::State;
use crate::plan::WebSocketPlan;
use crate::runtime::io::Io;
use crate::runtime::{Sleep, ready};
use crate::transport::ws::{Fault, Shaking};
use crate::transport::{Plain, Stream};

/// Unwraps the client's leg.
pub async fn accept(walk: &Walk, leg: Leg) -> Result<Leg, Stop> {
    let listen = walk.flow.route.plan.listen_transport.as_ref();
    let Some(plan) = listen.and_then(|listen| listen.ws.as_ref()) else {
        return Ok(leg);
    };
    walk.flow.state.set(State::Handshake);
    match leg {
        Leg::Plain(io) => accept_over(walk, plan, Plain(io)).await,
        Leg::Wrapped(stream) => accept_over(walk, plan, stream).await,
    }
}

/// Wraps the target's leg. `client` is watched meanwhile: without it there is nobody to work for.
pub async fn connect(walk: &Walk, leg: Leg, client: Option<&Io>) -> Result<Leg, Stop> {
    let remote = walk.flow.route.plan.remote_transport.as_ref();
    let Some(plan) = remote.and_then(|remote| remote.ws.as_ref()) else {
        return Ok(leg);
    };
    walk.flow.state.set(State::Handshake);
    let leg = match leg {
        Leg::Plain(io) => connect_over(walk, plan, Plain(io), client).await?,
        Leg::Wrapped(stream) => connect_over(walk, plan, stream, client).await?,
    };
    walk.flow.state.set(State::Open);
    Ok(leg)
}

async fn accept_over<S: Stream + 'static>(
    walk: &Walk,
    plan: &WebSocketPlan,
    inner: S,
) -> Result<Leg, Stop> {
    let mut shaking = Shaking::server(inner, plan);
    let limit = walk.flow.route.wraps.client_timeout;
    match shake(walk, &mut shaking, limit, None).await {
        Ok(()) => Ok(Leg::Wrapped(Box::new(shaking.finish(&walk.worker)))),
        Err(stuck) => {
            let reasons = (Reason::ClientHandshakeFailed, Reason::ClientReset);
            Err(stop(stuck, shaking, reasons, "client", limit))
        }
    }
}

async fn connect_over<S: Stream + 'static>(
    walk: &Walk,
    plan: &WebSocketPlan,
    inner: S,
    client: Option<&Io>,
) -> Result<Leg, Stop> {
    let mut shaking = Shaking::client(inner, plan);
    let limit = walk.flow.route.wraps.target_timeout;
    match shake(walk, &mut shaking, limit, client).await {
        Ok(()) => Ok(Leg::Wrapped(Box::new(shaking.finish(&walk.worker)))),
        Err(stuck) => {
            let reasons = (Reason::TargetHandshakeFailed, Reason::TargetReset);
            Err(stop(stuck, shaking, reasons, "target", limit))
        }
    }
}

enum Stuck {
    Fault(Fault),
    Timeout,
    ClientGone,
}

async fn shake<S: Stream>(
    walk: &Walk,
    shaking: &mut Shaking<'_, S>,
    limit: Option<Duration>,
    client: Option<&Io>,
) -> Result<(), Stuck> {
    let now = walk.worker.now();
    let mut sleep = Sleep::new(&Rc::clone(&walk.worker), limit.map(|limit| now + limit));
    poll_fn(|_| {
        if client.is_some_and(|client| client.is(ready::ERROR)) {
            return Poll::Ready(Err(Stuck::ClientGone));
        }
        match shaking.shake() {
            Poll::Ready(done) => Poll::Ready(done.map_err(Stuck::Fault)),
            Poll::Pending if sleep.is_due() => Poll::Ready(Err(Stuck::Timeout)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn stop<S: Stream>(
    stuck: Stuck,
    shaking: Shaking<'_, S>,
    (failed, lost): (Reason, Reason),
    peer: &str,
    limit: Option<Duration>,
) -> Stop {
    match stuck {
        Stuck::Fault(Fault::Refused(why)) => {
            shaking.leave();
            Stop::new(failed, format!("the {peer} {why}"))
        }
        Stuck::Fault(Fault::Closed) => Stop::new(
            failed,
            format!("the {peer} closed the connection during the WebSocket handshake"),
        ),
        Stuck::Fault(Fault::Socket(error)) => match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => Stop::new(
                lost,
                format!("the {peer} reset the connection during the WebSocket handshake"),
            ),
            _ => Stop::new(failed, error.to_string()),
        },
        Stuck::Timeout => {
            let seconds = limit.unwrap_or_default().as_secs_f64();
            Stop::new(
                Reason::HandshakeTimeout,
                format!("the {peer} did not finish the WebSocket handshake within {seconds} s"),
            )
        }
        Stuck::ClientGone => Stop::bare(Reason::ClientReset),
    }
}
