//! TLS towards clients: one configuration for all endpoints with equal plans, made anew when its
//! files change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier,
};
use rustls::{KeyLogFile, ServerConfig, version};

use super::chooser::Chooser;
use super::material::{self, Named};
use super::{provider, self_signed, shared};
use crate::plan::{CertificatePlan, TlsListenPlan};
use crate::relay::endpoint::PlanError;

const CERT: &str = "listen_transport.tls.cert";
const KEY: &str = "listen_transport.tls.key";
const OCSP: &str = "listen_transport.tls.ocsp";
const CLIENT_CA: &str = "listen_transport.tls.client_ca";
const SELF_SIGNED: &str = "listen_transport.tls.self_signed";
const TLS: &str = "listen_transport.tls";

/// How often handshakes look whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Sessions that TLS 1.2 clients without tickets may come back to.
const SESSIONS: usize = 1024;

/// What a client is met with.
pub struct Acceptor {
    plan: TlsListenPlan,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    files: Vec<Stamp>,
    looked: Instant,
    /// `config` is of other files, because these can't be used.
    useless: bool,
    memory: Memory,
}

/// What lets clients come back without a full handshake. It outlives new certificates, and goes
/// with the authorities whose clients it remembers.
#[derive(Clone)]
struct Memory {
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// How a file looked when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: String,
    seen: Option<(u64, u64, i64, i64, u64)>,
}

/// What came of looking at the files again.
#[derive(Debug)]
pub enum News {
    Renewed(String),
    /// The new files are of no use; the old certificates stay.
    Kept(String),
}

impl Acceptor {
    /// The one of all endpoints with this plan.
    pub fn shared(plan: &TlsListenPlan) -> Result<Arc<Self>, PlanError> {
        static MADE: shared::Shelf<TlsListenPlan, Acceptor> = shared::Shelf::new();
        let acceptor = MADE.get(plan, || Self::new(plan))?;
        // Whoever asks again for the same plan wants what the files say now.
        match acceptor.look(Instant::now(), Duration::ZERO) {
            Some(Err(error)) => Err(error),
            _ => Ok(acceptor),
        }
    }

    fn new(plan: &TlsListenPlan) -> Result<Self, PlanError> {
        let files = stamps(plan);
        let memory = Memory::new()?;
        Ok(Self {
            plan: plan.clone(),
            current: Mutex::new(Current {
                config: configure(plan, &memory)?,
                files,
                looked: Instant::now(),
                useless: false,
                memory,
            }),
        })
    }

    /// The configuration for one handshake, of files as they were a moment ago.
    pub fn config(&self, now: Instant) -> (Arc<ServerConfig>, Option<News>) {
        let news = self.look(now, LOOK_EVERY).map(|looked| match looked {
            Ok(names) => News::Renewed(format!("serves what is now in {names}")),
            Err(error) => News::Kept(format!(
                "keeps the certificates it has, since the new ones can't be used: {error}"
            )),
        });
        (Arc::clone(&self.lock().config), news)
    }

    /// Reads the files again if they have changed, and if the last look is long enough ago: which
    /// ones have changed, or why they are of no use.
    fn look(&self, now: Instant, every: Duration) -> Option<Result<String, PlanError>> {
        let mut current = self.lock();
        if current.files.is_empty() || now.saturating_duration_since(current.looked) < every {
            return None;
        }
        current.looked = now;
        let files = stamps(&self.plan);
        // Files that were of no use are told once to those who come by, and to all who ask.
        if files == current.files && !(current.useless && every.is_zero()) {
            return None;
        }
        let changed = changed(&current.files, &files);
        let ca = self.plan.client_ca.as_deref();
        let memory = match ca.is_some_and(|ca| current.useless || changed.contains(&ca)) {
            true => Memory::new(),
            false => Ok(current.memory.clone()),
        };
        let made = memory.and_then(|memory| Ok((configure(&self.plan, &memory)?, memory)));
        let names = changed.join(", ");
        // Either way these files were looked at: the next change is what matters.
        current.files = files;
        current.useless = made.is_err();
        Some(made.map(|(config, memory)| {
            current.config = config;
            current.memory = memory;
            names
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn new() -> Result<Self, PlanError> {
        Ok(Self {
            tickets: aws_lc_rs::Ticketer::new().map_err(|error| wrong(TLS, "...", error))?,
            sessions: ServerSessionMemoryCache::new(SESSIONS),
        })
    }
}

fn configure(plan: &TlsListenPlan, memory: &Memory) -> Result<Arc<ServerConfig>, PlanError> {
    let provider = provider();
    let chooser = Chooser::new(certificates(plan, &provider)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| wrong(TLS, "...", error))?;
    let builder = match &plan.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let file = Named {
                field: CLIENT_CA,
                path,
            };
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(material::authorities(file)?, provider);
            if plan.client_optional {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build().map_err(|error| file.wrong(error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(chooser));
    config.alpn_protocols = plan.alpn.iter().map(|name| name.clone().into()).collect();
    config.ticketer = Arc::clone(&memory.tickets);
    config.session_storage = Arc::clone(&memory.sessions);
    if plan.key_log {
        config.key_log = Arc::new(KeyLogFile::new());
    }
    Ok(Arc::new(config))
}

/// In the order of the plan; never empty.
fn certificates(
    plan: &TlsListenPlan,
    provider: &CryptoProvider,
) -> Result<Vec<Arc<rustls::sign::CertifiedKey>>, PlanError> {
    if let Some(name) = plan.self_signed.as_deref()
        && plan.certificates.is_empty()
    {
        return self_signed::cached(provider, name)
            .map(|key| vec![key])
            .map_err(|why| wrong(SELF_SIGNED, name, why));
    }
    if plan.certificates.is_empty() {
        return Err(wrong(TLS, "...", "needs a certificate"));
    }
    plan.certificates
        .iter()
        .map(|files| load(files, provider).map(Arc::new))
        .collect()
}

fn load(
    files: &CertificatePlan,
    provider: &CryptoProvider,
) -> Result<rustls::sign::CertifiedKey, PlanError> {
    let named = |field, path| Named { field, path };
    let mut key =
        material::certified_key(provider, named(CERT, &files.cert), named(KEY, &files.key))?;
    if let Some(path) = &files.ocsp {
        key.ocsp = Some(named(OCSP, path).read()?);
    }
    Ok(key)
}

fn stamps(plan: &TlsListenPlan) -> Vec<Stamp> {
    let certificates = plan
        .certificates
        .iter()
        .flat_map(|files| [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()]);
    certificates
        .chain([plan.client_ca.as_ref()])
        .flatten()
        .filter(|path| !material::is_inline(path))
        .map(|path| Stamp {
            path: path.clone(),
            seen: fs::metadata(path).ok().map(|seen| {
                (
                    seen.dev(),
                    seen.ino(),
                    seen.mtime(),
                    seen.mtime_nsec(),
                    seen.size(),
                )
            }),
        })
        .collect()
}

/// Files that look different now. The plan names them, so they are the same in number and order.
fn changed<'a>(old: &[Stamp], new: &'a [Stamp]) -> Vec<&'a str> {
    old.iter()
        .zip(new)
        .filter(|(old, new)| old != new)
        .map(|(_, new)| new.path.as_str())
        .collect()
}

fn wrong(field: &'static str, value: &str, why: impl ToString) -> PlanError {
    PlanError {
        field,
        value: value.to_owned(),
        why: why.to_string(),
    }
}
