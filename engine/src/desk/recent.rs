//! Things made of plans, kept for as long as they are among those used last: plans of single legs
//! come and go, and most are like one before.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Recent<K, T> {
    made: Mutex<Made<K, T>>,
    most: usize,
}

struct Made<K, T> {
    things: HashMap<K, (Arc<T>, u64)>,
    /// Counts the times that something was used.
    clock: u64,
}

impl<K: Eq + Hash + Clone, T> Recent<K, T> {
    pub fn new(most: usize) -> Self {
        Self {
            made: Mutex::new(Made {
                things: HashMap::new(),
                clock: 0,
            }),
            most,
        }
    }

    pub fn get<E>(&self, key: K, make: impl FnOnce() -> Result<Arc<T>, E>) -> Result<Arc<T>, E> {
        if let Some(thing) = self.lock().find(&key) {
            return Ok(thing);
        }
        // Made without the lock: it may take a while.
        let thing = make()?;
        let mut made = self.lock();
        if made.things.len() >= self.most {
            let oldest = made.things.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                made.things.remove(&key);
            }
        }
        made.clock += 1;
        let used = made.clock;
        made.things.insert(key, (Arc::clone(&thing), used));
        Ok(thing)
    }

    fn lock(&self) -> MutexGuard<'_, Made<K, T>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, T> Made<K, T> {
    fn find(&mut self, key: &K) -> Option<Arc<T>> {
        let (thing, used) = self.things.get_mut(key)?;
        self.clock += 1;
        *used = self.clock;
        Some(Arc::clone(thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let recent = Recent::new(2);
        let get = |key| {
            recent
                .get(key, || Ok::<_, ()>(Arc::new(key)))
                .expect("made")
        };
        let one = get(1);
        get(2);
        assert!(Arc::ptr_eq(&one, &get(1)));
        get(3);
        assert!(Arc::ptr_eq(&one, &get(1)), "2 was the older one");
        get(4);
        get(5);
        assert!(!Arc::ptr_eq(&one, &get(1)));
    }

    #[test]
    fn what_fails_is_not_kept() {
        let recent = Recent::<u8, u8>::new(2);
        assert_eq!(recent.get(1, || Err("no")).err(), Some("no"));
        assert!(recent.get(1, || Ok::<_, ()>(Arc::new(1))).is_ok());
    }
}
