//! The heads of a WebSocket handshake: written in the one form that realm's strict reader takes,
//! read as the standard allows. No I/O.

use std::fmt::Write as _;

use super::secret;

/// The longest head that is read.
pub const MOST: usize = 16 * 1024;
const MOST_LINES: usize = 100;
/// Of what a peer said, as much is quoted.
const QUOTED: usize = 80;

/// Why a server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    BadRequest,
    NotFound,
    UpgradeRequired,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: Status,
    pub why: String,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// To be answered.
    pub accept: String,
    /// The request has the form that realm gives it. Its client loses what comes together with the
    /// answer.
    pub hasty: bool,
}

pub fn request(host: &str, path: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\n\
         host: {host}\r\n\
         upgrade: websocket\r\n\
         connection: upgrade\r\n\
         sec-websocket-key: {key}\r\n\
         sec-websocket-version: 13\r\n\
         \r\n"
    )
    .into_bytes()
}

pub fn answer(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\n\
         upgrade: websocket\r\n\
         connection: upgrade\r\n\
         sec-websocket-accept: {accept}\r\n\
         \r\n"
    )
    .into_bytes()
}

/// The answer to who is refused.
pub fn refusal(status: Status) -> Vec<u8> {
    let (line, more) = match status {
        Status::BadRequest => ("400 Bad Request", ""),
        Status::NotFound => ("404 Not Found", ""),
        Status::UpgradeRequired => (
            "426 Upgrade Required",
            "upgrade: websocket\r\nsec-websocket-version: 13\r\n",
        ),
    };
    let connection = match status {
        Status::UpgradeRequired => "upgrade, close",
        _ => "close",
    };
    let length = line.len() + 1;
    format!(
        "HTTP/1.1 {line}\r\n\
         connection: {connection}\r\n\
         {more}\
         content-type: text/plain\r\n\
         content-length: {length}\r\n\
         \r\n\
         {line}\n"
    )
    .into_bytes()
}

/// Where the head ends, when it does. `seen` bytes were looked at before.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3).min(bytes.len());
    bytes[from..]
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| from + at + 4)
}

/// What is wrong with the first bytes of something that can't become a request.
pub fn hopeless_request(bytes: &[u8]) -> Option<Refused> {
    let first = *bytes.first()?;
    if first.is_ascii_uppercase() {
        return None;
    }
    Some(bad(match first {
        0x16 => "began with TLS and not with a request".to_owned(),
        _ => format!("began with {} and not with a request", quote(bytes)),
    }))
}

/// The same of an answer.
pub fn hopeless_answer(bytes: &[u8]) -> Option<String> {
    let most = bytes.len().min(5);
    (bytes[..most] != b"HTTP/"[..most])
        .then(|| format!("answered {} and not HTTP", quote(first_line(bytes))))
}

/// Reads a whole request that is to be for `host` and `path`.
pub fn read_request(bytes: &[u8], host: &str, path: &str) -> Result<Accepted, Refused> {
    let head = Head::read(bytes).map_err(bad)?;
    let line = quote(head.line);
    let mut words = head.line.split(|byte| *byte == b' ');
    let (Some(method), Some(asked), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad(format!("sent {line}, which is no request")));
    };
    if version != b"HTTP/1.1" {
        return Err(bad(format!("sent {line}, which is not HTTP/1.1")));
    }
    if method != b"GET" {
        return Err(bad(format!("sent {line} and not GET")));
    }
    if asked != path.as_bytes() {
        return Err(Refused {
            status: Status::NotFound,
            why: format!("asked for the path {} and not {path:?}", quote(asked)),
        });
    }
    let name = head.first(b"host").unwrap_or_default();
    if !is_host(name, host.as_bytes()) {
        return Err(Refused {
            status: Status::NotFound,
            why: format!("asked for the host {} and not {host:?}", quote(name)),
        });
    }
    if !head.lists(b"upgrade", b"websocket") || !head.lists(b"connection", b"upgrade") {
        return Err(Refused {
            status: Status::UpgradeRequired,
            why: format!("sent {line} without asking for a WebSocket"),
        });
    }
    let asked = head.first(b"sec-websocket-version").unwrap_or_default();
    if asked != b"13" {
        return Err(Refused {
            status: Status::UpgradeRequired,
            why: format!("asked for version {} of the protocol", quote(asked)),
        });
    }
    let key = head.first(b"sec-websocket-key").unwrap_or_default();
    if key.is_empty() {
        return Err(bad("sent no sec-websocket-key".to_owned()));
    }
    let hasty = std::str::from_utf8(key).is_ok_and(|key| bytes == request(host, path, key));
    Ok(Accepted {
        accept: secret::accept(key),
        hasty,
    })
}

/// Reads a whole answer to a request with this key.
pub fn read_answer(bytes: &[u8], key: &str) -> Result<(), String> {
    let head = Head::read(bytes)?;
    let line = quote(head.line);
    let Some(status) = head.line.strip_prefix(b"HTTP/1.1 ") else {
        return Err(format!("answered {line}, which is not HTTP/1.1"));
    };
    if status != b"101" && !status.starts_with(b"101 ") {
        return Err(format!("answered {line}"));
    }
    if !head.lists(b"upgrade", b"websocket") || !head.lists(b"connection", b"upgrade") {
        return Err("answered without an upgrade to a WebSocket".to_owned());
    }
    let expected = secret::accept(key.as_bytes());
    match head.first(b"sec-websocket-accept") {
        Some(accept) if accept == expected.as_bytes() => {}
        Some(accept) => return Err(format!("answered to another key, with {}", quote(accept))),
        None => return Err("answered without sec-websocket-accept".to_owned()),
    }
    // We offer neither, so that whoever chooses one means somebody else.
    for name in [&b"sec-websocket-extensions"[..], b"sec-websocket-protocol"] {
        if let Some(chosen) = head.first(name) {
            return Err(format!("chose {}, which nobody offered", quote(chosen)));
        }
    }
    Ok(())
}

fn bad(why: String) -> Refused {
    Refused {
        status: Status::BadRequest,
        why,
    }
}

/// Names are alike in any case; who asks through a port may say so when we don't.
fn is_host(name: &[u8], host: &[u8]) -> bool {
    if name.is_empty() || name.eq_ignore_ascii_case(host) {
        return !name.is_empty();
    }
    name.get(..host.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(host))
        && name[host.len()..]
            .strip_prefix(b":")
            .is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit))
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .next()
        .unwrap_or_default()
}

/// What a peer said, short and in one line.
fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes.iter().take(QUOTED) {
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    text.push('"');
    if bytes.len() > QUOTED {
        text.push_str("...");
    }
    text
}

/// The lines of a head.
struct Head<'a> {
    line: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let text = bytes.strip_suffix(b"\r\n\r\n").ok_or("sent half a head")?;
        let mut lines = Lines(Some(text));
        let line = lines.next().unwrap_or_default();
        let mut fields = Vec::new();
        for field in lines {
            if fields.len() == MOST_LINES {
                return Err(format!("sent more than {MOST_LINES} header lines"));
            }
            let colon = field.iter().position(|byte| *byte == b':');
            let Some((name, value)) = colon.map(|at| (&field[..at], &field[at + 1..])) else {
                return Err(format!("sent {}, which is no header", quote(field)));
            };
            if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
                return Err(format!("sent {}, which is no header", quote(field)));
            }
            fields.push((name, value.trim_ascii()));
        }
        Ok(Self { line, fields })
    }

    fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// The first that isn't empty.
    fn first(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.values(name).find(|value| !value.is_empty())
    }

    /// Whether `word` is in the list that this field is.
    fn lists(&self, name: &[u8], word: &[u8]) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|entry| entry.trim_ascii().eq_ignore_ascii_case(word))
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Lines that end with CRLF.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.0.take()?;
        match text.windows(2).position(|two| two == b"\r\n") {
            Some(at) => {
                self.0 = Some(&text[at + 2..]);
                Some(&text[..at])
            }
            None => Some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn status(head: &str) -> Status {
        read_request(head.as_bytes(), "example.com", "/chat")
            .expect_err("refused")
            .status
    }

    #[test]
    fn heads_are_written_as_realm_writes_them() {
        assert_eq!(
            request("example.com", "/chat", KEY),
            b"GET /chat HTTP/1.1\r\nhost: example.com\r\nupgrade: websocket\r\n\
              connection: upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              sec-websocket-version: 13\r\n\r\n"
        );
        assert_eq!(
            answer(ACCEPT),
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
              sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn what_we_write_we_read() {
        let head = request("example.com", "/chat", KEY);
        let accepted = read_request(&head, "example.com", "/chat").expect("accepted");
        assert_eq!(accepted.accept, ACCEPT);
        assert!(accepted.hasty);
        read_answer(&answer(ACCEPT), KEY).expect("accepted");
    }

    #[test]
    fn the_request_of_a_browser_is_accepted() {
        let head = "GET /chat HTTP/1.1\r\nHost: Example.com:8080\r\nConnection: keep-alive, Upgrade\r\n\
            Upgrade: WebSocket\r\nOrigin: null\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
        let accepted = read_request(head.as_bytes(), "example.com", "/chat").expect("accepted");
        assert_eq!(accepted.accept, ACCEPT);
        assert!(!accepted.hasty);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_status_that_says_why() {
        let good = String::from_utf8(request("example.com", "/chat", KEY)).expect("text");
        let with = |from: &str, to: &str| good.replacen(from, to, 1);
        assert_eq!(status(&with("/chat", "/other")), Status::NotFound);
        assert_eq!(status(&with("/chat", "/chat?x=1")), Status::NotFound);
        assert_eq!(
            status(&with("example.com", "example.org")),
            Status::NotFound
        );
        assert_eq!(status(&with("host: example.com\r\n", "")), Status::NotFound);
        assert_eq!(
            status(&with("example.com", "example.com:x")),
            Status::NotFound
        );
        assert_eq!(
            status(&with("upgrade: websocket\r\n", "")),
            Status::UpgradeRequired
        );
        assert_eq!(
            status(&with("connection: upgrade", "connection: close")),
            Status::UpgradeRequired
        );
        assert_eq!(
            status(&with("version: 13", "version: 8")),
            Status::UpgradeRequired
        );
        assert_eq!(status(&with("GET", "POST")), Status::BadRequest);
        assert_eq!(status(&with("HTTP/1.1", "HTTP/1.0")), Status::BadRequest);
        assert_eq!(status(&with(KEY, "")), Status::BadRequest);
        assert_eq!(status(&with("host:", "host :")), Status::BadRequest);
        assert_eq!(
            status(&with("\r\n\r\n", "\r\nx\r\n\r\n")),
            Status::BadRequest
        );
        assert_eq!(
            status(&with(
                "\r\n\r\n",
                &format!("\r\n{}\r\n", "a: b\r\n".repeat(100))
            )),
            Status::BadRequest
        );
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let good = String::from_utf8(answer(ACCEPT)).expect("text");
        let why = |from: &str, to: &str| {
            read_answer(good.replacen(from, to, 1).as_bytes(), KEY).expect_err("refused")
        };
        assert_eq!(
            why("101 Switching Protocols", "404 Not Found"),
            "answered \"HTTP/1.1 404 Not Found\""
        );
        assert!(why("HTTP/1.1", "HTTP/1.0").contains("not HTTP/1.1"));
        assert!(why("connection: upgrade\r\n", "").contains("without an upgrade"));
        assert!(why("s3pP", "S3pP").contains("another key"));
        assert!(
            why("\r\n\r\n", "\r\nsec-websocket-protocol: x\r\n\r\n").contains("nobody offered")
        );
        assert!(why(" 101 ", " 1012 ").contains("1012"));
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes() {
        let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nbehind";
        for seen in 0..head.len() {
            for more in seen..=head.len() {
                let known = end(&head[..seen], 0);
                let found = known.or_else(|| end(&head[..more], seen));
                assert_eq!(found, (more >= 27).then_some(27), "{seen} {more}");
            }
        }
    }

    #[test]
    fn what_can_not_become_a_head_is_known_at_once() {
        assert_eq!(hopeless_request(b""), None);
        assert_eq!(hopeless_request(b"G"), None);
        assert!(hopeless_request(b"\x16\x03\x01").is_some_and(|no| no.why.contains("TLS")));
        assert!(hopeless_request(b"\x00").is_some());
        assert_eq!(hopeless_answer(b"HTT"), None);
        assert_eq!(hopeless_answer(b"HTTP/1.1 4"), None);
        assert_eq!(
            hopeless_answer(b"SSH-2.0-OpenSSH\r\n").as_deref(),
            Some("answered \"SSH-2.0-OpenSSH\" and not HTTP")
        );
    }

    #[test]
    fn refusals_say_how_long_they_are() {
        for status in [
            Status::BadRequest,
            Status::NotFound,
            Status::UpgradeRequired,
        ] {
            let page = String::from_utf8(refusal(status)).expect("text");
            let (head, body) = page.split_once("\r\n\r\n").expect("a body");
            assert!(head.contains(&format!("content-length: {}", body.len())));
        }
    }
}
