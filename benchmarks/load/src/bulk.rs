//! As many bytes as go through N connections, one way; both ends count, and compare at the end.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::json::Object;
use crate::pattern::Pattern;
use crate::sys::{self, Epoll, READ, WRITE};

/// Set in the server's count when the bytes it received were not those of the pattern.
pub const TRAILER_WRONG: u64 = 1 << 63;
/// The last word of a connection, both ways of transfer: the server's count.
const TRAILER: usize = 8;
const END_LIMIT: Duration = Duration::from_secs(20);

struct Flow {
    stream: TcpStream,
    moved: u64,
}

/// One reading or writing of a connection: how many bytes it moved.
type Step<'a> = Box<dyn FnMut(&mut Flow) -> io::Result<usize> + 'a>;

/// Moves until `end`; the bytes moved.
fn phase(
    epoll: &mut Epoll,
    flows: &mut [Flow],
    step: &mut Step<'_>,
    end: Instant,
) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(total);
        }
        for index in 0..epoll.wait(end - now)? {
            let (token, _) = epoll.event(index);
            match step(&mut flows[token]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => total += count as u64,
                Err(error) if sys::would_block(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// After the half-close: what still comes, and the server's count at its end.
fn finish(flow: &mut Flow, down: bool, pattern: Option<&Pattern>) -> io::Result<()> {
    flow.stream.set_nonblocking(false)?;
    flow.stream.set_read_timeout(Some(END_LIMIT))?;
    let mut rest = Vec::new();
    flow.stream.read_to_end(&mut rest)?;
    let split = rest
        .len()
        .checked_sub(TRAILER)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut word = [0; TRAILER];
    word.copy_from_slice(&rest[split..]);
    let counted = u64::from_le_bytes(word);
    let right = pattern.is_none_or(|pattern| pattern.matches(flow.moved, &rest[..split]));
    if down {
        flow.moved += split as u64;
    }
    if counted != flow.moved || !right || (!down && split != 0) {
        let text = format!(
            "{} bytes here, {counted} at the server, right: {right}",
            flow.moved
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let down = match arguments.take::<String>("direction")?.as_deref() {
        Some("down") => true,
        Some("up") => false,
        _ => return Err("--direction up or down is needed".into()),
    };
    let connections = arguments.take_or("connections", 1_usize)?;
    let verify = arguments.flag("verify")?;
    let span = arguments.span()?;
    arguments.finish()?;

    let pattern = Pattern::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut epoll = Epoll::new()?;
    let mut flows = Vec::with_capacity(connections);
    for token in 0..connections {
        let stream = sys::connect(address)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, token, if down { READ } else { WRITE })?;
        flows.push(Flow { stream, moved: 0 });
    }

    let mut step: Step<'_> = if !down {
        Box::new(|flow| {
            let count = (&flow.stream).write(pattern.at(flow.moved))?;
            flow.moved += count as u64;
            Ok(count)
        })
    } else if verify {
        Box::new(|flow| {
            let count = (&flow.stream).read(&mut buffer)?;
            if !pattern.matches(flow.moved, &buffer[..count]) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "wrong bytes received",
                ));
            }
            flow.moved += count as u64;
            Ok(count)
        })
    } else {
        Box::new(|flow| {
            let count = sys::discard(&flow.stream, 16 << 20)?;
            flow.moved += count as u64;
            Ok(count)
        })
    };
    let start = Instant::now();
    phase(&mut epoll, &mut flows, &mut step, start + span.warm_up)?;
    let measured = Instant::now();
    let bytes = phase(&mut epoll, &mut flows, &mut step, measured + span.seconds)?;
    let seconds = measured.elapsed().as_secs_f64();
    drop(step);

    for flow in &flows {
        flow.stream.shutdown(Shutdown::Write)?;
    }
    for flow in &mut flows {
        finish(flow, down, Some(&pattern).filter(|_| down))?;
    }
    let total: u64 = flows.iter().map(|flow| flow.moved).sum();
    let least = flows.iter().map(|flow| flow.moved).min().unwrap_or(0);
    let most = flows.iter().map(|flow| flow.moved).max().unwrap_or(0);
    Object::new()
        .word("command", "bulk")
        .word("direction", if down { "down" } else { "up" })
        .number("connections", connections)
        .float("seconds", seconds)
        .number("bytes", bytes)
        .float("rate", bytes as f64 / seconds)
        .number("total", total)
        .number("least", least)
        .number("most", most)
        .print()?;
    Ok(())
}
