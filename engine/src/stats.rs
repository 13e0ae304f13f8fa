//! What a worker tells of itself and its endpoints when asked, and the JSON that it becomes.

use std::time::Instant;

use serde_json::{Value, json};

use crate::flow::counters::Snapshot;
use crate::flow::pipes::PipeStats;
use crate::relay::endpoint::LocalEndpoint;
use crate::relay::health::pool;
use crate::relay::hook::Hook;
use crate::runtime::{LoopStats, Worker};
use crate::shared::Totals;

/// One worker, with the endpoints of one group.
pub struct WorkerStats {
    pub index: usize,
    pub flows: usize,
    pub pipes: PipeStats,
    pub turns: LoopStats,
    pub endpoints: Vec<(u32, EndpointStats)>,
}

/// One endpoint, on one worker or on all together.
pub struct EndpointStats {
    pub id: String,
    pub closed: bool,
    /// Whether it goes on from a closed endpoint's counters.
    pub inherits: bool,
    /// TCP, UDP: on which it listens. What an owner lowers comes by no listener.
    pub protocols: [bool; 2],
    /// How those stand among which flows are spread.
    pub remotes: Vec<Value>,
    /// What became of the questions about its flows.
    pub hook: Option<Value>,
    /// Bytes that may pass in all, and what has passed of them.
    pub quota: Option<(u64, u64)>,
    pub totals: Totals,
}

impl WorkerStats {
    pub fn take(worker: &Worker, group: u32) -> Self {
        Self {
            index: worker.index,
            flows: worker.table.len(),
            pipes: worker.pipes.stats(),
            turns: worker.loop_stats(),
            endpoints: worker
                .endpoints
                .list()
                .iter()
                .filter(|local| local.shared.group.id == group)
                .map(|local| {
                    (
                        local.shared.handle,
                        EndpointStats::take(local, worker.now()),
                    )
                })
                .collect(),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "id": self.index,
            "flows": self.flows,
            "loop_lag_max": self.turns.lag_max.as_secs_f64(),
            "loops": self.turns.loops,
            "busy_seconds": self.turns.busy.as_secs_f64(),
            "pipes_lent": self.pipes.lent,
            "pipes_idle": self.pipes.idle,
            "pipe_bytes": self.pipes.bytes,
        })
    }
}

impl EndpointStats {
    pub fn take(local: &LocalEndpoint, now: Instant) -> Self {
        Self {
            id: local.route().plan.id.clone(),
            closed: local.closed.get(),
            inherits: false,
            protocols: [
                local.shared.tcp_addr.is_some(),
                local.shared.udp_addr.is_some(),
            ],
            totals: local.totals(),
            remotes: Self::remotes(local, now),
            hook: local.route().hook.as_ref().map(Hook::json),
            quota: local.shared.rates.quota(),
        }
    }

    fn remotes(local: &LocalEndpoint, now: Instant) -> Vec<Value> {
        let route = local.route();
        if !pool::is_of_interest(&route.plan) {
            return Vec::new();
        }
        let reports = route.pools.iter().flat_map(|pool| pool.reports(now));
        reports
            .map(|(target, report)| {
                json!({
                    "target": route.targets[target].text,
                    "state": report.state,
                    "reason": report.reason,
                    "since": report.since,
                    "open": report.open,
                    "total": report.total,
                    "fails": report.fails,
                })
            })
            .collect()
    }

    pub fn json(&self, handle: u32) -> Value {
        let [listens_tcp, listens_udp] = self.protocols;
        let tcp = listens_tcp || self.totals.tcp.total > 0;
        let udp = listens_udp || self.totals.udp.total > 0;
        json!({
            "endpoint": self.id,
            "handle": handle,
            "closed": self.closed,
            "tcp": tcp.then(|| tcp_json(&self.totals.tcp)),
            "udp": udp.then(|| udp_json(&self.totals.udp)),
            "remotes": self.remotes,
            "hook": self.hook,
            "quota": self.quota.map(|(limit, used)| json!({"limit": limit, "used": used})),
        })
    }
}

fn tcp_json(sum: &Snapshot) -> Value {
    json!({
        "open": sum.open,
        "total": sum.total,
        "bytes_up": sum.bytes_up,
        "bytes_down": sum.bytes_down,
        "ended": sum.ended,
        "refused": sum.refused,
        "accept_errors": sum.errors,
        "connect": sum.connect,
    })
}

fn udp_json(sum: &Snapshot) -> Value {
    json!({
        "open": sum.open,
        "total": sum.total,
        "bytes_up": sum.bytes_up,
        "bytes_down": sum.bytes_down,
        "packets_up": sum.packets_up,
        "packets_down": sum.packets_down,
        "ended": sum.ended,
        "dropped": sum.refused,
        "icmp_errors": sum.errors,
    })
}
