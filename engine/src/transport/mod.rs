//! What may wrap a leg: a plain socket, TLS, WebSocket, or WebSocket inside TLS.
//!
//! A stream belongs to one task, which the reactor calls at every change of its socket's readiness.
//! So nothing here takes a waker: `Pending` means that the socket will call.

pub mod proxy;
pub mod socks_udp;
pub mod tls;
pub mod uot;
pub mod ws;

use std::io::{self, IoSlice};
use std::task::Poll;

use crate::runtime::io::{Io, Read};

/// The inner side of a leg: bytes as the other leg sees them.
pub trait Stream {
    /// Bytes read; 0 is the peer's orderly end.
    fn read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Some of `buf` accepted. What was accepted may still have to be flushed.
    fn write(&mut self, buf: &[u8]) -> Poll<io::Result<usize>>;

    /// Some of `bufs` accepted, one behind the other.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let buf = bufs.iter().find(|buf| !buf.is_empty());
        self.write(buf.map_or(&[], |buf| buf))
    }

    /// Everything accepted has reached the socket.
    fn flush(&mut self) -> Poll<io::Result<()>>;

    /// Says our end to the peer, after everything accepted.
    fn end(&mut self) -> Poll<io::Result<()>>;

    /// The socket underneath.
    fn io(&self) -> &Io;

    /// The socket alone, to be closed or reset.
    fn into_io(self: Box<Self>) -> Io;
}

/// A plain socket as a stream.
pub struct Plain(pub Io);

impl Stream for Plain {
    fn read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.read(buf).map_ok(|read| match read {
            Read::Some(count, _) => count,
            Read::End => 0,
        })
    }

    fn write(&mut self, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.write_vectored(bufs)
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) -> Poll<io::Result<()>> {
        self.0.shutdown_write();
        Poll::Ready(Ok(()))
    }

    fn io(&self) -> &Io {
        &self.0
    }

    fn into_io(self: Box<Self>) -> Io {
        self.0
    }
}

impl Stream for Box<dyn Stream> {
    fn read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        (**self).read(buf)
    }

    fn write(&mut self, buf: &[u8]) -> Poll<io::Result<usize>> {
        (**self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        (**self).write_vectored(bufs)
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        (**self).flush()
    }

    fn end(&mut self) -> Poll<io::Result<()>> {
        (**self).end()
    }

    fn io(&self) -> &Io {
        (**self).io()
    }

    fn into_io(self: Box<Self>) -> Io {
        (*self).into_io()
    }
}
