//! Why a name has no addresses. Every sentence names the host; nothing here knows a resolver.

use std::fmt;
use std::sync::Arc;

/// Cheap to clone: one error goes to every flow that waited for the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// The name servers say that the name does not exist.
    NotFound(Arc<str>),
    /// The name exists, but has no address of the wanted family.
    NoRecords(Arc<str>),
    Timeout(Arc<str>),
    /// A name server answered, but with an error or with nonsense.
    ServerFailure {
        host: Arc<str>,
        problem: Arc<str>,
    },
    /// No name server could be asked at all.
    Unreachable {
        host: Arc<str>,
        problem: Arc<str>,
    },
    InvalidName(Arc<str>),
    /// Too many look-ups are under way.
    Busy(Arc<str>),
    /// The resolver was shut down before it had an answer.
    Stopped(Arc<str>),
    /// The resolver can't work as configured: the whole sentence.
    Config(Arc<str>),
}

impl ResolveError {
    /// Whether the name servers have spoken: asking again soon would bring the same answer.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::NoRecords(_) | Self::InvalidName(_)
        )
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(host) => write!(f, "there is no host named {host}"),
            Self::NoRecords(host) => write!(f, "{host} has no address of the wanted family"),
            Self::Timeout(host) => write!(f, "no name server answered in time for {host}"),
            Self::ServerFailure { host, problem } => {
                write!(f, "the name server failed on {host}: {problem}")
            }
            Self::Unreachable { host, problem } => {
                write!(f, "no name server could be asked for {host}: {problem}")
            }
            Self::InvalidName(host) => write!(f, "{host:?} is not a host name"),
            Self::Busy(host) => write!(f, "too many names are being resolved to ask for {host}"),
            Self::Stopped(host) => write!(f, "the resolver stopped before it found {host}"),
            Self::Config(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for ResolveError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_names_the_host() {
        let host: Arc<str> = Arc::from("db.example");
        let problem: Arc<str> = Arc::from("because");
        let both =
            |make: fn(Arc<str>, Arc<str>) -> ResolveError| make(host.clone(), problem.clone());
        let errors = [
            ResolveError::NotFound(host.clone()),
            ResolveError::NoRecords(host.clone()),
            ResolveError::Timeout(host.clone()),
            both(|host, problem| ResolveError::ServerFailure { host, problem }),
            both(|host, problem| ResolveError::Unreachable { host, problem }),
            ResolveError::InvalidName(host.clone()),
            ResolveError::Busy(host.clone()),
            ResolveError::Stopped(host.clone()),
        ];
        for error in errors {
            assert!(error.to_string().contains("db.example"), "{error}");
        }
    }
}
