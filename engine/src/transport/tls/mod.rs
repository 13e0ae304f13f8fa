//! TLS on a leg, by rustls. It gets bytes and gives bytes; the socket is ours.
//!
//! `acceptor` and `connector` make configurations out of plans, once for all flows.

pub mod acceptor;
mod chooser;
pub mod connector;
pub mod hello;
mod material;
mod self_signed;
mod shared;
pub mod subject;
mod words;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConfig,
    ServerConnection,
};

use super::Stream;
use crate::runtime::SCRATCH;
use crate::runtime::io::{Io, Read};

/// Encrypted bytes that wait for the socket; more is not accepted.
const BACKLOG: usize = SCRATCH;
/// What a record may take on the wire.
const RECORD: usize = 18 * 1024;
/// Reads of the socket that may give nothing to pass on, before others get their turn: records can
/// be empty.
const FRUITLESS: u32 = 8;

thread_local! {
    /// Where encrypted bytes are read to; what can't be decrypted at once is kept by its stream.
    static ENCRYPTED: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

/// What a handshake came to.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    pub version: &'static str,
    pub cipher: String,
    /// Asked for by the client.
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// Of the certificate that the peer showed when we asked for one as a server.
    pub subject: Option<String>,
    /// The peer came back to a session.
    pub resumed: bool,
    /// The peer's side ended without saying so, so that somebody else may have cut it.
    pub truncated: Cell<bool>,
}

/// Why a handshake, or what came after it, failed.
#[derive(Debug)]
pub enum Fault {
    Socket(io::Error),
    /// In words.
    Tls(String),
    /// The peer went away in the middle of the handshake.
    Closed,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Socket(error) => error,
            Fault::Tls(why) => Self::other(why),
            Fault::Closed => Self::from(io::ErrorKind::UnexpectedEof),
        }
    }
}

/// TLS over a socket, on either side of it.
pub struct Tls {
    io: Io,
    conn: Connection,
    /// Read and not yet decrypted, because there was no room for what it says.
    staged: Vec<u8>,
    /// What the peer said first, to explain what is no TLS.
    first: Vec<u8>,
    /// How much of it is kept.
    telling: usize,
    /// To be told after what came before it was read.
    fault: Option<Fault>,
    /// The peer has said its end, or is gone.
    ended: bool,
    /// We have said ours.
    said_end: bool,
    handshake: Rc<Handshake>,
}

/// TLS without its socket.
pub struct Parts {
    conn: Connection,
    staged: Vec<u8>,
    fault: Option<Fault>,
    ended: bool,
    said_end: bool,
    handshake: Handshake,
}

impl Tls {
    /// The side that is called.
    pub fn server(io: Io, config: Arc<ServerConfig>) -> Result<Self, Fault> {
        match ServerConnection::new(config) {
            Ok(conn) => Ok(Self::new(io, conn.into())),
            Err(error) => Err(Fault::Tls(error.to_string())),
        }
    }

    /// The side that calls.
    pub fn client(
        io: Io,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Fault> {
        match ClientConnection::new(config, name) {
            Ok(conn) => Ok(Self::new(io, conn.into())),
            Err(error) => Err(Fault::Tls(error.to_string())),
        }
    }

    fn new(io: Io, mut conn: Connection) -> Self {
        conn.set_buffer_limit(Some(BACKLOG));
        Self {
            io,
            conn,
            staged: Vec::new(),
            first: Vec::new(),
            telling: words::TELLING,
            fault: None,
            ended: false,
            said_end: false,
            handshake: Rc::default(),
        }
    }

    /// Bytes that were read from the socket before.
    pub fn after(mut self, staged: Vec<u8>) -> Self {
        self.staged = staged;
        self
    }

    /// Keeps what the client says during the handshake, for `hello`.
    pub fn keeping_hello(mut self) -> Self {
        self.telling = hello::MOST;
        self
    }

    /// What was kept of it.
    pub fn kept_hello(&self) -> Option<&[u8]> {
        (self.telling == hello::MOST).then_some(&self.first)
    }

    pub fn without_hello(mut self) -> Self {
        self.first = Vec::new();
        self.telling = words::TELLING;
        self
    }

    /// The certificate that the peer showed.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let chain = self.conn.peer_certificates()?;
        chain.first().map(AsRef::as_ref)
    }

    /// The socket, and all that is to be known to go on elsewhere.
    pub fn take_apart(self) -> (Io, Parts) {
        let parts = Parts {
            conn: self.conn,
            staged: self.staged,
            fault: self.fault,
            ended: self.ended,
            said_end: self.said_end,
            handshake: Rc::unwrap_or_clone(self.handshake),
        };
        (self.io, parts)
    }

    /// Goes on where it was taken apart, after its handshake.
    pub fn put_together(io: Io, parts: Parts) -> Self {
        Self {
            io,
            conn: parts.conn,
            staged: parts.staged,
            first: Vec::new(),
            telling: words::TELLING,
            fault: parts.fault,
            ended: parts.ended,
            said_end: parts.said_end,
            handshake: Rc::new(parts.handshake),
        }
    }

    /// Goes on with the handshake until it is done.
    pub fn shake(&mut self) -> Poll<Result<(), Fault>> {
        loop {
            let pushed = self.push();
            if let Poll::Ready(Err(error)) = pushed {
                return Poll::Ready(Err(Fault::Socket(error)));
            }
            if !self.conn.is_handshaking() {
                if pushed.is_pending() {
                    return Poll::Pending;
                }
                self.note();
                return Poll::Ready(Ok(()));
            }
            match self.fill(&mut []) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Ready(Ok(_)) if self.ended => return Poll::Ready(Err(Fault::Closed)),
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// What is known of the handshake, for the flow's record.
    pub fn handshake(&self) -> Rc<Handshake> {
        Rc::clone(&self.handshake)
    }

    /// Closes in order, so that the alert which says what was wrong reaches the peer.
    pub fn leave(self) {
        self.io.doom(false);
        self.io.shutdown_write();
    }

    fn note(&mut self) {
        let conn = &self.conn;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (sni, subject) = match conn {
            Connection::Server(server) => (
                server.server_name().map(str::to_owned),
                server
                    .peer_certificates()
                    .and_then(|chain| subject::of(chain.first()?)),
            ),
            Connection::Client(_) => (None, None),
        };
        self.handshake = Rc::new(Handshake {
            version: match conn.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: conn
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or_default()
                .to_owned(),
            sni,
            alpn: conn.alpn_protocol().map(text),
            subject,
            resumed: conn.handshake_kind() == Some(HandshakeKind::Resumed),
            truncated: Cell::new(false),
        });
        if self.telling == words::TELLING {
            self.first = Vec::new();
        }
    }

    /// Gives the socket what is encrypted.
    fn push(&mut self) -> Poll<io::Result<()>> {
        while self.conn.wants_write() {
            match self.conn.write_tls(&mut Sink(&self.io)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Answers to what was read (alerts, tickets, new keys) go out at once.
    fn answer(&mut self) {
        if !self.conn.wants_write() {
            return;
        }
        if let Poll::Ready(Err(error)) = self.push()
            // After our own end there is nobody to answer.
            && !self.said_end
            && self.fault.is_none()
        {
            self.fault = Some(Fault::Socket(error));
        }
    }

    /// Reads and decrypts into `out` what one read of the socket gives; 0 is the end, or with no
    /// room in `out` some progress.
    fn fill(&mut self, out: &mut [u8]) -> Poll<Result<usize, Fault>> {
        let mut filled = self.drain(out);
        let mut reads = 0;
        loop {
            if !self.staged.is_empty() && (filled < out.len() || out.is_empty()) {
                let staged = std::mem::take(&mut self.staged);
                let used = self.feed(&staged, out, &mut filled);
                if used < staged.len() {
                    self.staged = staged[used..].to_vec();
                }
                if out.is_empty() && self.fault.is_none() {
                    return Poll::Ready(Ok(0));
                }
            }
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
            if let Some(fault) = self.fault.take() {
                return Poll::Ready(Err(fault));
            }
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            if reads == FRUITLESS {
                self.io.call_again();
                return Poll::Pending;
            }
            reads += 1;
            let got = ENCRYPTED.with_borrow_mut(|buf| {
                // No more than there is room for, a record that has partly arrived included.
                let most = out.len().saturating_sub(RECORD).max(RECORD).min(buf.len());
                let count = match self.io.read(&mut buf[..most]) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Read::Some(count, _))) => count,
                    Poll::Ready(Ok(Read::End)) => 0,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Socket(error))),
                };
                let used = self.feed(&buf[..count], out, &mut filled);
                if used < count {
                    self.staged = buf[used..count].to_vec();
                }
                Poll::Ready(Ok(count))
            });
            match got {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    self.handshake.truncated.set(true);
                }
                Poll::Ready(Ok(_)) if out.is_empty() && self.fault.is_none() => {
                    return Poll::Ready(Ok(0));
                }
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// Decrypts from `bytes` as long as there is room in `out`; what was used of them.
    fn feed(&mut self, mut bytes: &[u8], out: &mut [u8], filled: &mut usize) -> usize {
        let all = bytes.len();
        if self.conn.is_handshaking() && self.first.len() < self.telling {
            let more = all.min(self.telling - self.first.len());
            self.first.extend_from_slice(&bytes[..more]);
        }
        while !bytes.is_empty() && !self.ended && self.fault.is_none() {
            if let Err(error) = self.conn.read_tls(&mut bytes) {
                self.fault = Some(Fault::Tls(error.to_string()));
                break;
            }
            match self.conn.process_new_packets() {
                Ok(state) => {
                    let waiting = state.plaintext_bytes_to_read();
                    self.ended = state.peer_has_closed();
                    if waiting > 0 {
                        let taken = self.drain(&mut out[*filled..]);
                        *filled += taken;
                        if taken < waiting {
                            break;
                        }
                    }
                }
                Err(error) => {
                    let peer = match self.conn {
                        Connection::Server(_) => "client",
                        Connection::Client(_) => "target",
                    };
                    let why = words::explain(peer, &error, &self.first);
                    self.fault = Some(Fault::Tls(why));
                    // What came before is genuine.
                    *filled += self.drain(&mut out[*filled..]);
                }
            }
        }
        self.answer();
        match self.ended || self.fault.is_some() {
            // Nothing behind the end counts.
            true => all,
            false => all - bytes.len(),
        }
    }

    /// What is decrypted already.
    fn drain(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < out.len() {
            match self.conn.reader().read(&mut out[filled..]) {
                Ok(count) if count > 0 => filled += count,
                // Nothing now, or nothing ever: `ended` tells which.
                _ => break,
            }
        }
        filled
    }
}

impl Stream for Tls {
    fn read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.fill(buf).map_err(io::Error::from)
    }

    fn write(&mut self, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// In common records, and with one call.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let accepted = match bufs {
                [buf] => self.conn.writer().write(buf)?,
                _ => self.conn.writer().write_vectored(bufs)?,
            };
            match self.push() {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                _ if accepted > 0 || bufs.iter().all(|buf| buf.is_empty()) => {
                    return Poll::Ready(Ok(accepted));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        self.push()
    }

    fn end(&mut self) -> Poll<io::Result<()>> {
        if !self.said_end {
            self.said_end = true;
            self.conn.send_close_notify();
        }
        let pushed = self.push();
        if let Poll::Ready(Ok(())) = pushed {
            self.io.shutdown_write();
        }
        pushed
    }

    fn io(&self) -> &Io {
        &self.io
    }

    fn into_io(self: Box<Self>) -> Io {
        self.io
    }
}

/// The socket as rustls writes to it: several records with one call.
struct Sink<'a>(&'a Io);

impl io::Write for Sink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        blocking(self.0.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(self.0.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
