//! The first words to a target: with a PROXY protocol header before an association's first
//! datagram, in the same datagram, when the plan asks for one.

use std::os::fd::AsRawFd;

use super::association::{Association, Key, Leg};
use super::refusal_of;
use crate::flow::counters::add;
use crate::net::udp;
use crate::relay::endpoint::{LocalEndpoint, Route};
use crate::runtime::Worker;
use crate::transport::proxy::{self, Addresses, Kind};

/// Sends one datagram by itself, behind the header if it is the first.
pub(super) fn send_one(
    worker: &Worker,
    endpoint: &LocalEndpoint,
    association: &mut Association,
    datagram: &[u8],
) {
    let greeting = association.greeting.take().map(|addresses| {
        let mut bytes = proxy::binary(&addresses, Kind::Datagram, &[]);
        bytes.extend_from_slice(datagram);
        bytes
    });
    let Leg::Open { fd, to, .. } = &association.leg else {
        return;
    };
    let bytes = greeting.as_deref().unwrap_or(datagram);
    match udp::send_to(fd.as_raw_fd(), to, bytes) {
        Ok(()) => {
            association.flow.moved_up(datagram.len(), worker.now());
            add(&association.flow.packets_up, 1);
            add(&endpoint.udp.packets_up, 1);
        }
        Err(error) => endpoint.udp.refuse(refusal_of(&error)),
    }
}

/// What an association's header will say, if its plan asks for one.
pub(super) fn greeting(endpoint: &LocalEndpoint, route: &Route, key: &Key) -> Option<Addresses> {
    if !route.plan.proxy.send_udp {
        return None;
    }
    let listener = endpoint.shared.udp_addr?;
    let mut destination = listener;
    if let Some(local) = key.local {
        destination.set_ip(local.ip);
    }
    Some(Addresses {
        source: key.client,
        destination,
    })
}
