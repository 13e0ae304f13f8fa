//! One look at a remote: does it do what a check asks of it?

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::net::socket;
use crate::plan::{CheckKind, CheckPlan, HttpCheckPlan, TlsSendPlan, UdpCheckPlan};
use crate::relay::dial::{Dial, source_for};
use crate::relay::endpoint::{PlanError, Remote, Route, Target};
use crate::relay::reach::is_to_blame;
use crate::resolve::Lookup;
use crate::runtime::io::{Io, Read};
use crate::runtime::{Sleep, TaskId, Worker, ready};
use crate::transport::tls::connector::Connector;
use crate::transport::tls::{Fault, Tls};
use crate::transport::{Plain, Stream};

/// The longest first line of an HTTP answer.
const MOST_LINE: usize = 1024;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// In words.
    Bad(String),
    /// Something is wrong here, so that nothing is known about the remote.
    Unsure,
}

/// What is asked of a remote, ready to be sent.
pub enum Question {
    Connect,
    Handshake(Arc<Connector>),
    Http { request: Vec<u8>, status: Vec<u16> },
    Udp { send: Vec<u8>, expect: Vec<u8> },
}

impl Question {
    pub fn prepare(check: &CheckPlan, target: &Target) -> Result<Self, PlanError> {
        Ok(match check.kind {
            CheckKind::Tcp => Self::Connect,
            CheckKind::Tls => Self::Handshake(any_certificate(target)?),
            CheckKind::Http => {
                let standard = HttpCheckPlan::default();
                let plan = check.http.as_ref().unwrap_or(&standard);
                Self::Http {
                    request: request(plan, target)?,
                    status: plan.status.clone(),
                }
            }
            CheckKind::Udp => {
                let plan = check.udp.as_ref().ok_or_else(|| {
                    let why = "a check by UDP needs to know what to send";
                    wrong("health.check.udp", "", why)
                })?;
                let UdpCheckPlan { send, expect } = plan;
                Self::Udp {
                    send: bytes("health.check.udp.send", send)?,
                    expect: bytes("health.check.udp.expect", expect)?,
                }
            }
        })
    }
}

/// Says only whether somebody speaks TLS there, when flows are not wrapped in it by us.
fn any_certificate(target: &Target) -> Result<Arc<Connector>, PlanError> {
    let sni = match &target.remote {
        Remote::Addr(addr) => addr.ip().to_string(),
        Remote::Name { host, .. } => host.clone(),
    };
    Connector::shared(&TlsSendPlan {
        sni,
        alpn: Vec::new(),
        insecure: true,
        ca: None,
        cert: None,
        key: None,
        key_log: false,
    })
}

fn request(plan: &HttpCheckPlan, target: &Target) -> Result<Vec<u8>, PlanError> {
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plan.path.starts_with('/') || !is_word(&plan.path) {
        let why = "not a path that begins with / and has no blanks";
        return Err(wrong("health.check.http.path", &plan.path, why));
    }
    let host = plan.host.as_deref().unwrap_or(&target.text);
    if host.is_empty() || !is_word(host) {
        return Err(wrong("health.check.http.host", host, "not a host"));
    }
    Ok(format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: qanat\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        plan.path
    )
    .into_bytes())
}

/// Hexadecimal digits as bytes.
fn bytes(field: &'static str, text: &str) -> Result<Vec<u8>, PlanError> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()),
        _ => Err(wrong(field, text, "not hexadecimal bytes")),
    }
}

fn wrong(field: &'static str, value: &str, why: &str) -> PlanError {
    PlanError {
        field,
        value: value.to_owned(),
        why: why.to_owned(),
    }
}

/// Who looks, and at what.
pub struct Look<'a> {
    pub worker: &'a Rc<Worker>,
    pub task: TaskId,
    pub route: &'a Arc<Route>,
    pub target: &'a Target,
    pub timeout: Duration,
}

impl Look<'_> {
    pub async fn ask(&self, question: &Question) -> Verdict {
        let asked = async {
            match question {
                Question::Udp { send, expect } => self.ask_udp(send, expect).await,
                _ => self.ask_tcp(question).await,
            }
        };
        let mut asked = pin!(asked);
        let until = self.worker.now() + self.timeout;
        let mut sleep = Sleep::new(self.worker, Some(until));
        poll_fn(|cx| match asked.as_mut().poll(cx) {
            Poll::Ready(verdict) => Poll::Ready(verdict),
            Poll::Pending if sleep.is_due() => {
                let seconds = self.timeout.as_secs_f64();
                Poll::Ready(Verdict::Bad(format!("no answer within {seconds} s")))
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn ask_tcp(&self, question: &Question) -> Verdict {
        let io = match self.connect().await {
            Ok(io) => io,
            Err(verdict) => return verdict,
        };
        let wrap = &self.route.wraps.connect;
        match (question, wrap) {
            (Question::Handshake(connector), None) => match shake(io, connector).await {
                Ok(_) => Verdict::Good,
                Err(fault) => Verdict::Bad(said(fault)),
            },
            (Question::Handshake(_), Some(connector)) => match shake(io, connector).await {
                Ok(_) => Verdict::Good,
                Err(fault) => Verdict::Bad(said(fault)),
            },
            (Question::Http { request, status }, None) => {
                ask_http(&mut Plain(io), request, status).await
            }
            (Question::Http { request, status }, Some(connector)) => {
                match shake(io, connector).await {
                    Ok(mut tls) => ask_http(&mut tls, request, status).await,
                    Err(fault) => Verdict::Bad(said(fault)),
                }
            }
            _ => Verdict::Good,
        }
    }

    async fn connect(&self) -> Result<Io, Verdict> {
        let judge = |error: crate::relay::dial::DialError| match is_to_blame(&error) {
            true => Verdict::Bad(error.text()),
            false => Verdict::Unsure,
        };
        let mut dial = Dial::new(self.worker, self.task, self.route, self.target).map_err(judge)?;
        let until = self.worker.now() + self.timeout;
        let mut sleep = Sleep::new(self.worker, Some(until));
        poll_fn(|cx| match dial.poll(cx) {
            Poll::Ready(dialled) => Poll::Ready(dialled.map(|(io, _)| io).map_err(judge)),
            Poll::Pending if dial.lacks_descriptors() && sleep.is_due() => {
                Poll::Ready(Err(Verdict::Unsure))
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn ask_udp(&self, send: &[u8], expect: &[u8]) -> Verdict {
        let peer = match &self.target.remote {
            Remote::Addr(addr) => *addr,
            Remote::Name { host, port } => {
                let answer = match self.route.resolver.lookup(host) {
                    Lookup::Ready(answer) => answer,
                    Lookup::Pending(future) => future.await,
                };
                match answer.map(|ips| ips.first().copied()) {
                    Ok(Some(ip)) => SocketAddr::new(ip, *port),
                    Ok(None) => return Verdict::Bad("the name has no address".to_owned()),
                    Err(error) => return Verdict::Bad(error.to_string()),
                }
            }
        };
        let Ok(io) = self.datagrams(&peer) else {
            return Verdict::Unsure;
        };
        let mut answer = vec![0; expect.len().max(1)];
        let mut sent = false;
        let answered = poll_fn(|_| {
            if !sent {
                match io.write(send) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(_)) => sent = true,
                }
            }
            if io.is(ready::ERROR) {
                // The target's host has said by ICMP that nobody is there.
                socket::take_error(&io)?;
                io.clear(ready::ERROR);
            }
            io.read(&mut answer)
        });
        match answered.await {
            Err(error) => Verdict::Bad(error.to_string()),
            Ok(Read::Some(count, _)) if answer[..count].starts_with(expect) => Verdict::Good,
            Ok(Read::End) if expect.is_empty() => Verdict::Good,
            Ok(_) => Verdict::Bad("answered something else".to_owned()),
        }
    }

    fn datagrams(&self, peer: &SocketAddr) -> io::Result<Io> {
        let source = source_for(&self.route.through, peer)?;
        let fd = socket::datagram(peer)?;
        if let Some(mut source) = source {
            // The configured port is for associations.
            source.set_port(0);
            socket::bind(&fd, &source)?;
        }
        if let Some(device) = &self.route.plan.interface {
            socket::bind_device(&fd, device)?;
        }
        socket::connect(&fd, peer)?;
        Io::new(self.worker, fd, self.task)
    }
}

async fn shake(io: Io, connector: &Connector) -> Result<Tls, Fault> {
    let config = Arc::clone(&connector.config);
    let mut tls = Tls::client(io, config, connector.name.clone())?;
    match poll_fn(|_| tls.shake()).await {
        Ok(()) => Ok(tls),
        Err(fault) => {
            tls.leave();
            Err(fault)
        }
    }
}

fn said(fault: Fault) -> String {
    match fault {
        Fault::Tls(why) => format!("TLS handshake: {why}"),
        Fault::Closed => "closed the connection during the TLS handshake".to_owned(),
        Fault::Socket(error) => format!("TLS handshake: {error}"),
    }
}

async fn ask_http(stream: &mut dyn Stream, mut request: &[u8], accepted: &[u16]) -> Verdict {
    let mut line = Vec::new();
    let mut buf = [0; MOST_LINE];
    let answered = poll_fn(|_| {
        while !request.is_empty() {
            match stream.write(request) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(count) => request = &request[count?..],
            }
        }
        if stream.flush()?.is_pending() {
            return Poll::Pending;
        }
        loop {
            match stream.read(&mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(count) => {
                    let count = count?;
                    line.extend_from_slice(&buf[..count]);
                    match status_of(&line) {
                        Status::Incomplete if count > 0 => {}
                        status => return Poll::Ready(io::Result::Ok(status)),
                    }
                }
            }
        }
    });
    match answered.await {
        Err(error) => Verdict::Bad(error.to_string()),
        Ok(Status::Incomplete) => Verdict::Bad("closed the connection without an answer".into()),
        Ok(Status::NotHttp) => Verdict::Bad("answered something that is not HTTP".into()),
        Ok(Status::Code(code)) if is_accepted(code, accepted) => Verdict::Good,
        Ok(Status::Code(code)) => Verdict::Bad(format!("status {code}")),
    }
}

fn is_accepted(code: u16, accepted: &[u16]) -> bool {
    match accepted {
        [] => (200..400).contains(&code),
        some => some.contains(&code),
    }
}

/// What the beginning of an HTTP/1 answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Incomplete,
    Code(u16),
    NotHttp,
}

/// The status of an answer that begins so: `HTTP/1.x NNN`.
pub fn status_of(head: &[u8]) -> Status {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let common = head.len().min(BEGINNING.len());
    if head[..common] != BEGINNING[..common] {
        return Status::NotHttp;
    }
    let rest = &head[common..];
    // Minor version, blank, three digits, and what ends them.
    for (place, byte) in rest.iter().take(6).enumerate() {
        let fits = match place {
            1 => *byte == b' ',
            5 => matches!(byte, b' ' | b'\r' | b'\n'),
            _ => byte.is_ascii_digit(),
        };
        if !fits {
            return Status::NotHttp;
        }
    }
    match rest {
        [_, _, a, b, c, _, ..] => {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Status::Code(digit(a) * 100 + digit(b) * 10 + digit(c))
        }
        _ => Status::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::mix;

    #[test]
    fn a_status_is_read_from_any_beginning() {
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        for length in 0..answer.len() {
            let expected = match length {
                0..13 => Status::Incomplete,
                _ => Status::Code(204),
            };
            assert_eq!(status_of(&answer[..length]), expected, "{length}");
        }
        assert_eq!(status_of(b"HTTP/1.0 200\r\n"), Status::Code(200));
        for other in [
            "SSH-2.0-x",
            "HTTP/2 200 ",
            "HTTP/1.1 2x0 ",
            "HTTP/1.1 2000",
            "HTTP/1.12 2",
        ] {
            assert_eq!(status_of(other.as_bytes()), Status::NotHttp, "{other}");
        }
    }

    /// More bytes never take back what fewer have said.
    #[test]
    fn an_answer_once_understood_stays_so() {
        for round in 0..20_000 {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            let place = mix(round) as usize % answer.len();
            answer[place] = mix(round ^ 0x55) as u8;
            let mut known = Status::Incomplete;
            for length in 0..=answer.len() {
                let status = status_of(&answer[..length]);
                assert!(known == Status::Incomplete || known == status);
                known = status;
            }
            assert_ne!(known, Status::Incomplete);
        }
    }

    fn target() -> Target {
        Target {
            remote: Remote::Addr(([127, 0, 0, 1], 80).into()),
            text: "127.0.0.1:80".to_owned(),
        }
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_request() {
        let plan = |path: &str, host: Option<&str>| HttpCheckPlan {
            path: path.to_owned(),
            host: host.map(str::to_owned),
            status: Vec::new(),
        };
        let text = request(&plan("/health?x=1", None), &target()).expect("fine");
        let text = String::from_utf8(text).expect("ASCII");
        assert!(text.starts_with("GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
        for (path, host) in [("x", None), ("/a b", None), ("/\r\nX: y", None)] {
            assert!(request(&plan(path, host), &target()).is_err(), "{path:?}");
        }
        let error = request(&plan("/", Some("a\r\nb")), &target());
        assert_eq!(
            error.err().map(|error| error.field),
            Some("health.check.http.host")
        );
    }

    #[test]
    fn bytes_are_hexadecimal() {
        assert_eq!(bytes("x", "00fFa1").ok(), Some(vec![0, 255, 161]));
        assert_eq!(bytes("x", "").ok(), Some(Vec::new()));
        for text in ["0", "0x00", "zz", "\u{0661}\u{0661}"] {
            assert!(bytes("x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_list_good_answers_are_200_to_399() {
        for (code, good) in [(199, false), (200, true), (399, true), (400, false)] {
            assert_eq!(is_accepted(code, &[]), good, "{code}");
        }
        assert!(is_accepted(401, &[200, 401]));
        assert!(!is_accepted(302, &[200, 401]));
    }
}
