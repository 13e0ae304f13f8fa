//! The legs of one desk, by handle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::leg::{self, Leg, Order};
use super::reports::Reports;
use crate::error::Error;
use crate::shared::Shared;

pub struct Legs {
    pub shared: Arc<Shared>,
    pub reports: Arc<Reports>,
    /// `None` when the desk is closed.
    legs: Mutex<Option<HashMap<u64, Arc<Leg>>>>,
    /// Closed by the owner, and perhaps not yet at their end.
    parting: Mutex<Vec<Weak<Leg>>>,
}

impl Legs {
    pub fn new(shared: Arc<Shared>, reports: Arc<Reports>) -> Self {
        Self {
            shared,
            reports,
            legs: Mutex::new(Some(HashMap::new())),
            parting: Mutex::default(),
        }
    }

    /// False when the desk is closed.
    pub fn insert(&self, leg: &Arc<Leg>) -> bool {
        match &mut *self.lock() {
            Some(legs) => {
                legs.insert(leg.handle, Arc::clone(leg));
                true
            }
            None => false,
        }
    }

    pub fn get(&self, handle: u64) -> Result<Arc<Leg>, Error> {
        let legs = self.lock();
        let leg = legs.as_ref().and_then(|legs| legs.get(&handle));
        leg.cloned().ok_or_else(leg::no_leg)
    }

    pub fn remove(&self, handle: u64) -> Option<Arc<Leg>> {
        self.lock().as_mut()?.remove(&handle)
    }

    pub fn has(&self, handle: u64) -> bool {
        self.lock()
            .as_ref()
            .is_some_and(|legs| legs.contains_key(&handle))
    }

    /// An orderly end, for which nobody waits.
    pub fn part_with(&self, leg: &Arc<Leg>) {
        leg.part(Order::Close);
        let mut parting = self.parting();
        if parting.len() == parting.capacity() {
            parting.retain(|leg| leg.strong_count() > 0);
        }
        parting.push(Arc::downgrade(leg));
    }

    fn parting(&self) -> MutexGuard<'_, Vec<Weak<Leg>>> {
        self.parting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets all that there are, and takes no more.
    pub fn close(&self) {
        let legs = self.lock().take();
        for leg in legs.into_iter().flat_map(HashMap::into_values) {
            leg.part(Order::Abort);
        }
        let parting = std::mem::take(&mut *self.parting());
        for leg in parting.iter().filter_map(Weak::upgrade) {
            leg.hurry();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Arc<Leg>>>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
