//! The handshake on the wire, on either side of it.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::head::{self, Refused};
use super::{Keys, Ws, secret};
use crate::plan::WebSocketPlan;
use crate::runtime::Worker;
use crate::transport::Stream;

const CHUNK: usize = 2048;

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum Fault {
    Socket(io::Error),
    /// The peer said something else, in words that go on from its name.
    Refused(String),
    /// The peer went away in the middle of its head.
    Closed,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

enum Side {
    /// Waits for a request.
    Server,
    /// Waits for the answer to a request with this key.
    Client(String),
    /// Gives an answer: the WebSocket begins behind it, or nothing does.
    Answering(Result<bool, String>),
}

/// A handshake under way.
pub struct Shaking<'a, S> {
    inner: S,
    plan: &'a WebSocketPlan,
    side: Side,
    got: Vec<u8>,
    to_send: Vec<u8>,
}

impl<'a, S: Stream> Shaking<'a, S> {
    /// The side that is called.
    pub fn server(inner: S, plan: &'a WebSocketPlan) -> Self {
        Self {
            inner,
            plan,
            side: Side::Server,
            got: Vec::new(),
            to_send: Vec::new(),
        }
    }

    /// The side that calls.
    pub fn client(inner: S, plan: &'a WebSocketPlan) -> Self {
        let key = secret::key();
        Self {
            inner,
            plan,
            to_send: head::request(&plan.host, &plan.path, &key),
            side: Side::Client(key),
            got: Vec::new(),
        }
    }

    /// Goes on until the handshake is done.
    pub fn shake(&mut self) -> Poll<Result<(), Fault>> {
        loop {
            match self.push() {
                Poll::Ready(Ok(())) => {}
                other => return other.map_err(Fault::from),
            }
            if let Side::Answering(verdict) = &self.side {
                return Poll::Ready(match verdict {
                    Ok(_) => Ok(()),
                    Err(why) => Err(Fault::Refused(why.clone())),
                });
            }
            let end = match self.more() {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Ready(Ok(end)) => end,
            };
            match &self.side {
                Side::Client(key) => {
                    let Some(end) = end else {
                        if let Some(why) = head::hopeless_answer(&self.got) {
                            return Poll::Ready(Err(Fault::Refused(why)));
                        }
                        continue;
                    };
                    let read = head::read_answer(&self.got[..end], key);
                    self.got.drain(..end);
                    return Poll::Ready(read.map_err(Fault::Refused));
                }
                _ => self.answer(end),
            }
        }
    }

    /// Answers a request that ends here, or that needs no end to be refused.
    fn answer(&mut self, end: Option<usize>) {
        let read = match end {
            Some(end) => {
                let WebSocketPlan { host, path, .. } = self.plan;
                let read = head::read_request(&self.got[..end], host, path);
                self.got.drain(..end);
                read
            }
            None => match head::hopeless_request(&self.got) {
                Some(refused) => Err(refused),
                None => return,
            },
        };
        match read {
            Ok(accepted) => {
                self.to_send = head::answer(&accepted.accept);
                self.side = Side::Answering(Ok(accepted.hasty));
            }
            Err(Refused { status, why }) => {
                self.to_send = head::refusal(status);
                self.side = Side::Answering(Err(why));
            }
        }
    }

    /// Reads on; where the head ends, when it does.
    fn more(&mut self) -> Poll<Result<Option<usize>, Fault>> {
        let mut chunk = [0; CHUNK];
        let count = match self.inner.read(&mut chunk) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(count) => count?,
        };
        if count == 0 {
            return Poll::Ready(Err(Fault::Closed));
        }
        let seen = self.got.len();
        self.got.extend_from_slice(&chunk[..count]);
        let end = head::end(&self.got, seen);
        if end.is_none_or(|end| end > head::MOST) && self.got.len() > head::MOST {
            let most = head::MOST;
            let why = format!("sent a head of more than {most} bytes");
            return Poll::Ready(Err(Fault::Refused(why)));
        }
        Poll::Ready(Ok(end))
    }

    /// Everything that is to be sent has reached the socket.
    fn push(&mut self) -> Poll<io::Result<()>> {
        if self.to_send.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.to_send.is_empty() {
            match self.inner.write(&self.to_send) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(count) => drop(self.to_send.drain(..count?)),
            }
        }
        // Pending asks for another call, in which there is nothing left to write but this.
        self.inner.flush()
    }

    /// The WebSocket, after a handshake that came to one.
    pub fn finish(self, worker: &Rc<Worker>) -> Ws<S> {
        let (keys, hasty) = match self.side {
            Side::Client(_) => (Keys::of_client(self.plan.mask), false),
            Side::Server | Side::Answering(_) => {
                (Keys::None, matches!(self.side, Side::Answering(Ok(true))))
            }
        };
        Ws::new(self.inner, worker, keys, self.got, hasty)
    }

    /// Closes in order, so that what was answered reaches the peer.
    pub fn leave(mut self) {
        let _ = self.inner.end();
        Box::new(self.inner).into_io().doom(false);
    }
}
