//! Round trips of datagrams, one in flight on each of N flows; a lost one is sent again.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::histogram::Histogram;
use crate::json::Object;
use crate::socks::Way;
use crate::sys::{self, Epoll, READ};

/// A datagram without an answer for so long counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(200);

struct Flow {
    socket: UdpSocket,
    sent: Instant,
    number: u64,
}

struct Run {
    epoll: Epoll,
    flows: Vec<Flow>,
    message: Vec<u8>,
    /// The part of the message that is the proxy's, not the target's.
    header: usize,
    buffer: Vec<u8>,
    lost: u64,
}

impl Run {
    fn ping(&mut self, token: usize, now: Instant) -> io::Result<()> {
        let flow = &mut self.flows[token];
        flow.number += 1;
        flow.sent = now;
        self.message[self.header..][..8].copy_from_slice(&flow.number.to_le_bytes());
        match flow.socket.send(&self.message) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
            _ => Ok(()),
        }
    }

    fn repeat_lost(&mut self, now: Instant) -> io::Result<()> {
        for token in 0..self.flows.len() {
            if now - self.flows[token].sent > LOST_AFTER {
                self.lost += 1;
                self.ping(token, now)?;
            }
        }
        Ok(())
    }

    fn until(&mut self, end: Instant, histogram: &mut Histogram) -> io::Result<()> {
        let mut swept = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if now - swept > LOST_AFTER / 2 {
                swept = now;
                self.repeat_lost(now)?;
            }
            for index in 0..self.epoll.wait(LOST_AFTER / 2)? {
                let (token, _) = self.epoll.event(index);
                let flow = &self.flows[token];
                match flow.socket.recv(&mut self.buffer) {
                    // An answer that was given up comes too late and is not an answer.
                    Ok(count)
                        if count != self.message.len()
                            || self.buffer[self.header..][..8] != flow.number.to_le_bytes() =>
                    {
                        continue;
                    }
                    Ok(_) => {}
                    Err(error) if sys::would_block(&error) => continue,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(error) => return Err(error),
                }
                let now = Instant::now();
                histogram.record((now - flow.sent).as_nanos() as u64);
                self.ping(token, now)?;
            }
        }
    }
}

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let flows = arguments.take_or("flows", 1_usize)?;
    let size = arguments.take_or("size", 200_usize)?;
    let mut way = Way::take(&mut arguments, address)?;
    let span = arguments.span()?;
    arguments.finish()?;
    if !(8..=65_507).contains(&size) {
        return Err(format!("--size {size}: between 8 and 65507").into());
    }

    let mut run = Run {
        epoll: Epoll::new()?,
        flows: Vec::with_capacity(flows),
        message: [way.header(), vec![0; size]].concat(),
        header: way.header().len(),
        buffer: vec![0; 65_536],
        lost: 0,
    };
    for token in 0..flows {
        let socket = sys::udp_socket(SocketAddr::from(([127, 0, 0, 1], 0)), false)?;
        way.connect(&socket)?;
        run.epoll.add(&socket, token, READ)?;
        run.flows.push(Flow {
            socket,
            sent: Instant::now(),
            number: 0,
        });
        run.ping(token, Instant::now())?;
    }
    let mut warm = Histogram::new();
    run.until(Instant::now() + span.warm_up, &mut warm)?;
    let mut histogram = Histogram::new();
    let start = Instant::now();
    run.until(start + span.seconds, &mut histogram)?;
    let seconds = start.elapsed().as_secs_f64();
    Object::new()
        .word("command", "udp-ping-pong")
        .number("flows", flows)
        .number("size", size)
        .float("seconds", seconds)
        .number("count", histogram.count())
        .float("rate", histogram.count() as f64 / seconds)
        .number("total", histogram.count() + warm.count())
        .number("lost", run.lost)
        .object("latency", histogram.report())
        .print()?;
    Ok(())
}
