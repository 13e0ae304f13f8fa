//! A socket of an association, read at the pace at which it gives datagrams.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::net::fd::Fd;
use crate::net::udp::{self, Inbound, MAX_BYTES};
use crate::relay::udp::NEXT_TURN;
use crate::relay::udp::association::Burst;
use crate::relay::udp::downward::{BUSY, BUSY_BUFFER};
use crate::relay::udp::pace::{PAUSE, Pace};
use crate::runtime::{DATAGRAMS, ONCE, Owner, WatchId, Worker, ready};

pub struct Port {
    fd: Fd,
    watch: WatchId,
    owner: Owner,
    burst: Burst,
    pace: Pace,
    /// It was prepared for much: it may give trains.
    grown: bool,
    /// The largest datagrams that may travel in trains from here.
    pub largest: usize,
}

impl Port {
    pub fn open(worker: &Worker, fd: Fd, owner: Owner) -> io::Result<Self> {
        Ok(Self {
            watch: worker
                .reactor
                .watch(fd.as_raw_fd(), DATAGRAMS, owner.clone())?,
            fd,
            owner,
            burst: Burst::default(),
            pace: Pace::new(worker.now()),
            grown: false,
            largest: MAX_BYTES,
        })
    }

    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Takes what is there, unless it is to gather for a moment; the owner is called again. `back`
    /// datagrams ever went the other way.
    pub fn receive(
        &mut self,
        worker: &Worker,
        readiness: u8,
        back: u64,
        into: &mut Inbound,
    ) -> usize {
        let before = self.pace;
        if before.is_bulk() && readiness & ready::TIMER == 0 {
            self.call_after(worker, PAUSE);
            return 0;
        }
        // In bulk, as much as has gathered.
        let most = match before.is_bulk() {
            true => Burst::MOST,
            false => self.burst.size(),
        };
        // Nothing there, or an error that this call has taken away.
        let count = into.receive(self.raw(), most).unwrap_or(0);
        self.burst.received(count);
        self.pace.note(worker.now(), count, back);
        if count >= BUSY && !self.grown {
            self.grown = true;
            udp::receive_buffer(&self.fd, BUSY_BUFFER);
            udp::receive_trains(&self.fd);
        }
        match (before.is_bulk(), self.pace.is_bulk()) {
            (true, true) if count == most => self.call_after(worker, NEXT_TURN),
            (_, true) => worker.reactor.modify(self.raw(), self.watch, ONCE),
            (true, false) => worker.reactor.modify(self.raw(), self.watch, DATAGRAMS),
            (false, false) => {}
        }
        count
    }

    pub fn close(self, worker: &Worker) {
        worker.reactor.forget(self.watch);
    }

    fn call_after(&self, worker: &Worker, time: Duration) {
        worker.timers.arm(worker.now() + time, self.owner.clone());
    }
}
