//! Answers kept by name: their life, their second life as stale ones, and which go first when there
//! are too many. Pure: no clock (the time is given), no I/O, no lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::Answer;

/// End of the chain that orders entries by use.
const NONE: usize = usize::MAX;

pub(super) struct Cache {
    entries: Slab<Entry>,
    places: HashMap<Arc<str>, usize>,
    newest: usize,
    oldest: usize,
    capacity: usize,
}

struct Entry {
    name: Arc<str>,
    answer: Answer,
    fresh_until: Instant,
    stale_until: Instant,
    /// Set while refreshing fails: the name servers are left alone until then.
    retry_at: Option<Instant>,
    newer: usize,
    older: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Missing,
    Fresh(Answer),
    Expired(Arc<[IpAddr]>, Refresh),
}

/// What to do about an answer that has expired but may still serve.
#[derive(Debug, PartialEq)]
pub(super) enum Refresh {
    /// Nothing is known against the name servers: ask them and wait a little.
    Wait,
    /// They failed before: serve the old answer and ask beside it.
    Beside,
    /// They failed a moment ago: serve the old answer and don't ask.
    Later,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: Slab::new(),
            places: HashMap::new(),
            newest: NONE,
            oldest: NONE,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn find(&mut self, name: &str, now: Instant) -> Found {
        let Some(&place) = self.places.get(name) else {
            return Found::Missing;
        };
        self.unlink(place);
        self.link_newest(place);
        let entry = &self.entries[place];
        if now < entry.fresh_until {
            return Found::Fresh(entry.answer.clone());
        }
        match &entry.answer {
            Ok(addresses) if now < entry.stale_until => {
                let refresh = match entry.retry_at {
                    None => Refresh::Wait,
                    Some(at) if at <= now => Refresh::Beside,
                    Some(_) => Refresh::Later,
                };
                Found::Expired(addresses.clone(), refresh)
            }
            _ => Found::Missing,
        }
    }

    /// Keeps an answer for `life`, and for `stale` more in case no name server answers then.
    pub(super) fn insert(
        &mut self,
        name: &Arc<str>,
        answer: Answer,
        life: Duration,
        stale: Duration,
        now: Instant,
    ) {
        if self.capacity == 0 {
            return;
        }
        self.remove(name);
        if self.entries.len() >= self.capacity {
            let oldest = self.entries[self.oldest].name.clone();
            self.remove(&oldest);
        }
        let fresh_until = now + life;
        let place = self.entries.insert(Entry {
            name: name.clone(),
            answer,
            fresh_until,
            stale_until: fresh_until + stale,
            retry_at: None,
            newer: NONE,
            older: NONE,
        });
        self.places.insert(name.clone(), place);
        self.link_newest(place);
    }

    /// Addresses of an expired entry that may still serve; from now until `retry_at` the name
    /// servers are not asked for it.
    pub(super) fn prolong(
        &mut self,
        name: &str,
        now: Instant,
        retry_at: Instant,
    ) -> Option<Arc<[IpAddr]>> {
        let entry = &mut self.entries[*self.places.get(name)?];
        match &entry.answer {
            Ok(addresses) if now < entry.stale_until => {
                entry.retry_at = Some(retry_at);
                Some(addresses.clone())
            }
            _ => None,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Forgets what was learnt from failing: for when the name servers have changed.
    pub(super) fn forget_failures(&mut self) {
        let failed: Vec<Arc<str>> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.answer.is_err())
            .map(|(_, entry)| entry.name.clone())
            .collect();
        for name in failed {
            self.remove(&name);
        }
        for (_, entry) in &mut self.entries {
            entry.retry_at = None;
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.unlink(place);
            self.entries.remove(place);
        }
    }

    fn link_newest(&mut self, place: usize) {
        let second = std::mem::replace(&mut self.newest, place);
        self.entries[place].newer = NONE;
        self.entries[place].older = second;
        match second {
            NONE => self.oldest = place,
            second => self.entries[second].newer = place,
        }
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::ResolveError;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    fn addresses(last: u8) -> Arc<[IpAddr]> {
        Arc::from([IpAddr::from([192, 0, 2, last])])
    }

    fn put(cache: &mut Cache, host: &str, last: u8, now: Instant) {
        cache.insert(&name(host), Ok(addresses(last)), SECOND, SECOND, now);
    }

    #[test]
    fn fresh_then_stale_then_gone() {
        let (mut cache, start) = (Cache::new(4), Instant::now());
        put(&mut cache, "a", 1, start);
        let just_before = start + SECOND - Duration::from_nanos(1);
        assert_eq!(cache.find("a", just_before), Found::Fresh(Ok(addresses(1))));
        assert_eq!(
            cache.find("a", start + SECOND),
            Found::Expired(addresses(1), Refresh::Wait)
        );
        assert_eq!(cache.find("a", start + 2 * SECOND), Found::Missing);
    }

    #[test]
    fn a_negative_answer_has_no_second_life() {
        let (mut cache, start) = (Cache::new(4), Instant::now());
        let absent = Err(ResolveError::NotFound(name("a")));
        cache.insert(&name("a"), absent.clone(), SECOND, SECOND, start);
        assert_eq!(cache.find("a", start), Found::Fresh(absent));
        assert_eq!(cache.find("a", start + SECOND), Found::Missing);
        assert_eq!(cache.prolong("a", start + SECOND, start), None);
    }

    #[test]
    fn a_prolonged_answer_waits_before_the_next_refresh() {
        let (mut cache, start) = (Cache::new(4), Instant::now());
        put(&mut cache, "a", 1, start);
        let expired = start + SECOND;
        let retry = expired + SECOND / 2;
        assert_eq!(cache.prolong("a", expired, retry), Some(addresses(1)));
        assert_eq!(
            cache.find("a", expired),
            Found::Expired(addresses(1), Refresh::Later)
        );
        assert_eq!(
            cache.find("a", retry),
            Found::Expired(addresses(1), Refresh::Beside)
        );
        cache.forget_failures();
        assert_eq!(
            cache.find("a", retry),
            Found::Expired(addresses(1), Refresh::Wait)
        );
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let (mut cache, now) = (Cache::new(3), Instant::now());
        for (last, host) in [(1, "a"), (2, "b"), (3, "c")] {
            put(&mut cache, host, last, now);
        }
        cache.find("a", now);
        put(&mut cache, "d", 4, now);
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.find("b", now), Found::Missing);
        put(&mut cache, "e", 5, now);
        assert_eq!(cache.find("c", now), Found::Missing);
        for (last, host) in [(1, "a"), (4, "d"), (5, "e")] {
            assert_eq!(cache.find(host, now), Found::Fresh(Ok(addresses(last))));
        }
    }

    #[test]
    fn replacing_does_not_push_others_out() {
        let (mut cache, now) = (Cache::new(2), Instant::now());
        put(&mut cache, "a", 1, now);
        put(&mut cache, "b", 2, now);
        put(&mut cache, "b", 3, now);
        assert_eq!(cache.find("a", now), Found::Fresh(Ok(addresses(1))));
        assert_eq!(cache.find("b", now), Found::Fresh(Ok(addresses(3))));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let (mut cache, now) = (Cache::new(0), Instant::now());
        put(&mut cache, "a", 1, now);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn failures_are_forgotten_and_addresses_kept() {
        let (mut cache, now) = (Cache::new(4), Instant::now());
        put(&mut cache, "a", 1, now);
        let absent = Err(ResolveError::NotFound(name("b")));
        cache.insert(&name("b"), absent, SECOND, SECOND, now);
        cache.forget_failures();
        assert_eq!(cache.find("b", now), Found::Missing);
        assert_eq!(cache.find("a", now), Found::Fresh(Ok(addresses(1))));
        cache.clear();
        assert_eq!(cache.find("a", now), Found::Missing);
    }
}
