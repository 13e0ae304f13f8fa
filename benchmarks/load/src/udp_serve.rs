//! The UDP targets: an echo, and a sink that counts what arrives and answers for it.

use std::io;
use std::net::UdpSocket;

use crate::sys::{self, Batch};

/// A load datagram begins with: run (u32), flow (u32), number within the flow (u64).
pub const HEADER: usize = 16;
/// A query is `QUERY` and a run; the answer is that run, what was received, what came late.
pub const QUERY: [u8; 4] = *b"QRY?";
pub const QUERY_SIZE: usize = 8;
pub const ANSWER_SIZE: usize = 20;
/// More flows than this in one run are not told apart.
pub const FLOWS_MAX: usize = 4096;

const BATCH: usize = 64;

pub struct Echo {
    batch: Batch,
}

impl Echo {
    pub fn new() -> Self {
        Self {
            batch: Batch::new(BATCH, 65_536),
        }
    }

    pub fn serve(&mut self, socket: &UdpSocket) -> io::Result<()> {
        match self.batch.receive(socket) {
            Ok(count) => match self.batch.send_back(socket, count) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                other => other,
            },
            Err(error) if sys::would_block(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

pub struct Sink {
    batch: Batch,
    gro: bool,
    run: u32,
    received: u64,
    late: u64,
    next: Vec<u64>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

impl Sink {
    pub fn new(gro: bool) -> Self {
        let width = if gro { 65_536 } else { 2_048 };
        Self {
            batch: Batch::new(BATCH, width),
            gro,
            run: 0,
            received: 0,
            late: 0,
            next: vec![0; FLOWS_MAX],
        }
    }

    fn count(&mut self, datagram: &[u8]) {
        if datagram.len() < HEADER {
            return;
        }
        let (run, flow) = (word(datagram, 0), word(datagram, 4) as usize % FLOWS_MAX);
        if run != self.run {
            self.run = run;
            self.received = 0;
            self.late = 0;
            self.next.fill(0);
        }
        let number = long(datagram, 8);
        self.received += 1;
        if number < self.next[flow] {
            self.late += 1;
        } else {
            self.next[flow] = number + 1;
        }
    }

    pub fn serve(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let count = match self.batch.receive(socket) {
            Ok(count) => count,
            Err(error) if sys::would_block(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for index in 0..count {
            let datagram = self.batch.datagram(index);
            if datagram.len() == QUERY_SIZE && datagram[..4] == QUERY {
                let run = word(datagram, 4);
                let (received, late) = if run == self.run {
                    (self.received, self.late)
                } else {
                    (0, 0)
                };
                let mut answer = [0; ANSWER_SIZE];
                answer[..4].copy_from_slice(&run.to_le_bytes());
                answer[4..12].copy_from_slice(&received.to_le_bytes());
                answer[12..].copy_from_slice(&late.to_le_bytes());
                socket.send_to(&answer, self.batch.sender(index))?;
            } else if self.gro {
                self.count_train(index);
            } else {
                let mut head = [0; HEADER];
                let length = datagram.len().min(HEADER);
                head[..length].copy_from_slice(&datagram[..length]);
                self.count(&head[..length]);
            }
        }
        Ok(())
    }

    /// The load writes its segment size behind the header, which spares us the control message.
    fn count_train(&mut self, index: usize) {
        let train = self.batch.datagram(index).to_vec();
        let size = if train.len() >= HEADER + 4 {
            word(&train, HEADER) as usize
        } else {
            0
        };
        for datagram in train.chunks(size.max(HEADER)) {
            self.count(datagram);
        }
    }
}

pub fn parse_answer(answer: &[u8; ANSWER_SIZE]) -> (u32, u64, u64) {
    (word(answer, 0), long(answer, 4), long(answer, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(run: u32, flow: u32, number: u64) -> Vec<u8> {
        let mut bytes = run.to_le_bytes().to_vec();
        bytes.extend(flow.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes
    }

    #[test]
    fn counts_by_run_and_sees_what_came_late() {
        let mut sink = Sink::new(false);
        for (flow, number) in [(0, 0), (1, 0), (0, 2), (0, 1), (1, 1)] {
            sink.count(&datagram(7, flow, number));
        }
        assert_eq!((sink.run, sink.received, sink.late), (7, 5, 1));
        sink.count(&datagram(8, 0, 0));
        sink.count(&[1, 2, 3]);
        assert_eq!((sink.run, sink.received, sink.late), (8, 1, 0));
    }
}
