//! A leg on its way from one worker to another, or to the first: a socket that no reactor watches,
//! and what is wrapped around it.

use std::io;
use std::rc::Rc;

use crate::net::fd::Fd;
use crate::net::socket;
use crate::relay::road::Leg;
use crate::runtime::io::Io;
use crate::runtime::{TaskId, Worker, ready};
use crate::transport::tls;

pub enum Lifted {
    Plain(Fd),
    Tls(Fd, Box<tls::Parts>),
}

impl Lifted {
    pub fn reset(self) {
        let (Self::Plain(fd) | Self::Tls(fd, _)) = self;
        socket::reset_on_close(&fd);
    }

    /// Puts it down on a worker, as a leg of that task, with what its handshake came to.
    pub fn settle(
        self,
        worker: &Rc<Worker>,
        task: TaskId,
    ) -> io::Result<(Leg, Option<Rc<tls::Handshake>>)> {
        let io = |fd| -> io::Result<Io> {
            let io = Io::new(worker, fd, task)?;
            // Connected, so that nearly always there is room: a write that finds none says so.
            io.assume(ready::WRITE);
            Ok(io)
        };
        match self {
            Self::Plain(fd) => Ok((Leg::Plain(io(fd)?), None)),
            Self::Tls(fd, parts) => {
                let tls = tls::Tls::put_together(io(fd)?, *parts);
                let handshake = tls.handshake();
                Ok((Leg::Wrapped(Box::new(tls)), Some(handshake)))
            }
        }
    }
}
