//! What a client's first bytes tell without being taken: the name in a TLS ClientHello, the Host of
//! a plain HTTP/1 request. No I/O here.
//!
//! Facts: a ClientHello may come in several segments and be spread over several TLS records, and
//! with post-quantum key shares it is larger than a packet. With encrypted hellos (ECH) the outer
//! name is the one that stands here.

/// First bytes that tell nothing by then tell nothing at all.
pub const MOST: usize = 16 * 1024;

/// What a question about the first bytes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// More bytes are needed.
    More,
    /// The first bytes are something else.
    Other,
    /// They are what was asked for, with this name if there is one: lower case, no trailing dot.
    Name(Option<String>),
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The server name of a TLS ClientHello.
pub fn server_name(bytes: &[u8]) -> Found {
    let mut hello = Vec::new();
    let mut rest = bytes;
    loop {
        // Each record: type, version (2), length (2).
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE)
            || rest.get(1).is_some_and(|major| *major != 3)
        {
            return Found::Other;
        }
        let Some(head) = rest.get(..5) else {
            return Found::More;
        };
        let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if len == 0 || len > MOST {
            return Found::Other;
        }
        let body = &rest[5..];
        hello.extend_from_slice(&body[..len.min(body.len())]);
        // The message: type, length (3).
        if hello.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Found::Other;
        }
        if let Some(head) = hello.get(1..4) {
            let size =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if size > MOST {
                return Found::Other;
            }
            if let Some(message) = hello.get(4..4 + size) {
                return match name_in(message) {
                    Some(name) => Found::Name(name),
                    None => Found::Other,
                };
            }
        }
        if body.len() <= len {
            return Found::More;
        }
        rest = &body[len..];
    }
}

/// The name in a whole ClientHello. The outer `None`: it is malformed.
fn name_in(message: &[u8]) -> Option<Option<String>> {
    let mut reader = Reader(message);
    // Version and random.
    reader.take(34)?;
    // Session, cipher suites, compression methods.
    reader.short_list()?;
    reader.list()?;
    reader.short_list()?;
    if reader.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(reader.list()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let body = extensions.list()?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = Reader(Reader(body).list()?);
        while !names.0.is_empty() {
            let kind = names.take(1)?[0];
            let name = names.list()?;
            if kind == HOST_NAME {
                return Some(Some(canonical(std::str::from_utf8(name).ok()?)));
            }
        }
    }
    Some(None)
}

/// Reads the lists of TLS, each behind its length.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn short_list(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(usize::from(len))
    }

    fn list(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?;
        self.take(usize::from(len))
    }
}

/// The Host of a plain HTTP/1 request, without its port.
pub fn http_host(bytes: &[u8]) -> Found {
    // A method is a short word in capitals.
    let word = bytes
        .iter()
        .position(|byte| !byte.is_ascii_uppercase())
        .unwrap_or(bytes.len());
    match bytes.get(word) {
        _ if word > 20 => return Found::Other,
        None => return Found::More,
        Some(b' ') if word > 0 => {}
        Some(_) => return Found::Other,
    }
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let request = lines.next().unwrap_or_default();
    let Some(request) = request.strip_suffix(b"\n") else {
        return Found::More;
    };
    if !request.trim_ascii_end().ends_with(b"HTTP/1.1")
        && !request.trim_ascii_end().ends_with(b"HTTP/1.0")
    {
        return Found::Other;
    }
    for line in lines {
        let Some(line) = line.strip_suffix(b"\n") else {
            return Found::More;
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Found::Name(None);
        }
        let Some((name, value)) = split_once(line, b':') else {
            return Found::Other;
        };
        if name.eq_ignore_ascii_case(b"host") {
            return match std::str::from_utf8(value.trim_ascii()) {
                Ok(host) => Found::Name(Some(canonical(without_port(host)))),
                Err(_) => Found::Other,
            };
        }
    }
    Found::More
}

fn split_once(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = line.iter().position(|byte| *byte == at)?;
    Some((&line[..place], &line[place + 1..]))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Of an IPv6 address only what stands behind the bracket is a port.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello in records of at most `chunk` bytes, with other extensions around the name.
    fn hello(name: Option<&str>, padding: usize, chunk: usize) -> Vec<u8> {
        let list = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &list(body)].concat();
        let mut extensions = extension(51, &vec![7; padding]);
        if let Some(name) = name {
            let entry = [&[HOST_NAME][..], &list(name.as_bytes())].concat();
            extensions.extend(extension(SERVER_NAME, &list(&entry)));
        }
        extensions.extend(extension(16, b"\0\x03\x02h2"));
        let message = [
            &[3, 3][..],
            &[9; 32],
            &[0],
            &list(&[0x13, 0x01]),
            &[1, 0],
            &list(&extensions),
        ]
        .concat();
        let len = message.len();
        let handshake = [
            &[CLIENT_HELLO, (len >> 16) as u8, (len >> 8) as u8, len as u8][..],
            &message,
        ]
        .concat();
        handshake
            .chunks(chunk)
            .flat_map(|piece| [&[HANDSHAKE, 3, 1][..], &list(piece)].concat())
            .collect()
    }

    fn named(name: &str) -> Found {
        Found::Name(Some(name.to_owned()))
    }

    #[test]
    fn the_name_is_found_in_one_record_or_many() {
        for (padding, chunk) in [(0, 16_000), (1_500, 16_000), (12_000, 1_000), (100, 3)] {
            let bytes = hello(Some("Example.COM."), padding, chunk);
            assert_eq!(server_name(&bytes), named("example.com"));
            // More than the hello does no harm.
            let longer = [&bytes[..], &[HANDSHAKE, 3, 3, 0, 1, 0]].concat();
            assert_eq!(server_name(&longer), named("example.com"));
        }
    }

    #[test]
    fn every_beginning_of_a_hello_asks_for_more() {
        let bytes = hello(Some("example.com"), 300, 100);
        for len in 0..bytes.len() {
            assert_eq!(server_name(&bytes[..len]), Found::More, "{len}");
        }
    }

    #[test]
    fn a_hello_without_a_name_is_still_a_hello() {
        assert_eq!(server_name(&hello(None, 10, 16_000)), Found::Name(None));
    }

    #[test]
    fn what_is_no_hello_is_told_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"SSH-2.0-x",
            b"\x16\x02",
            b"\x17\x03\x03",
        ] {
            assert_eq!(server_name(bytes), Found::Other, "{bytes:?}");
        }
        // A message of another type, and one that is too large.
        assert_eq!(server_name(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Found::Other);
        assert_eq!(server_name(&[22, 3, 1, 0, 4, 1, 0xff, 0, 0]), Found::Other);
    }

    #[test]
    fn the_host_is_found_as_soon_as_its_line_is_there() {
        let head = b"GET /x HTTP/1.1\r\nAccept: */*\r\nhOST:  Example.COM:8080 \r\n";
        assert_eq!(http_host(head), named("example.com"));
        for len in 0..head.len() {
            assert_eq!(http_host(&head[..len]), Found::More, "{len}");
        }
        assert_eq!(
            http_host(b"GET / HTTP/1.0\n\n"),
            Found::Name(None),
            "no Host"
        );
        assert_eq!(
            http_host(b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n"),
            named("[::1]")
        );
    }

    #[test]
    fn what_is_no_request_is_told_at_once() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"SSH-2.0-OpenSSH",
            b"get / HTTP/1.1",
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            b"PRI * HTTP/2.0\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n",
        ] {
            assert_eq!(http_host(bytes), Found::Other, "{}", bytes.escape_ascii());
        }
    }
}
