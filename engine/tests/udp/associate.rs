//! Associations of SOCKS5 clients: who may send, what is asked, where datagrams go.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use _engine::desk::Desk;
use _engine::desk::plan::AssociatePlan;
use _engine::desk::reports::Report;
use _engine::engine::Engine;
use _engine::plan::LimitsPlan;
use _engine::transport::socks_udp::Header;
use serde_json::Value;

use super::relay::LIMIT;

struct Proxy {
    engine: Arc<Engine>,
    group: u32,
    desk: Desk,
    endpoint: u32,
    fetched: RefCell<VecDeque<Report>>,
}

impl Proxy {
    fn start() -> Self {
        Self::limited(&LimitsPlan::default())
    }

    fn limited(limits: &LimitsPlan) -> Self {
        let engine = Arc::new(Engine::start(1, 0).unwrap());
        let group = engine.open_group(limits).unwrap();
        let desk = Desk::open(&engine, group, 1_000).unwrap();
        let endpoint = desk.endpoint("socks", "").unwrap();
        Self {
            engine,
            group,
            desk,
            endpoint,
            fetched: RefCell::default(),
        }
    }

    fn plan(&self) -> AssociatePlan {
        AssociatePlan::new(self.endpoint, "127.0.0.1:9", "127.0.0.1:0")
    }

    fn associate(&self, plan: AssociatePlan) -> Association<'_> {
        let (id, addr) = self.desk.associate(plan).unwrap();
        Association {
            proxy: self,
            id,
            addr,
            client: socket(&addr),
        }
    }

    /// The next report of this kind: to whom, and what about.
    fn report(&self, kind: &str) -> (u64, Value) {
        let until = Instant::now() + LIMIT;
        loop {
            let mut fetched = self.fetched.borrow_mut();
            fetched.extend(self.desk.take());
            if let Some(report) = fetched.pop_front() {
                assert_eq!(report.kind, kind, "{}", report.text);
                return (report.handle, serde_json::from_str(&report.text).unwrap());
            }
            assert!(Instant::now() < until, "no report {kind}");
            std::thread::yield_now();
        }
    }

    fn flows(&self) -> Vec<Value> {
        serde_json::from_str(&self.engine.flows(self.group).unwrap()).unwrap()
    }

    fn counted(&self) -> Value {
        let stats: Value = serde_json::from_str(&self.engine.stats(self.group).unwrap()).unwrap();
        stats["endpoints"][0]["udp"].clone()
    }

    fn refused(&self, why: &str) -> u64 {
        self.counted()["dropped"][why].as_u64().unwrap_or(0)
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + LIMIT;
        while !holds(self) {
            assert!(
                Instant::now() < until,
                "never: {what}; {:?}",
                self.counted()
            );
            std::thread::yield_now();
        }
    }
}

struct Association<'a> {
    proxy: &'a Proxy,
    id: u64,
    addr: SocketAddr,
    client: UdpSocket,
}

impl Association<'_> {
    fn send(&self, to: &SocketAddr, payload: &[u8]) {
        self.say(&framed(to, payload));
    }

    fn say(&self, datagram: &[u8]) {
        self.client.send_to(datagram, self.addr).unwrap();
    }

    /// The question about the next target.
    fn asked(&self) -> String {
        let (id, about) = self.proxy.report("asks");
        assert_eq!(id, self.id);
        about["target"].as_str().unwrap().to_owned()
    }

    fn allow(&self, target: &str, addr: &SocketAddr) {
        let desk = &self.proxy.desk;
        desk.allow(self.id, target.to_owned(), &addr.to_string())
            .unwrap();
    }

    /// Sends the first datagram to a target, and has it allowed.
    fn open(&self, target: &UdpSocket) -> SocketAddr {
        let to = target.local_addr().unwrap();
        self.send(&to, b"first");
        assert_eq!(self.asked(), to.to_string());
        self.allow(&to.to_string(), &to);
        let (payload, from) = received(target);
        assert_eq!(payload, b"first");
        from
    }

    fn received(&self) -> Vec<u8> {
        let (datagram, from) = received(&self.client);
        assert_eq!(from, self.addr);
        datagram
    }
}

fn socket(like: &SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(like.ip(), 0)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn target() -> UdpSocket {
    socket(&"127.0.0.1:0".parse().unwrap())
}

fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..len].to_vec(), from)
}

fn framed(addr: &SocketAddr, payload: &[u8]) -> Vec<u8> {
    [Header::of(addr).bytes(), payload].concat()
}

fn named(name: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0, 0, 0, 3, name.len() as u8];
    datagram.extend_from_slice(name.as_bytes());
    datagram.extend_from_slice(&port.to_be_bytes());
    datagram.extend_from_slice(payload);
    datagram
}

#[test]
fn a_target_is_asked_about_once_and_answers() {
    let proxy = Proxy::start();
    let association = proxy.associate(AssociatePlan {
        user: Some("ann".to_owned()),
        ..proxy.plan()
    });
    let target = target();
    let to = target.local_addr().unwrap();
    let from = association.open(&target);
    association.send(&to, b"second");
    assert_eq!(received(&target).0, b"second");
    target.send_to(b"answer", from).unwrap();
    assert_eq!(association.received(), framed(&to, b"answer"));
    target.send_to(b"", from).unwrap();
    assert_eq!(association.received(), framed(&to, b""));
    assert!(proxy.desk.take().is_empty());
    let flows = proxy.flows();
    assert_eq!(flows[0]["protocol"], "udp");
    assert_eq!(flows[0]["user"], "ann");
    assert_eq!(flows[0]["listener"], association.addr.to_string());
    assert_eq!(flows[0]["peer"], to.to_string());
    proxy.desk.release(association.id).unwrap();
    let (id, ended) = proxy.report("ended");
    assert_eq!(
        (id, &ended["reason"]),
        (association.id, &"client_closed".into())
    );
    assert_eq!((&ended["up"], &ended["down"]), (&11.into(), &6.into()));
    assert_eq!(
        (&ended["packets_up"], &ended["packets_down"]),
        (&2.into(), &2.into())
    );
    assert!(proxy.flows().is_empty());
    let gone = UdpSocket::bind(association.addr);
    assert!(gone.is_ok(), "the socket is closed");
}

#[test]
fn ipv6_and_ipv4_targets_of_one_client() {
    let proxy = Proxy::start();
    let association = proxy.associate(AssociatePlan {
        client: "[::1]:9".to_owned(),
        bind: "[::1]:0".to_owned(),
        ..proxy.plan()
    });
    let (v4, v6) = (target(), socket(&"[::1]:0".parse().unwrap()));
    for target in [&v4, &v6, &v4] {
        let to = target.local_addr().unwrap();
        let from = if proxy.counted()["packets_up"].as_u64() < Some(2) {
            association.open(target)
        } else {
            association.send(&to, b"first");
            received(target).1
        };
        target.send_to(b"answer", from).unwrap();
        assert_eq!(association.received(), framed(&to, b"answer"));
    }
}

#[test]
fn a_name_is_answered_from_its_address() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let target = target();
    let addr = target.local_addr().unwrap();
    association.say(&named("dns.example", 53, b"question"));
    assert_eq!(association.asked(), "dns.example:53");
    association.allow("dns.example:53", &addr);
    let (payload, from) = received(&target);
    assert_eq!(payload, b"question");
    target.send_to(b"answer", from).unwrap();
    assert_eq!(association.received(), framed(&addr, b"answer"));
}

#[test]
fn what_is_no_datagram_of_the_protocol_is_counted_and_dropped() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let target = target();
    let to = target.local_addr().unwrap();
    let good = framed(&to, b"x");
    let mut wrong = vec![Vec::new(), good[..9].to_vec(), named("", 53, b"x")];
    for (place, byte) in [(0, 1), (1, 1), (2, 1), (2, 0x81), (3, 9)] {
        let mut datagram = good.clone();
        datagram[place] = byte;
        wrong.push(datagram);
    }
    for datagram in &wrong {
        association.say(datagram);
    }
    let count = wrong.len() as u64;
    proxy.until("all counted", |proxy| proxy.refused("malformed") == count);
    association.open(&target);
    assert_eq!(proxy.refused("malformed"), count);
}

#[test]
fn nobody_but_the_client_is_served() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let target = target();
    let to = target.local_addr().unwrap();
    // From another address; and, once the client is known, from another port.
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger
        .send_to(&framed(&to, b"stranger"), association.addr)
        .unwrap();
    proxy.until("a stranger", |proxy| proxy.refused("denied") == 1);
    association.open(&target);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other
        .send_to(&framed(&to, b"other"), association.addr)
        .unwrap();
    proxy.until("another port", |proxy| proxy.refused("denied") == 2);
    association.send(&to, b"mine");
    assert_eq!(received(&target).0, b"mine");
}

#[test]
fn an_announced_port_is_the_only_one() {
    let proxy = Proxy::start();
    let announced = target();
    let port = announced.local_addr().unwrap().port();
    let association = proxy.associate(AssociatePlan {
        port: Some(port),
        ..proxy.plan()
    });
    let target = target();
    let to = target.local_addr().unwrap();
    association.send(&to, b"first, from elsewhere");
    proxy.until("refused", |proxy| proxy.refused("denied") == 1);
    announced
        .send_to(&framed(&to, b"x"), association.addr)
        .unwrap();
    assert_eq!(association.asked(), to.to_string());
}

#[test]
fn who_is_no_target_is_not_heard() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let (one, other) = (target(), target());
    let from = association.open(&one);
    // Of the same host, but another port.
    other.send_to(b"unasked", from).unwrap();
    proxy.until("refused", |proxy| proxy.refused("denied") == 1);
    one.send_to(b"asked", from).unwrap();
    let to = one.local_addr().unwrap();
    assert_eq!(association.received(), framed(&to, b"asked"));
}

#[test]
fn a_denied_target_gets_nothing() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let (one, other) = (target(), target());
    let to = one.local_addr().unwrap();
    association.send(&to, b"1");
    let asked = association.asked();
    proxy
        .desk
        .deny(association.id, asked, "unreachable")
        .unwrap();
    association.send(&to, b"2");
    proxy.until("dropped", |proxy| proxy.refused("unreachable") == 2);
    association.open(&other);
    one.set_nonblocking(true).unwrap();
    assert!(one.recv(&mut [0; 10]).is_err());
    let error = proxy.desk.deny(association.id, "x".to_owned(), "because");
    assert_eq!(error.unwrap_err().code, "plan");
    // Nobody waits for these.
    association.allow("192.0.2.1:1", &to);
    proxy.desk.cut(association.id).unwrap();
    assert_eq!(proxy.report("ended").1["reason"], "killed");
    association.allow("192.0.2.1:1", &to);
    proxy.desk.release(association.id).unwrap();
}

#[test]
fn what_waits_for_answers_is_bounded() {
    let proxy = Proxy::start();
    let association = proxy.associate(AssociatePlan {
        questions: 2,
        held: 3,
        held_bytes: 100,
        ..proxy.plan()
    });
    let targets = [target(), target(), target()];
    let addrs = targets.each_ref().map(|each| each.local_addr().unwrap());
    association.send(&addrs[0], &[0; 101]);
    proxy.until("too long", |proxy| proxy.refused("undecided") == 1);
    for number in 0..5 {
        association.send(&addrs[0], &[number]);
    }
    proxy.until("too many", |proxy| proxy.refused("undecided") == 3);
    association.send(&addrs[1], b"");
    association.send(&addrs[2], b"");
    proxy.until("asked", |proxy| proxy.refused("undecided") == 5);
    assert_eq!(association.asked(), addrs[0].to_string());
    assert_eq!(association.asked(), addrs[1].to_string());
    association.allow(&addrs[0].to_string(), &addrs[0]);
    for number in 0..3 {
        assert_eq!(received(&targets[0]).0, [number]);
    }
    association.open(&targets[2]);
}

#[test]
fn targets_are_remembered_up_to_their_bound() {
    let proxy = Proxy::start();
    let association = proxy.associate(AssociatePlan {
        targets: 2,
        questions: 2,
        ..proxy.plan()
    });
    let targets = [target(), target(), target()];
    let from = association.open(&targets[0]);
    association.open(&targets[1]);
    association.open(&targets[2]);
    // The first was forgotten: it isn't heard, and is asked about again.
    targets[0].send_to(b"late", from).unwrap();
    proxy.until("refused", |proxy| proxy.refused("denied") == 1);
    association.open(&targets[0]);
}

#[test]
fn associations_are_bounded_by_the_group() {
    let proxy = Proxy::limited(&LimitsPlan {
        associations: 2,
        ..LimitsPlan::default()
    });
    let first = proxy.associate(proxy.plan());
    let _second = proxy.associate(proxy.plan());
    let error = proxy.desk.associate(proxy.plan()).unwrap_err();
    assert_eq!(error.code, "limit");
    proxy.desk.release(first.id).unwrap();
    proxy.report("ended");
    proxy.associate(proxy.plan());
}

#[test]
fn silence_ends_an_association() {
    let proxy = Proxy::start();
    let association = proxy.associate(AssociatePlan {
        idle_timeout: Some(0.2),
        ..proxy.plan()
    });
    let (id, ended) = proxy.report("ended");
    assert_eq!((id, &ended["reason"]), (association.id, &"expired".into()));
    assert_eq!(proxy.counted()["open"], 0);
}

#[test]
fn an_unreachable_target_ends_nothing() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let gone = target();
    let to = gone.local_addr().unwrap();
    association.open(&gone);
    drop(gone);
    association.send(&to, b"nobody");
    proxy.until("an ICMP error", |proxy| {
        proxy.counted()["icmp_errors"].as_u64() >= Some(1)
    });
    let target = target();
    let from = association.open(&target);
    target.send_to(b"answer", from).unwrap();
    let to = target.local_addr().unwrap();
    assert_eq!(association.received(), framed(&to, b"answer"));
    // No way there at all.
    let nowhere: SocketAddr = "[::1]:9".parse().unwrap();
    let unroutable = AssociatePlan {
        through: Some("127.0.0.1:0".to_owned()),
        ..proxy.plan()
    };
    let association = proxy.associate(unroutable);
    association.send(&nowhere, b"x");
    association.allow(&association.asked(), &nowhere);
    proxy.until("counted", |proxy| proxy.refused("unreachable") >= 1);
}

#[test]
fn much_passes_both_ways_in_order() {
    const EACH: usize = 20;
    const ROUNDS: u32 = 300;
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    let target = target();
    let to = target.local_addr().unwrap();
    let from = association.open(&target);
    let mut buffer = [0; 2_000];
    for round in 0..ROUNDS {
        // As many as fit into every buffer on the way.
        for number in 0..EACH as u32 {
            let mut payload = vec![7; if number % 5 == 4 { 300 } else { 1_000 }];
            payload[..8].copy_from_slice(&[round.to_be_bytes(), number.to_be_bytes()].concat());
            association.send(&to, &payload);
        }
        for number in 0..EACH as u32 {
            let len = target.recv(&mut buffer).unwrap();
            assert_eq!(len, if number % 5 == 4 { 300 } else { 1_000 });
            assert_eq!(buffer[..4], round.to_be_bytes());
            assert_eq!(buffer[4..8], number.to_be_bytes());
            target.send_to(&buffer[..len], from).unwrap();
        }
        for number in 0..EACH as u32 {
            let (len, _) = association.client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..10], Header::of(&to).bytes());
            assert_eq!(len, if number % 5 == 4 { 310 } else { 1_010 });
            assert_eq!(buffer[14..18], number.to_be_bytes());
        }
    }
    let counted = proxy.counted();
    let packets = u64::from(ROUNDS) * EACH as u64;
    assert_eq!(counted["packets_up"], packets + 1);
    assert_eq!(counted["packets_down"], packets);
    assert_eq!(
        counted["bytes_down"],
        u64::from(ROUNDS) * 4 * (4 * 1_000 + 300)
    );
}

#[test]
fn rates_by_name_hold_for_datagrams() {
    let proxy = Proxy::start();
    proxy.desk.set_rates("ann", Some(1_000.0), None).unwrap();
    let association = proxy.associate(AssociatePlan {
        rates: vec!["ann".to_owned()],
        ..proxy.plan()
    });
    let to = target().local_addr().unwrap();
    for _ in 0..10 {
        association.send(&to, &[0; 1_000]);
    }
    proxy.until("limited", |proxy| proxy.refused("rate_limited") >= 1);
}

#[test]
fn a_desk_that_closes_takes_its_associations_along() {
    let proxy = Proxy::start();
    let association = proxy.associate(proxy.plan());
    association.open(&target());
    proxy.desk.shutdown();
    assert!(proxy.flows().is_empty());
    assert!(UdpSocket::bind(association.addr).is_ok());
    let error = proxy.desk.associate(proxy.plan()).unwrap_err();
    assert_eq!(error.code, "closed");
}

#[test]
fn a_plan_that_cannot_be_carried_out_says_why() {
    let proxy = Proxy::start();
    let refused = |plan: AssociatePlan| proxy.desk.associate(plan).unwrap_err();
    let wrong = |change: fn(&mut AssociatePlan)| {
        let mut plan = proxy.plan();
        change(&mut plan);
        refused(plan)
    };
    assert!(
        wrong(|plan| plan.client = "x".to_owned())
            .message
            .contains("client")
    );
    assert!(wrong(|plan| plan.targets = 0).message.contains("questions"));
    assert!(
        wrong(|plan| plan.questions = 257)
            .message
            .contains("questions")
    );
    assert!(
        wrong(|plan| plan.through = Some("x".to_owned()))
            .message
            .contains("through")
    );
    assert_eq!(
        wrong(|plan| plan.bind = "192.0.2.1:0".to_owned()).code,
        "bind"
    );
    assert_eq!(wrong(|plan| plan.endpoint += 1).code, "unknown");
    assert!(proxy.flows().is_empty());
}
