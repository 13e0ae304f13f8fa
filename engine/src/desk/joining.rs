//! A flow that the owner begins: two legs that it held, and its terms.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lifted::Lifted;
use super::plan::{ExchangePlan, JoinPlan};
use super::reports::Reports;
use crate::error::Error;
use crate::flow::exchange;
use crate::flow::limits::Pass;
use crate::flow::reason::Reason;
use crate::flow::shares::MOST_NAMES;
use crate::flow::table::{Opening, Protocol, State};
use crate::flow::terms::Terms;
use crate::http::ordinary::{Agreed, Credentials};
use crate::relay::endpoint::{LocalEndpoint, PlanError, Route, limit};
use crate::relay::tcp;
use crate::runtime::Worker;
use crate::shared::{Endpoint, Group};

/// An endpoint for flows that the owner accepts.
#[derive(Clone)]
pub struct Counter {
    pub endpoint: Arc<Endpoint>,
    pub route: Arc<Route>,
}

impl Counter {
    /// The endpoint as this worker sees it.
    pub fn on(&self, worker: &Worker) -> Rc<LocalEndpoint> {
        let handle = self.endpoint.handle;
        worker.endpoints.get(handle).unwrap_or_else(|| {
            let local = LocalEndpoint::new(Arc::clone(&self.endpoint), Arc::clone(&self.route));
            worker.endpoints.insert(Rc::clone(&local));
            // Closed meanwhile: it goes with this flow.
            if self.endpoint.is_closed() {
                worker.endpoints.close(handle);
            }
            local
        })
    }
}

/// Everything about a flow but its legs.
pub struct Join {
    pub id: u64,
    pub counter: Counter,
    pub terms: Box<Terms>,
    client: SocketAddr,
    peer: Option<SocketAddr>,
    passes: Vec<Pass>,
    began: Instant,
    connect: Option<Duration>,
}

/// The two legs, and what is to be written to each before what it still has to say.
pub struct Legs {
    pub client: Lifted,
    pub target: Lifted,
    pub first_up: Vec<u8>,
    pub first_down: Vec<u8>,
    /// What is agreed about the messages that they exchange, if anything is.
    pub exchange: Option<Box<exchange::Course>>,
}

impl Legs {
    pub fn reset(self) {
        for leg in [self.client, self.target] {
            leg.reset();
        }
    }
}

impl Join {
    /// A flow is let in by the limits of its group, as those of endpoints with remotes are.
    pub fn prepare(
        id: u64,
        counter: Counter,
        plan: JoinPlan,
        reports: &Arc<Reports>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let group = &counter.endpoint.group;
        let client = address("client", plan.client.as_deref())?;
        let terms = Box::new(terms_of(&plan, group, reports)?);
        let ip = client.map(|client| client.ip());
        let passes = admit(&counter, ip, now)?;
        let age = seconds("age", plan.age)?.unwrap_or_default();
        let connect = plan.connect.map(|time| seconds("connect", time));
        Ok(Self {
            id,
            client: client.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
            peer: address("peer", plan.peer.as_deref())?,
            began: now.checked_sub(age).unwrap_or(now),
            connect: connect.transpose()?.map(Option::unwrap_or_default),
            counter,
            terms,
            passes,
        })
    }

    /// The flow begins here; one that is not wanted any more ends at once.
    pub fn begin(self, worker: &Rc<Worker>, legs: Legs, wanted: bool) {
        let flow = worker.table.open(Opening {
            id: Some(self.id),
            protocol: Protocol::Tcp,
            endpoint: self.counter.on(worker),
            route: self.counter.route,
            terms: Some(self.terms),
            client: self.client,
            passes: self.passes,
            at: self.began,
        });
        flow.state.set(State::Open);
        flow.peer.set(self.peer);
        flow.moved.set(worker.now());
        if let Some(connect) = self.connect {
            flow.connected.set(Some(self.began + connect));
            flow.counters().connect.record(connect);
        }
        if !wanted {
            flow.cut.set(Some(Reason::Killed));
        }
        tcp::begin_joined(worker, flow, legs);
    }
}

fn admit(counter: &Counter, ip: Option<IpAddr>, now: Instant) -> Result<Vec<Pass>, Error> {
    let Endpoint { gate, group, .. } = &*counter.endpoint;
    let refused = |refusal: crate::flow::reason::Refusal| {
        Error::plain("limit", format!("over the limit {}", refusal.name()))
    };
    let own = gate
        .admit(ip, now)
        .map_err(|over| refused(over.refusal(false)))?;
    let overall = group
        .gate
        .admit(ip, now)
        .map_err(|over| refused(over.refusal(true)))?;
    Ok(vec![own, overall])
}

/// What a plan says about a flow alone.
pub fn terms_of(plan: &JoinPlan, group: &Group, reports: &Arc<Reports>) -> Result<Terms, Error> {
    let shares = plan
        .rates
        .iter()
        .map(|name| group.shares.get(name).ok_or_else(too_many_names))
        .collect::<Result<_, _>>()?;
    Ok(Terms {
        target: plan.target.as_str().into(),
        user: plan.user.as_deref().map(Into::into),
        listener: address("listener", plan.listener.as_deref())?,
        idle_timeout: seconds("idle_timeout", plan.idle_timeout.unwrap_or(0.0))?,
        linger: seconds("linger", plan.linger.unwrap_or(0.0))?,
        shares,
        reports: Arc::clone(reports),
        client_fd: std::cell::Cell::new(-1),
    })
}

/// What a plan says about messages.
pub fn course_of(plan: &ExchangePlan) -> Result<exchange::Course, Error> {
    let credentials = match (plan.checked, &plan.credentials) {
        (false, _) => Credentials::Whatever,
        (true, None) => Credentials::None,
        (true, Some(these)) => Credentials::These(these.as_bytes().to_vec()),
    };
    let time = |field, time: Option<f64>| seconds(field, time.unwrap_or(0.0));
    Ok(exchange::Course {
        agreed: Agreed {
            authority: plan.authority.as_bytes().to_vec(),
            via: plan.via.as_bytes().to_vec(),
            credentials,
        },
        head_timeout: time("head_timeout", plan.head_timeout)?,
        next_timeout: time("next_timeout", plan.next_timeout)?,
        answer_timeout: time("answer_timeout", plan.answer_timeout)?,
        told: plan.told,
    })
}

pub fn too_many_names() -> Error {
    let text = format!("more than {MOST_NAMES} names have limits or flows");
    Error::plain("full", text)
}

pub fn seconds(field: &'static str, seconds: f64) -> Result<Option<Duration>, Error> {
    limit(field, seconds).map_err(|error| Error::plan(&error))
}

/// `ip:port`, or what has no address: a Unix socket.
pub fn address(field: &'static str, text: Option<&str>) -> Result<Option<SocketAddr>, Error> {
    let Some(text) = text else {
        return Ok(None);
    };
    match text.parse() {
        Ok(addr) => Ok(Some(addr)),
        Err(_) => Err(Error::plan(&PlanError {
            field,
            value: text.to_owned(),
            why: "not ip:port".to_owned(),
        })),
    }
}
