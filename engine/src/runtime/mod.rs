//! Worker threads: each one loop, one epoll instance, its own tasks, timers and flows.

mod executor;
mod inbox;
pub mod io;
mod reactor;
mod timer;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use executor::{Executor, TaskId};
pub use inbox::{Inbox, MAX_WORKERS, abandon_after_fork};
pub use reactor::{DATAGRAMS, FLOW, LISTENER, ONCE, Owner, Reactor, Source, WatchId, ready};
pub use timer::{Sleep, TimerId, Timers};

use crate::flow::pipes::Pipes;
use crate::flow::reason::Reason;
use crate::flow::table::Table;
use crate::relay::endpoint::Endpoints;
use crate::relay::hook::Deciding;
use crate::relay::udp::Datagrams;
use crate::relay::udp::associate::Associates;
use crate::relay::young::Young;
use crate::shared::Shared;

/// Read buffer of the worker, lent to whichever flow is being polled.
pub const SCRATCH: usize = 64 * 1024;

const EVENTS: usize = 256;

/// How long the loop waits at most while closed endpoints have flows.
const CLOSING_LOOK: Duration = Duration::from_millis(200);

/// One worker: everything that a flow needs, on one thread.
pub struct Worker {
    /// Place among the engine's workers.
    pub index: usize,
    /// Number that wakers know this worker by.
    number: usize,
    pub shared: Arc<Shared>,
    pub inbox: Arc<Inbox>,
    pub reactor: Reactor,
    pub tasks: Executor,
    pub timers: Timers,
    pub scratch: RefCell<Box<[u8]>>,
    pub pipes: Pipes,
    pub table: Table,
    pub endpoints: Endpoints,
    pub young: Young,
    pub deciding: Deciding,
    pub datagrams: Datagrams,
    /// Listeners of desks by handle, for those who have something to tell them.
    pub watching: RefCell<HashMap<u64, Rc<dyn Source>>>,
    pub associates: Associates,
    now: Cell<Instant>,
    /// Sources to call once more before the loop waits again, to send what they gathered.
    flush: RefCell<Vec<(Rc<dyn Source>, u64)>>,
    stop: Cell<bool>,
    loops: Cell<u64>,
    busy: Cell<Duration>,
    lag_max: Cell<Duration>,
}

/// How busy a worker's loop is.
#[derive(Clone, Copy, Debug)]
pub struct LoopStats {
    pub loops: u64,
    pub busy: Duration,
    /// The longest turn of the loop since the last time this was asked.
    pub lag_max: Duration,
}

impl Worker {
    pub fn new(
        index: usize,
        number: usize,
        inbox: Arc<Inbox>,
        shared: Arc<Shared>,
        pipe_size: usize,
    ) -> std::io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            index,
            number,
            table: Table::new(index, Arc::clone(&shared)),
            shared,
            inbox,
            reactor: Reactor::new()?,
            tasks: Executor::default(),
            timers: Timers::default(),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            pipes: Pipes::new(pipe_size),
            endpoints: Endpoints::default(),
            young: Young::default(),
            deciding: Deciding::default(),
            datagrams: Datagrams::default(),
            watching: RefCell::default(),
            associates: Associates::default(),
            now: Cell::new(Instant::now()),
            flush: RefCell::default(),
            stop: Cell::new(false),
            loops: Cell::new(0),
            busy: Cell::new(Duration::ZERO),
            lag_max: Cell::new(Duration::ZERO),
        }))
    }

    /// The time at which this turn of the loop began.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Serial number of this turn of the loop.
    pub fn turns(&self) -> u64 {
        self.loops.get()
    }

    pub fn call_owner(&self, owner: Owner, readiness: u8) {
        match owner {
            Owner::Task(id) => self.tasks.wake(id),
            // A bug of ours costs one event, not all that the worker carries.
            Owner::Source(source, token) => {
                let _ = catch_unwind(AssertUnwindSafe(|| source.ready(token, readiness)));
            }
        }
    }

    /// Calls the source before the loop waits again (with no readiness at all).
    pub fn flush_later(&self, source: Rc<dyn Source>, token: u64) {
        self.flush.borrow_mut().push((source, token));
    }

    pub fn stop(&self) {
        self.stop.set(true);
    }

    pub fn loop_stats(&self) -> LoopStats {
        LoopStats {
            loops: self.loops.get(),
            busy: self.busy.get(),
            lag_max: self.lag_max.replace(Duration::ZERO),
        }
    }

    /// What can fail before the loop begins.
    pub fn prepare(self: &Rc<Self>) -> std::io::Result<()> {
        let bell = Owner::Source(Rc::new(Bell(Rc::downgrade(self))), 0);
        self.reactor.watch(self.inbox.bell(), DATAGRAMS, bell)?;
        Ok(())
    }

    /// The loop of the worker's thread, until `stop`.
    pub fn run(self: &Rc<Self>) {
        inbox::enter(Some(Rc::clone(self)));
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        while !self.stop.get() {
            self.turn(&mut events);
        }
        self.end();
    }

    fn turn(self: &Rc<Self>, events: &mut [libc::epoll_event]) {
        let timeout = if self.tasks.has_ready() {
            Some(Duration::ZERO)
        } else {
            // The clock was read at the end of the last turn.
            let timeout = self.timers.next(self.now.get());
            match self.endpoints.is_closing() {
                true => Some(timeout.map_or(CLOSING_LOOK, |timeout| timeout.min(CLOSING_LOOK))),
                false => timeout,
            }
        };
        let count = self.reactor.wait(events, timeout);
        let began = Instant::now();
        self.now.set(began);
        for event in &events[..count] {
            if let Some((owner, readiness)) = self.reactor.note(event) {
                self.call_owner(owner, readiness);
            }
        }
        while let Some(owner) = self.timers.take_due(began) {
            self.call_owner(owner, ready::TIMER);
        }
        self.tasks.run_ready(self.number);
        self.run_flush();
        self.endpoints.sweep(&self.shared, began);
        self.shared.events.publish(&self.table);
        let ended = Instant::now();
        self.now.set(ended);
        let took = ended - began;
        self.loops.set(self.loops.get() + 1);
        self.busy.set(self.busy.get() + took);
        if took > self.lag_max.get() {
            self.lag_max.set(took);
        }
    }

    fn run_flush(&self) {
        loop {
            let Some((source, token)) = self.flush.borrow_mut().pop() else {
                return;
            };
            source.ready(token, 0);
        }
    }

    /// Drops everything that the worker carries. Cycles (sources hold the worker) are cut here.
    fn end(self: &Rc<Self>) {
        // Nobody shall take what is cut off for complete.
        for flow in self.table.list(|_| true) {
            flow.cut.set(Some(Reason::Shutdown));
            if let Some(owner) = flow.owner() {
                self.call_owner(owner, ready::CUT);
            }
        }
        self.tasks.run_ready(self.number);
        self.endpoints.clear();
        self.watching.borrow_mut().clear();
        self.tasks.clear();
        self.timers.clear();
        self.reactor.clear_all();
        self.flush.borrow_mut().clear();
        self.datagrams.clear();
        self.table.clear();
        self.shared.events.publish(&self.table);
        self.inbox.close(self.number);
        inbox::enter(None);
    }
}

/// Rings when another thread has put something into the inbox.
struct Bell(std::rc::Weak<Worker>);

impl Source for Bell {
    fn ready(self: Rc<Self>, _: u64, _: u8) {
        if let Some(worker) = self.0.upgrade() {
            let inbox = Arc::clone(&worker.inbox);
            inbox.empty(&worker);
        }
    }
}
