//! Which of several certificates a client gets: by the name that it asks for.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates by the names that they are made out to.
pub struct Chooser {
    /// In the order of the plan; never empty.
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<usize>>,
    /// By what follows the `*.`, which stands for one label.
    wildcard: HashMap<String, Vec<usize>>,
}

impl Chooser {
    /// `all` must not be empty: the first serves all names that none is made out to.
    pub fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let mut exact: HashMap<String, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, key) in all.iter().enumerate() {
            for name in names(key) {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_default().push(index),
                    None => exact.entry(name).or_default().push(index),
                }
            }
        }
        Self {
            all,
            exact,
            wildcard,
        }
    }

    /// For one name there may be a certificate of each kind of key: the first that the client can
    /// check.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let named = name.map(normal).and_then(|name| {
            self.exact.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.wildcard.get(parent)
            })
        });
        let usable = |index: &&usize| self.all[**index].key.choose_scheme(schemes).is_some();
        named
            .and_then(|indices| indices.iter().find(usable))
            .map(|index| &self.all[*index])
            .or_else(|| {
                self.all
                    .iter()
                    .find(|key| key.key.choose_scheme(schemes).is_some())
            })
            .or(self.all.first())
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
            .cloned()
    }
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser")
            .field("certificates", &self.all.len())
            .finish_non_exhaustive()
    }
}

/// The DNS names of a certificate.
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else {
        return Vec::new();
    };
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(cert) => cert.valid_dns_names().map(normal).collect(),
        Err(_) => Vec::new(),
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tls::{provider, self_signed};

    fn chooser(names: &[&str]) -> Chooser {
        let keys = names
            .iter()
            .map(|name| Arc::new(self_signed::make(&provider(), name).expect("made")))
            .collect();
        Chooser::new(keys)
    }

    fn chosen(chooser: &Chooser, name: Option<&str>) -> usize {
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let key = chooser.choose(name, &schemes).expect("one");
        chooser
            .all
            .iter()
            .position(|other| Arc::ptr_eq(other, key))
            .expect("one of them")
    }

    #[test]
    fn a_name_chooses_its_certificate_and_all_others_get_the_first() {
        let chooser = chooser(&["first.example", "second.example", "*.wild.example"]);
        assert_eq!(chosen(&chooser, Some("first.example")), 0);
        assert_eq!(chosen(&chooser, Some("SECOND.example")), 1);
        assert_eq!(chosen(&chooser, Some("any.wild.example")), 2);
        assert_eq!(chosen(&chooser, Some("other.example")), 0);
        assert_eq!(chosen(&chooser, None), 0);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let chooser = chooser(&["first.example", "*.wild.example"]);
        assert_eq!(chosen(&chooser, Some("wild.example")), 0);
        assert_eq!(chosen(&chooser, Some("a.b.wild.example")), 0);
        assert_eq!(chosen(&chooser, Some("a.WILD.example")), 1);
    }

    #[test]
    fn a_client_that_can_check_none_still_gets_an_answer() {
        let chooser = chooser(&["first.example"]);
        assert!(
            chooser
                .choose(Some("x"), &[SignatureScheme::RSA_PSS_SHA256])
                .is_some()
        );
    }
}
