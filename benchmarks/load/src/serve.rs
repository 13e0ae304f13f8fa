//! The targets: TCP echo, discard and source, UDP echo and sink, all on one thread.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::arguments::Arguments;
use crate::bulk::TRAILER_WRONG;
use crate::json::Object;
use crate::pattern::Pattern;
use crate::sys::{self, Epoll, HANG_UP, READ, WRITE};
use crate::udp_serve::{Echo, Sink};

#[derive(Clone, Copy)]
enum Role {
    Echo,
    Discard,
    Source,
}

struct Connection {
    stream: TcpStream,
    role: Role,
    /// Bytes received (discard) or sent (source).
    moved: u64,
    wrong: bool,
    /// Bytes that still have to be written.
    rest: VecDeque<u8>,
    ended: bool,
    interest: u32,
}

enum Entry {
    Stdin,
    Listener(TcpListener, Role),
    UdpEcho(UdpSocket, Echo),
    UdpSink(UdpSocket, Sink),
    Connection(Connection),
    Free,
}

struct Server {
    epoll: Epoll,
    entries: Vec<Entry>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    pattern: Pattern,
    verify: bool,
}

/// Whether the connection is done and is to be closed.
type Done = bool;

impl Server {
    fn add(&mut self, entry: Entry) -> io::Result<()> {
        let token = self.free.pop().unwrap_or(self.entries.len());
        match &entry {
            Entry::Stdin => self.epoll.add(&io::stdin(), token, READ)?,
            Entry::Listener(listener, _) => self.epoll.add(listener, token, READ)?,
            Entry::UdpEcho(socket, _) | Entry::UdpSink(socket, _) => {
                self.epoll.add(socket, token, READ)?;
            }
            Entry::Connection(connection) => {
                self.epoll
                    .add(&connection.stream, token, connection.interest)?;
            }
            Entry::Free => {}
        }
        if token == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[token] = entry;
        }
        Ok(())
    }

    fn accept(&mut self, token: usize) -> io::Result<()> {
        let Entry::Listener(listener, role) = &self.entries[token] else {
            return Ok(());
        };
        let role = *role;
        // One for each event: in a serial run a second accept would always fail.
        let (stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if sys::would_block(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        let interest = if matches!(role, Role::Source) {
            READ | WRITE
        } else {
            READ
        };
        self.add(Entry::Connection(Connection {
            stream,
            role,
            moved: 0,
            wrong: false,
            rest: VecDeque::new(),
            ended: false,
            interest,
        }))
    }

    fn serve(&mut self, token: usize, ready: u32) -> io::Result<()> {
        let Entry::Connection(connection) = &mut self.entries[token] else {
            return Ok(());
        };
        let done = match connection.role {
            Role::Echo => echo(connection, &mut self.buffer),
            Role::Discard => {
                let pattern = self.verify.then_some(&self.pattern);
                discard(connection, &mut self.buffer, pattern)
            }
            Role::Source => source(connection, ready, &mut self.buffer, &self.pattern),
        };
        // A connection that was reset is as finished as one that ended well.
        if done.unwrap_or(true) {
            self.entries[token] = Entry::Free;
            self.free.push(token);
            return Ok(());
        }
        let interest = match (
            connection.rest.is_empty(),
            connection.role,
            connection.ended,
        ) {
            (false, ..) => WRITE,
            (true, Role::Source, false) => READ | WRITE,
            (true, ..) => READ,
        };
        if interest != connection.interest {
            connection.interest = interest;
            self.epoll.change(&connection.stream, token, interest)?;
        }
        Ok(())
    }
}

/// Writes what is left over; done when the stream has ended and nothing is left.
fn flush(connection: &mut Connection) -> io::Result<Done> {
    while !connection.rest.is_empty() {
        let (first, _) = connection.rest.as_slices();
        match (&connection.stream).write(first) {
            Ok(count) => drop(connection.rest.drain(..count)),
            Err(error) if sys::would_block(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(connection.ended)
}

fn send(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    let mut bytes = bytes;
    while connection.rest.is_empty() && !bytes.is_empty() {
        match (&connection.stream).write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if sys::would_block(&error) => break,
            Err(error) => return Err(error),
        }
    }
    connection.rest.extend(bytes);
    Ok(())
}

fn echo(connection: &mut Connection, buffer: &mut [u8]) -> io::Result<Done> {
    if !connection.rest.is_empty() {
        return flush(connection);
    }
    match (&connection.stream).read(buffer) {
        Ok(0) => connection.ended = true,
        Ok(count) => send(connection, &buffer[..count])?,
        Err(error) if sys::would_block(&error) => {}
        Err(error) => return Err(error),
    }
    flush(connection)
}

/// The trailer tells the client how much arrived here, and whether it was right.
fn trailer(connection: &Connection) -> [u8; 8] {
    let wrong = if connection.wrong { TRAILER_WRONG } else { 0 };
    (connection.moved | wrong).to_le_bytes()
}

fn discard(
    connection: &mut Connection,
    buffer: &mut [u8],
    pattern: Option<&Pattern>,
) -> io::Result<Done> {
    if connection.ended {
        return flush(connection);
    }
    let outcome = match pattern {
        Some(pattern) => (&connection.stream).read(buffer).inspect(|&count| {
            connection.wrong |= !pattern.matches(connection.moved, &buffer[..count]);
        }),
        None => sys::discard(&connection.stream, 16 << 20),
    };
    match outcome {
        Ok(0) => {
            connection.ended = true;
            send(connection, &trailer(connection))?;
        }
        Ok(count) => connection.moved += count as u64,
        Err(error) if sys::would_block(&error) => {}
        Err(error) => return Err(error),
    }
    flush(connection)
}

fn source(
    connection: &mut Connection,
    ready: u32,
    buffer: &mut [u8],
    pattern: &Pattern,
) -> io::Result<Done> {
    if connection.ended {
        return flush(connection);
    }
    if ready & (READ | HANG_UP) != 0 {
        match (&connection.stream).read(buffer) {
            Ok(0) => {
                connection.ended = true;
                send(connection, &trailer(connection))?;
                return flush(connection);
            }
            Ok(_) => {}
            Err(error) if sys::would_block(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if ready & WRITE != 0 {
        match (&connection.stream).write(pattern.at(connection.moved)) {
            Ok(count) => connection.moved += count as u64,
            Err(error) if sys::would_block(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut server = Server {
        epoll: Epoll::new()?,
        entries: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; 256 * 1024],
        pattern: Pattern::new(),
        verify: arguments.flag("verify")?,
    };
    let gro = arguments.flag("gro")?;
    let mut ready = Object::new().word("event", "ready");
    server.add(Entry::Stdin)?;
    for (name, role) in [
        ("echo", Role::Echo),
        ("discard", Role::Discard),
        ("source", Role::Source),
    ] {
        if let Some(address) = arguments.take::<SocketAddr>(name)? {
            let listener = sys::listen(address)?;
            ready = ready.word(name, listener.local_addr()?);
            server.add(Entry::Listener(listener, role))?;
        }
    }
    if let Some(address) = arguments.take::<SocketAddr>("udp-echo")? {
        let socket = sys::udp_socket(address, false)?;
        ready = ready.word("udp-echo", socket.local_addr()?);
        server.add(Entry::UdpEcho(socket, Echo::new()))?;
    }
    if let Some(address) = arguments.take::<SocketAddr>("udp-sink")? {
        let socket = sys::udp_socket(address, gro)?;
        ready = ready.word("udp-sink", socket.local_addr()?);
        server.add(Entry::UdpSink(socket, Sink::new(gro)))?;
    }
    arguments.finish()?;
    ready.print()?;
    loop {
        for index in 0..server.epoll.wait(Duration::from_secs(3600))? {
            let (token, ready) = server.epoll.event(index);
            match &mut server.entries[token] {
                Entry::Stdin => {
                    // Whoever started this process holds the other end; its end is ours.
                    if io::stdin().read(&mut [0; 64])? == 0 {
                        return Ok(());
                    }
                }
                Entry::Listener(..) => server.accept(token)?,
                Entry::UdpEcho(socket, echo) => echo.serve(socket)?,
                Entry::UdpSink(socket, sink) => sink.serve(socket)?,
                Entry::Connection(_) => server.serve(token, ready)?,
                Entry::Free => {}
            }
        }
    }
}
