//! TLS clients made of rustls over blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::material::Material;
use crate::support::LIMIT;

pub type Client = StreamOwned<ClientConnection, TcpStream>;

/// Trusts the authority of `material`, and shows the certificate called `identity` when asked.
pub fn config(material: &Material, identity: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(material.path("ca.crt")).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(_engine::transport::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = CertificateDer::pem_file_iter(material.path(&format!("{name}.crt")))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_file(material.path(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// Connected; the handshake happens with the first bytes.
pub fn connect(addr: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Client {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::clone(config), name).unwrap(),
        stream,
    )
}

/// Handshake only.
pub fn shake(client: &mut Client) -> std::io::Result<()> {
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(())
}

/// The leaf that the server showed.
pub fn shown(client: &Client) -> Vec<u8> {
    client.conn.peer_certificates().unwrap()[0].to_vec()
}

pub fn der(material: &Material, name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(material.path(&format!("{name}.crt")))
        .unwrap()
        .to_vec()
}

pub fn say(client: &mut Client, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
    client.flush().unwrap();
}

pub fn hear(client: &mut Client, text: &str) {
    let mut bytes = vec![0; text.len()];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

pub fn end(client: &mut Client) {
    client.conn.send_close_notify();
    client.conn.complete_io(&mut client.sock).unwrap();
}
