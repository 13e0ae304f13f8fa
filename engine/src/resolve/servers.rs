//! Name servers as a plan writes them: plain ones as `ip:port`, those behind TLS as
//! `tls://ip:port#name` and `https://ip:port/path#name`, where `name` is what the server's
//! certificate has to hold.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig};
use rustls::{ClientConfig, RootCertStore, version};

use crate::plan::DnsProtocol;
use crate::transport::tls;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Server {
    addr: SocketAddr,
    /// Or plain, in whatever way the plan's protocol says.
    secure: Option<ProtocolConfig>,
}

impl Server {
    pub(super) fn plain(addr: SocketAddr) -> Self {
        Self { addr, secure: None }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("name server {text:?} is not an address with a port");
        let Some((scheme, rest)) = text.split_once("://") else {
            return text.parse().map(Self::plain).map_err(|_| wrong());
        };
        let (place, name) = rest.split_once('#').ok_or_else(|| {
            format!("name server {text:?} lacks the name of its certificate after #")
        })?;
        let server_name: Arc<str> = name.into();
        let (addr, secure) = match scheme {
            "tls" => (place, ProtocolConfig::Tls { server_name }),
            "https" => {
                let slash = place.find('/').ok_or_else(wrong)?;
                let path = place[slash..].into();
                (&place[..slash], ProtocolConfig::Https { server_name, path })
            }
            _ => return Err(format!("name server {text:?}: no way to ask it")),
        };
        Ok(Self {
            addr: addr.parse().map_err(|_| wrong())?,
            secure: Some(secure),
        })
    }

    fn connections(&self, protocols: &[ProtocolConfig]) -> Vec<ConnectionConfig> {
        let ways = self.secure.as_ref().map_or(protocols, std::slice::from_ref);
        ways.iter()
            .map(|protocol| {
                let mut connection = ConnectionConfig::new(protocol.clone());
                connection.port = self.addr.port();
                connection
            })
            .collect()
    }
}

/// Several ports of one address are one server with several ways to it.
pub(super) fn configs(servers: &[Server], protocol: DnsProtocol) -> Vec<NameServerConfig> {
    let protocols: &[ProtocolConfig] = match protocol {
        DnsProtocol::Udp => &[ProtocolConfig::Udp],
        DnsProtocol::Tcp => &[ProtocolConfig::Tcp],
        DnsProtocol::TcpAndUdp => &[ProtocolConfig::Udp, ProtocolConfig::Tcp],
    };
    let mut configs: Vec<NameServerConfig> = Vec::new();
    for server in servers {
        let connections = server.connections(protocols);
        let ip = server.addr.ip();
        match configs.iter_mut().find(|config| config.ip == ip) {
            Some(config) => config.connections.extend(connections),
            None => configs.push(NameServerConfig::new(ip, true, connections)),
        }
    }
    configs
}

/// How servers behind TLS are met; only plans that have some pay for reading the authorities.
pub(super) fn tls_config(servers: &[Server]) -> Result<ClientConfig, String> {
    let roots = if servers.iter().any(|server| server.secure.is_some()) {
        tls::connector::system_roots().map_err(|error| error.why)?
    } else {
        Arc::new(RootCertStore::empty())
    };
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<Server> {
        texts
            .iter()
            .map(|text| Server::parse(text).unwrap())
            .collect()
    }

    fn ports(config: &NameServerConfig) -> Vec<u16> {
        config
            .connections
            .iter()
            .map(|connection| connection.port)
            .collect()
    }

    #[test]
    fn ports_of_one_server_are_kept_together() {
        let servers = parsed(&["192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:54"]);
        let both = configs(&servers, DnsProtocol::TcpAndUdp);
        assert_eq!(both.len(), 2);
        assert_eq!(ports(&both[0]), [53, 53, 54, 54]);
        let tcp = configs(&servers, DnsProtocol::Tcp);
        assert!(
            tcp.iter()
                .flat_map(|config| &config.connections)
                .all(|connection| connection.protocol == ProtocolConfig::Tcp)
        );
    }

    #[test]
    fn a_server_behind_tls_is_asked_in_no_other_way() {
        let servers = parsed(&[
            "tls://192.0.2.1:853#dns.example",
            "https://[2001:db8::1]:443/dns-query?a#dns.example",
        ]);
        let made = configs(&servers, DnsProtocol::Udp);
        let name: Arc<str> = "dns.example".into();
        let protocols: Vec<_> = made
            .iter()
            .map(|config| config.connections[0].protocol.clone())
            .collect();
        assert_eq!(
            protocols,
            [
                ProtocolConfig::Tls {
                    server_name: Arc::clone(&name)
                },
                ProtocolConfig::Https {
                    server_name: name,
                    path: "/dns-query?a".into()
                },
            ]
        );
        assert_eq!((ports(&made[0]), ports(&made[1])), (vec![853], vec![443]));
    }

    #[test]
    fn what_is_no_server_is_named() {
        for text in [
            "192.0.2.1",
            "tls://192.0.2.1:853",
            "tls://dns.example:853#dns.example",
            "https://192.0.2.1:443#a",
            "quic://192.0.2.1:853#a",
        ] {
            let problem = Server::parse(text).unwrap_err();
            assert!(problem.contains(text), "{problem}");
        }
    }
}
