//! Which messages go from a client to a server, and back, without anybody deciding about them, and
//! how they look on the other side. It is what the owner would make of them, byte for byte.

use super::head::{self, Head};

/// What was decided about the messages of one client to one server.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// `host:port` as the client writes it.
    pub authority: Vec<u8>,
    /// Our name in `Via`.
    pub via: Vec<u8>,
    pub credentials: Credentials,
}

/// What must be in `Proxy-Authorization`, which is not for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    Whatever,
    None,
    These(Vec<u8>),
}

/// A request, as it goes to the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub text: Vec<u8>,
    pub head_only: bool,
    pub body: u64,
}

/// An answer, as it goes to the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub text: Vec<u8>,
    pub status: u16,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Length(u64),
    Chunked,
}

/// What the bytes of this head say, or `None` if the owner must look at it.
pub fn request(bytes: &[u8], agreed: &Agreed) -> Option<Request> {
    let Head { line, fields } = head::split(bytes)?;
    let target = line.strip_suffix(b" HTTP/1.1")?;
    let space = target.iter().position(|byte| *byte == b' ')?;
    let (method, target) = (&target[..space], &target[space + 1..]);
    if !matches!(
        method,
        b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"PATCH"
    ) {
        return None;
    }
    let path = target
        .strip_prefix(b"http://")?
        .strip_prefix(&*agreed.authority)?;
    let shaped = |byte: &u8| *byte > b' ' && *byte != 0x7f && *byte != b'#';
    if !path.iter().all(shaped) {
        return None;
    }
    let slash: &[u8] = match path {
        [b'/', ..] => b"",
        [] | [b'?', ..] => b"/",
        _ => return None,
    };
    let mut text = Vec::with_capacity(bytes.len() + agreed.via.len() + 32);
    for part in [method, b" ", slash, path, b" HTTP/1.1\r\nHost: "] {
        text.extend_from_slice(part);
    }
    text.extend_from_slice(&agreed.authority);
    text.extend_from_slice(b"\r\n");
    let mut body = None;
    let mut credentials: Option<&[u8]> = None;
    for (name, value) in fields {
        match kind_of(name) {
            Kind::Host | Kind::KeepAlive => {}
            Kind::Connection if value.eq_ignore_ascii_case(b"keep-alive") => {}
            Kind::ProxyAuthorization => {
                if credentials.replace(value).is_some() {
                    return None;
                }
            }
            Kind::ContentLength => {
                if body.replace(head::length(value)?).is_some() {
                    return None;
                }
                push(&mut text, name, value);
            }
            Kind::Other => push(&mut text, name, value),
            _ => return None,
        }
    }
    let known = match &agreed.credentials {
        Credentials::Whatever => true,
        Credentials::None => credentials.is_none(),
        Credentials::These(these) => credentials == Some(these),
    };
    if !known {
        return None;
    }
    text.extend_from_slice(b"Via: 1.1 ");
    text.extend_from_slice(&agreed.via);
    text.extend_from_slice(b"\r\n\r\n");
    Some(Request {
        text,
        head_only: method == b"HEAD",
        body: body.unwrap_or(0),
    })
}

/// What this head says, if it answers a request whose answer is a head only, or not.
pub fn answer(bytes: &[u8], head_only: bool, via: &[u8]) -> Option<Answer> {
    let Head { line, fields } = head::split(bytes)?;
    let line = line.strip_prefix(b"HTTP/1.1 ")?;
    let (code, reason) = line.split_at_checked(3)?;
    let status = match code {
        [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9'] => head::length(code)? as u16,
        _ => return None,
    };
    let reason = match reason {
        [] => reason,
        [b' ', reason @ ..] if reason.iter().all(|byte| head::is_text(*byte)) => reason,
        _ => return None,
    };
    let mut text = Vec::with_capacity(bytes.len() + via.len() + 32);
    for part in [b"HTTP/1.1 ", code, b" ", reason, b"\r\n"] {
        text.extend_from_slice(part);
    }
    let mut length = None;
    let mut chunked = false;
    let mut passed: Vec<u8> = Vec::new();
    for (name, value) in fields {
        match kind_of(name) {
            Kind::Connection if value.eq_ignore_ascii_case(b"keep-alive") => {}
            Kind::KeepAlive | Kind::HopByHop | Kind::ProxyAuthorization => {}
            Kind::ContentLength => {
                if length.replace(head::length(value)?).is_some() {
                    return None;
                }
                push(&mut text, name, value);
            }
            Kind::TransferEncoding => {
                if std::mem::replace(&mut chunked, true) || !value.eq_ignore_ascii_case(b"chunked")
                {
                    return None;
                }
            }
            Kind::Via => {
                passed.extend_from_slice(value);
                passed.extend_from_slice(b", ");
            }
            Kind::Host | Kind::Expect | Kind::Other => push(&mut text, name, value),
            Kind::Connection => return None,
        }
    }
    let body = match (head_only || matches!(status, 204 | 304), length, chunked) {
        (true, ..) => Body::Length(0),
        (false, Some(length), false) => Body::Length(length),
        (false, None, true) => {
            text.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Body::Chunked
        }
        // Until the end, or in two ways.
        _ => return None,
    };
    for part in [b"Via: ", &*passed, b"1.1 ", via, b"\r\n\r\n"] {
        text.extend_from_slice(part);
    }
    Some(Answer { text, status, body })
}

fn push(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
}

/// Fields that mean something to a proxy.
enum Kind {
    Host,
    Connection,
    KeepAlive,
    ContentLength,
    TransferEncoding,
    ProxyAuthorization,
    Via,
    Expect,
    /// Others that are for one hop alone.
    HopByHop,
    Other,
}

fn kind_of(name: &[u8]) -> Kind {
    const KNOWN: [(&[u8], Kind); 13] = [
        (b"host", Kind::Host),
        (b"connection", Kind::Connection),
        (b"proxy-connection", Kind::Connection),
        (b"keep-alive", Kind::KeepAlive),
        (b"content-length", Kind::ContentLength),
        (b"transfer-encoding", Kind::TransferEncoding),
        (b"proxy-authorization", Kind::ProxyAuthorization),
        (b"via", Kind::Via),
        (b"te", Kind::HopByHop),
        (b"upgrade", Kind::HopByHop),
        (b"expect", Kind::Expect),
        (b"proxy-authenticate", Kind::HopByHop),
        (b"proxy-authentication-info", Kind::HopByHop),
    ];
    KNOWN
        .into_iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known))
        .map_or(Kind::Other, |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed() -> Agreed {
        Agreed {
            authority: b"a.test:80".to_vec(),
            via: b"us".to_vec(),
            credentials: Credentials::Whatever,
        }
    }

    fn asked(text: &str) -> Option<String> {
        request(text.as_bytes(), &agreed())
            .map(|request| String::from_utf8(request.text).expect("ASCII"))
    }

    #[test]
    fn a_request_goes_on_in_origin_form() {
        let text = "GET http://a.test:80/x?y HTTP/1.1\r\nHost: b.test\r\nAccept:  */*\r\n\
                    Proxy-Connection: Keep-Alive\r\nProxy-Authorization: Basic x\r\n\
                    Keep-Alive: 300\r\n\r\n";
        let wanted = "GET /x?y HTTP/1.1\r\nHost: a.test:80\r\nAccept: */*\r\nVia: 1.1 us\r\n\r\n";
        assert_eq!(asked(text).as_deref(), Some(wanted));
        for (target, path) in [("", "/"), ("?q", "/?q"), ("/", "/")] {
            let text = asked(&format!("GET http://a.test:80{target} HTTP/1.1\r\n\r\n"));
            let wanted = format!("GET {path} HTTP/1.1\r\n");
            assert!(text.expect("ordinary").starts_with(&wanted));
        }
        let text = "POST http://a.test:80/ HTTP/1.1\r\nContent-Length: 12\r\n\r\n";
        let posted = request(text.as_bytes(), &agreed()).expect("ordinary");
        assert_eq!((posted.body, posted.head_only), (12, false));
        let text = "HEAD http://a.test:80/ HTTP/1.1\r\n\r\n";
        assert!(
            request(text.as_bytes(), &agreed())
                .expect("ordinary")
                .head_only
        );
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_the_owners() {
        for line in [
            "GET / HTTP/1.1",
            "GET http://a.test:80/ HTTP/1.0",
            "GET http://b.test:80/ HTTP/1.1",
            "GET http://a.test:80.b.test/ HTTP/1.1",
            "GET http://a.test:8080/ HTTP/1.1",
            "GET http://a.test:80/#x HTTP/1.1",
            "GET http://a.test:80/ x HTTP/1.1",
            "GET  http://a.test:80/ HTTP/1.1",
            "GET https://a.test:80/ HTTP/1.1",
            "CONNECT a.test:80 HTTP/1.1",
            "TRACE http://a.test:80/ HTTP/1.1",
            "OPTIONS http://a.test:80 HTTP/1.1",
            "get http://a.test:80/ HTTP/1.1",
        ] {
            assert_eq!(asked(&format!("{line}\r\n\r\n")), None, "{line}");
        }
        for field in [
            "Connection: close",
            "Connection: keep-alive, x-mine",
            "Connection: Upgrade\r\nUpgrade: websocket",
            "Upgrade: h2c",
            "Transfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: -1",
            "Expect: 100-continue",
            "TE: trailers",
            "Via: 1.1 somebody",
            "Proxy-Authorization: x\r\nProxy-Authorization: x",
            "Host : a",
        ] {
            let text = format!("GET http://a.test:80/ HTTP/1.1\r\n{field}\r\n\r\n");
            assert_eq!(asked(&text), None, "{field}");
        }
    }

    #[test]
    fn credentials_are_those_that_were_right() {
        let plain = b"GET http://a.test:80/ HTTP/1.1\r\n\r\n";
        let named = b"GET http://a.test:80/ HTTP/1.1\r\nProxy-Authorization: Basic x\r\n\r\n";
        let mut agreed = agreed();
        for (credentials, without, with) in [
            (Credentials::Whatever, true, true),
            (Credentials::None, true, false),
            (Credentials::These(b"Basic x".to_vec()), false, true),
            (Credentials::These(b"Basic y".to_vec()), false, false),
        ] {
            agreed.credentials = credentials;
            assert_eq!(request(plain, &agreed).is_some(), without);
            assert_eq!(request(named, &agreed).is_some(), with);
        }
    }

    fn answered(text: &str, head_only: bool) -> Option<(String, u16, Body)> {
        answer(text.as_bytes(), head_only, b"us").map(|answer| {
            let text = String::from_utf8(answer.text).expect("ASCII");
            (text, answer.status, answer.body)
        })
    }

    #[test]
    fn an_answer_goes_on_with_its_length() {
        let text = "HTTP/1.1 200 OK\r\nServer: x\r\nVia: 1.0 a\r\nvia: 1.1 b\r\n\
                    Keep-Alive: 5\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
        let wanted = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\
                      Via: 1.0 a, 1.1 b, 1.1 us\r\n\r\n";
        assert_eq!(
            answered(text, false),
            Some((wanted.into(), 200, Body::Length(5)))
        );
        let (_, _, body) = answered(text, true).expect("ordinary");
        assert_eq!(body, Body::Length(0));
        let text = "HTTP/1.1 404\r\nTransfer-Encoding: Chunked\r\nX: y\r\n\r\n";
        let wanted = "HTTP/1.1 404 \r\nX: y\r\nTransfer-Encoding: chunked\r\nVia: 1.1 us\r\n\r\n";
        assert_eq!(
            answered(text, false),
            Some((wanted.into(), 404, Body::Chunked))
        );
        for status in [204, 304] {
            let text = format!("HTTP/1.1 {status} x\r\nETag: y\r\n\r\n");
            let (_, told, body) = answered(&text, false).expect("ordinary");
            assert_eq!((told, body), (status, Body::Length(0)));
        }
    }

    #[test]
    fn an_answer_out_of_the_ordinary_is_the_owners() {
        for text in [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n",
            "HTTP/1.1 100 Continue\r\n",
            "HTTP/1.1 101 x\r\nContent-Length: 1\r\n",
            "HTTP/1.1 2000 x\r\nContent-Length: 1\r\n",
            "HTTP/1.1 20 x\r\nContent-Length: 1\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n",
            "HTTP/1.1 200 OK\r\nConnection: x\r\nContent-Length: 1\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(answered(&format!("{text}\r\n"), false), None, "{text}");
        }
    }
}
