//! Why a flow ended, and why a connection or datagram was refused: closed lists.

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ClientClosed,
    TargetClosed,
    ClientReset,
    TargetReset,
    IdleTimeout,
    LingerTimeout,
    ConnectRefused,
    ConnectTimeout,
    ConnectUnreachable,
    ConnectFailed,
    ResolveFailed,
    Expired,
    Evicted,
    Killed,
    Drained,
    Shutdown,
    Error,
    Denied,
    OverLimit,
    ProxyHeader,
    ClientHandshakeFailed,
    TargetHandshakeFailed,
    HandshakeTimeout,
    Quota,
    HookRefused,
    HookFailed,
    HandedBack,
}

impl Reason {
    pub const ALL: [Self; 27] = [
        Self::ClientClosed,
        Self::TargetClosed,
        Self::ClientReset,
        Self::TargetReset,
        Self::IdleTimeout,
        Self::LingerTimeout,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectUnreachable,
        Self::ConnectFailed,
        Self::ResolveFailed,
        Self::Expired,
        Self::Evicted,
        Self::Killed,
        Self::Drained,
        Self::Shutdown,
        Self::Error,
        Self::Denied,
        Self::OverLimit,
        Self::ProxyHeader,
        Self::ClientHandshakeFailed,
        Self::TargetHandshakeFailed,
        Self::HandshakeTimeout,
        Self::Quota,
        Self::HookRefused,
        Self::HookFailed,
        Self::HandedBack,
    ];

    /// The stable name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::TargetClosed => "target_closed",
            Self::ClientReset => "client_reset",
            Self::TargetReset => "target_reset",
            Self::IdleTimeout => "idle_timeout",
            Self::LingerTimeout => "linger_timeout",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectUnreachable => "connect_unreachable",
            Self::ConnectFailed => "connect_failed",
            Self::ResolveFailed => "resolve_failed",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Killed => "killed",
            Self::Drained => "drained",
            Self::Shutdown => "shutdown",
            Self::Error => "error",
            Self::Denied => "denied",
            Self::OverLimit => "over_limit",
            Self::ProxyHeader => "proxy_header",
            Self::ClientHandshakeFailed => "client_handshake_failed",
            Self::TargetHandshakeFailed => "target_handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Quota => "quota",
            Self::HookRefused => "hook_refused",
            Self::HookFailed => "hook_failed",
            Self::HandedBack => "handed_back",
        }
    }
}

/// Why something never became a flow, or why a datagram went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Connections,
    ConnectionRate,
    ConnectionsPerClient,
    OverallConnections,
    OverallConnectionRate,
    OverallConnectionsPerClient,
    Descriptors,
    SendFailed,
    TooBig,
    ResolveFailed,
    Unreachable,
    Denied,
    Quota,
    RateLimited,
    Malformed,
    Undecided,
}

impl Refusal {
    pub const ALL: [Self; 16] = [
        Self::Connections,
        Self::ConnectionRate,
        Self::ConnectionsPerClient,
        Self::OverallConnections,
        Self::OverallConnectionRate,
        Self::OverallConnectionsPerClient,
        Self::Descriptors,
        Self::SendFailed,
        Self::TooBig,
        Self::ResolveFailed,
        Self::Unreachable,
        Self::Denied,
        Self::Quota,
        Self::RateLimited,
        Self::Malformed,
        Self::Undecided,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionRate => "connection_rate",
            Self::ConnectionsPerClient => "connections_per_client",
            Self::OverallConnections => "overall_connections",
            Self::OverallConnectionRate => "overall_connection_rate",
            Self::OverallConnectionsPerClient => "overall_connections_per_client",
            Self::Descriptors => "descriptors",
            Self::SendFailed => "send_failed",
            Self::TooBig => "too_big",
            Self::ResolveFailed => "resolve_failed",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Quota => "quota",
            Self::RateLimited => "rate_limited",
            Self::Malformed => "malformed",
            Self::Undecided => "undecided",
        }
    }
}
