//! Host names to addresses, for worker threads that must not wait: a kept answer comes at once, any
//! other from one background thread that talks DNS. Knows nothing of flows and sockets of the relay.
//!
//! Equal plans share one resolver, its cache and its look-ups. An answer lives as long as its
//! records say, within the plan's bounds; while no name server answers, it serves on for `stale`
//! seconds more.

mod ask;
mod cache;
mod error;
mod flight;
mod process;
mod servers;
mod system;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::AddAssign;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::Name;
use serde::Serialize;
use tokio::sync::Semaphore;

use self::ask::{DEADLINE, Outcome, Question};
use self::cache::{Cache, Found, Refresh};
use self::flight::{Flight, Settled};
use self::process::{Ground, process};
use self::system::{System, SystemFiles};
use crate::plan::ResolverPlan;

pub use self::error::ResolveError;
pub use self::flight::LookupFuture;
pub use self::process::{abandon_after_fork, flush_all, shutdown, stats};

/// Addresses in the order to try them, never none.
pub type Answer = Result<Arc<[IpAddr]>, ResolveError>;

/// Look-ups of one resolver that may be under way.
const FLIGHTS: usize = 4_096;

/// Those of them that talk to name servers at once, so that a flood of names doesn't eat the
/// descriptors: a look-up holds two sockets for each of up to two servers.
const TALKING: usize = 256;

/// How long a failure without any older answer is kept, so that a busy endpoint doesn't hammer a
/// server that is down already.
const FAILURE: Duration = Duration::from_secs(1);

/// The longest life of "there is nothing", whatever the SOA record says: somebody may be creating
/// the name just now.
const ABSENCE: Duration = Duration::from_secs(300);

/// How long a look-up waits for the name servers when an expired answer could serve instead.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between attempts to refresh an answer while the name servers fail.
const RETRY: Duration = Duration::from_secs(5);

pub enum Lookup {
    Ready(Answer),
    Pending(LookupFuture),
}

pub struct Resolver {
    plan: ResolverPlan,
    front: Mutex<Front>,
    turns: Semaphore,
    system: Mutex<System>,
    counters: Counters,
    #[cfg(test)]
    skew: AtomicU64,
}

/// What a look-up touches before anything is asked.
struct Front {
    cache: Cache,
    /// Those that a new look-up may join.
    flights: HashMap<Arc<str>, Arc<Flight>>,
    /// All, also those that a flush has parted from the cache.
    flying: usize,
}

/// Each counts calls of `lookup`; one that failed from the cache counts as cached and as failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub lookups: u64,
    /// Answered at once by an answer that had not expired.
    pub cached: u64,
    /// Answered with an error.
    pub failed: u64,
    /// Answered by an expired answer, because the name servers failed or took long.
    pub stale: u64,
    /// Answers kept now.
    pub entries: u64,
    /// Look-ups under way now.
    pub inflight: u64,
}

#[derive(Default)]
struct Counters {
    lookups: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
}

impl Resolver {
    /// The resolver of all that have the same plan.
    pub fn shared(plan: &ResolverPlan) -> Arc<Self> {
        process().shared(plan)
    }

    fn new(plan: ResolverPlan) -> Self {
        Self::with_files(plan, SystemFiles::default())
    }

    fn with_files(plan: ResolverPlan, files: SystemFiles) -> Self {
        let capacity = usize::try_from(plan.cache_size).unwrap_or(usize::MAX);
        Self {
            plan,
            front: Mutex::new(Front {
                cache: Cache::new(capacity),
                flights: HashMap::new(),
                flying: 0,
            }),
            turns: Semaphore::new(TALKING),
            system: Mutex::new(System::new(files)),
            counters: Counters::default(),
            #[cfg(test)]
            skew: AtomicU64::new(0),
        }
    }

    /// A kept answer at once, without waiting or asking anybody; else a future that any executor can
    /// poll. It is ready within 10 seconds, whatever the name servers do.
    pub fn lookup(self: &Arc<Self>, host: &str) -> Lookup {
        increment(&self.counters.lookups);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Lookup::Ready(Ok(Arc::from([address])));
        }
        let key = lower(host);
        let now = self.now();
        let mut front = lock(&self.front);
        let stale = match front.cache.find(&key, now) {
            Found::Fresh(answer) => {
                drop(front);
                increment(&self.counters.cached);
                return self.ready(answer, false);
            }
            Found::Expired(addresses, Refresh::Later) => {
                drop(front);
                return self.ready(Ok(addresses), true);
            }
            Found::Expired(addresses, Refresh::Beside) => {
                let joined = front.join_or_take_off(&key, Some(addresses.clone()));
                drop(front);
                if let Ok((flight, true)) = &joined {
                    flight.settle_stale(addresses.clone());
                    if let Some(name) = parse(host) {
                        self.fly(flight, name);
                    }
                }
                return self.ready(Ok(addresses), true);
            }
            Found::Expired(addresses, Refresh::Wait) => Some(addresses),
            Found::Missing => None,
        };
        let Some(name) = parse(host) else {
            drop(front);
            return self.ready(Err(ResolveError::InvalidName(Arc::from(host))), false);
        };
        let joined = front.join_or_take_off(&key, stale);
        drop(front);
        let (flight, new) = match joined {
            Ok(joined) => joined,
            Err(busy) => return self.ready(Err(busy), false),
        };
        // Joined before it takes off: it may land before the next line.
        let place = flight.join(self);
        if new {
            self.fly(&flight, name);
        }
        match place {
            Ok(settled) => self.ready(settled.answer, settled.stale),
            Err(future) => Lookup::Pending(future),
        }
    }

    /// Forgets all answers. Look-ups under way still answer those who wait, and nobody else.
    pub fn flush(&self) {
        let mut front = lock(&self.front);
        front.cache.clear();
        front.flights.clear();
    }

    pub fn stats(&self) -> Stats {
        let front = lock(&self.front);
        Stats {
            entries: front.cache.len() as u64,
            inflight: front.flying as u64,
            ..self.counters.read()
        }
    }

    fn ready(&self, answer: Answer, stale: bool) -> Lookup {
        let settled = Settled { answer, stale };
        self.count(&settled);
        Lookup::Ready(settled.answer)
    }

    fn count(&self, settled: &Settled) {
        if settled.stale {
            increment(&self.counters.stale);
        }
        if settled.answer.is_err() {
            increment(&self.counters.failed);
        }
    }

    /// Sends a flight off to the DNS thread.
    fn fly(self: &Arc<Self>, flight: &Arc<Flight>, name: Name) {
        let landing = Landing {
            resolver: self.clone(),
            flight: flight.clone(),
            landed: false,
        };
        match process().ground() {
            Ok(ground) => {
                let runtime = ground.runtime.clone();
                runtime.spawn(landing.resolve(ground, name));
            }
            Err(error) => {
                let host = &flight.name;
                let sentence = format!("can't resolve {host}: no thread to do it: {error}");
                landing.land(Outcome::Failed(ResolveError::Config(sentence.into())));
            }
        }
    }

    /// Keeps what came of a flight as the plan wants it kept, and says what its waiters are told.
    fn keep(&self, flight: &Arc<Flight>, outcome: Outcome) -> Settled {
        let mut front = lock(&self.front);
        let now = self.now();
        front.flying -= 1;
        let current = front
            .flights
            .get(&flight.name)
            .is_some_and(|current| Arc::ptr_eq(current, flight));
        if current {
            front.flights.remove(&flight.name);
        }
        let (answer, life) = match outcome {
            Outcome::Found { addresses, life } => {
                let seconds = |n: u32| Duration::from_secs(n.into());
                let most = seconds(self.plan.max_ttl);
                let least = seconds(self.plan.min_ttl).min(most);
                (Ok(Arc::from(addresses)), life.clamp(least, most))
            }
            // Kept for a second at least: without an SOA record nothing says how long.
            Outcome::Absent { error, life } => (Err(error), life.clamp(FAILURE, ABSENCE)),
            Outcome::Failed(error) => {
                let kept = match current {
                    true => front.cache.prolong(&flight.name, now, now + RETRY),
                    false => None,
                };
                if let Some(stale) = kept.or_else(|| flight.stale.clone()) {
                    return Settled {
                        answer: Ok(stale),
                        stale: true,
                    };
                }
                (Err(error), FAILURE)
            }
        };
        if current && !matches!(answer, Err(ResolveError::Stopped(_))) {
            let stale = Duration::from_secs(self.plan.stale.into());
            front
                .cache
                .insert(&flight.name, answer.clone(), life, stale, now);
        }
        Settled {
            answer,
            stale: false,
        }
    }

    #[cfg(not(test))]
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Tests move the clock forward.
    #[cfg(test)]
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.skew.load(Ordering::Relaxed))
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let retired = &process().retired;
        let counted = self.counters.read();
        for (total, count) in [
            (&retired.lookups, counted.lookups),
            (&retired.cached, counted.cached),
            (&retired.failed, counted.failed),
            (&retired.stale, counted.stale),
        ] {
            total.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Front {
    /// The flight for a name, and whether it is new and has to be sent off.
    fn join_or_take_off(
        &mut self,
        key: &str,
        stale: Option<Arc<[IpAddr]>>,
    ) -> Result<(Arc<Flight>, bool), ResolveError> {
        if let Some(flight) = self.flights.get(key) {
            return Ok((flight.clone(), false));
        }
        let name: Arc<str> = Arc::from(key);
        if self.flying >= FLIGHTS {
            return Err(ResolveError::Busy(name));
        }
        let flight = Flight::new(name.clone(), stale);
        self.flights.insert(name, flight.clone());
        self.flying += 1;
        Ok((flight, true))
    }
}

/// Owns the duty to land a flight: whatever happens to the look-up, its waiters are told.
struct Landing {
    resolver: Arc<Resolver>,
    flight: Arc<Flight>,
    landed: bool,
}

impl Landing {
    async fn resolve(self, ground: Ground, name: Name) {
        let question = Question {
            host: self.flight.name.clone(),
            name,
            mode: self.resolver.plan.mode,
            deadline: tokio::time::Instant::now() + DEADLINE,
        };
        let outcome = {
            let mut asking = pin!(self.ask(&ground, &question));
            match &self.flight.stale {
                None => asking.await,
                Some(stale) => match tokio::time::timeout(PATIENCE, asking.as_mut()).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        self.flight.settle_stale(stale.clone());
                        asking.await
                    }
                },
            }
        };
        self.land(outcome);
    }

    async fn ask(&self, ground: &Ground, question: &Question) -> Outcome {
        let resolver = &self.resolver;
        let turn = tokio::time::timeout_at(question.deadline, resolver.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Outcome::Failed(ResolveError::Timeout(question.host.clone()));
        };
        let (view, changed) =
            lock(&resolver.system).view(&resolver.plan, ground.generation, resolver.now());
        if changed {
            lock(&resolver.front).cache.forget_failures();
        }
        let early = |addresses: &[IpAddr]| {
            self.flight.settle(Settled {
                answer: Ok(Arc::from(addresses)),
                stale: false,
            });
        };
        question.ask(&view, early).await
    }

    fn land(mut self, outcome: Outcome) {
        self.landed = true;
        let settled = self.resolver.keep(&self.flight, outcome);
        self.flight.settle(settled);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let host = self.flight.name.clone();
        let error = if std::thread::panicking() {
            let problem = "the look-up broke down".into();
            ResolveError::ServerFailure { host, problem }
        } else {
            ResolveError::Stopped(host)
        };
        let settled = self.resolver.keep(&self.flight, Outcome::Failed(error));
        self.flight.settle(settled);
    }
}

impl Counters {
    fn read(&self) -> Stats {
        Stats {
            lookups: self.lookups.load(Ordering::Relaxed),
            cached: self.cached.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.lookups += other.lookups;
        self.cached += other.cached;
        self.failed += other.failed;
        self.stale += other.stale;
        self.entries += other.entries;
        self.inflight += other.inflight;
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Case makes no difference in names. Most are written in lower case, and then nothing is copied.
fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn parse(host: &str) -> Option<Name> {
    // What is plain ASCII is taken as it stands, underscores included; only other names are subject
    // to the rules for international ones.
    let name = if host.is_ascii() {
        Name::from_ascii(host)
    } else {
        Name::from_utf8(host)
    };
    name.ok().filter(|name| !name.is_root() && !host.is_empty())
}

/// Nothing here leaves a lock's content half changed, so that a panic elsewhere does no harm to it.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
