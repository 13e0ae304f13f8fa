//! What can be asked of the engine: plain data, the twin of `src/qanat/plan.py`, where each field
//! is described. No I/O here.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsMode {
    Ipv4Only,
    Ipv6Only,
    #[default]
    Ipv4AndIpv6,
    Ipv4ThenIpv6,
    Ipv6ThenIpv4,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsProtocol {
    Udp,
    Tcp,
    #[default]
    TcpAndUdp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolverPlan {
    pub mode: DnsMode,
    pub protocol: DnsProtocol,
    pub nameservers: Vec<String>,
    pub min_ttl: u32,
    pub max_ttl: u32,
    pub cache_size: u32,
    pub stale: u32,
}

impl Default for ResolverPlan {
    fn default() -> Self {
        Self {
            mode: DnsMode::default(),
            protocol: DnsProtocol::default(),
            nameservers: Vec::new(),
            min_ttl: 0,
            max_ttl: 86_400,
            cache_size: 8_192,
            stale: 3_600,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemotePlan {
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsPlan {
    pub connections: u32,
    pub connection_rate: u32,
    pub connections_per_client: u32,
    pub associations: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpPlan {
    pub connect_timeout: f64,
    pub keepalive: u32,
    pub keepalive_probes: u32,
    pub accept_mptcp: bool,
    pub send_mptcp: bool,
    pub idle_timeout: f64,
    pub linger: f64,
}

impl Default for TcpPlan {
    fn default() -> Self {
        Self {
            connect_timeout: 5.0,
            keepalive: 15,
            keepalive_probes: 3,
            accept_mptcp: false,
            send_mptcp: false,
            idle_timeout: 0.0,
            linger: 30.0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UdpPlan {
    pub timeout: f64,
}

impl Default for UdpPlan {
    fn default() -> Self {
        Self { timeout: 30.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointPlan {
    pub id: String,
    pub listen: String,
    pub remotes: Vec<RemotePlan>,
    #[serde(default)]
    pub tcp: Option<TcpPlan>,
    #[serde(default)]
    pub udp: Option<UdpPlan>,
    #[serde(default)]
    pub ipv6_only: bool,
    #[serde(default)]
    pub listen_interface: Option<String>,
    #[serde(default)]
    pub through: Option<String>,
    #[serde(default)]
    pub through_interface: Option<String>,
    #[serde(default)]
    pub interface: Option<String>,
    #[serde(default)]
    pub limits: LimitsPlan,
    #[serde(default)]
    pub resolver: ResolverPlan,
}
