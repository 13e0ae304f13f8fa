//! Asks for a name as the plan's mode wants it: which families, in which order, how long to wait for
//! the second, and what the answers mean together.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{Instant, timeout, timeout_at};

use super::system::{Client, View};
use super::{ResolveError, system};
use crate::plan::DnsMode;

/// No look-up takes longer, whatever the name servers and the search list.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How long addresses of one family wait for those of the other, as some name servers never answer
/// for one of them.
const GRACE: Duration = Duration::from_millis(250);

/// Addresses kept of one answer: more than anybody would try, less than a TCP answer can hold.
const ADDRESSES: usize = 64;

/// Life of an answer of which one family failed, so that the other gets its chance again.
const PARTIAL: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Found {
        addresses: Vec<IpAddr>,
        life: Duration,
    },
    /// The name servers say that there is nothing, and for how long that is so.
    Absent { error: ResolveError, life: Duration },
    /// Nobody knows: an older answer is better than this.
    Failed(ResolveError),
}

/// One look-up: `host` as it was given, for errors, and as a name.
pub(super) struct Question {
    pub(super) host: Arc<str>,
    pub(super) name: Name,
    pub(super) mode: DnsMode,
    pub(super) deadline: Instant,
}

impl Question {
    /// `early` is told addresses that are good enough for who waits, while the rest is still asked.
    pub(super) async fn ask(&self, view: &View, early: impl Fn(&[IpAddr])) -> Outcome {
        if let Some(outcome) = self.ask_locally(view) {
            return outcome;
        }
        let client = match &view.client {
            Ok(client) => client,
            Err(problem) => {
                let sentence = format!("can't resolve {}: {problem}", self.host);
                return Outcome::Failed(ResolveError::Config(sentence.into()));
            }
        };
        let mut result: Option<Outcome> = None;
        for name in client.candidates(&self.name) {
            let outcome = self.ask_for(client, name, &early).await;
            let go_on = match &outcome {
                Outcome::Found { .. } => return outcome,
                Outcome::Absent { .. } | Outcome::Failed(ResolveError::ServerFailure { .. }) => {
                    true
                }
                Outcome::Failed(_) => false,
            };
            result = Some(match result {
                Some(earlier) => earlier.or_nothing(outcome),
                None => outcome,
            });
            if !go_on {
                break;
            }
        }
        result.unwrap_or_else(|| Outcome::Failed(ResolveError::InvalidName(self.host.clone())))
    }

    /// The hosts file, and the names that always mean this machine.
    fn ask_locally(&self, view: &View) -> Option<Outcome> {
        let hosts = |record| view.hosts(&self.name, record);
        let mut addresses = self
            .mode
            .arrange(hosts(RecordType::A), hosts(RecordType::AAAA));
        if addresses.is_empty() && self.name.is_localhost() {
            addresses = self.mode.arrange(
                vec![Ipv4Addr::LOCALHOST.into()],
                vec![Ipv6Addr::LOCALHOST.into()],
            );
        }
        (!addresses.is_empty()).then_some(Outcome::Found {
            addresses,
            life: system::CHECK,
        })
    }

    async fn ask_for(&self, client: &Client, name: Name, early: impl Fn(&[IpAddr])) -> Outcome {
        let ask = |record| self.ask_one(client, name.clone(), record);
        match self.mode {
            DnsMode::Ipv4Only => ask(RecordType::A).await,
            DnsMode::Ipv6Only => ask(RecordType::AAAA).await,
            DnsMode::Ipv4AndIpv6 => {
                let (v4, v6) = both(ask(RecordType::A), ask(RecordType::AAAA), early).await;
                v4.and(v6)
            }
            DnsMode::Ipv4ThenIpv6 => match ask(RecordType::A).await {
                found @ Outcome::Found { .. } => found,
                nothing => nothing.and(ask(RecordType::AAAA).await),
            },
            DnsMode::Ipv6ThenIpv4 => match ask(RecordType::AAAA).await {
                found @ Outcome::Found { .. } => found,
                nothing => nothing.and(ask(RecordType::A).await),
            },
        }
    }

    async fn ask_one(&self, client: &Client, name: Name, record: RecordType) -> Outcome {
        let answer = timeout_at(self.deadline, client.resolver.lookup(name, record)).await;
        let found = match answer {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.explain(&error),
            Err(_) => return Outcome::Failed(ResolveError::Timeout(self.host.clone())),
        };
        let mut addresses = Vec::new();
        let mut life = u32::MAX;
        for answer in found.answers() {
            // The names that lead to the address count too: their life may be the shorter one.
            life = life.min(answer.ttl);
            if answer.record_type() == record
                && let Some(address) = answer.data.ip_addr()
                && addresses.len() < ADDRESSES
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Outcome::Absent {
                error: ResolveError::NoRecords(self.host.clone()),
                life: Duration::ZERO,
            };
        }
        Outcome::Found {
            addresses,
            life: Duration::from_secs(life.into()),
        }
    }

    fn explain(&self, error: &NetError) -> Outcome {
        let host = self.host.clone();
        let failed = match error {
            NetError::Dns(DnsError::NoRecordsFound(nothing)) => {
                let life = Duration::from_secs(nothing.negative_ttl.unwrap_or(0).into());
                let error = match nothing.response_code {
                    ResponseCode::NXDomain => ResolveError::NotFound(host),
                    _ => ResolveError::NoRecords(host),
                };
                return Outcome::Absent { error, life };
            }
            NetError::Timeout => ResolveError::Timeout(host),
            NetError::Io(error) => ResolveError::Unreachable {
                host,
                problem: error.to_string().into(),
            },
            NetError::NoConnections => ResolveError::Unreachable {
                host,
                problem: "none could be connected to".into(),
            },
            NetError::Dns(DnsError::ResponseCode(code)) => ResolveError::ServerFailure {
                host,
                problem: code.to_string().into(),
            },
            error => ResolveError::ServerFailure {
                host,
                problem: error.to_string().into(),
            },
        };
        Outcome::Failed(failed)
    }
}

impl DnsMode {
    fn arrange(self, v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
        match self {
            Self::Ipv4Only => v4,
            Self::Ipv6Only => v6,
            Self::Ipv4AndIpv6 => [v4, v6].concat(),
            Self::Ipv4ThenIpv6 if v4.is_empty() => v6,
            Self::Ipv4ThenIpv6 => v4,
            Self::Ipv6ThenIpv4 if v6.is_empty() => v4,
            Self::Ipv6ThenIpv4 => v6,
        }
    }
}

impl Outcome {
    /// What two families say of one name.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Found {
                    mut addresses,
                    life,
                },
                Self::Found {
                    addresses: more,
                    life: other,
                },
            ) => {
                addresses.extend(more);
                Self::Found {
                    addresses,
                    life: life.min(other),
                }
            }
            (Self::Found { addresses, life }, Self::Failed(_))
            | (Self::Failed(_), Self::Found { addresses, life }) => Self::Found {
                addresses,
                life: life.min(PARTIAL),
            },
            (found @ Self::Found { .. }, Self::Absent { .. })
            | (Self::Absent { .. }, found @ Self::Found { .. }) => found,
            (one, other) => one.or_nothing(other),
        }
    }

    /// What two answers without addresses mean: a failure hides what might have been found, and a
    /// name that exists is told from one that doesn't.
    fn or_nothing(self, other: Self) -> Self {
        match (self, other) {
            (failed @ Self::Failed(_), _) | (_, failed @ Self::Failed(_)) => failed,
            (
                Self::Absent { error, life },
                Self::Absent {
                    error: second,
                    life: other,
                },
            ) => Self::Absent {
                error: match error {
                    ResolveError::NotFound(_) => second,
                    error => error,
                },
                life: life.min(other),
            },
            (found @ Self::Found { .. }, _) | (_, found @ Self::Found { .. }) => found,
        }
    }
}

/// Asks two things at once. When one has addresses and the other is slow, who waits gets what there
/// is, and the other may still finish.
async fn both(
    one: impl Future<Output = Outcome>,
    other: impl Future<Output = Outcome>,
    early: impl Fn(&[IpAddr]),
) -> (Outcome, Outcome) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (first, of_one) = poll_fn(|context| {
        if let Poll::Ready(outcome) = one.as_mut().poll(context) {
            return Poll::Ready((outcome, true));
        }
        other.as_mut().poll(context).map(|outcome| (outcome, false))
    })
    .await;
    if of_one {
        let second = second(other, &first, early).await;
        (first, second)
    } else {
        let second = second(one, &first, early).await;
        (second, first)
    }
}

async fn second(
    mut asking: Pin<&mut impl Future<Output = Outcome>>,
    first: &Outcome,
    early: impl Fn(&[IpAddr]),
) -> Outcome {
    if let Outcome::Found { addresses, .. } = first {
        match timeout(GRACE, asking.as_mut()).await {
            Ok(outcome) => return outcome,
            Err(_) => early(addresses),
        }
    }
    asking.await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn host() -> Arc<str> {
        Arc::from("db.example")
    }

    fn found(last: u8, seconds: u64) -> Outcome {
        Outcome::Found {
            addresses: vec![IpAddr::from([192, 0, 2, last])],
            life: Duration::from_secs(seconds),
        }
    }

    fn absent(error: fn(Arc<str>) -> ResolveError, seconds: u64) -> Outcome {
        Outcome::Absent {
            error: error(host()),
            life: Duration::from_secs(seconds),
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed(ResolveError::Timeout(host()))
    }

    #[test]
    fn two_families_are_joined_in_order_and_live_as_long_as_the_shorter() {
        let joined = Outcome::Found {
            addresses: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
            life: Duration::from_secs(5),
        };
        assert_eq!(found(1, 9).and(found(2, 5)), joined);
    }

    #[test]
    fn one_family_is_enough() {
        assert_eq!(
            found(1, 900).and(absent(ResolveError::NoRecords, 3)),
            found(1, 900)
        );
        assert_eq!(
            absent(ResolveError::NotFound, 3).and(found(1, 900)),
            found(1, 900)
        );
        assert_eq!(found(1, 900).and(failed()), found(1, PARTIAL.as_secs()));
        assert_eq!(failed().and(found(1, 9)), found(1, 9));
    }

    #[test]
    fn a_failure_hides_an_absence() {
        assert_eq!(absent(ResolveError::NotFound, 3).and(failed()), failed());
        assert_eq!(failed().and(absent(ResolveError::NoRecords, 3)), failed());
    }

    #[test]
    fn a_name_that_exists_is_told_from_one_that_does_not() {
        let nowhere = absent(ResolveError::NotFound, 7);
        let empty = absent(ResolveError::NoRecords, 3);
        assert_eq!(nowhere.clone().and(empty.clone()), empty);
        assert_eq!(empty.clone().and(nowhere.clone()), empty);
        assert_eq!(nowhere.clone().and(nowhere.clone()), nowhere);
    }

    #[test]
    fn modes_arrange_what_is_known_already() {
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = (
            vec![Ipv4Addr::LOCALHOST.into()],
            vec![Ipv6Addr::LOCALHOST.into()],
        );
        let arrange = |mode: DnsMode| mode.arrange(v4.clone(), v6.clone());
        assert_eq!(arrange(DnsMode::Ipv4Only), v4);
        assert_eq!(arrange(DnsMode::Ipv6Only), v6);
        assert_eq!(arrange(DnsMode::Ipv4AndIpv6), [v4[0], v6[0]]);
        assert_eq!(arrange(DnsMode::Ipv4ThenIpv6), v4);
        assert_eq!(arrange(DnsMode::Ipv6ThenIpv4), v6);
        assert_eq!(DnsMode::Ipv6ThenIpv4.arrange(v4.clone(), vec![]), v4);
    }
}
