//! Plans of endpoints with TLS on a leg.

use std::net::SocketAddr;

use _engine::plan::{
    CertificatePlan, EndpointPlan, ListenTransportPlan, RemoteTransportPlan, TlsListenPlan,
    TlsSendPlan,
};

use crate::material::Material;
use crate::support::plan;

pub fn certificate(material: &Material, name: &str) -> CertificatePlan {
    CertificatePlan {
        cert: material.path(&format!("{name}.crt")),
        key: material.path(&format!("{name}.key")),
        ocsp: None,
    }
}

pub fn listen(material: &Material, names: &[&str]) -> TlsListenPlan {
    TlsListenPlan {
        certificates: names
            .iter()
            .map(|name| certificate(material, name))
            .collect(),
        ..TlsListenPlan::default()
    }
}

pub fn send(material: &Material, sni: &str) -> TlsSendPlan {
    TlsSendPlan {
        sni: sni.to_owned(),
        alpn: Vec::new(),
        insecure: false,
        ca: Some(material.path("ca.crt")),
        cert: None,
        key: None,
        key_log: false,
    }
}

pub fn accepting(target: SocketAddr, tls: TlsListenPlan) -> EndpointPlan {
    let mut plan = plan(target);
    plan.listen_transport = Some(ListenTransportPlan {
        tls: Some(tls),
        ..ListenTransportPlan::default()
    });
    plan
}

pub fn sending(target: SocketAddr, tls: TlsSendPlan) -> EndpointPlan {
    let mut plan = plan(target);
    plan.remote_transport = Some(RemoteTransportPlan {
        tls: Some(tls),
        ..RemoteTransportPlan::default()
    });
    plan
}
