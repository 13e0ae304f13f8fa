//! What a leg needs to be dialled: addresses or a name, and the way out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::held::Beginning;
use super::joining::{address, seconds};
use super::plan::DialPlan;
use super::recent::Recent;
use crate::error::Error;
use crate::plan::{EndpointPlan, TcpPlan};
use crate::relay::dial::Dial;
use crate::relay::endpoint::Route;

/// Addresses that one dial may try.
const MOST_ADDRESSES: usize = 64;
/// Ways out that are kept ready.
const MOST_WAYS: usize = 64;

/// Routes made of plans that differ in more than where they lead.
pub struct Ways(Recent<String, Route>);

impl Default for Ways {
    fn default() -> Self {
        Self(Recent::new(MOST_WAYS))
    }
}

impl Ways {
    /// How a leg of this plan begins.
    pub fn begin(&self, mut plan: DialPlan) -> Result<Beginning, Error> {
        let limit: Option<Duration> = seconds("timeout", plan.timeout)?;
        let addresses = std::mem::take(&mut plan.addresses);
        if addresses.is_empty() == plan.name.is_none() {
            let text = "a dial needs either addresses or a name".to_owned();
            return Err(Error::plain("plan", text));
        }
        if addresses.len() > MOST_ADDRESSES {
            let text = format!("more than {MOST_ADDRESSES} addresses");
            return Err(Error::plain("plan", text));
        }
        let candidates = addresses
            .iter()
            .filter_map(|text| address("addresses", Some(text)).transpose())
            .collect::<Result<VecDeque<SocketAddr>, Error>>()?;
        let route = match plan.name {
            // Each name is a target of its own.
            Some(_) => route(plan)?,
            None => {
                let key = serde_json::to_string(&plan).unwrap_or_default();
                self.0.get(key, || route(plan))?
            }
        };
        Ok(Beginning::Dial {
            dial: Box::new(move |worker, task| match candidates.is_empty() {
                true => Dial::new(worker, task, &route, &route.targets[0]),
                false => Ok(Dial::among(worker, task, &route, candidates)),
            }),
            limit,
        })
    }
}

fn route(plan: DialPlan) -> Result<Arc<Route>, Error> {
    let (host, port) = match &plan.name {
        Some(name) => (name.host.as_str(), name.port),
        None => ("0.0.0.0", 0),
    };
    let mut whole = EndpointPlan::new("dial", "0.0.0.0:0", host, port);
    whole.tcp = Some(TcpPlan {
        send_mptcp: plan.send_mptcp,
        ..TcpPlan::default()
    });
    whole.resolver = plan.resolver.unwrap_or_default();
    whole.through = plan.through;
    whole.through_interface = plan.through_interface;
    whole.interface = plan.interface;
    Route::prepare(whole).map_err(|error| Error::plan(&error))
}
