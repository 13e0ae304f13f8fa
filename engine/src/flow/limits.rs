//! How many flows may live: for one endpoint, and once more for all endpoints of a group.
//!
//! Gates are shared by the workers. They are passed once per connection, so a lock is fine; what a
//! gate doesn't limit it doesn't lock for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::reason::Refusal;
use crate::net::addr::unmapped;
use crate::plan::LimitsPlan;

/// One client for the purpose of limits: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(u64);

impl ClientKey {
    pub fn of(ip: IpAddr) -> Self {
        match unmapped(ip) {
            // The prefix ::/64 holds no routable client, so IPv4 may use it.
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4))),
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64),
        }
    }
}

/// Which limit was hit, before it is known whether the gate is an endpoint's or the group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Connections,
    Rate,
    Client,
}

impl Over {
    pub fn refusal(self, overall: bool) -> Refusal {
        match (self, overall) {
            (Self::Connections, false) => Refusal::Connections,
            (Self::Rate, false) => Refusal::ConnectionRate,
            (Self::Client, false) => Refusal::ConnectionsPerClient,
            (Self::Connections, true) => Refusal::OverallConnections,
            (Self::Rate, true) => Refusal::OverallConnectionRate,
            (Self::Client, true) => Refusal::OverallConnectionsPerClient,
        }
    }
}

/// Lets connections in while there is room.
#[derive(Default)]
pub struct Gate {
    connections: AtomicU32,
    rate: AtomicU32,
    per_client: AtomicU32,
    associations: AtomicU32,
    open: AtomicU32,
    open_associations: AtomicU32,
    bucket: Mutex<Option<Bucket>>,
    clients: Mutex<HashMap<ClientKey, u32>>,
}

/// An admitted flow's place, given back when dropped.
#[must_use]
pub struct Pass {
    gate: Arc<Gate>,
    client: Option<ClientKey>,
}

impl Pass {
    /// Says who the client is, once.
    pub fn name_client(&mut self, client: IpAddr) -> Result<(), Over> {
        self.client = self.gate.admit_client(client)?;
        Ok(())
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.client {
            self.gate.release_client(key);
        }
    }
}

impl Gate {
    pub fn new(limits: &LimitsPlan) -> Arc<Self> {
        let gate = Self::default();
        gate.set(limits);
        Arc::new(gate)
    }

    /// New limits hold for new flows; nobody is thrown out.
    pub fn set(&self, limits: &LimitsPlan) {
        self.connections
            .store(limits.connections, Ordering::Relaxed);
        self.rate.store(limits.connection_rate, Ordering::Relaxed);
        self.per_client
            .store(limits.connections_per_client, Ordering::Relaxed);
        self.associations
            .store(limits.associations, Ordering::Relaxed);
    }

    /// `client` is `None` while it is not known who the client is (see `Pass::name_client`).
    pub fn admit(self: &Arc<Self>, client: Option<IpAddr>, now: Instant) -> Result<Pass, Over> {
        let most = self.connections.load(Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        // From here on, dropping the pass undoes what was counted.
        let mut pass = Pass {
            gate: Arc::clone(self),
            client: None,
        };
        if most != 0 && open >= most {
            return Err(Over::Connections);
        }
        if let Some(client) = client {
            pass.name_client(client)?;
        }
        // Last, so that a connection refused for another reason takes no token.
        if self.take_token(now) {
            Ok(pass)
        } else {
            Err(Over::Rate)
        }
    }

    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a new UDP association in; false when one has to go first.
    pub fn admit_association(&self) -> bool {
        let most = self.associations.load(Ordering::Relaxed);
        let open = self.open_associations.fetch_add(1, Ordering::Relaxed);
        if most != 0 && open >= most {
            self.open_associations.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub fn release_association(&self) {
        self.open_associations.fetch_sub(1, Ordering::Relaxed);
    }

    fn admit_client(&self, ip: IpAddr) -> Result<Option<ClientKey>, Over> {
        let most = self.per_client.load(Ordering::Relaxed);
        if most == 0 {
            return Ok(None);
        }
        let key = ClientKey::of(ip);
        let mut clients = lock(&self.clients);
        let open = clients.entry(key).or_insert(0);
        if *open >= most {
            return Err(Over::Client);
        }
        *open += 1;
        Ok(Some(key))
    }

    fn release_client(&self, key: ClientKey) {
        let mut clients = lock(&self.clients);
        if let Some(open) = clients.get_mut(&key) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&key);
            }
        }
    }

    fn take_token(&self, now: Instant) -> bool {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return true;
        }
        lock(&self.bucket)
            .get_or_insert_with(|| Bucket::full(rate, now))
            .take(rate, now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A token bucket that holds one second's worth.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Self {
        Self {
            tokens: f64::from(rate),
            filled: now,
        }
    }

    fn take(&mut self, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.filled = self.filled.max(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    #[test]
    fn connections_are_bounded_and_given_back() {
        let gate = Gate::new(&LimitsPlan {
            connections: 2,
            ..LimitsPlan::default()
        });
        let now = Instant::now();
        let first = gate
            .admit(Some(ip("192.0.2.1")), now)
            .expect("room for one");
        let _second = gate
            .admit(Some(ip("192.0.2.1")), now)
            .expect("room for two");
        assert_eq!(
            gate.admit(Some(ip("192.0.2.2")), now).err().expect("full"),
            Over::Connections
        );
        drop(first);
        let _third = gate.admit(Some(ip("192.0.2.2")), now).expect("room again");
        assert_eq!(gate.open(), 2);
    }

    #[test]
    fn a_client_is_an_address_or_a_slash_64() {
        let gate = Gate::new(&LimitsPlan {
            connections_per_client: 1,
            ..LimitsPlan::default()
        });
        let now = Instant::now();
        let pass = gate.admit(Some(ip("2001:db8::1")), now).expect("first");
        assert_eq!(
            gate.admit(Some(ip("2001:db8::ffff")), now)
                .err()
                .expect("same /64"),
            Over::Client
        );
        let _other = gate
            .admit(Some(ip("2001:db8:0:1::1")), now)
            .expect("another /64");
        let _mapped = gate.admit(Some(ip("::ffff:192.0.2.1")), now).expect("v4");
        assert_eq!(
            gate.admit(Some(ip("192.0.2.1")), now)
                .err()
                .expect("same address"),
            Over::Client
        );
        drop(pass);
        assert!(gate.admit(Some(ip("2001:db8::2")), now).is_ok());
    }

    #[test]
    fn a_client_named_later_counts_from_then_on() {
        let gate = Gate::new(&LimitsPlan {
            connections_per_client: 1,
            ..LimitsPlan::default()
        });
        let now = Instant::now();
        let mut first = gate.admit(None, now).expect("nobody yet");
        let mut second = gate.admit(None, now).expect("nobody yet");
        first.name_client(ip("192.0.2.1")).expect("the first");
        assert_eq!(second.name_client(ip("192.0.2.1")), Err(Over::Client));
        drop(first);
        assert_eq!(second.name_client(ip("192.0.2.1")), Ok(()));
        drop(second);
        assert!(lock(&gate.clients).is_empty());
        assert_eq!(gate.open(), 0);
    }

    #[test]
    fn the_rate_refills_with_time_and_not_beyond_a_second() {
        let gate = Gate::new(&LimitsPlan {
            connection_rate: 10,
            ..LimitsPlan::default()
        });
        let start = Instant::now();
        let admitted = |now| {
            (0..100)
                .filter(|_| gate.admit(Some(ip("192.0.2.1")), now).is_ok())
                .count()
        };
        assert_eq!(admitted(start), 10);
        assert_eq!(admitted(start + Duration::from_millis(500)), 5);
        assert_eq!(admitted(start + Duration::from_secs(60)), 10);
        // A clock that seems to go back gives nothing and breaks nothing.
        assert_eq!(admitted(start), 0);
    }

    #[test]
    fn a_refused_connection_leaves_no_trace() {
        let gate = Gate::new(&LimitsPlan {
            connection_rate: 1,
            connections_per_client: 5,
            ..LimitsPlan::default()
        });
        let now = Instant::now();
        let pass = gate.admit(Some(ip("192.0.2.1")), now).expect("token");
        assert_eq!(
            gate.admit(Some(ip("192.0.2.1")), now)
                .err()
                .expect("no token"),
            Over::Rate
        );
        drop(pass);
        assert!(lock(&gate.clients).is_empty());
        assert_eq!(gate.open(), 0);
    }
}
