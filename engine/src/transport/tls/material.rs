//! Certificates and keys out of files, in PEM or DER, with errors that name field and file.

use std::fs;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use crate::relay::endpoint::PlanError;

/// What every kind of PEM block begins with.
const PEM: &[u8] = b"-----BEGIN ";
const ENCRYPTED: &[&[u8]] = &[b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
/// No certificate chain, key or list of authorities comes near it.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Where in a plan a file is named.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    pub field: &'static str,
    pub path: &'a str,
}

impl Named<'_> {
    pub fn wrong(self, why: impl ToString) -> PlanError {
        PlanError {
            field: self.field,
            // A key must not get into logs.
            value: match is_inline(self.path) {
                true => "PEM".to_owned(),
                false => self.path.to_owned(),
            },
            why: why.to_string(),
        }
    }

    /// What is in the file, or what the plan has in place of its name.
    pub fn read(self) -> Result<Vec<u8>, PlanError> {
        if is_inline(self.path) {
            return Ok(self.path.into());
        }
        let size = fs::metadata(self.path).map_err(|error| self.wrong(error))?;
        if size.len() > LARGEST {
            return Err(self.wrong("too large for what it should be"));
        }
        fs::read(self.path).map_err(|error| self.wrong(error))
    }
}

/// Whether it is no name of a file but what would be in it.
pub fn is_inline(path: &str) -> bool {
    path.as_bytes().starts_with(PEM)
}

/// A chain with its key, checked to belong together.
pub fn certified_key(
    provider: &CryptoProvider,
    cert: Named<'_>,
    key: Named<'_>,
) -> Result<CertifiedKey, PlanError> {
    let chain = chain(cert)?;
    let leaf = &chain[0];
    webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| cert.wrong(format_args!("not a certificate: {error}")))?;
    CertifiedKey::from_der(chain, private_key(key)?, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => key.wrong(format_args!(
            "the key does not belong to the certificate{}",
            match is_inline(cert.path) {
                true => String::new(),
                false => format!(" in {}", cert.path),
            }
        )),
        error => key.wrong(format_args!("not a usable private key: {error}")),
    })
}

/// Never empty.
fn chain(file: Named<'_>) -> Result<Vec<CertificateDer<'static>>, PlanError> {
    let bytes = file.read()?;
    let chain = certificates(file, &bytes)?;
    if chain.is_empty() {
        return Err(file.wrong("no certificate in this file"));
    }
    Ok(chain)
}

fn certificates(file: Named<'_>, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PlanError> {
    if !is_pem(bytes) {
        return Ok(vec![CertificateDer::from(bytes.to_vec())]);
    }
    CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| file.wrong(format_args!("not PEM: {error}")))
}

fn private_key(file: Named<'_>) -> Result<PrivateKeyDer<'static>, PlanError> {
    let bytes = file.read()?;
    if !is_pem(&bytes) {
        return PrivateKeyDer::try_from(bytes)
            .map_err(|_| file.wrong("neither a PEM nor a DER private key"));
    }
    if ENCRYPTED.iter().any(|mark| contains(&bytes, mark)) {
        return Err(file.wrong("the key is encrypted; there is nobody to ask for its passphrase"));
    }
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| file.wrong(format_args!("no private key in this file: {error}")))
}

/// Authorities out of a file; at least one.
pub fn authorities(file: Named<'_>) -> Result<Arc<RootCertStore>, PlanError> {
    let bytes = file.read()?;
    let mut roots = RootCertStore::empty();
    for cert in certificates(file, &bytes)? {
        roots
            .add(cert)
            .map_err(|error| file.wrong(format_args!("not an authority: {error}")))?;
    }
    if roots.is_empty() {
        return Err(file.wrong("no certificate in this file"));
    }
    Ok(Arc::new(roots))
}

fn is_pem(bytes: &[u8]) -> bool {
    contains(bytes, PEM)
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}
