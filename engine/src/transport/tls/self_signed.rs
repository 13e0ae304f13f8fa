//! Certificates made at start, for endpoints that were given a name and no files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Made once for each name, so that all endpoints of a process show the same one.
static MADE: Mutex<Option<HashMap<String, Arc<CertifiedKey>>>> = Mutex::new(None);

pub fn cached(provider: &CryptoProvider, name: &str) -> Result<Arc<CertifiedKey>, String> {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(key) = made.get(name) {
        return Ok(Arc::clone(key));
    }
    let key = Arc::new(make(provider, name)?);
    made.insert(name.to_owned(), Arc::clone(&key));
    Ok(key)
}

/// ECDSA P-256, valid as long as anybody will ask, for one DNS name or address.
pub fn make(provider: &CryptoProvider, name: &str) -> Result<CertifiedKey, String> {
    let failed = |error: &dyn std::fmt::Display| format!("can't make a certificate: {error}");
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let mut params =
        CertificateParams::new(vec![name.to_owned()]).map_err(|error| failed(&error))?;
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.self_signed(&key).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertifiedKey::from_der(vec![cert.der().clone()], key, provider).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tls::provider;

    #[test]
    fn one_name_has_one_certificate() {
        let provider = provider();
        let one = cached(&provider, "one.example").expect("made");
        let again = cached(&provider, "one.example").expect("made");
        let other = cached(&provider, "192.0.2.1").expect("made");
        assert!(Arc::ptr_eq(&one, &again));
        assert_ne!(one.cert, other.cert);
    }

    #[test]
    fn what_is_no_name_is_an_error() {
        assert!(make(&provider(), "käse.example").is_err());
    }
}
