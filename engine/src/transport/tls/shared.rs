//! Things made from a plan once, for as long as somebody uses them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What was made from which plan. Plans are few and compared at configuration time only.
pub struct Shelf<P, T>(Mutex<Vec<(P, Weak<T>)>>);

impl<P: Clone + PartialEq, T> Shelf<P, T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub fn get<E>(&self, plan: &P, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(_, thing)| thing.strong_count() > 0);
        let found = made
            .iter()
            .find(|(known, _)| known == plan)
            .and_then(|(_, thing)| thing.upgrade());
        if let Some(thing) = found {
            return Ok(thing);
        }
        let thing = Arc::new(make()?);
        made.push((plan.clone(), Arc::downgrade(&thing)));
        Ok(thing)
    }
}
