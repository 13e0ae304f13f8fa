//! How long answers serve, and what serves when the name servers don't.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Lookup, RETRY, ResolveError, Resolver};
use super::server::{A, AAAA, NOERROR, NXDOMAIN, Reply, SERVFAIL, Server};
use super::*;
use crate::plan::DnsMode;

const SECOND: Duration = Duration::from_secs(1);

fn v4(server: &Server) -> ResolverPlan {
    ResolverPlan {
        mode: DnsMode::Ipv4Only,
        ..plan(server)
    }
}

/// A resolver that knows `db.test` for `ttl` seconds.
fn knowing(server: &Server, plan: ResolverPlan, ttl: u32) -> Arc<Resolver> {
    server.tell("db.test", A, Reply::addresses(&["192.0.2.1"], ttl));
    let resolver = resolver(plan);
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.1"]);
    resolver
}

#[test]
fn an_answer_serves_as_long_as_its_record_says() {
    let server = Server::start();
    let resolver = knowing(&server, v4(&server), 30);
    resolver.advance(29 * SECOND);
    assert!(
        kept(&resolver, "DB.Test").is_some(),
        "case makes no difference"
    );
    server.tell("db.test", A, Reply::addresses(&["192.0.2.2"], 30));
    assert_eq!(server.count("db.test", A), 1);
    resolver.advance(SECOND);
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.2"]);
    assert_eq!(server.count("db.test", A), 2);
    let stats = resolver.stats();
    assert_eq!((stats.lookups, stats.cached, stats.failed), (3, 1, 0));
    assert_eq!((stats.stale, stats.entries, stats.inflight), (0, 1, 0));
}

#[test]
fn life_is_kept_within_the_bounds_of_the_plan() {
    let server = Server::start();
    let longer = ResolverPlan {
        min_ttl: 60,
        ..v4(&server)
    };
    let resolver = knowing(&server, longer, 1);
    resolver.advance(59 * SECOND);
    assert!(kept(&resolver, "db.test").is_some());
    let shorter = ResolverPlan {
        max_ttl: 10,
        ..v4(&server)
    };
    let resolver = knowing(&server, shorter, 3_600);
    resolver.advance(11 * SECOND);
    let asked = server.counted();
    resolve(&resolver, "db.test").unwrap();
    assert_eq!(server.counted(), asked + 1);
}

#[test]
fn a_life_longer_than_a_day_is_possible() {
    let server = Server::start();
    let week = 7 * 86_400;
    let long = ResolverPlan {
        max_ttl: week,
        ..v4(&server)
    };
    let resolver = knowing(&server, long, week);
    resolver.advance(6 * 86_400 * SECOND);
    assert!(kept(&resolver, "db.test").is_some());
}

#[test]
fn bounds_that_cross_are_no_panic() {
    let server = Server::start();
    let crossed = ResolverPlan {
        min_ttl: 100,
        max_ttl: 10,
        ..v4(&server)
    };
    let resolver = knowing(&server, crossed, 1);
    resolver.advance(9 * SECOND);
    assert!(kept(&resolver, "db.test").is_some());
}

#[test]
fn an_alias_lives_no_longer_than_its_own_record() {
    let server = Server::start();
    let alias = Reply::alias("real.test", 5, "192.0.2.9", 3_600);
    server.tell("www.test", A, alias);
    let resolver = resolver(v4(&server));
    assert_eq!(texts(resolve(&resolver, "www.test")), ["192.0.2.9"]);
    resolver.advance(6 * SECOND);
    resolve(&resolver, "www.test").unwrap();
    assert_eq!(server.count("www.test", A), 2);
}

#[test]
fn an_absence_is_kept_as_long_as_the_soa_says() {
    let server = Server::start();
    server.tell("no.test", A, Reply::code(NXDOMAIN).soa(20));
    server.tell("empty.test", A, Reply::code(NOERROR).soa(20));
    server.tell("long.test", A, Reply::code(NXDOMAIN).soa(86_400));
    let resolver = resolver(v4(&server));
    for _ in 0..3 {
        let absent = resolve(&resolver, "no.test").unwrap_err();
        assert_eq!(absent, ResolveError::NotFound("no.test".into()));
        let empty = resolve(&resolver, "empty.test").unwrap_err();
        assert_eq!(empty, ResolveError::NoRecords("empty.test".into()));
        resolve(&resolver, "long.test").unwrap_err();
    }
    assert_eq!(server.counted(), 3);
    resolver.advance(21 * SECOND);
    resolve(&resolver, "no.test").unwrap_err();
    resolve(&resolver, "long.test").unwrap_err();
    assert_eq!(
        (server.count("no.test", A), server.count("long.test", A)),
        (2, 1)
    );
    resolver.advance(300 * SECOND);
    resolve(&resolver, "long.test").unwrap_err();
    assert_eq!(server.count("long.test", A), 2, "bounded");
}

#[test]
fn an_absence_ends_an_older_answer() {
    let server = Server::start();
    let resolver = knowing(&server, v4(&server), 5);
    server.tell("db.test", A, Reply::code(NXDOMAIN).soa(5));
    resolver.advance(6 * SECOND);
    let absent = resolve(&resolver, "db.test").unwrap_err();
    assert_eq!(absent, ResolveError::NotFound("db.test".into()));
}

#[test]
fn a_failure_without_an_older_answer_is_kept_for_a_second() {
    let server = Server::start();
    server.tell("db.test", A, Reply::code(SERVFAIL));
    let resolver = resolver(v4(&server));
    let failed = resolve(&resolver, "db.test").unwrap_err();
    assert!(
        matches!(failed, ResolveError::ServerFailure { .. }),
        "{failed}"
    );
    let asked = server.counted();
    assert!(kept(&resolver, "db.test").unwrap().is_err());
    assert_eq!(server.counted(), asked);
    server.tell("db.test", A, Reply::addresses(&["192.0.2.1"], 5));
    resolver.advance(SECOND);
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.1"]);
    assert_eq!(resolver.stats().failed, 2);
}

#[test]
fn an_expired_answer_serves_while_the_name_server_fails() {
    let server = Server::start();
    let resolver = knowing(&server, v4(&server), 5);
    server.tell("db.test", A, Reply::code(SERVFAIL));
    resolver.advance(6 * SECOND);
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.1"]);
    let asked = server.counted();
    for _ in 0..100 {
        assert!(kept(&resolver, "db.test").unwrap().is_ok(), "at once");
    }
    assert_eq!(server.counted(), asked, "the server is left alone");
    assert_eq!(resolver.stats().stale, 101);

    // After a pause it is asked again, once, and nobody waits for that.
    resolver.advance(RETRY);
    for _ in 0..100 {
        assert!(kept(&resolver, "db.test").unwrap().is_ok(), "at once");
    }
    wait_until("asked again", || server.counted() > asked);
    wait_until("landed", || resolver.stats().inflight == 0);

    // When it works again, its answer is taken.
    server.tell("db.test", A, Reply::addresses(&["192.0.2.2"], 5));
    resolver.advance(RETRY);
    assert!(kept(&resolver, "db.test").unwrap().is_ok());
    wait_until("refreshed", || {
        texts(kept(&resolver, "db.test").unwrap()) == ["192.0.2.2"]
    });
}

#[test]
fn an_expired_answer_serves_soon_when_the_name_server_is_silent() {
    let server = Server::start();
    let resolver = knowing(&server, v4(&server), 5);
    server.tell("db.test", A, Reply::silence());
    resolver.advance(6 * SECOND);
    let start = Instant::now();
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.1"]);
    assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
    assert!(
        kept(&resolver, "db.test").unwrap().is_ok(),
        "others don't wait"
    );
    assert_eq!(resolver.stats().stale, 2);
    assert_eq!(resolver.stats().inflight, 1, "still asked");
}

#[test]
fn a_dead_name_server_is_survived_and_then_given_up() {
    let server = Server::start();
    let brief = ResolverPlan {
        stale: 60,
        ..v4(&server)
    };
    let resolver = knowing(&server, brief, 5);
    drop(server);
    resolver.advance(6 * SECOND);
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.1"]);
    resolver.advance(60 * SECOND);
    let failed = resolve(&resolver, "db.test").unwrap_err();
    assert!(
        matches!(failed, ResolveError::Unreachable { .. }),
        "{failed}"
    );
}

#[test]
fn without_a_second_life_a_failure_is_told() {
    let server = Server::start();
    let strict = ResolverPlan {
        stale: 0,
        ..v4(&server)
    };
    let resolver = knowing(&server, strict, 5);
    server.tell("db.test", A, Reply::code(SERVFAIL));
    resolver.advance(6 * SECOND);
    resolve(&resolver, "db.test").unwrap_err();
}

#[test]
fn no_more_names_are_kept_than_the_plan_says() {
    let server = Server::start();
    server.tell_all(Reply::addresses(&["192.0.2.1"], 60));
    let small = ResolverPlan {
        cache_size: 8,
        ..v4(&server)
    };
    let resolver = resolver(small);
    for number in 0..20 {
        resolve(&resolver, &format!("n{number}.test")).unwrap();
        resolve(&resolver, "n0.test").unwrap();
    }
    assert_eq!(resolver.stats().entries, 8);
    assert!(kept(&resolver, "n0.test").is_some(), "used all the time");
    assert!(kept(&resolver, "n19.test").is_some());
    assert!(kept(&resolver, "n5.test").is_none(), "long ago");
}

#[test]
fn without_room_every_look_up_asks() {
    let server = Server::start();
    let none = ResolverPlan {
        cache_size: 0,
        ..v4(&server)
    };
    let resolver = knowing(&server, none, 60);
    resolve(&resolver, "db.test").unwrap();
    assert_eq!(server.count("db.test", A), 2);
}

#[test]
fn a_flush_forgets_and_parts_what_is_under_way() {
    let server = Server::start();
    let resolver = knowing(&server, v4(&server), 60);
    let slow = Reply::addresses(&["192.0.2.3"], 60).after(Duration::from_millis(300));
    server.tell("slow.test", A, slow);
    let Lookup::Pending(future) = resolver.lookup("slow.test") else {
        panic!("answered before it could be asked");
    };
    resolver.flush();
    assert!(kept(&resolver, "db.test").is_none());
    assert_eq!(texts(wait(future)), ["192.0.2.3"]);
    wait_until("landed", || resolver.stats().inflight == 0);
    assert!(
        kept(&resolver, "slow.test").is_none(),
        "older than the flush"
    );
}

#[test]
fn one_family_that_fails_shortens_the_life() {
    let server = Server::start();
    server.tell("db.test", A, Reply::addresses(&["192.0.2.1"], 3_600));
    server.tell("db.test", AAAA, Reply::code(SERVFAIL));
    let resolver = resolver(plan(&server));
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.1"]);
    server.tell("db.test", AAAA, Reply::addresses(&["2001:db8::1"], 3_600));
    resolver.advance(61 * SECOND);
    assert_eq!(
        texts(resolve(&resolver, "db.test")),
        ["192.0.2.1", "2001:db8::1"]
    );
}
