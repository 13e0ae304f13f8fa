//! What can be asked of a desk: plain data, the twin of the second part of `src/qanat/plan.py`,
//! where each field is described. No I/O here.

use serde::{Deserialize, Serialize};

use crate::plan::{RemotePlan, ResolverPlan, TlsListenPlan, TlsSendPlan};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinPlan {
    pub endpoint: u32,
    pub target: String,
    #[serde(default)]
    pub client: Option<String>,
    #[serde(default)]
    pub peer: Option<String>,
    #[serde(default)]
    pub listener: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub idle_timeout: Option<f64>,
    #[serde(default)]
    pub linger: Option<f64>,
    #[serde(default)]
    pub rates: Vec<String>,
    #[serde(default)]
    pub age: f64,
    #[serde(default)]
    pub connect: Option<f64>,
}

impl JoinPlan {
    /// No more than must be said.
    pub fn new(endpoint: u32, target: &str) -> Self {
        Self {
            endpoint,
            target: target.to_owned(),
            client: None,
            peer: None,
            listener: None,
            user: None,
            idle_timeout: None,
            linger: None,
            rates: Vec::new(),
            age: 0.0,
            connect: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangePlan {
    pub flow: JoinPlan,
    pub authority: String,
    pub via: String,
    #[serde(default)]
    pub credentials: Option<String>,
    #[serde(default)]
    pub checked: bool,
    #[serde(default)]
    pub head_timeout: Option<f64>,
    #[serde(default)]
    pub next_timeout: Option<f64>,
    #[serde(default)]
    pub answer_timeout: Option<f64>,
    #[serde(default)]
    pub told: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsAcceptPlan {
    pub tls: TlsListenPlan,
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout: f64,
    #[serde(default)]
    pub hello: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConnectPlan {
    pub tls: TlsSendPlan,
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout: f64,
}

fn handshake_timeout() -> f64 {
    10.0
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DialPlan {
    pub addresses: Vec<String>,
    pub name: Option<RemotePlan>,
    pub timeout: f64,
    pub through: Option<String>,
    pub through_interface: Option<String>,
    pub interface: Option<String>,
    pub send_mptcp: bool,
    pub resolver: Option<ResolverPlan>,
}

impl Default for DialPlan {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            name: None,
            timeout: 5.0,
            through: None,
            through_interface: None,
            interface: None,
            send_mptcp: false,
            resolver: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeskListenPlan {
    pub listen: String,
    #[serde(default)]
    pub ipv6_only: bool,
    #[serde(default)]
    pub listen_interface: Option<String>,
    #[serde(default)]
    pub accept_mptcp: bool,
    #[serde(default)]
    pub tls: Option<TlsAcceptPlan>,
    #[serde(default = "waiting")]
    pub waiting: u32,
}

fn waiting() -> u32 {
    1_024
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssociatePlan {
    pub endpoint: u32,
    pub client: String,
    pub bind: String,
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default = "any_target")]
    pub target: String,
    #[serde(default)]
    pub listener: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub idle_timeout: Option<f64>,
    #[serde(default)]
    pub rates: Vec<String>,
    #[serde(default)]
    pub through: Option<String>,
    #[serde(default)]
    pub through_interface: Option<String>,
    #[serde(default)]
    pub interface: Option<String>,
    #[serde(default = "targets")]
    pub targets: u32,
    #[serde(default = "questions")]
    pub questions: u32,
    #[serde(default = "held")]
    pub held: u32,
    #[serde(default = "held_bytes")]
    pub held_bytes: u32,
}

impl AssociatePlan {
    /// No more than must be said.
    pub fn new(endpoint: u32, client: &str, bind: &str) -> Self {
        Self {
            endpoint,
            client: client.to_owned(),
            bind: bind.to_owned(),
            port: None,
            target: any_target(),
            listener: None,
            user: None,
            idle_timeout: None,
            rates: Vec::new(),
            through: None,
            through_interface: None,
            interface: None,
            targets: targets(),
            questions: questions(),
            held: held(),
            held_bytes: held_bytes(),
        }
    }
}

fn any_target() -> String {
    "*".to_owned()
}

fn targets() -> u32 {
    256
}

fn questions() -> u32 {
    32
}

fn held() -> u32 {
    16
}

fn held_bytes() -> u32 {
    64 * 1024
}
