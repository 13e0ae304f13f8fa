//! Connect, one echoed message, close: one after the other on each of C threads.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::histogram::Histogram;
use crate::json::Object;
use crate::sys;

struct Tally {
    warm: u64,
    histogram: Histogram,
    seconds: f64,
}

fn once(address: SocketAddr, message: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    let mut stream = sys::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(message)?;
    stream.read_exact(buffer)?;
    if buffer != message {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "wrong bytes came back",
        ));
    }
    Ok(())
}

fn serial(
    address: SocketAddr,
    message: &[u8],
    warm_end: Instant,
    end: Instant,
) -> io::Result<Tally> {
    let mut buffer = vec![0; message.len()];
    let mut warm = 0;
    while Instant::now() < warm_end {
        once(address, message, &mut buffer)?;
        warm += 1;
    }
    let start = Instant::now();
    let mut before = start;
    let mut histogram = Histogram::new();
    while before < end {
        once(address, message, &mut buffer)?;
        let now = Instant::now();
        histogram.record((now - before).as_nanos() as u64);
        before = now;
    }
    Ok(Tally {
        warm,
        histogram,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What every connection says first, before the pattern.
fn from_hex(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err("--opening wants hexadecimal bytes".into());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?))
        .collect()
}

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let concurrency = arguments.take_or("concurrency", 1_usize)?;
    let size = arguments.take_or("size", 64_usize)?;
    let opening: String = arguments.take_or("opening", String::new())?;
    let span = arguments.span()?;
    arguments.finish()?;

    let mut message = from_hex(&opening)?;
    message.extend((0..size).map(|index| index as u8));
    let message = Arc::new(message);

    let warm_end = Instant::now() + span.warm_up;
    let end = warm_end + span.seconds;
    let threads: Vec<_> = (0..concurrency)
        .map(|_| {
            let message = Arc::clone(&message);
            thread::spawn(move || serial(address, &message, warm_end, end))
        })
        .collect();
    let mut all = Tally {
        warm: 0,
        histogram: Histogram::new(),
        seconds: 0.0,
    };
    for thread in threads {
        let tally = thread
            .join()
            .map_err(|_| "a thread of the load has panicked")??;
        all.warm += tally.warm;
        all.histogram.absorb(&tally.histogram);
        all.seconds = all.seconds.max(tally.seconds);
    }
    Object::new()
        .word("command", "connect")
        .number("concurrency", concurrency)
        .number("size", size)
        .float("seconds", all.seconds)
        .number("count", all.histogram.count())
        .float("rate", all.histogram.count() as f64 / all.seconds)
        .number("total", all.histogram.count() + all.warm)
        .object("latency", all.histogram.report())
        .print()?;
    Ok(())
}
