//! UDP associations that the owner begins for clients of SOCKS5, and what it says about their
//! targets.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::joining::{Counter, address, terms_of};
use super::plan::{AssociatePlan, JoinPlan};
use super::{Desk, lock, worker_of};
use crate::error::Error;
use crate::flow::reason::{Reason, Refusal};
use crate::net::addr::unmapped;
use crate::net::fd::Fd;
use crate::net::{reserve, socket, udp};
use crate::relay::endpoint::{PlanError, Through, parse_addr};
use crate::relay::udp::Seat;
use crate::relay::udp::associate::{self, Bounds, Prepared, Way};

impl Desk {
    /// Opens an association: its number in the list of flows, and where the client sends to.
    pub fn associate(&self, plan: AssociatePlan) -> Result<(u64, SocketAddr), Error> {
        self.ready_for_more()?;
        let shared = &self.engine.shared;
        let worker = shared.idlest();
        let counter = lock(&self.counters)
            .get(&plan.endpoint)
            .cloned()
            .ok_or_else(Error::no_endpoint)?;
        let id = shared.next_flow(worker);
        let (prepared, local) = self.prepare_association(id, counter, &plan)?;
        shared.loads[worker].expect_one();
        self.call(worker, move |worker| associate::begin(worker, prepared))?;
        Ok((id, local))
    }

    /// Datagrams to this target go to this address, and answers come from there.
    pub fn allow(&self, association: u64, target: String, peer: &str) -> Result<(), Error> {
        let mut peer = parse("address", peer)?;
        peer.set_ip(unmapped(peer.ip()));
        if peer.port() == 0 {
            return Err(wrong("address", &peer.to_string(), "has no port"));
        }
        self.settle(association, target, Ok(peer))
    }

    /// Datagrams to this target are dropped, and counted as `why` for a while.
    pub fn deny(&self, association: u64, target: String, why: &str) -> Result<(), Error> {
        let known = Refusal::ALL
            .into_iter()
            .find(|refusal| refusal.name() == why);
        let why = known.ok_or_else(|| wrong("reason", why, "no reason to drop a datagram"))?;
        self.settle(association, target, Err(why))
    }

    /// The client has gone: ends the association in peace.
    pub fn release(&self, association: u64) -> Result<(), Error> {
        let reports = Arc::clone(&self.reports);
        self.call(worker_of(association), move |worker| {
            if let Some(associate) = worker.associates.get(association, &reports) {
                associate.end(worker, Reason::ClientClosed, None);
            }
        })
    }

    fn settle(
        &self,
        association: u64,
        target: String,
        answer: Result<SocketAddr, Refusal>,
    ) -> Result<(), Error> {
        let reports = Arc::clone(&self.reports);
        self.call(worker_of(association), move |worker| {
            if let Some(associate) = worker.associates.get(association, &reports) {
                associate.settle(worker, &target, answer);
            }
        })
    }

    fn prepare_association(
        &self,
        id: u64,
        counter: Counter,
        plan: &AssociatePlan,
    ) -> Result<(Prepared, SocketAddr), Error> {
        let client = parse("client", &plan.client)?;
        let bounds = bounds(plan)?;
        let way = Way {
            through: through(plan)?,
            interface: plan.interface.clone(),
        };
        let group = &counter.endpoint.group;
        let seats = [
            Seat::take(&counter.endpoint.gate).ok_or_else(|| full(Refusal::Connections))?,
            Seat::take(&group.gate).ok_or_else(|| full(Refusal::OverallConnections))?,
        ];
        let (socket, local) = listen(&parse("bind", &plan.bind)?)?;
        let listener = plan.listener.clone().unwrap_or_else(|| local.to_string());
        let mut terms = terms_of(
            &JoinPlan {
                user: plan.user.clone(),
                idle_timeout: plan.idle_timeout,
                rates: plan.rates.clone(),
                ..JoinPlan::new(plan.endpoint, &plan.target)
            },
            group,
            &self.reports,
        )?;
        terms.listener = address("listener", Some(&listener))?;
        let prepared = Prepared {
            id,
            terms: Box::new(terms),
            socket,
            client,
            port: plan.port.filter(|port| *port != 0),
            way,
            bounds,
            seats,
            counter,
        };
        Ok((prepared, local))
    }
}

/// A socket for the client.
fn listen(bind: &SocketAddr) -> Result<(Fd, SocketAddr), Error> {
    let failed = |error| Error::io("bind", &format!("can't listen on {bind}"), error);
    let fd = socket::datagram(bind).map_err(failed)?;
    if reserve::is_reserved(&fd) {
        return Err(failed(std::io::Error::from_raw_os_error(libc::EMFILE)));
    }
    socket::bind(&fd, bind).map_err(failed)?;
    if udp::is_wildcard(bind) {
        udp::receive_local(&fd, bind.is_ipv4()).map_err(failed)?;
    }
    let local = socket::local_addr(fd.as_raw_fd());
    let local = local.ok_or_else(|| failed(std::io::Error::from_raw_os_error(libc::ENOTSOCK)))?;
    Ok((fd, local))
}

fn bounds(plan: &AssociatePlan) -> Result<Bounds, Error> {
    if plan.targets == 0 || plan.questions == 0 || plan.questions > plan.targets {
        let value = format!("{} of {} targets", plan.questions, plan.targets);
        return Err(wrong(
            "questions",
            &value,
            "at least 1, at most the targets",
        ));
    }
    Ok(Bounds {
        targets: plan.targets as usize,
        questions: plan.questions as usize,
        held: plan.held as usize,
        held_bytes: plan.held_bytes as usize,
    })
}

fn through(plan: &AssociatePlan) -> Result<Through, Error> {
    Ok(match (&plan.through, &plan.through_interface) {
        (Some(text), _) => Through::Addr(parse("through", text)?),
        (None, Some(device)) => Through::Device(device.clone()),
        (None, None) => Through::Any,
    })
}

fn parse(field: &'static str, text: &str) -> Result<SocketAddr, Error> {
    parse_addr(field, text).map_err(|error| Error::plan(&error))
}

fn wrong(field: &'static str, value: &str, why: &str) -> Error {
    Error::plan(&PlanError {
        field,
        value: value.to_owned(),
        why: why.to_owned(),
    })
}

fn full(refusal: Refusal) -> Error {
    Error::plain("limit", format!("over the limit {}", refusal.name()))
}
