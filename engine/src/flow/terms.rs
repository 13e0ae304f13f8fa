//! What holds for one flow alone: flows that the owner begins itself bring it along, where those of
//! an endpoint with remotes go by the endpoint's plan.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::reason::Reason;
use super::shares::Share;
use super::table::Flow;
use crate::desk::reports::{Report, Reports};

pub struct Terms {
    /// `host:port` as it was asked for.
    pub target: Box<str>,
    pub user: Option<Box<str>>,
    /// The address on which the client came in, when it is not the endpoint's.
    pub listener: Option<SocketAddr>,
    pub idle_timeout: Option<Duration>,
    pub linger: Option<Duration>,
    pub shares: Arc<[Arc<Share>]>,
    /// The client's socket, for as long as the flow has it; -1 otherwise.
    pub client_fd: Cell<RawFd>,
    /// Who is told of the end.
    pub reports: Arc<Reports>,
}

impl Terms {
    pub fn is_limited(&self) -> bool {
        self.shares.iter().any(|share| share.is_limited())
    }

    pub fn tell_end(&self, flow: &Flow, reason: Reason, detail: Option<&str>, seconds: f64) {
        let ended = Ended {
            reason: reason.name(),
            detail,
            up: flow.bytes_up.get(),
            down: flow.bytes_down.get(),
            packets_up: flow.packets_up.get(),
            packets_down: flow.packets_down.get(),
            seconds,
        };
        // It holds nothing that JSON can't say.
        let text = serde_json::to_string(&ended).unwrap_or_default();
        self.reports.put(Report {
            handle: flow.id,
            leg: None,
            kind: "ended",
            text,
        });
    }
}

#[derive(Serialize)]
struct Ended<'a> {
    reason: &'static str,
    detail: Option<&'a str>,
    up: u64,
    down: u64,
    packets_up: u64,
    packets_down: u64,
    seconds: f64,
}
