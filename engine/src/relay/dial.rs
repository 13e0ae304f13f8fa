//! Connecting to the target: all addresses of a name, raced (RFC 8305).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::endpoint::{Remote, Route, Target, Through};
use crate::flow::reason::Reason;
use crate::net::socket;
use crate::resolve::{Lookup, LookupFuture, ResolveError};
use crate::runtime::io::Io;
use crate::runtime::{Sleep, TaskId, Worker, ready};

/// How long an attempt has the field to itself (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// When there is no descriptor for a socket: how long to wait for one.
const NO_DESCRIPTOR: Duration = Duration::from_millis(50);

pub enum DialError {
    Resolve(ResolveError),
    Connect(io::Error),
}

impl DialError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Resolve(_) => Reason::ResolveFailed,
            Self::Connect(error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => Reason::ConnectRefused,
                Some(libc::ETIMEDOUT) => Reason::ConnectTimeout,
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
                    Reason::ConnectUnreachable
                }
                _ => Reason::ConnectFailed,
            },
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Resolve(error) => error.to_string(),
            Self::Connect(error) => error.to_string(),
        }
    }
}

/// What a finished dial gives: the connected socket and the address it leads to.
pub type Dialled = Result<(Io, SocketAddr), DialError>;

enum Stage {
    Resolve(LookupFuture),
    Race,
}

/// A dial under way. It has no deadline of its own; its owner drops it.
pub struct Dial {
    worker: Rc<Worker>,
    task: TaskId,
    route: Arc<Route>,
    stage: Stage,
    port: u16,
    candidates: VecDeque<SocketAddr>,
    attempts: Vec<(SocketAddr, Io)>,
    next: Sleep,
    last: Option<io::Error>,
    /// How many attempts were started, for whoever wants to know where the time went.
    pub started: u32,
}

impl Dial {
    pub fn new(
        worker: &Rc<Worker>,
        task: TaskId,
        route: &Arc<Route>,
        target: &Target,
    ) -> Result<Self, DialError> {
        let mut dial = Self::among(worker, task, route, VecDeque::new());
        dial.port = target.port();
        match &target.remote {
            Remote::Addr(addr) => dial.candidates.push_back(*addr),
            Remote::Name { host, port } => match route.resolver.lookup(host) {
                Lookup::Ready(answer) => {
                    dial.candidates = interleave(&answer.map_err(DialError::Resolve)?, *port);
                }
                Lookup::Pending(future) => dial.stage = Stage::Resolve(future),
            },
        }
        Ok(dial)
    }

    /// These addresses and no others, by the way that the route says.
    pub fn among(
        worker: &Rc<Worker>,
        task: TaskId,
        route: &Arc<Route>,
        candidates: VecDeque<SocketAddr>,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            task,
            route: Arc::clone(route),
            stage: Stage::Race,
            port: 0,
            candidates,
            attempts: Vec::new(),
            next: Sleep::new(worker, None),
            last: None,
            started: 0,
        }
    }

    /// Whether there is a socket for the target already.
    pub fn has_socket(&self) -> bool {
        !self.attempts.is_empty()
    }

    pub fn is_resolving(&self) -> bool {
        matches!(self.stage, Stage::Resolve(_))
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Dialled> {
        if let Stage::Resolve(future) = &mut self.stage {
            match Pin::new(future).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(DialError::Resolve(error))),
                Poll::Ready(Ok(addrs)) => {
                    self.candidates = interleave(&addrs, self.port);
                    self.stage = Stage::Race;
                }
            }
        }
        self.race()
    }

    fn race(&mut self) -> Poll<Dialled> {
        if let Some(won) = self.look_at_attempts() {
            return Poll::Ready(Ok(won));
        }
        loop {
            let may_start = self.attempts.is_empty() && self.last_was_not_local()
                || self.started == 0
                || self.next.is_due();
            if !may_start {
                return Poll::Pending;
            }
            let Some(addr) = self.candidates.pop_front() else {
                if self.attempts.is_empty() {
                    let error = self.last.take().unwrap_or_else(no_address);
                    return Poll::Ready(Err(DialError::Connect(error)));
                }
                // The last candidates have the field to themselves.
                self.next.reset(None);
                return Poll::Pending;
            };
            match self.start(addr) {
                Ok((io, true)) => return Poll::Ready(Ok((io, addr))),
                Ok((io, false)) => {
                    self.attempts.push((addr, io));
                    self.wait(STAGGER);
                    return Poll::Pending;
                }
                Err(error) if socket::is_exhausted(&error) => {
                    self.candidates.push_front(addr);
                    self.last = Some(error);
                    self.wait(NO_DESCRIPTOR);
                    return Poll::Pending;
                }
                Err(error) => self.last = Some(error),
            }
        }
    }

    /// Whether it waits for descriptors and for nobody else.
    pub fn lacks_descriptors(&self) -> bool {
        self.attempts.is_empty() && !self.last_was_not_local()
    }

    /// After running out of descriptors, only the timer starts the next attempt.
    fn last_was_not_local(&self) -> bool {
        !self.last.as_ref().is_some_and(socket::is_exhausted)
    }

    fn wait(&mut self, time: Duration) {
        self.next.reset(Some(self.worker.now() + time));
        // Asked once to arm it.
        self.next.is_due();
    }

    fn look_at_attempts(&mut self) -> Option<(Io, SocketAddr)> {
        let mut index = 0;
        while index < self.attempts.len() {
            let (_, io) = &self.attempts[index];
            let readiness = io.readiness();
            if readiness & (ready::ERROR | ready::HANGUP) != 0 {
                let (addr, io) = self.attempts.remove(index);
                match socket::take_error(&io) {
                    // Connected, and already closed by the target: it may have said something.
                    Ok(()) => return Some((io, addr)),
                    Err(error) => self.last = Some(error),
                }
            } else if readiness & ready::WRITE != 0 {
                let (addr, io) = self.attempts.remove(index);
                return Some((io, addr));
            } else {
                index += 1;
            }
        }
        None
    }

    fn start(&mut self, addr: SocketAddr) -> io::Result<(Io, bool)> {
        self.started += 1;
        let plan = &self.route.plan;
        let source = source_for(&self.route.through, &addr)?;
        let fd = socket::stream(&addr, self.route.tcp.send_mptcp)?;
        if let Some(source) = source {
            socket::set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
            if source.port() == 0 {
                // The port is chosen at connect, when the target is known: one source address
                // then serves as many flows as there are targets times ports.
                let _ = socket::set(&fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
            }
            socket::bind(&fd, &source)?;
        }
        if let Some(device) = &plan.interface {
            socket::bind_device(&fd, device)?;
        }
        let connected = socket::connect(&fd, &addr)?;
        let io = Io::new(&self.worker, fd, self.task)?;
        Ok((io, connected))
    }
}

/// The source address for a target, or an error when there is none of its family.
pub fn source_for(through: &Through, target: &SocketAddr) -> io::Result<Option<SocketAddr>> {
    match through {
        Through::Any => Ok(None),
        Through::Addr(source) if source.is_ipv4() == target.is_ipv4() => Ok(Some(*source)),
        Through::Addr(_) => Err(no_address()),
        Through::Device(device) => {
            let ip = socket::device_addr(device, target.is_ipv4())?;
            Ok(Some(SocketAddr::new(ip, 0)))
        }
    }
}

fn no_address() -> io::Error {
    io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)
}

/// The families in turn, beginning with that of the first address.
fn interleave(addrs: &[IpAddr], port: u16) -> VecDeque<SocketAddr> {
    let Some(first) = addrs.first() else {
        return VecDeque::new();
    };
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) = addrs
        .iter()
        .map(|ip| SocketAddr::new(*ip, port))
        .partition(|addr| addr.is_ipv4() == first.is_ipv4());
    let mut out = VecDeque::with_capacity(addrs.len());
    while let Some(addr) = one.pop_front() {
        out.push_back(addr);
        std::mem::swap(&mut one, &mut other);
        if one.is_empty() {
            std::mem::swap(&mut one, &mut other);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(addrs: &[&str]) -> Vec<String> {
        let addrs: Vec<IpAddr> = addrs
            .iter()
            .map(|text| text.parse().expect("literal"))
            .collect();
        interleave(&addrs, 80)
            .into_iter()
            .map(|addr| addr.ip().to_string())
            .collect()
    }

    #[test]
    fn families_take_turns_and_none_is_lost() {
        assert_eq!(
            order(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "::1", "::2"]),
            ["1.1.1.1", "::1", "1.1.1.2", "::2", "1.1.1.3"]
        );
        assert_eq!(order(&["::1", "1.1.1.1"]), ["::1", "1.1.1.1"]);
        assert_eq!(order(&["::1", "::2"]), ["::1", "::2"]);
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn a_source_of_the_other_family_is_no_source() {
        let through = Through::Addr("192.0.2.1:0".parse().expect("literal"));
        let v4 = "192.0.2.9:80".parse().expect("literal");
        let v6 = "[2001:db8::9]:80".parse().expect("literal");
        assert!(matches!(source_for(&through, &v4), Ok(Some(_))));
        assert!(source_for(&through, &v6).is_err());
        assert!(matches!(source_for(&Through::Any, &v6), Ok(None)));
        let device = Through::Device("lo".to_owned());
        let source = source_for(&device, &v4).expect("lo has 127.0.0.1");
        assert_eq!(source.map(|addr| addr.ip().is_loopback()), Some(true));
    }
}
