//! Flows that just connected: those that live on for a while get keepalive on their target's
//! socket. Most flows end before, and save four system calls each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::flow::table::Flow;
use crate::net::socket;
use crate::runtime::{Owner, Source, Worker};

/// Keepalive counts from a flow's last byte in seconds: so much later changes nothing.
const GROWN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Young {
    flows: RefCell<VecDeque<(Instant, u64)>>,
    armed: Cell<bool>,
}

impl Young {
    pub fn note(&self, worker: &Rc<Worker>, flow: &Flow) {
        if flow.route.tcp.keepalive == 0 {
            return;
        }
        let at = worker.now() + GROWN;
        self.flows.borrow_mut().push_back((at, flow.id));
        self.arm(worker, at);
    }

    fn arm(&self, worker: &Rc<Worker>, at: Instant) {
        if !self.armed.replace(true) {
            let sweep: Rc<dyn Source> = Rc::new(Sweep(Rc::downgrade(worker)));
            worker.timers.arm(at, Owner::Source(sweep, 0));
        }
    }
}

struct Sweep(Weak<Worker>);

impl Source for Sweep {
    fn ready(self: Rc<Self>, _: u64, _: u8) {
        let Some(worker) = self.0.upgrade() else {
            return;
        };
        let young = &worker.young;
        let now = worker.now();
        young.armed.set(false);
        loop {
            let next = young.flows.borrow().front().copied();
            match next {
                None => return,
                // In batches: the next sweep is as far away as a flow takes to grow up.
                Some((at, _)) if at > now => return young.arm(&worker, now + GROWN),
                Some((_, id)) => {
                    young.flows.borrow_mut().pop_front();
                    if let Some(flow) = worker.table.get(id) {
                        keep_alive(&flow);
                    }
                }
            }
        }
    }
}

fn keep_alive(flow: &Flow) {
    // Clients that a listener of ours accepted have it from there.
    let client = flow.terms.as_ref().map(|terms| terms.client_fd.get());
    for fd in [Some(flow.target_fd.get()), client].into_iter().flatten() {
        if fd < 0 {
            continue;
        }
        // SAFETY: the flow keeps its descriptors open for as long as it names them.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let tcp = &flow.route.tcp;
        let _ = socket::keepalive(&fd, tcp.keepalive, tcp.keepalive_probes);
    }
}
