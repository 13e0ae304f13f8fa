//! The life of a TCP flow: admitted, dialled, pumped, ended with a reason.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::dial::{Dial, DialError, Dialled};
use super::endpoint::LocalEndpoint;
use super::road::{self, Arrival, Leg, Walk};
use crate::desk::joining::Legs;
use crate::flow::bridge::Bridge;
use crate::flow::ending::{End, Farewell};
use crate::flow::exchange::{self, Exchange};
use crate::flow::limits::Pass;
use crate::flow::pump::Pump;
use crate::flow::reason::Reason;
use crate::flow::table::{Flow, Handshakes, Opening, Protocol, State};
use crate::net::fd::Fd;
use crate::net::reserve::Claim;
use crate::net::socket;
use crate::runtime::io::Io;
use crate::runtime::{Owner, Sleep, TaskId, Worker, ready};

/// What is asked of a client's socket at once when its first bytes matter.
const FIRST: usize = 4096;
/// How long a leg that is to be reset may take to deliver what it was given.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
const FLUSH_FIRST_LOOK: Duration = Duration::from_millis(2);
const FLUSH_SLOWEST_LOOK: Duration = Duration::from_millis(250);

/// A connection that passed the limits.
pub struct Admitted {
    pub fd: Fd,
    pub client: SocketAddr,
    pub passes: Vec<Pass>,
    pub claim: Claim,
}

/// Starts the flow on this worker.
pub fn begin(worker: &Rc<Worker>, endpoint: &Rc<LocalEndpoint>, admitted: Admitted) {
    let flow = worker.table.open(Opening {
        id: None,
        protocol: Protocol::Tcp,
        endpoint: Rc::clone(endpoint),
        route: endpoint.route(),
        terms: None,
        client: admitted.client,
        passes: admitted.passes,
        at: worker.now(),
    });
    worker.shared.loads[worker.index].set(worker.table.len());
    worker.tasks.spawn(|task| {
        flow.owned_by(Owner::Task(task));
        let stage = Stage::Accepted(admitted.fd);
        Life::new(worker, flow, stage, Some(admitted.claim), task)
    });
}

/// A flow whose legs the owner held until now.
pub fn begin_joined(worker: &Rc<Worker>, flow: Rc<Flow>, legs: Legs) {
    worker.shared.loads[worker.index].set(worker.table.len());
    worker.tasks.spawn(|task| {
        flow.owned_by(Owner::Task(task));
        Life::new(worker, flow, Stage::Joined(Box::new(legs)), None, task)
    });
}

enum Stage {
    /// Nothing was done yet.
    Accepted(Fd),
    /// As it came from the owner.
    Joined(Box<Legs>),
    Dial {
        client: Io,
        dial: Box<Dial>,
        deadline: Sleep,
    },
    /// The optional steps, dialling included.
    Road(Pin<Box<dyn Future<Output = Arrival>>>),
    Pump(Pump),
    /// At least one leg is wrapped.
    Bridge(Box<Bridge>),
    /// Messages of HTTP.
    Exchange(Box<Exchange>),
    /// One leg still delivers what it was given before it is reset.
    Flush(Box<Flush>),
    Ended,
}

struct Flush {
    leg: Io,
    reason: Reason,
    detail: Option<String>,
    until: Instant,
    look: Duration,
    sleep: Sleep,
}

/// The whole life as one future.
struct Life {
    worker: Rc<Worker>,
    flow: Rc<Flow>,
    task: TaskId,
    stage: Stage,
    /// While there is no socket for the target.
    claim: Option<Claim>,
}

impl Life {
    fn new(
        worker: &Rc<Worker>,
        flow: Rc<Flow>,
        stage: Stage,
        claim: Option<Claim>,
        task: TaskId,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            flow,
            task,
            stage,
            claim,
        }
    }

    fn has_target(&self) -> bool {
        match &self.stage {
            Stage::Accepted(_) | Stage::Joined(_) | Stage::Road(_) => false,
            Stage::Dial { dial, .. } => dial.has_socket(),
            _ => true,
        }
    }

    /// The next stage, or `None` while the present one goes on.
    fn step(&mut self, cx: &mut Context<'_>) -> Option<Stage> {
        match &mut self.stage {
            Stage::Accepted(_) => Some(self.start_dial()),
            Stage::Joined(_) => Some(self.settle()),
            Stage::Dial {
                client,
                dial,
                deadline,
            } => {
                if client.is(ready::ERROR) {
                    return Some(self.abandon(Reason::ClientReset, None));
                }
                match dial.poll(cx) {
                    Poll::Ready(dialled) => Some(self.dialled(dialled)),
                    Poll::Pending => {
                        let state = if dial.is_resolving() {
                            State::Resolving
                        } else {
                            State::Connecting
                        };
                        self.flow.state.set(state);
                        if deadline.is_due() {
                            let detail = format!("{state:?} took longer than the connect timeout");
                            return Some(self.abandon(Reason::ConnectTimeout, Some(detail)));
                        }
                        None
                    }
                }
            }
            Stage::Road(road) => match road.as_mut().poll(cx) {
                Poll::Ready(arrival) => Some(self.arrived(arrival)),
                Poll::Pending => None,
            },
            Stage::Bridge(bridge) => match bridge.poll(&self.worker, &self.flow) {
                Poll::Ready(end) => Some(self.part(end)),
                Poll::Pending => None,
            },
            Stage::Pump(pump) => match pump.poll(&self.worker, &self.flow) {
                Poll::Ready(end) => Some(self.part(end)),
                Poll::Pending => None,
            },
            Stage::Exchange(exchange) => match exchange.poll(&self.worker, &self.flow) {
                Poll::Ready(end) => Some(self.exchanged(end)),
                Poll::Pending => None,
            },
            Stage::Flush(flush) => {
                let now = self.worker.now();
                let gone = flush.leg.is(ready::ERROR);
                if gone || now >= flush.until || flush.leg.unsent() == 0 {
                    return Some(self.flushed());
                }
                if flush.sleep.is_due() {
                    flush.look = (flush.look * 2).min(FLUSH_SLOWEST_LOOK);
                    flush.sleep.reset(Some(now + flush.look));
                    flush.sleep.is_due();
                }
                None
            }
            Stage::Ended => None,
        }
    }

    fn start_dial(&mut self) -> Stage {
        let Stage::Accepted(fd) = std::mem::replace(&mut self.stage, Stage::Ended) else {
            return Stage::Ended;
        };
        let route = &self.flow.route;
        let client = match open(&self.worker, fd, self.task, route.hears_first) {
            Ok(client) => client,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return self.end(Reason::ClientReset, None);
            }
            Err(error) => return self.end(Reason::Error, Some(&error.to_string())),
        };
        if route.has_steps {
            let walk = Walk {
                worker: Rc::clone(&self.worker),
                flow: Rc::clone(&self.flow),
                task: self.task,
            };
            return Stage::Road(Box::pin(road::travel(walk, client)));
        }
        match Dial::new(&self.worker, self.task, route, self.flow.target()) {
            Ok(dial) => Stage::Dial {
                client,
                dial: Box::new(dial),
                deadline: Sleep::new(
                    &self.worker,
                    route
                        .connect_timeout
                        .map(|timeout| self.flow.started + timeout),
                ),
            },
            Err(error) => self.not_dialled(client, &error),
        }
    }

    fn settle(&mut self) -> Stage {
        let Stage::Joined(legs) = std::mem::replace(&mut self.stage, Stage::Ended) else {
            return Stage::Ended;
        };
        let Legs {
            client,
            target,
            first_up,
            first_down,
            exchange,
        } = *legs;
        let worker = &self.worker;
        let settled = client
            .settle(worker, self.task)
            .and_then(|client| Ok((client, target.settle(worker, self.task)?)));
        let ((client, client_tls), (target, target_tls)) = match settled {
            Ok(legs) => legs,
            Err(error) => return self.end(Reason::Error, Some(&error.to_string())),
        };
        *self.flow.tls.borrow_mut() = Handshakes {
            client: client_tls,
            target: target_tls,
        };
        self.flow.target_fd.set(target.io().as_raw_fd());
        if let Some(terms) = &self.flow.terms {
            terms.client_fd.set(client.io().as_raw_fd());
        }
        worker.young.note(worker, &self.flow);
        match (client, target, exchange) {
            (Leg::Plain(client), Leg::Plain(target), None) => Stage::Pump(
                Pump::new(worker, client, target, &self.flow).after(first_up, first_down),
            ),
            (Leg::Plain(client), Leg::Plain(target), Some(course)) => {
                let exchange = Exchange::new(worker, client, target, course, first_up);
                Stage::Exchange(Box::new(exchange))
            }
            (client, target, _) => {
                let (client, target) = (client.into_stream(), target.into_stream());
                let bridge = Bridge::new(worker, client, target, &self.flow);
                Stage::Bridge(Box::new(bridge.after(first_up, first_down)))
            }
        }
    }

    fn dialled(&mut self, dialled: Dialled) -> Stage {
        let Stage::Dial { client, .. } = std::mem::replace(&mut self.stage, Stage::Ended) else {
            return Stage::Ended;
        };
        let (target, peer) = match dialled {
            Ok(dialled) => dialled,
            Err(error) => return self.not_dialled(client, &error),
        };
        road::connected(&self.worker, &self.flow, &target, peer);
        Stage::Pump(Pump::new(&self.worker, client, target, &self.flow))
    }

    fn arrived(&mut self, arrival: Arrival) -> Stage {
        match arrival {
            Arrival::Plain { client, target } => {
                Stage::Pump(Pump::new(&self.worker, client, target, &self.flow))
            }
            Arrival::Wrapped { client, target } => {
                let bridge = Bridge::new(&self.worker, client, target, &self.flow);
                Stage::Bridge(Box::new(bridge))
            }
            Arrival::Stopped { reason, detail } => self.end(reason, detail.as_deref()),
        }
    }

    /// The client learns by a reset that there is no target: an orderly end would look like an
    /// empty answer.
    fn not_dialled(&mut self, client: Io, error: &DialError) -> Stage {
        client.reset();
        let text = error.text();
        let endpoint = &self.flow.endpoint.shared;
        self.worker.shared.events.notice(
            endpoint.group.id,
            &self.flow.route.plan.id,
            error.reason().name(),
            format!("can't connect to {}: {text}", self.flow.target().text),
        );
        self.end(error.reason(), Some(&text))
    }

    /// Both legs are reset now.
    fn abandon(&mut self, reason: Reason, detail: Option<String>) -> Stage {
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Accepted(fd) => socket::reset_on_close(&fd),
            Stage::Joined(legs) => legs.reset(),
            Stage::Dial { client, .. } => {
                client.reset();
                if reason == Reason::ConnectTimeout {
                    let why = detail.as_deref().unwrap_or("timed out");
                    road::tell(&self.worker, &self.flow, reason, why);
                }
            }
            // What it holds is doomed.
            Stage::Road(road) => drop(road),
            Stage::Bridge(bridge) => {
                self.flow.forget_sockets();
                let (client, target) = bridge.into_ios();
                client.reset();
                target.reset();
            }
            Stage::Pump(mut pump) => {
                pump.release(&self.worker);
                self.flow.forget_sockets();
                pump.client.reset();
                pump.target.reset();
            }
            Stage::Exchange(exchange) => {
                self.flow.forget_sockets();
                exchange.end(exchange::End::Over(reason, None), &self.flow);
            }
            Stage::Flush(flush) => flush.leg.reset(),
            Stage::Ended => {}
        }
        self.end(reason, detail.as_deref())
    }

    /// The pump has come to its end: each leg gets the farewell that carries the other's end over.
    fn part(&mut self, end: End) -> Stage {
        let (client, target) = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Pump(mut pump) => {
                pump.release(&self.worker);
                (pump.client, pump.target)
            }
            Stage::Bridge(bridge) => bridge.into_ios(),
            _ => return Stage::Ended,
        };
        self.flow.forget_sockets();
        let detail = end.error.map(|error| error.to_string());
        let mut flush = None;
        for (leg, farewell) in [(client, end.client), (target, end.target)] {
            match farewell {
                Farewell::Close => drop(leg),
                Farewell::Reset => leg.reset(),
                Farewell::FlushAndReset if leg.unsent() == 0 => leg.reset(),
                Farewell::FlushAndReset => flush = Some(leg),
            }
        }
        let Some(leg) = flush else {
            return self.end(end.reason, detail.as_deref());
        };
        let now = self.worker.now();
        let linger = self.flow.linger().unwrap_or(FLUSH_LIMIT);
        self.flow.state.set(State::Closing);
        let mut sleep = Sleep::new(&self.worker, Some(now + FLUSH_FIRST_LOOK));
        sleep.is_due();
        Stage::Flush(Box::new(Flush {
            leg,
            reason: end.reason,
            detail,
            until: now + linger.min(FLUSH_LIMIT),
            look: FLUSH_FIRST_LOOK,
            sleep,
        }))
    }

    /// There are no more messages that this flow exchanges.
    fn exchanged(&mut self, end: exchange::End) -> Stage {
        let Stage::Exchange(exchange) = std::mem::replace(&mut self.stage, Stage::Ended) else {
            return Stage::Ended;
        };
        self.flow.forget_sockets();
        let (reason, detail) = exchange.end(end, &self.flow);
        self.end(reason, detail.as_deref())
    }

    fn flushed(&mut self) -> Stage {
        let Stage::Flush(flush) = std::mem::replace(&mut self.stage, Stage::Ended) else {
            return Stage::Ended;
        };
        flush.leg.reset();
        self.end(flush.reason, flush.detail.as_deref())
    }

    fn end(&self, reason: Reason, detail: Option<&str>) -> Stage {
        let worker = &self.worker;
        worker.table.close(&self.flow, worker.now(), reason, detail);
        worker.shared.loads[worker.index].set(worker.table.len());
        Stage::Ended
    }
}

/// The client's leg. What has come with it is often already there: taken before the socket is
/// watched, it makes no event.
fn open(worker: &Rc<Worker>, fd: Fd, task: TaskId, hears_first: bool) -> io::Result<Io> {
    if !hears_first {
        return Io::new(worker, fd, task);
    }
    let mut scratch = worker.scratch.borrow_mut();
    let count = socket::recv(&fd, &mut scratch[..FIRST])?.unwrap_or(0);
    let client = Io::new(worker, fd, task)?;
    client.add_early(&scratch[..count]);
    Ok(client)
}

impl Drop for Life {
    /// Only after a bug of ours: the flow leaves the table all the same, and says so.
    fn drop(&mut self) {
        if self.flow.state.get() != State::Ended {
            self.end(Reason::Error, Some("a bug in the relay ended this flow"));
        }
    }
}

impl Future for Life {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(reason) = self.flow.cut.get() {
            self.abandon(reason, None);
            return Poll::Ready(());
        }
        while let Some(next) = self.step(cx) {
            self.stage = next;
            if matches!(self.stage, Stage::Ended) {
                return Poll::Ready(());
            }
        }
        if self.claim.is_some() && self.has_target() {
            self.claim = None;
        }
        Poll::Pending
    }
}
