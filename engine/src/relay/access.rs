//! Who may come in: access lists and limits by the client's address.

use std::net::IpAddr;

use super::endpoint::Route;
use super::road::{Stop, Walk};
use crate::flow::reason::Reason;
use crate::plan::AcceptProxy;

/// Whether a client must be judged only after its PROXY header.
pub fn is_announced(route: &Route) -> bool {
    route.plan.proxy.accept != AcceptProxy::Off
}

/// Whether the lists let the client in: deny wins, and an allow list lets in no others.
pub fn is_allowed(route: &Route, ip: IpAddr) -> bool {
    !route.deny.contain(ip) && (route.allow.is_empty() || route.allow.contain(ip))
}

/// Judges a client by the address that its PROXY header announced.
pub fn admit_announced(walk: &Walk) -> Result<(), Stop> {
    let flow = &walk.flow;
    let ip = flow.origin().ip();
    if !is_allowed(&flow.route, ip) {
        return Err(Stop::new(Reason::Denied, format!("{ip} may not come in")));
    }
    flow.name_client(ip).map_err(|limit| {
        Stop::new(
            Reason::OverLimit,
            format!("{ip} is over the limit {}", limit.name()),
        )
    })
}
