//! What all resolvers of the process share: one thread that talks DNS, the list of resolvers, and
//! how many look-ups there have been. It can be stopped and comes back when needed, and a forked
//! child leaves the parent's behind.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::{Counters, Resolver, Stats, lock};
use crate::plan::ResolverPlan;

#[derive(Default)]
pub(super) struct Process {
    resolvers: Mutex<HashMap<ResolverPlan, Weak<Resolver>>>,
    thread: Mutex<Option<DnsThread>>,
    /// What resolvers counted that are gone.
    pub(super) retired: Counters,
}

struct DnsThread {
    ground: Ground,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// Where look-ups run.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) runtime: Handle,
    /// Tells one thread from the next: sockets don't outlive the thread they were made on.
    pub(super) generation: u64,
}

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

pub(super) fn process() -> &'static Process {
    let mut current = PROCESS.load(Ordering::Acquire);
    if current.is_null() {
        let fresh = Box::into_raw(Box::<Process>::default());
        current = match PROCESS.compare_exchange(
            std::ptr::null_mut(),
            fresh,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => fresh,
            Err(earlier) => {
                // SAFETY: `fresh` came from `Box::into_raw` above and was not published.
                drop(unsafe { Box::from_raw(fresh) });
                earlier
            }
        };
    }
    // SAFETY: not null, made by `Box::into_raw`, and what was published is never freed.
    unsafe { &*current }
}

/// For the child of a fork, before it resolves anything: it starts afresh. The parent's thread does
/// not exist here, and its locks may be held for ever, so nothing of it is touched or freed.
pub fn abandon_after_fork() {
    PROCESS.store(Box::into_raw(Box::<Process>::default()), Ordering::Release);
}

/// Stops the thread and waits for it; who still waits for an answer gets `Stopped`. A later look-up
/// starts it anew.
pub fn shutdown() {
    let running = lock(&process().thread).take();
    if let Some(running) = running {
        drop(running.stop);
        // A waker may shut down from the thread itself, which then ends on its own.
        if running.thread.thread().id() != thread::current().id() {
            // It only panics with a bug of ours, and has said so on stderr by then.
            let _ = running.thread.join();
        }
    }
}

/// Forgets all cached names of all resolvers.
pub fn flush_all() {
    for resolver in process().alive() {
        resolver.flush();
    }
}

/// What all resolvers of the process counted, those that are gone included.
pub fn stats() -> Stats {
    let mut total = process().retired.read();
    for resolver in process().alive() {
        total += resolver.stats();
    }
    total
}

impl Process {
    fn alive(&self) -> Vec<Arc<Resolver>> {
        lock(&self.resolvers)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    pub(super) fn shared(&self, plan: &ResolverPlan) -> Arc<Resolver> {
        let mut resolvers = lock(&self.resolvers);
        if let Some(resolver) = resolvers.get(plan).and_then(Weak::upgrade) {
            return resolver;
        }
        resolvers.retain(|_, resolver| resolver.strong_count() > 0);
        let resolver = Arc::new(Resolver::new(plan.clone()));
        resolvers.insert(plan.clone(), Arc::downgrade(&resolver));
        resolver
    }

    pub(super) fn ground(&self) -> io::Result<Ground> {
        let mut thread = lock(&self.thread);
        match &*thread {
            Some(running) if !running.thread.is_finished() => Ok(running.ground.clone()),
            _ => {
                let started = DnsThread::start()?;
                let ground = started.ground.clone();
                *thread = Some(started);
                Ok(ground)
            }
        }
    }
}

impl DnsThread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ground = Ground {
            runtime: runtime.handle().clone(),
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("qanat-dns".to_owned())
            .spawn(move || {
                // An error is the sign too: the other end is dropped, nothing is sent.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            ground,
            stop,
            thread,
        })
    }
}
