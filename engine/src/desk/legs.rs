//! The legs of one desk, by handle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::leg::{self, Leg};
use super::reports::Reports;
use crate::error::Error;
use crate::shared::Shared;

pub struct Legs {
    pub shared: Arc<Shared>,
    pub reports: Arc<Reports>,
    /// `None` when the desk is closed.
    legs: Mutex<Option<HashMap<u64, Arc<Leg>>>>,
}

impl Legs {
    pub fn new(shared: Arc<Shared>, reports: Arc<Reports>) -> Self {
        Self {
            shared,
            reports,
            legs: Mutex::new(Some(HashMap::new())),
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

    /// No more legs from now on: those that there were.
    pub fn close(&self) -> Vec<Arc<Leg>> {
        let legs = self.lock().take();
        legs.map(|legs| legs.into_values().collect())
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Arc<Leg>>>> {
        self.legs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
