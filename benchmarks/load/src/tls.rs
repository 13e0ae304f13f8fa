//! Clients that speak TLS 1.3 to a relay which terminates it: bulk through one connection, and full
//! handshakes one after the other. Every relay is asked for the same: AES-128-GCM over X25519.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned, version,
};

use crate::arguments::Arguments;
use crate::histogram::Histogram;
use crate::json::Object;
use crate::pattern::Pattern;
use crate::sys;

const PIECE: usize = 64 * 1024;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The certificate is our own, made a moment ago: that it is shown is not what is measured.
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Stream, Box<dyn Error>> {
    let socket = sys::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.set_write_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::try_from("relay.test")?;
    let connection = ClientConnection::new(Arc::clone(config), name)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// As many bytes as go through one connection, one way, counted at this end.
pub fn bulk(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let down = match arguments.take::<String>("direction")?.as_deref() {
        Some("down") => true,
        Some("up") => false,
        _ => return Err("--direction up or down is needed".into()),
    };
    let span = arguments.span()?;
    arguments.finish()?;

    let pattern = Pattern::new();
    let mut buffer = vec![0; PIECE];
    let mut stream = connect(address, &config()?)?;
    let mut moved = 0_u64;
    let mut step = |moved: &mut u64| -> io::Result<()> {
        let count = if down {
            let count = stream.read(&mut buffer)?;
            if !pattern.matches(*moved, &buffer[..count]) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "wrong bytes received",
                ));
            }
            count
        } else {
            let piece = pattern.at(*moved);
            stream.write(&piece[..piece.len().min(PIECE)])?
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *moved += count as u64;
        Ok(())
    };
    let start = Instant::now();
    while start.elapsed() < span.warm_up {
        step(&mut moved)?;
    }
    let measured = Instant::now();
    let before = moved;
    while measured.elapsed() < span.seconds {
        step(&mut moved)?;
    }
    let seconds = measured.elapsed().as_secs_f64();
    Object::new()
        .word("command", "tls-bulk")
        .word("direction", if down { "down" } else { "up" })
        .float("seconds", seconds)
        .number("bytes", moved - before)
        .float("rate", (moved - before) as f64 / seconds)
        .number("total", moved)
        .print()?;
    Ok(())
}

/// A full handshake, one echoed message, and the end of it, one after the other.
pub fn handshakes(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let size = arguments.take_or("size", 64_usize)?;
    let span = arguments.span()?;
    arguments.finish()?;

    let config = config()?;
    let message: Vec<u8> = (0..size).map(|index| index as u8).collect();
    let mut buffer = vec![0; size];
    let mut once = || -> Result<(), Box<dyn Error>> {
        let mut stream = connect(address, &config)?;
        stream.write_all(&message)?;
        stream.read_exact(&mut buffer)?;
        if buffer != message {
            return Err("wrong bytes came back".into());
        }
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok(())
    };
    let start = Instant::now();
    let mut warm = 0_u64;
    while start.elapsed() < span.warm_up {
        once()?;
        warm += 1;
    }
    let measured = Instant::now();
    let mut before = measured;
    let mut histogram = Histogram::new();
    while measured.elapsed() < span.seconds {
        once()?;
        let now = Instant::now();
        histogram.record((now - before).as_nanos() as u64);
        before = now;
    }
    let seconds = measured.elapsed().as_secs_f64();
    Object::new()
        .word("command", "tls-handshakes")
        .number("size", size)
        .float("seconds", seconds)
        .number("count", histogram.count())
        .float("rate", histogram.count() as f64 / seconds)
        .number("total", histogram.count() + warm)
        .object("latency", histogram.report())
        .print()?;
    Ok(())
}
