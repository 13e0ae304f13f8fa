//! The sockets of an endpoint: inherited, lent by one that it follows, or new.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::error::Error;
use crate::net::fd::Fd;
use crate::net::socket::{self, Listening};
use crate::relay::endpoint::Route;
use crate::shared::Endpoint;

/// How often another port is asked for when one that the kernel chose is free for TCP alone.
const PORT_TRIES: u32 = 16;

/// Sockets that the caller already has for an endpoint.
#[derive(Default)]
pub struct Inherited {
    pub tcp: Option<Fd>,
    pub udp: Option<Fd>,
}

/// What an endpoint listens on, by the protocols that it has.
pub fn sockets(
    route: &Route,
    mut inherited: Inherited,
    takeover: bool,
) -> Result<(Option<Fd>, Option<Fd>), Error> {
    let plan = &route.plan;
    let mut listening = Listening {
        addr: route.listen,
        ipv6_only: plan.ipv6_only,
        device: plan.listen_interface.as_deref(),
        takeover,
    };
    let addr = route.listen;
    let failed = |kind: &'static str| {
        move |error| Error::io("bind", &format!("can't listen on {kind} {addr}"), error)
    };
    let mut tries = 0;
    loop {
        let mut tcp = None;
        listening.addr = addr;
        let mut is_chosen = false;
        if let Some(options) = &plan.tcp {
            let given = inherited.tcp.take();
            let is_ours = given.is_none();
            let fd = match given {
                Some(fd) => adopt(fd).map_err(failed("tcp"))?,
                None => listening.tcp(options.accept_mptcp).map_err(failed("tcp"))?,
            };
            set_listener_options(&fd, route).map_err(failed("tcp"))?;
            // With port 0, both protocols listen on the port that the kernel chose for the first.
            if addr.port() == 0
                && let Some(chosen) = local(&fd)
            {
                listening.addr.set_port(chosen.port());
                is_chosen = is_ours;
            }
            tcp = Some(fd);
        }
        let udp = match (plan.udp.is_some(), inherited.udp.take()) {
            (false, _) => None,
            (true, Some(fd)) => Some(adopt(fd).map_err(failed("udp"))?),
            (true, None) => match listening.udp() {
                Ok(fd) => Some(fd),
                // It may be free for the first alone.
                Err(error)
                    if is_chosen
                        && error.kind() == io::ErrorKind::AddrInUse
                        && tries < PORT_TRIES =>
                {
                    tries += 1;
                    continue;
                }
                Err(error) => return Err(failed("udp")(error)),
            },
        };
        return Ok((tcp, udp));
    }
}

/// Whether both would listen in the same way at an address.
pub fn listen_alike(one: &Route, other: &Route) -> bool {
    one.plan.ipv6_only == other.plan.ipv6_only
        && one.plan.listen_interface == other.plan.listen_interface
}

/// Lends the UDP socket of an older endpoint to one that is to listen at the same address.
pub fn lend_udp(older: &Endpoint, route: &Route, inherited: &mut Inherited) {
    if route.plan.udp.is_some()
        && inherited.udp.is_none()
        && older.udp_addr == Some(route.listen)
        && let Some(shared) = older.udp.as_ref().and_then(|fd| fd.share().ok())
    {
        older.udp_heir.lend();
        inherited.udp = Some(shared);
    }
}

/// A socket from outside becomes one of ours.
fn adopt(fd: Fd) -> io::Result<Fd> {
    socket::set_nonblocking(&fd)?;
    Ok(fd)
}

/// What accepted sockets inherit.
pub fn set_listener_options(fd: &Fd, route: &Route) -> io::Result<()> {
    socket::nodelay(fd)?;
    socket::keepalive(fd, route.tcp.keepalive, route.tcp.keepalive_probes)
}

pub fn local(fd: &Fd) -> Option<SocketAddr> {
    socket::local_addr(fd.as_raw_fd())
}
