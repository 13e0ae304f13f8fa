//! TLS towards targets.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, KeyLogFile, RootCertStore, SignatureScheme, version,
};

use super::material::{self, Named};
use super::{provider, shared};
use crate::plan::TlsSendPlan;
use crate::relay::endpoint::PlanError;

const CA: &str = "remote_transport.tls.ca";
const CERT: &str = "remote_transport.tls.cert";
const KEY: &str = "remote_transport.tls.key";
const SNI: &str = "remote_transport.tls.sni";
const TLS: &str = "remote_transport.tls";

/// Sessions that can be gone back to.
const SESSIONS: usize = 256;

/// How targets are met.
pub struct Connector {
    pub config: Arc<ClientConfig>,
    /// Asked for and verified.
    pub name: ServerName<'static>,
}

impl Connector {
    /// The one of all endpoints with this plan.
    pub fn shared(plan: &TlsSendPlan) -> Result<Arc<Self>, PlanError> {
        static MADE: shared::Shelf<TlsSendPlan, Connector> = shared::Shelf::new();
        MADE.get(plan, || Self::new(plan))
    }

    fn new(plan: &TlsSendPlan) -> Result<Self, PlanError> {
        let name = ServerName::try_from(plan.sni.clone())
            .map_err(|_| wrong(SNI, &plan.sni, "neither a DNS name nor an address"))?;
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| wrong(TLS, "...", error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier(plan, &provider)?);
        let named = |field, path| Named { field, path };
        let mut config = match (&plan.cert, &plan.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let key = material::certified_key(&provider, named(CERT, cert), named(KEY, key))?;
                builder
                    .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
            (Some(cert), None) => return Err(wrong(CERT, cert, "needs its key")),
            (None, Some(key)) => return Err(wrong(KEY, key, "needs its certificate")),
        };
        config.alpn_protocols = plan.alpn.iter().map(|name| name.clone().into()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        if plan.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

fn verifier(
    plan: &TlsSendPlan,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, PlanError> {
    if plan.insecure {
        return Ok(Arc::new(AcceptAny(Arc::clone(provider))));
    }
    let roots = match &plan.ca {
        Some(path) => material::authorities(Named { field: CA, path })?,
        None => system_roots()?,
    };
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|error| wrong(CA, plan.ca.as_deref().unwrap_or_default(), error))
}

/// The system's authorities, read when the first plan wants them.
pub fn system_roots() -> Result<Arc<RootCertStore>, PlanError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // What can't be read or understood is left out, as everywhere on this system.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err(wrong(
            TLS,
            "...",
            "the system has no certificate authorities: name a file with ca",
        ));
    }
    Ok(Arc::clone(roots))
}

/// Whatever certificate the target shows; that it holds the key is not asked either.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn wrong(field: &'static str, value: &str, why: impl ToString) -> PlanError {
    PlanError {
        field,
        value: value.to_owned(),
        why: why.to_string(),
    }
}
