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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    #[default]
    Off,
    Roundrobin,
    Iphash,
    Leastconn,
    Random2,
    Failover,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    #[default]
    Zero,
    Random,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptProxy {
    #[default]
    Off,
    Required,
    Optional,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    #[default]
    Tcp,
    Tls,
    Http,
    Udp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    #[default]
    Sni,
    Host,
    Bytes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    #[default]
    Refuse,
    Allow,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificatePlan {
    pub cert: String,
    pub key: String,
    #[serde(default)]
    pub ocsp: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsListenPlan {
    pub certificates: Vec<CertificatePlan>,
    pub self_signed: Option<String>,
    pub alpn: Vec<String>,
    pub client_ca: Option<String>,
    pub client_optional: bool,
    pub key_log: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSendPlan {
    pub sni: String,
    #[serde(default)]
    pub alpn: Vec<String>,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub ca: Option<String>,
    #[serde(default)]
    pub cert: Option<String>,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub key_log: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketPlan {
    pub host: String,
    pub path: String,
    #[serde(default)]
    pub mask: Mask,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenTransportPlan {
    pub tls: Option<TlsListenPlan>,
    pub ws: Option<WebSocketPlan>,
    pub uot: bool,
    pub handshake_timeout: f64,
}

impl Default for ListenTransportPlan {
    fn default() -> Self {
        Self {
            tls: None,
            ws: None,
            uot: false,
            handshake_timeout: 10.0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteTransportPlan {
    pub tls: Option<TlsSendPlan>,
    pub ws: Option<WebSocketPlan>,
    pub uot: bool,
    pub handshake_timeout: f64,
}

impl Default for RemoteTransportPlan {
    fn default() -> Self {
        Self {
            tls: None,
            ws: None,
            uot: false,
            handshake_timeout: 10.0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocolPlan {
    pub accept: AcceptProxy,
    pub accept_timeout: f64,
    pub trusted: Vec<String>,
    pub send: u8,
    pub send_udp: bool,
}

impl Default for ProxyProtocolPlan {
    fn default() -> Self {
        Self {
            accept: AcceptProxy::default(),
            accept_timeout: 5.0,
            trusted: Vec::new(),
            send: 0,
            send_udp: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpCheckPlan {
    pub path: String,
    pub host: Option<String>,
    pub status: Vec<u16>,
}

impl Default for HttpCheckPlan {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            host: None,
            status: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UdpCheckPlan {
    pub send: String,
    #[serde(default)]
    pub expect: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckPlan {
    pub kind: CheckKind,
    pub interval: f64,
    pub timeout: f64,
    pub rise: u32,
    pub fall: u32,
    pub http: Option<HttpCheckPlan>,
    pub udp: Option<UdpCheckPlan>,
}

impl Default for CheckPlan {
    fn default() -> Self {
        Self {
            kind: CheckKind::default(),
            interval: 5.0,
            timeout: 2.0,
            rise: 2,
            fall: 3,
            http: None,
            udp: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthPlan {
    pub failover: bool,
    pub max_fails: u32,
    pub fail_timeout: f64,
    pub check: Option<CheckPlan>,
}

impl Default for HealthPlan {
    fn default() -> Self {
        Self {
            failover: false,
            max_fails: 2,
            fail_timeout: 120.0,
            check: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulePlan {
    pub kind: RuleKind,
    pub pattern: String,
    pub remotes: Vec<RemotePlan>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingPlan {
    pub rules: Vec<RulePlan>,
    // Always written by the other side.
    pub timeout: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RatesPlan {
    pub flow_up: u64,
    pub flow_down: u64,
    pub client_up: u64,
    pub client_down: u64,
    pub endpoint_up: u64,
    pub endpoint_down: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookPlan {
    pub call: String,
    pub first_bytes: u32,
    pub timeout: f64,
    pub on_failure: OnFailure,
}

impl Default for HookPlan {
    fn default() -> Self {
        Self {
            call: String::new(),
            first_bytes: 0,
            timeout: 5.0,
            on_failure: OnFailure::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointPlan {
    pub id: String,
    pub listen: String,
    pub remotes: Vec<RemotePlan>,
    #[serde(default)]
    pub weights: Vec<u32>,
    #[serde(default)]
    pub balance: Balance,
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
    #[serde(default)]
    pub listen_transport: Option<ListenTransportPlan>,
    #[serde(default)]
    pub remote_transport: Option<RemoteTransportPlan>,
    #[serde(default)]
    pub proxy: ProxyProtocolPlan,
    #[serde(default)]
    pub health: HealthPlan,
    #[serde(default)]
    pub routing: Option<RoutingPlan>,
    #[serde(default)]
    pub allow: Vec<String>,
    #[serde(default)]
    pub deny: Vec<String>,
    #[serde(default)]
    pub rates: RatesPlan,
    #[serde(default)]
    pub quota: u64,
    #[serde(default)]
    pub hook: Option<HookPlan>,
}

impl EndpointPlan {
    /// A plan that says no more than it must: TCP from `listen` to one remote.
    pub fn new(id: &str, listen: &str, host: &str, port: u16) -> Self {
        Self {
            id: id.to_owned(),
            listen: listen.to_owned(),
            remotes: vec![RemotePlan {
                host: host.to_owned(),
                port,
            }],
            weights: Vec::new(),
            balance: Balance::default(),
            tcp: Some(TcpPlan::default()),
            udp: None,
            ipv6_only: false,
            listen_interface: None,
            through: None,
            through_interface: None,
            interface: None,
            limits: LimitsPlan::default(),
            resolver: ResolverPlan::default(),
            listen_transport: None,
            remote_transport: None,
            proxy: ProxyProtocolPlan::default(),
            health: HealthPlan::default(),
            routing: None,
            allow: Vec::new(),
            deny: Vec::new(),
            rates: RatesPlan::default(),
            quota: 0,
            hook: None,
        }
    }
}
