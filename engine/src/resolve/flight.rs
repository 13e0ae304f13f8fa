//! One look-up under way, and the many that wait for it. Knows no DNS: somebody settles a flight,
//! and everybody who joined it is woken, on whatever thread and executor they wait.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::{Answer, Resolver, lock};

pub(super) struct Flight {
    pub(super) name: Arc<str>,
    /// What to tell those who wait if the name servers take long or fail.
    pub(super) stale: Option<Arc<[IpAddr]>>,
    state: Mutex<State>,
}

#[derive(Clone)]
pub(super) struct Settled {
    pub(super) answer: Answer,
    pub(super) stale: bool,
}

enum State {
    Waiting(Slab<Option<Waker>>),
    Settled(Settled),
}

impl Flight {
    pub(super) fn new(name: Arc<str>, stale: Option<Arc<[IpAddr]>>) -> Arc<Self> {
        Arc::new(Self {
            name,
            stale,
            state: Mutex::new(State::Waiting(Slab::new())),
        })
    }

    /// The first answer counts: later ones come too late for those who waited.
    pub(super) fn settle(&self, settled: Settled) {
        let waiting = {
            let mut state = lock(&self.state);
            match &*state {
                State::Settled(_) => return,
                State::Waiting(_) => std::mem::replace(&mut *state, State::Settled(settled)),
            }
        };
        if let State::Waiting(wakers) = waiting {
            for (_, waker) in wakers {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    pub(super) fn settle_stale(&self, addresses: Arc<[IpAddr]>) {
        self.settle(Settled {
            answer: Ok(addresses),
            stale: true,
        });
    }

    /// The answer if there is one already, else a place among those who wait.
    pub(super) fn join(
        self: &Arc<Self>,
        resolver: &Arc<Resolver>,
    ) -> Result<Settled, LookupFuture> {
        match &mut *lock(&self.state) {
            State::Settled(settled) => Ok(settled.clone()),
            State::Waiting(wakers) => Err(LookupFuture {
                place: Some(wakers.insert(None)),
                flight: self.clone(),
                resolver: resolver.clone(),
            }),
        }
    }
}

/// Waits for an answer. Any executor may poll it; dropping it leaves the look-up and its other
/// waiters alone, and the answer still goes to the cache.
#[must_use = "a look-up does nothing for its caller unless polled"]
pub struct LookupFuture {
    flight: Arc<Flight>,
    resolver: Arc<Resolver>,
    place: Option<usize>,
}

impl Future for LookupFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        // Outlives the lock: dropping a waker can run anything, even another waiter's drop.
        let _replaced;
        let settled = match &mut *lock(&self.flight.state) {
            State::Settled(settled) => settled.clone(),
            State::Waiting(wakers) => {
                if let Some(waker) = self.place.and_then(|place| wakers.get_mut(place))
                    && !waker
                        .as_ref()
                        .is_some_and(|waker| waker.will_wake(context.waker()))
                {
                    _replaced = waker.replace(context.waker().clone());
                }
                return Poll::Pending;
            }
        };
        if self.place.take().is_some() {
            self.resolver.count(&settled);
        }
        Poll::Ready(settled.answer)
    }
}

impl Drop for LookupFuture {
    fn drop(&mut self) {
        let _removed = self
            .place
            .take()
            .and_then(|place| match &mut *lock(&self.flight.state) {
                State::Waiting(wakers) => wakers.try_remove(place),
                State::Settled(_) => None,
            });
    }
}
