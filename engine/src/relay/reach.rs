//! Choosing a remote and connecting to it; the next one when that fails, while there is time.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::dial::{Dial, DialError};
use super::health::pool;
use super::road::{Leg, Stop, Walk, connected};
use super::{proxy, wrap};
use crate::flow::reason::Reason;
use crate::flow::table::{Flow, State};
use crate::runtime::io::Io;
use crate::runtime::{Sleep, Worker, ready};

/// Where a flow is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To one of the route's pool of this number.
    Pool(usize),
    /// To the route's target of this number and no other.
    Target(usize),
}

/// Of the time that is left, an attempt gets at least this part while others can follow it.
const MOST_PARTS: u32 = 3;
/// What an attempt gets when there is no limit at all and others can follow it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The address of the client that decides where its flow goes.
pub fn client_ip(flow: &Flow) -> IpAddr {
    flow.origin().ip()
}

/// Connects to where the flow is to go, within the time that is left since accept, and says there
/// what has to be said before the client's first byte. The client's leg is not touched, so that
/// all of it can be done once more with another remote.
pub async fn reach(walk: &Walk, client: Option<&Io>, aim: Aim) -> Result<Leg, Stop> {
    let Walk { worker, flow, .. } = walk;
    let until = flow
        .route
        .connect_timeout
        .map(|timeout| flow.started + timeout);
    let mut tried = Vec::new();
    loop {
        let Some(target) = next(worker, flow, aim, &tried) else {
            // Only a pool without members, which no plan makes.
            return Err(Stop::new(Reason::ConnectFailed, "there is no remote"));
        };
        flow.aim(target);
        tried.push(target);
        let follow = match aim {
            Aim::Pool(pool) => flow.route.pools[pool].untried(&tried),
            Aim::Target(_) => 0,
        };
        let attempt_until = share_of(until, follow, worker.now());
        let attempted = match attempt(walk, client, attempt_until).await {
            Ok((io, peer)) => {
                io.doom(true);
                connected(worker, flow, &io, peer);
                greet(walk, client, io).await
            }
            Err(miss) => Err(miss),
        };
        match attempted {
            Ok(leg) => {
                reached(worker, flow);
                return Ok(leg);
            }
            Err(Miss::Client) => return Err(Stop::bare(Reason::ClientReset)),
            Err(Miss::Remote { stop, blame }) => {
                if blame {
                    let why = stop.detail.as_deref().unwrap_or(stop.reason.name());
                    missed(worker, flow, why);
                }
                let over = until.is_some_and(|until| worker.now() >= until);
                if follow == 0 || over {
                    return Err(stop);
                }
            }
        }
    }
}

fn next(worker: &Worker, flow: &Flow, aim: Aim, tried: &[usize]) -> Option<usize> {
    match aim {
        Aim::Pool(pool) => flow.route.pools[pool].choose(client_ip(flow), tried, worker.now()),
        Aim::Target(target) => Some(target),
    }
}

/// Until when an attempt may take, so that something is left for those that can follow it.
fn share_of(until: Option<Instant>, follow: usize, now: Instant) -> Option<Instant> {
    if follow == 0 {
        return until;
    }
    let parts = MOST_PARTS.min(follow as u32 + 1);
    let share = until.map_or(PATIENCE, |until| {
        until.saturating_duration_since(now) / parts
    });
    Some(now + share)
}

/// Why an attempt came to nothing.
enum Miss {
    Client,
    Remote {
        stop: Stop,
        /// Whether the remote is to blame for it, and not something here.
        blame: bool,
    },
}

impl From<DialError> for Miss {
    fn from(error: DialError) -> Self {
        Self::Remote {
            blame: is_to_blame(&error),
            stop: Stop::from(error),
        }
    }
}

/// Whether it tells something about the remote, and not only about this host.
pub fn is_to_blame(error: &DialError) -> bool {
    match error {
        DialError::Resolve(_) => true,
        DialError::Connect(error) => !matches!(
            error.raw_os_error(),
            Some(
                libc::EADDRNOTAVAIL
                    | libc::EADDRINUSE
                    | libc::EACCES
                    | libc::EPERM
                    | libc::EMFILE
                    | libc::ENFILE
                    | libc::ENOBUFS
                    | libc::ENOMEM
                    | libc::ENODEV
                    | libc::EAFNOSUPPORT
            )
        ),
    }
}

/// All addresses of the flow's present target.
async fn attempt(
    walk: &Walk,
    client: Option<&Io>,
    until: Option<Instant>,
) -> Result<(Io, SocketAddr), Miss> {
    let Walk { worker, flow, task } = walk;
    let began = worker.now();
    let mut dial = Dial::new(worker, *task, &flow.route, flow.target()).map_err(Miss::from)?;
    let mut deadline = Sleep::new(worker, until);
    poll_fn(|cx| {
        if client.is_some_and(|client| client.is(ready::ERROR)) {
            return Poll::Ready(Err(Miss::Client));
        }
        let state = if dial.is_resolving() {
            State::Resolving
        } else {
            State::Connecting
        };
        flow.state.set(state);
        match dial.poll(cx) {
            Poll::Ready(dialled) => Poll::Ready(dialled.map_err(Miss::from)),
            Poll::Pending if deadline.is_due() => {
                let took = worker.now() - began;
                let stop = Stop::new(
                    Reason::ConnectTimeout,
                    format!("{state:?} took longer than {:.1} s", took.as_secs_f64()),
                );
                let blame = !dial.lacks_descriptors();
                Poll::Ready(Err(Miss::Remote { stop, blame }))
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What comes before the client's first byte: the PROXY header, and the transport's handshake.
async fn greet(walk: &Walk, client: Option<&Io>, io: Io) -> Result<Leg, Miss> {
    let greeted = match proxy::send(walk, client, &io).await {
        Ok(()) => wrap::target(walk, Leg::Plain(io), client).await,
        Err(stop) => Err(stop),
    };
    greeted.map_err(|stop| {
        // The socket is closed.
        walk.flow.target_fd.set(-1);
        match stop.reason {
            Reason::ClientReset => Miss::Client,
            Reason::TargetReset | Reason::TargetHandshakeFailed | Reason::HandshakeTimeout => {
                Miss::Remote { stop, blame: true }
            }
            _ => Miss::Remote { stop, blame: false },
        }
    })
}

/// The flow has reached its remote.
pub fn reached(worker: &Rc<Worker>, flow: &Flow) {
    if let Some(pool) = flow.route.pool_of(flow.choice.get()) {
        let change = pool.succeeded(flow.choice.get(), worker.now());
        pool::tell(
            &worker.shared,
            &flow.endpoint.shared,
            &flow.target().text,
            change,
        );
    }
}

/// The flow can't reach its remote, or found it broken: a failure of the remote.
pub fn missed(worker: &Rc<Worker>, flow: &Flow, why: &str) {
    if let Some(pool) = flow.route.pool_of(flow.choice.get()) {
        let change = pool.failed(flow.choice.get(), why, worker.now());
        pool::tell(
            &worker.shared,
            &flow.endpoint.shared,
            &flow.target().text,
            change,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_leaves_time_for_those_that_can_follow() {
        let now = Instant::now();
        let until = Some(now + Duration::from_secs(6));
        let seconds =
            |follow| share_of(until, follow, now).map(|until| (until - now).as_secs_f64());
        assert_eq!(seconds(0), Some(6.0));
        assert_eq!(seconds(1), Some(3.0));
        assert_eq!(seconds(2), Some(2.0));
        assert_eq!(seconds(9), Some(2.0));
        assert_eq!(share_of(None, 0, now), None);
        assert_eq!(share_of(None, 1, now), Some(now + PATIENCE));
    }

    #[test]
    fn what_goes_wrong_here_is_not_the_remotes_fault() {
        let blame =
            |code| is_to_blame(&DialError::Connect(std::io::Error::from_raw_os_error(code)));
        assert!(blame(libc::ECONNREFUSED));
        assert!(blame(libc::EHOSTUNREACH));
        assert!(!blame(libc::EADDRNOTAVAIL));
        assert!(!blame(libc::EMFILE));
    }
}
