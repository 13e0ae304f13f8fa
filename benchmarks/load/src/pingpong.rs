//! Round trips of small messages, one in flight on each of N connections.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::histogram::Histogram;
use crate::json::Object;
use crate::sys::{self, Epoll, READ};

struct Flow {
    stream: TcpStream,
    sent: Instant,
    missing: usize,
}

struct Run {
    epoll: Epoll,
    flows: Vec<Flow>,
    message: Vec<u8>,
    buffer: Vec<u8>,
}

/// Longer than any relay may hold a message back.
const SILENCE: Duration = Duration::from_secs(5);

impl Run {
    fn ping(&mut self, token: usize, now: Instant) -> io::Result<()> {
        let flow = &mut self.flows[token];
        flow.sent = now;
        flow.missing = self.message.len();
        // One message fits any send buffer.
        (&flow.stream).write_all(&self.message)
    }

    fn until(&mut self, end: Instant, histogram: &mut Histogram) -> io::Result<()> {
        loop {
            if Instant::now() >= end {
                return Ok(());
            }
            let count = self.epoll.wait(SILENCE)?;
            if count == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer for 5 s"));
            }
            for index in 0..count {
                let (token, _) = self.epoll.event(index);
                let flow = &mut self.flows[token];
                match (&flow.stream).read(&mut self.buffer) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) if count > flow.missing => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many bytes"));
                    }
                    Ok(count) => flow.missing -= count,
                    Err(error) if sys::would_block(&error) => continue,
                    Err(error) => return Err(error),
                }
                if flow.missing == 0 {
                    let now = Instant::now();
                    histogram.record((now - flow.sent).as_nanos() as u64);
                    self.ping(token, now)?;
                }
            }
        }
    }
}

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let connections = arguments.take_or("connections", 1_usize)?;
    let size = arguments.take_or("size", 64_usize)?;
    let span = arguments.span()?;
    arguments.finish()?;
    if !(1..=16_384).contains(&size) {
        return Err(format!("--size {size}: between 1 and 16384").into());
    }

    let mut run = Run {
        epoll: Epoll::new()?,
        flows: Vec::with_capacity(connections),
        message: (0..size).map(|index| index as u8).collect(),
        buffer: vec![0; 2 * size],
    };
    for token in 0..connections {
        let stream = sys::connect(address)?;
        stream.set_nonblocking(true)?;
        run.epoll.add(&stream, token, READ)?;
        run.flows.push(Flow {
            stream,
            sent: Instant::now(),
            missing: 0,
        });
    }
    for token in 0..connections {
        run.ping(token, Instant::now())?;
    }
    let mut warm = Histogram::new();
    run.until(Instant::now() + span.warm_up, &mut warm)?;
    let mut histogram = Histogram::new();
    let start = Instant::now();
    run.until(start + span.seconds, &mut histogram)?;
    let seconds = start.elapsed().as_secs_f64();
    Object::new()
        .word("command", "ping-pong")
        .number("connections", connections)
        .number("size", size)
        .float("seconds", seconds)
        .number("count", histogram.count())
        .float("rate", histogram.count() as f64 / seconds)
        .number("total", histogram.count() + warm.count())
        .object("latency", histogram.report())
        .print()?;
    Ok(())
}
