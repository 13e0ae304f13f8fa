//! Datagrams at a steady rate over N flows; the sink tells what arrived and in which order.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::arguments::{Arguments, Span};
use crate::json::Object;
use crate::socks::Way;
use crate::sys::{self, Batch};
use crate::udp_serve::{ANSWER_SIZE, FLOWS_MAX, HEADER, QUERY, QUERY_SIZE, parse_answer};

const BATCH: usize = 64;
/// What a GSO send may hold.
const TRAIN_BYTES: usize = 60_000;

struct Flow {
    socket: UdpSocket,
    number: u64,
}

struct Load {
    flows: Vec<Flow>,
    batch: Batch,
    /// Before each datagram.
    header: Vec<u8>,
    /// Without the header.
    size: usize,
    run: u32,
    gso: bool,
    refused: u64,
}

impl Load {
    fn write_datagram(&mut self, slot: usize, offset: usize, flow: u32, number: u64) {
        let (run, size) = (self.run, self.size as u32);
        let bytes = &mut self.batch.slot(slot)[offset..];
        let (header, bytes) = bytes.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        bytes[..4].copy_from_slice(&run.to_le_bytes());
        bytes[4..8].copy_from_slice(&flow.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        bytes[16..20].copy_from_slice(&size.to_le_bytes());
    }

    /// Of a datagram as it is sent.
    fn whole(&self) -> usize {
        self.header.len() + self.size
    }

    /// Sends `count` datagrams of one flow; a full send buffer drops the rest, as a NIC would.
    fn send(&mut self, flow: usize, count: usize) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let now = left.min(if self.gso {
                TRAIN_BYTES / self.whole()
            } else {
                BATCH
            });
            let first = self.flows[flow].number;
            for index in 0..now {
                let (slot, offset) = if self.gso {
                    (0, index * self.whole())
                } else {
                    (index, 0)
                };
                self.write_datagram(slot, offset, flow as u32, first + index as u64);
            }
            let whole = self.whole();
            let socket = &self.flows[flow].socket;
            let taken = if self.gso {
                let train = &self.batch.slot(0)[..now * whole];
                socket.send(train).map(|_| now)
            } else {
                self.batch.send(socket, now)
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) if sys::would_block(&error) => 0,
                // Left by an earlier datagram; this send has not happened.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => 0,
                Err(error) => return Err(error),
            };
            self.refused += (now - taken) as u64;
            self.flows[flow].number += now as u64;
            left -= now;
        }
        Ok(())
    }

    /// Sends at the rate until `seconds` are over; how many datagrams were due.
    fn pace(&mut self, rate: f64, tick: Duration, seconds: Duration) -> io::Result<u64> {
        let start = Instant::now();
        let mut due_before = 0_u64;
        let mut moment = start;
        while moment < start + seconds {
            moment += tick;
            sys::sleep_until(moment);
            let due = (rate * (moment - start).as_secs_f64()) as u64;
            let (count, flows) = ((due - due_before) as usize, self.flows.len());
            for flow in 0..flows {
                let share = count / flows + usize::from(flow < count % flows);
                self.send(flow, share)?;
            }
            due_before = due;
        }
        Ok(due_before)
    }
}

/// Asks the sink directly until its count no longer grows.
fn ask(sink: SocketAddr, run: u32) -> Result<(u64, u64), Box<dyn Error>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(sink)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut query = [0; QUERY_SIZE];
    query[..4].copy_from_slice(&QUERY);
    query[4..].copy_from_slice(&run.to_le_bytes());
    let (mut last, mut quiet) = (None, 0);
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(50));
        socket.send(&query)?;
        let mut answer = [0; ANSWER_SIZE];
        let Ok(ANSWER_SIZE) = socket.recv(&mut answer) else {
            continue;
        };
        let (_, received, late) = parse_answer(&answer);
        quiet = if last == Some((received, late)) {
            quiet + 1
        } else {
            0
        };
        last = Some((received, late));
        if quiet >= 3 {
            break;
        }
    }
    last.ok_or_else(|| "the sink does not answer".into())
}

pub fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let address = arguments.address()?;
    let sink = arguments
        .take::<SocketAddr>("sink")?
        .ok_or("--sink ADDRESS is needed")?;
    let rate = arguments.take_or("rate", 10_000.0_f64)?;
    let size = arguments.take_or("size", 1_200_usize)?;
    let flows = arguments.take_or("flows", 1_usize)?;
    let tick = Duration::from_micros(arguments.take_or("tick-us", 500)?);
    let gso = arguments.flag("gso")?;
    let mut way = Way::take(&mut arguments, address)?;
    let header = way.header();
    let Span { warm_up, seconds } = arguments.span()?;
    arguments.finish()?;
    if !(HEADER + 4..=1_472).contains(&size) {
        return Err(format!("--size {size}: between {} and 1472", HEADER + 4).into());
    }
    if !(1..=FLOWS_MAX).contains(&flows) {
        return Err(format!("--flows {flows}: between 1 and {FLOWS_MAX}").into());
    }

    sys::precise_timers();
    let mut load = Load {
        flows: Vec::with_capacity(flows),
        batch: if gso {
            Batch::new(1, 65_536)
        } else {
            Batch::new(BATCH, header.len() + size)
        },
        header,
        size,
        run: std::process::id(),
        gso,
        refused: 0,
    };
    for _ in 0..flows {
        let socket = sys::udp_socket(SocketAddr::from(([127, 0, 0, 1], 0)), false)?;
        way.connect(&socket)?;
        if gso {
            sys::set_segment_size(&socket, load.whole())?;
        }
        load.flows.push(Flow { socket, number: 0 });
    }
    // Gently, so that every flow exists at the relay before the rate begins.
    for flow in 0..flows {
        load.send(flow, 1)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    let warm = load.pace(rate, Duration::from_micros(500).max(tick), warm_up)?;
    let measured = Instant::now();
    let sent = load.pace(rate, tick, seconds)?;
    let elapsed = measured.elapsed().as_secs_f64();
    let total = warm + sent + flows as u64 - load.refused;
    let (received, late) = ask(sink, load.run)?;
    Object::new()
        .word("command", "udp-blast")
        .number("flows", flows)
        .number("size", size)
        .float("seconds", elapsed)
        .float("rate", sent as f64 / elapsed)
        .number("sent", total)
        .number("received", received)
        .number("lost", total.saturating_sub(received))
        .number("late", late)
        .number("refused", load.refused)
        .float("whole", start.elapsed().as_secs_f64())
        .print()?;
    Ok(())
}
