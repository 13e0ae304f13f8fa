//! The way of a flow that takes optional steps, in order: each step is one function, with its own
//! time limit and its own error. A flow without any of them never comes here.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;

use super::dial::DialError;
use super::hook;
use super::proxy;
use super::reach::reach;
use super::route;
use super::uot;
use super::wrap;
use crate::flow::reason::Reason;
use crate::flow::table::{Flow, State};
use crate::runtime::io::Io;
use crate::runtime::{TaskId, Worker};
use crate::transport::{Plain, Stream};

/// Whose way it is.
pub struct Walk {
    pub worker: Rc<Worker>,
    pub flow: Rc<Flow>,
    pub task: TaskId,
}

/// Where a way leads.
pub enum Arrival {
    Plain {
        client: Io,
        target: Io,
    },
    Wrapped {
        client: Box<dyn Stream>,
        target: Box<dyn Stream>,
    },
    /// Nothing is left of it but the reason.
    Stopped {
        reason: Reason,
        detail: Option<String>,
    },
}

/// Why a step went no further. The legs are reset.
#[derive(Debug)]
pub struct Stop {
    pub reason: Reason,
    pub detail: Option<String>,
}

impl Stop {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: Some(detail.into()),
        }
    }

    pub fn bare(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
        }
    }
}

/// A leg, wrapped or not.
pub enum Leg {
    Plain(Io),
    Wrapped(Box<dyn Stream>),
}

impl Leg {
    pub fn io(&self) -> &Io {
        match self {
            Self::Plain(io) => io,
            Self::Wrapped(stream) => stream.io(),
        }
    }

    pub fn into_stream(self) -> Box<dyn Stream> {
        match self {
            Self::Plain(io) => Box::new(Plain(io)),
            Self::Wrapped(stream) => stream,
        }
    }
}

pub async fn travel(walk: Walk, client: Io) -> Arrival {
    // Until it has arrived, whatever drops a leg resets it.
    client.doom(true);
    match steps(&walk, client).await {
        Ok((client, target)) => {
            client.io().doom(false);
            target.io().doom(false);
            match (client, target) {
                (Leg::Plain(client), Leg::Plain(target)) => Arrival::Plain { client, target },
                (client, target) => Arrival::Wrapped {
                    client: client.into_stream(),
                    target: target.into_stream(),
                },
            }
        }
        Err(Stop { reason, detail }) => {
            if let Some(why) = &detail {
                tell(&walk.worker, &walk.flow, reason, why);
            }
            Arrival::Stopped { reason, detail }
        }
    }
}

async fn steps(walk: &Walk, client: Io) -> Result<(Leg, Leg), Stop> {
    proxy::accept(walk, &client).await?;
    let aim = match hook::decide(walk, &client).await? {
        Some(aim) => aim,
        None => route::choose(walk, &client).await?,
    };
    let client = wrap::client(walk, Leg::Plain(client)).await?;
    if uot::unwraps(&walk.flow.route.plan) {
        return Err(uot::serve(walk, client, aim).await);
    }
    // With the PROXY header and the transport towards the target.
    let target = reach(walk, Some(client.io()), aim).await?;
    Ok((client, target))
}

impl From<DialError> for Stop {
    fn from(error: DialError) -> Self {
        Self::new(error.reason(), error.text())
    }
}

/// Notes that the flow has reached its target.
pub fn connected(worker: &Rc<Worker>, flow: &Flow, target: &Io, peer: SocketAddr) {
    let now = worker.now();
    flow.peer.set(Some(peer));
    flow.connected.set(Some(now));
    flow.moved.set(now);
    flow.state.set(State::Open);
    flow.target_fd.set(target.as_raw_fd());
    flow.counters()
        .connect
        .record(now.saturating_duration_since(flow.started));
    worker.young.note(worker, flow);
}

/// Tells the owner why a flow went no further.
pub fn tell(worker: &Worker, flow: &Flow, reason: Reason, why: &str) {
    let endpoint = &flow.endpoint.shared;
    worker.shared.events.notice(
        endpoint.group.id,
        &endpoint.id,
        reason.name(),
        format!(
            "can't carry {} to {}: {why}",
            flow.client,
            flow.target().text
        ),
    );
}

/// Writes all of `bytes`, which the socket's buffer has room for at the beginning of a connection
/// unless somebody plays with us.
pub async fn write_all(io: &Io, mut bytes: &[u8]) -> io::Result<()> {
    poll_fn(|_| {
        while !bytes.is_empty() {
            match io.write(bytes) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(count)) => bytes = &bytes[count..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
