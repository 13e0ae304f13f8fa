//! What is asked of whom, by how many, and what comes of nonsense.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::system::CHECK;
use super::super::{FLIGHTS, Lookup, ResolveError, Resolver};
use super::server::{A, AAAA, NOERROR, NXDOMAIN, Reply, SERVFAIL, Server};
use super::*;
use crate::plan::{DnsMode, DnsProtocol};

const MILLISECOND: Duration = Duration::from_millis(1);

fn dual(server: &Server) {
    server.tell(
        "db.test",
        A,
        Reply::addresses(&["192.0.2.1", "192.0.2.2"], 60),
    );
    server.tell("db.test", AAAA, Reply::addresses(&["2001:db8::1"], 60));
}

fn with_mode(server: &Server, mode: DnsMode) -> Arc<Resolver> {
    resolver(ResolverPlan {
        mode,
        ..plan(server)
    })
}

#[test]
fn the_mode_decides_what_is_asked_and_the_order() {
    let server = Server::start();
    dual(&server);
    let cases: [(DnsMode, &[&str], [usize; 2]); 5] = [
        (DnsMode::Ipv4Only, &["192.0.2.1", "192.0.2.2"], [1, 0]),
        (DnsMode::Ipv6Only, &["2001:db8::1"], [0, 1]),
        (
            DnsMode::Ipv4AndIpv6,
            &["192.0.2.1", "192.0.2.2", "2001:db8::1"],
            [1, 1],
        ),
        (DnsMode::Ipv4ThenIpv6, &["192.0.2.1", "192.0.2.2"], [1, 0]),
        (DnsMode::Ipv6ThenIpv4, &["2001:db8::1"], [0, 1]),
    ];
    for (mode, addresses, [v4, v6]) in cases {
        let before = (server.count("db.test", A), server.count("db.test", AAAA));
        assert_eq!(
            texts(resolve(&with_mode(&server, mode), "db.test")),
            addresses
        );
        let after = (server.count("db.test", A), server.count("db.test", AAAA));
        assert_eq!(after, (before.0 + v4, before.1 + v6), "{mode:?}");
    }
}

#[test]
fn the_other_family_is_asked_when_the_first_has_nothing() {
    let server = Server::start();
    server.tell("four.test", A, Reply::addresses(&["192.0.2.1"], 60));
    server.tell("six.test", AAAA, Reply::addresses(&["2001:db8::1"], 60));
    for nothing in [
        Reply::code(NOERROR).soa(60),
        Reply::code(NXDOMAIN).soa(60),
        Reply::code(SERVFAIL),
    ] {
        server.tell("four.test", AAAA, nothing.clone());
        server.tell("six.test", A, nothing);
        let (v4, v6) = (DnsMode::Ipv4ThenIpv6, DnsMode::Ipv6ThenIpv4);
        assert_eq!(
            texts(resolve(&with_mode(&server, v4), "six.test")),
            ["2001:db8::1"]
        );
        assert_eq!(
            texts(resolve(&with_mode(&server, v6), "four.test")),
            ["192.0.2.1"]
        );
        let both = with_mode(&server, DnsMode::Ipv4AndIpv6);
        assert_eq!(texts(resolve(&both, "four.test")), ["192.0.2.1"]);
        assert_eq!(texts(resolve(&both, "six.test")), ["2001:db8::1"]);
    }
}

#[test]
fn a_family_that_is_never_answered_does_not_hold_the_other_up() {
    let server = Server::start();
    dual(&server);
    server.tell("db.test", AAAA, Reply::silence());
    let resolver = resolver(plan(&server));
    let start = Instant::now();
    assert_eq!(
        texts(resolve(&resolver, "db.test")),
        ["192.0.2.1", "192.0.2.2"]
    );
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(
        kept(&resolver, "db.test").unwrap().is_ok(),
        "others don't wait"
    );
}

#[test]
fn a_family_that_comes_late_is_kept_all_the_same() {
    let server = Server::start();
    dual(&server);
    let late = Reply::addresses(&["2001:db8::1"], 60).after(700 * MILLISECOND);
    server.tell("db.test", AAAA, late);
    let resolver = resolver(plan(&server));
    assert_eq!(
        texts(resolve(&resolver, "db.test")),
        ["192.0.2.1", "192.0.2.2"]
    );
    wait_until("landed", || resolver.stats().inflight == 0);
    assert_eq!(
        texts(kept(&resolver, "db.test").unwrap()),
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    );
}

#[test]
fn many_who_want_one_name_ask_once() {
    let server = Server::start();
    let slow = Reply::addresses(&["192.0.2.1"], 0).after(200 * MILLISECOND);
    server.tell("db.test", A, slow);
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let resolver = resolver.clone();
            thread::spawn(move || {
                let waiting: Vec<_> = (0..25).map(|_| resolver.lookup("db.test")).collect();
                for lookup in waiting {
                    match lookup {
                        Lookup::Ready(answer) => assert_eq!(texts(answer), ["192.0.2.1"]),
                        Lookup::Pending(future) => assert_eq!(texts(wait(future)), ["192.0.2.1"]),
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(server.count("db.test", A), 1);
    assert_eq!(resolver.stats().lookups, 100);
}

#[test]
fn who_gives_up_waiting_spoils_nothing() {
    let server = Server::start();
    let slow = Reply::addresses(&["192.0.2.1"], 60).after(200 * MILLISECOND);
    server.tell("db.test", A, slow);
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    let (first, second) = (resolver.lookup("db.test"), resolver.lookup("db.test"));
    drop(first);
    let Lookup::Pending(second) = second else {
        panic!("answered before it could be asked");
    };
    assert_eq!(texts(wait(second)), ["192.0.2.1"]);
    resolver.flush();
    drop(resolver.lookup("db.test"));
    wait_until("landed", || resolver.stats().inflight == 0);
    assert!(
        kept(&resolver, "db.test").is_some(),
        "kept though nobody waited"
    );
    assert_eq!(server.count("db.test", A), 2);
}

#[test]
fn look_ups_under_way_are_bounded() {
    let server = Server::start();
    server.tell_all(Reply::silence());
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    for number in 0..FLIGHTS {
        let lookup = resolver.lookup(&format!("n{number}.test"));
        assert!(matches!(lookup, Lookup::Pending(_)));
    }
    let busy = kept(&resolver, "more.test").unwrap().unwrap_err();
    assert_eq!(busy, ResolveError::Busy("more.test".into()));
    assert!(kept(&resolver, "n0.test").is_none(), "may still be joined");
    assert_eq!(resolver.stats().inflight, FLIGHTS as u64);
}

#[test]
fn nobody_waits_for_ever() {
    let server = Server::start();
    server.tell("db.test", A, Reply::silence());
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    let start = Instant::now();
    let failed = resolve(&resolver, "db.test").unwrap_err();
    assert_eq!(failed, ResolveError::Timeout("db.test".into()));
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_protocol_is_kept_to_and_a_cut_answer_asked_for_again() {
    let server = Server::start();
    server.tell(
        "db.test",
        A,
        Reply::addresses(&["192.0.2.1"], 60).truncated(),
    );
    let over = |protocol| {
        resolver(ResolverPlan {
            protocol,
            mode: DnsMode::Ipv4Only,
            ..plan(&server)
        })
    };
    let both = over(DnsProtocol::TcpAndUdp);
    assert_eq!(texts(resolve(&both, "db.test")), ["192.0.2.1"]);
    // On UDP a slow machine may ask twice.
    let over_udp = || server.counted() - server.counted_tcp();
    let asked = over_udp();
    assert_eq!((asked > 0, server.counted_tcp()), (true, 1));
    assert_eq!(
        texts(resolve(&over(DnsProtocol::Tcp), "db.test")),
        ["192.0.2.1"]
    );
    assert_eq!((over_udp(), server.counted_tcp()), (asked, 2));
    let failed = resolve(&over(DnsProtocol::Udp), "db.test").unwrap_err();
    assert!(!failed.is_final(), "{failed}");
    assert_eq!(server.counted_tcp(), 2);
}

#[test]
fn nonsense_is_an_error_and_nothing_else() {
    for protocol in [DnsProtocol::TcpAndUdp, DnsProtocol::Tcp] {
        answer_nonsense(protocol);
    }
}

fn answer_nonsense(protocol: DnsProtocol) {
    let server = Server::start();
    let resolver = resolver(ResolverPlan {
        protocol,
        mode: DnsMode::Ipv4Only,
        ..plan(&server)
    });
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let fixed: [&[u8]; 5] = [
        b"",
        b"\x81\x80",
        b"\x81\x80\xff\xff\xff\xff\xff\xff\xff\xff",
        // A name that points at itself.
        b"\x81\x80\0\x01\0\x01\0\0\0\0\xc0\x0c\0\x01\0\x01",
        b"\x81\x80\0\x01\0\x01\0\0\0\0\x02db\x04test\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x09\x01",
    ];
    let mut replies: Vec<Vec<u8>> = fixed.iter().map(|bytes| bytes.to_vec()).collect();
    for _ in 0..200 {
        let mut bytes: Vec<u8> = (0..random() % 80).map(|_| random() as u8).collect();
        // Half of them look like an answer to the question at least.
        if random() % 2 == 0 {
            let start = b"\x81\x80\0\x01\0\x01\0\0\0\0\x02db\x04test\0\0\x01\0\x01\xc0\x0c";
            bytes.splice(0..0, start.iter().copied());
        }
        replies.push(bytes);
    }
    // A bad datagram may only be followed by silence, so all are waited for together.
    let mut waiting = Vec::new();
    for (number, bytes) in replies.iter().enumerate() {
        let host = format!("n{number}.test");
        server.tell(&host, A, Reply::raw(bytes));
        waiting.push(resolver.lookup(&host));
    }
    for lookup in waiting {
        let Lookup::Pending(future) = lookup else {
            panic!("answered before it could be asked");
        };
        let failed = wait(future).unwrap_err();
        assert!(!matches!(failed, ResolveError::Stopped(_)), "{failed}");
    }
    server.tell("fine.test", A, Reply::addresses(&["192.0.2.1"], 60));
    assert_eq!(texts(resolve(&resolver, "fine.test")), ["192.0.2.1"]);
}

#[test]
fn an_answer_for_another_name_is_not_taken() {
    let server = Server::start();
    server.tell("db.test", A, Reply::address_of("other.test", "192.0.2.66"));
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    assert!(resolve(&resolver, "db.test").is_err());
}

#[test]
fn an_answer_of_thousands_is_cut_and_without_repetition() {
    let server = Server::start();
    let many: Vec<String> = (0..2_000)
        .map(|number| format!("198.18.{}.{}", number / 2 / 250, number / 2 % 250))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    server.tell("db.test", A, Reply::addresses(&many, 60).truncated());
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    let addresses = texts(resolve(&resolver, "db.test"));
    assert_eq!(addresses.len(), 64);
    assert_eq!(addresses[..2], ["198.18.0.0", "198.18.0.1"]);
}

#[test]
fn literals_and_what_is_no_name_are_answered_at_once() {
    let server = Server::start();
    let resolver = resolver(plan(&server));
    for literal in ["192.0.2.7", "::1", "2001:db8::7"] {
        let answer = kept(&resolver, literal).unwrap().unwrap();
        assert_eq!(*answer, [literal.parse::<IpAddr>().unwrap()]);
    }
    let long = "a".repeat(64);
    let longer = "a.".repeat(128);
    for wrong in [
        "",
        ".",
        "a..b",
        "[::1]",
        "fe80::1%eth0",
        "a b",
        &long,
        &longer,
    ] {
        let error = kept(&resolver, wrong).expect(wrong).unwrap_err();
        assert_eq!(error, ResolveError::InvalidName(wrong.into()));
    }
    assert_eq!(server.counted(), 0);
}

#[test]
fn underscores_and_international_names_are_names() {
    let server = Server::start();
    server.tell("my_db.test", A, Reply::addresses(&["192.0.2.1"], 60));
    server.tell(
        "xn--bcher-kva.test",
        A,
        Reply::addresses(&["192.0.2.2"], 60),
    );
    let resolver = with_mode(&server, DnsMode::Ipv4Only);
    assert_eq!(texts(resolve(&resolver, "my_db.test")), ["192.0.2.1"]);
    assert_eq!(texts(resolve(&resolver, "bücher.test")), ["192.0.2.2"]);
}

#[test]
fn the_hosts_file_comes_first_and_is_read_again() {
    let server = Server::start();
    dual(&server);
    let files = Files::new();
    files.write(
        "hosts",
        "192.0.2.9 db.test other # comment\nnonsense\n::9 db.test\n",
    );
    let resolver = resolver_with(plan(&server), &files, 53);
    assert_eq!(texts(resolve(&resolver, "db.test")), ["192.0.2.9", "::9"]);
    assert_eq!(texts(resolve(&resolver, "other")), ["192.0.2.9"]);
    assert_eq!(server.counted(), 0);
    files.write("hosts", "");
    resolver.advance(CHECK);
    assert_eq!(
        texts(resolve(&resolver, "db.test")),
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    );
}

#[test]
fn localhost_needs_no_name_server() {
    let resolver = resolver(ResolverPlan::default());
    for host in ["localhost", "LOCALHOST", "localhost.", "db.localhost"] {
        assert_eq!(texts(resolve(&resolver, host)), ["127.0.0.1", "::1"]);
    }
}

#[test]
fn the_system_names_the_servers_and_the_search_list() {
    let server = Server::start();
    server.tell("db.corp.test", A, Reply::addresses(&["192.0.2.1"], 60));
    server.tell("web.east", A, Reply::addresses(&["192.0.2.2"], 60));
    let files = Files::new();
    files.write(
        "resolv.conf",
        "nameserver 127.0.0.1\nsearch lab.test corp.test\n",
    );
    let system = ResolverPlan {
        mode: DnsMode::Ipv4Only,
        protocol: DnsProtocol::Tcp,
        ..ResolverPlan::default()
    };
    let resolver = resolver_with(system, &files, server.address.port());
    assert_eq!(texts(resolve(&resolver, "db")), ["192.0.2.1"]);
    assert_eq!(texts(resolve(&resolver, "web.east")), ["192.0.2.2"]);
    assert_eq!(server.names(), ["db.lab.test", "db.corp.test", "web.east"]);
    let nowhere = resolve(&resolver, "no").unwrap_err();
    assert_eq!(nowhere, ResolveError::NotFound("no".into()));
    assert_eq!(server.names()[3..], ["no.lab.test", "no.corp.test", "no"]);
}

#[test]
fn own_servers_have_no_search_list() {
    let server = Server::start();
    let files = Files::new();
    files.write("resolv.conf", "nameserver 192.0.2.53\nsearch lab.test\n");
    let resolver = resolver_with(plan(&server), &files, 53);
    resolve(&resolver, "db").unwrap_err();
    assert_eq!(server.names(), ["db", "db"]);
}

#[test]
fn a_system_without_configuration_is_said_and_recovers() {
    let server = Server::start();
    dual(&server);
    let files = Files::new();
    let resolver = resolver_with(ResolverPlan::default(), &files, server.address.port());
    let error = resolve(&resolver, "db.test").unwrap_err().to_string();
    assert!(
        error.contains("db.test") && error.contains("resolv.conf"),
        "{error}"
    );
    assert!(error.contains("No such file"), "{error}");
    files.write("resolv.conf", "# nobody\n");
    resolver.advance(CHECK);
    let error = resolve(&resolver, "db.test").unwrap_err().to_string();
    assert!(error.contains("nameserver"), "{error}");
    files.write("resolv.conf", "nameserver 127.0.0.1\n");
    resolver.advance(CHECK);
    assert_eq!(
        texts(resolve(&resolver, "db.test")),
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    );
}

#[test]
fn new_name_servers_get_a_new_chance() {
    let server = Server::start();
    dual(&server);
    server.tell("gone.test", A, Reply::code(NXDOMAIN).soa(3_600));
    let files = Files::new();
    files.write("resolv.conf", "nameserver 127.0.0.1\n");
    let system = ResolverPlan {
        mode: DnsMode::Ipv4Only,
        protocol: DnsProtocol::Tcp,
        ..ResolverPlan::default()
    };
    let resolver = resolver_with(system, &files, server.address.port());
    resolve(&resolver, "gone.test").unwrap_err();
    server.tell("gone.test", A, Reply::addresses(&["192.0.2.5"], 60));
    files.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:4\n");
    resolver.advance(CHECK);
    resolve(&resolver, "db.test").unwrap();
    assert_eq!(texts(resolve(&resolver, "gone.test")), ["192.0.2.5"]);
}

#[test]
fn a_server_that_is_no_address_is_said() {
    let resolver = resolver(ResolverPlan {
        nameservers: vec!["dns.example".to_owned()],
        ..ResolverPlan::default()
    });
    let error = resolve(&resolver, "db.test").unwrap_err().to_string();
    assert!(
        error.contains("dns.example") && error.contains("db.test"),
        "{error}"
    );
}

#[test]
fn equal_plans_share_one_resolver_while_it_lives() {
    let special = ResolverPlan {
        nameservers: vec!["192.0.2.201:53".to_owned()],
        ..ResolverPlan::default()
    };
    let one = Resolver::shared(&special);
    assert!(Arc::ptr_eq(&one, &Resolver::shared(&special.clone())));
    let other = ResolverPlan {
        stale: 1,
        ..special.clone()
    };
    assert!(!Arc::ptr_eq(&one, &Resolver::shared(&other)));
    let weak = Arc::downgrade(&one);
    drop(one);
    assert!(weak.upgrade().is_none(), "nothing else keeps it");
    assert_eq!(Resolver::shared(&special).stats().lookups, 0);
}
