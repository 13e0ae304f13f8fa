//! What went wrong in a handshake, as a person understands it.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Bytes at the beginning of the peer's side that tell what it speaks.
pub const TELLING: usize = 16;

/// `peer` is "client" or "target"; `first` is what it said first.
pub fn explain(peer: &str, error: &Error, first: &[u8]) -> String {
    if let Error::InvalidMessage(_) = error
        && let Some(speech) = spoken(first)
    {
        return format!("the {peer} speaks {speech}");
    }
    match error {
        Error::AlertReceived(alert) => format!("the {peer} gave up: {}", meaning(*alert)),
        Error::InvalidCertificate(why) => format!("the {peer}'s certificate {}", fault(why)),
        Error::NoCertificatesPresented => format!("the {peer} showed no certificate"),
        Error::NoApplicationProtocol => {
            format!("the {peer} offered none of the protocols (ALPN) that we speak")
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => format!("the {peer} speaks only TLS versions below 1.2"),
        Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon,
        ) => format!("the {peer} and we have no cipher or key exchange in common"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("the {peer} does not speak TLS")
        }
        error => format!("TLS with the {peer} failed: {error}"),
    }
}

/// What something that begins like this is, when it is no TLS.
fn spoken(first: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 9] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"OPTIONS ",
        b"CONNECT ",
        b"DELETE ",
        b"PATCH ",
        b"HTTP/",
    ];
    if HTTP.iter().any(|word| first.starts_with(word)) {
        return Some("plain HTTP");
    }
    if first.starts_with(b"PRI * HTTP/2") {
        return Some("plain HTTP/2");
    }
    if first.starts_with(b"SSH-") {
        return Some("SSH");
    }
    if first.starts_with(b"PROXY ") || first.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        return Some("the PROXY protocol, which this endpoint does not accept");
    }
    if first.starts_with(b"220 ") || first.starts_with(b"220-") {
        return Some("plain SMTP or FTP");
    }
    match first {
        [] | [0x14..=0x17, ..] => None,
        _ => Some("no TLS"),
    }
}

fn meaning(alert: AlertDescription) -> String {
    let known = match alert {
        AlertDescription::UnknownCA => "it does not know the authority of our certificate",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => "it does not accept our certificate",
        AlertDescription::CertificateExpired => "it says that our certificate has expired",
        AlertDescription::CertificateRevoked => "it says that our certificate is revoked",
        AlertDescription::CertificateRequired => "it wants a client certificate",
        AlertDescription::HandshakeFailure => "it has no cipher or key exchange in common with us",
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.2 or 1.3",
        AlertDescription::UnrecognisedName => "it does not know the name that was asked for",
        AlertDescription::NoApplicationProtocol => "no protocol (ALPN) in common",
        AlertDescription::DecryptError => "it could not verify our certificate or our key",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::UserCanceled => "it was cancelled",
        other => return format!("alert {other:?}"),
    };
    format!("{known} (alert {alert:?})")
}

fn fault(why: &CertificateError) -> String {
    let known = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet"
        }
        CertificateError::UnknownIssuer => "is not from an authority that we trust",
        CertificateError::Revoked => "is revoked",
        CertificateError::NotValidForName => "is made out to another name",
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented = presented.join(", ");
            return format!(
                "is not made out to {}, but to: {presented}",
                expected.to_str()
            );
        }
        CertificateError::BadSignature => "has a wrong signature",
        CertificateError::BadEncoding => "can't be read",
        // The library has no name for it here.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "is an authority's own (CA:TRUE), which can't be a server's or a client's"
        }
        other => return format!("is not valid: {other}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(first: &[u8]) -> String {
        let error = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        explain("client", &error, first)
    }

    #[test]
    fn what_is_no_tls_is_named() {
        assert_eq!(invalid(b"GET / HTTP/1.1"), "the client speaks plain HTTP");
        assert_eq!(invalid(b"SSH-2.0-x"), "the client speaks SSH");
        assert!(invalid(b"PROXY TCP4 ").contains("PROXY protocol"));
        assert_eq!(invalid(b"\x01\x02"), "the client speaks no TLS");
        assert_eq!(invalid(b"\x16\x03"), "the client does not speak TLS");
    }

    #[test]
    fn alerts_have_meanings() {
        let error = Error::AlertReceived(AlertDescription::UnknownCA);
        let text = explain("client", &error, b"\x16");
        assert_eq!(
            text,
            "the client gave up: it does not know the authority of our certificate (alert UnknownCA)"
        );
    }

    #[test]
    fn a_certificate_of_an_authority_is_called_so() {
        /// As the library's own, which it does not let out.
        #[derive(Debug)]
        struct CaUsedAsEndEntity;
        impl std::fmt::Display for CaUsedAsEndEntity {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                Ok(())
            }
        }
        impl std::error::Error for CaUsedAsEndEntity {}
        let inner = rustls::OtherError(std::sync::Arc::new(CaUsedAsEndEntity));
        let text = fault(&CertificateError::Other(inner));
        assert!(text.starts_with("is an authority's own"), "{text}");
    }
}
