//! Remotes that fail, and what clients notice of it: with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use _engine::engine::Bound;
use _engine::plan::*;
use _engine::relay::endpoint::Route;
use serde_json::Value;
use support::*;

/// A server that says its name to whoever comes, and then echoes.
struct Named {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Named {
    fn new(name: &'static str) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), name)
    }

    fn at(addr: SocketAddr, name: &'static str) -> Self {
        let listener = listen(addr);
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            for client in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client.map(Arc::new) else {
                    continue;
                };
                let _ = (&*client).write_all(name.as_bytes());
                open.push(Arc::downgrade(&client));
                std::thread::spawn(move || {
                    let mut buf = [0; 1024];
                    while let Ok(count @ 1..) = (&*client).read(&mut buf) {
                        if (&*client).write_all(&buf[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
            for client in open.iter().filter_map(Weak::upgrade) {
                let _ = client.shutdown(Shutdown::Both);
            }
        });
        Self {
            addr,
            stop,
            thread: Some(thread),
        }
    }

    /// Ends all its connections and listens no more.
    fn die(mut self) -> SocketAddr {
        self.end();
        self.addr
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.store(true, Ordering::SeqCst);
            let _ = TcpStream::connect(self.addr);
            thread.join().unwrap();
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(addr: SocketAddr) -> TcpListener {
    let until = Instant::now() + LIMIT;
    loop {
        match TcpListener::bind(addr) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    target().1
}

/// An address where connections are never answered: its queue is full.
struct Silent {
    addr: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Silent {
    fn new() -> Self {
        let (listener, addr) = target();
        // SAFETY: plain arguments; the listener is ours.
        let result = unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 0) };
        assert_eq!(result, 0);
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            waiting.push(stream);
        }
        Self {
            addr,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

fn plan_of(remotes: &[SocketAddr], balance: Balance) -> EndpointPlan {
    let mut plan = plan(remotes[0]);
    plan.remotes = remotes
        .iter()
        .map(|addr| RemotePlan {
            host: addr.ip().to_string(),
            port: addr.port(),
        })
        .collect();
    plan.balance = balance;
    plan
}

fn failing_over(remotes: &[SocketAddr], balance: Balance, fail_timeout: f64) -> EndpointPlan {
    let mut plan = plan_of(remotes, balance);
    plan.health.failover = true;
    plan.health.fail_timeout = fail_timeout;
    plan
}

fn name_at(bound: &Bound) -> std::io::Result<String> {
    name_of(&mut connect(bound))
}

fn name_of(client: &mut TcpStream) -> std::io::Result<String> {
    let mut name = [0];
    client.read_exact(&mut name)?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

fn names(bound: &Bound, count: usize) -> String {
    (0..count).map(|_| name_at(bound).unwrap()).collect()
}

fn remotes(relay: &Relay) -> Vec<Value> {
    relay.stats()["endpoints"][0]["remotes"]
        .as_array()
        .unwrap()
        .clone()
}

fn states(relay: &Relay) -> Vec<String> {
    remotes(relay)
        .iter()
        .map(|remote| remote["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn flows_go_round_by_weight_over_all_workers() {
    let relay = Relay::new();
    let [a, b, c] = [Named::new("a"), Named::new("b"), Named::new("c")];
    let mut plan = plan_of(&[a.addr, b.addr, c.addr], Balance::Roundrobin);
    plan.weights = vec![4, 2, 1];
    let bound = relay.serve(plan);
    assert_eq!(names(&bound, 14), "abacabaabacaba");
    let totals: Vec<_> = remotes(&relay)
        .iter()
        .map(|remote| remote["total"].as_u64().unwrap())
        .collect();
    assert_eq!(totals, [8, 4, 2]);
    eventually("nothing is open", || {
        remotes(&relay).iter().all(|remote| remote["open"] == 0)
    });
}

#[test]
fn a_client_address_keeps_its_remote() {
    let relay = Relay::new();
    let [a, b] = [Named::new("a"), Named::new("b")];
    let bound = relay.serve(plan_of(&[a.addr, b.addr], Balance::Iphash));
    let names = names(&bound, 8);
    assert!(names == "aaaaaaaa" || names == "bbbbbbbb", "{names}");
}

#[test]
fn leastconn_goes_where_least_is_open() {
    let relay = Relay::new();
    let [a, b] = [Named::new("a"), Named::new("b")];
    let bound = relay.serve(plan_of(&[a.addr, b.addr], Balance::Leastconn));
    let mut open: Vec<_> = (0..4).map(|_| connect(&bound)).collect();
    let mut there: Vec<_> = open.iter_mut().map(|one| name_of(one).unwrap()).collect();
    let mut sorted = there.clone();
    sorted.sort();
    assert_eq!(sorted, ["a", "a", "b", "b"]);
    // The places of those that go are taken first.
    for place in (0..4).rev() {
        if there[place] == "a" {
            open.remove(place);
            there.remove(place);
        }
    }
    eventually("both have ended", || {
        remotes(&relay)[0]["open"] == 0 && remotes(&relay)[1]["open"] == 2
    });
    for _ in 0..2 {
        open.push(connect(&bound));
        assert_eq!(name_of(open.last_mut().unwrap()).unwrap(), "a");
    }
}

#[test]
fn the_next_remote_is_tried_inside_the_same_connection() {
    for balance in [Balance::Failover, Balance::Roundrobin, Balance::Iphash] {
        let relay = Relay::new();
        let alive = Named::new("b");
        let bound = relay.serve(failing_over(&[nobody(), alive.addr], balance, 60.0));
        assert_eq!(names(&bound, 6), "bbbbbb", "{balance:?}");
        let first = &remotes(&relay)[0];
        // Two tried it, and nobody since then.
        if balance != Balance::Iphash {
            assert_eq!(first["state"], "down", "{balance:?}");
            assert_eq!(first["fails"], 2);
            assert_eq!(first["total"], 2);
            let reason = first["reason"].as_str().unwrap();
            assert!(reason.contains("refused"), "{reason}");
            let notice = relay.event("notice");
            assert_eq!(notice["code"], "remote_down");
        }
    }
}

#[test]
fn without_failover_a_dead_remote_is_the_clients_problem() {
    let relay = Relay::new();
    let alive = Named::new("b");
    let bound = relay.serve(plan_of(&[nobody(), alive.addr], Balance::Roundrobin));
    let outcomes: Vec<_> = (0..4).map(|_| name_at(&bound).is_ok()).collect();
    assert_eq!(outcomes, [false, true, false, true]);
    assert_eq!(states(&relay), ["unknown", "up"]);
}

#[test]
fn a_silent_remote_does_not_eat_the_time_of_the_others() {
    let relay = Relay::new();
    let silent = Silent::new();
    let alive = Named::new("b");
    let mut plan = failing_over(&[silent.addr, alive.addr], Balance::Failover, 60.0);
    plan.tcp.as_mut().unwrap().connect_timeout = 4.0;
    let bound = relay.serve(plan);
    let began = Instant::now();
    assert_eq!(names(&bound, 1), "b");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_900), "{took:?}");
    assert!(took < Duration::from_millis(3_900), "{took:?}");
}

/// The remotes of a name are tried one after the other before the next remote is.
#[test]
fn a_name_that_can_not_be_resolved_is_a_failure_of_its_remote() {
    let relay = Relay::new();
    let alive = Named::new("b");
    let mut plan = failing_over(&[nobody(), alive.addr], Balance::Failover, 60.0);
    plan.remotes[0].host = "nowhere.invalid".to_owned();
    let bound = relay.serve(plan);
    assert_eq!(names(&bound, 3), "bbb");
    assert_eq!(states(&relay)[0], "down");
}

#[test]
fn all_down_means_all_are_tried() {
    let relay = Relay::new();
    let dead = [nobody(), nobody()];
    let bound = relay.serve(failing_over(&dead, Balance::Roundrobin, 60.0));
    for _ in 0..4 {
        assert!(name_at(&bound).is_err());
    }
    assert_eq!(states(&relay), ["down", "down"]);
    let before = remotes(&relay)[0]["total"].as_u64().unwrap();
    assert!(name_at(&bound).is_err());
    assert_eq!(remotes(&relay)[0]["total"].as_u64().unwrap(), before + 1);
    // One that is back is found at once, without waiting for the pause to end.
    let _back = Named::at(dead[1], "b");
    assert_eq!(names(&bound, 2), "bb");
    assert_ne!(states(&relay)[1], "down");
}

#[test]
fn a_remote_comes_back_after_its_pause() {
    let relay = Relay::new();
    let first = Named::new("a");
    let second = Named::new("b");
    let plan = failing_over(&[first.addr, second.addr], Balance::Failover, 2.0);
    let bound = relay.serve(plan);
    assert_eq!(names(&bound, 2), "aa");
    let addr = first.die();
    assert_eq!(names(&bound, 4), "bbbb");
    assert_eq!(relay.event("notice")["code"], "remote_down");
    let _first = Named::at(addr, "a");
    // Left alone for as long as the pause takes.
    assert_eq!(names(&bound, 20), "b".repeat(20));
    let until = Instant::now() + LIMIT;
    while name_at(&bound).unwrap() == "b" {
        assert!(Instant::now() < until, "never back");
        std::thread::sleep(Duration::from_millis(5));
    }
    let notice = relay.event("notice");
    assert_eq!(notice["code"], "remote_up");
    eventually("up", || states(&relay)[0] == "up");
    assert_eq!(names(&bound, 20), "a".repeat(20));
    assert_eq!(remotes(&relay)[0]["reason"], Value::Null);
}

/// A remote dies under many flows: those of others live on, and new ones all arrive.
#[test]
fn clients_of_other_remotes_notice_nothing() {
    let relay = Relay::new();
    let [a, b, c] = [Named::new("a"), Named::new("b"), Named::new("c")];
    let plan = failing_over(&[a.addr, b.addr, c.addr], Balance::Roundrobin, 60.0);
    let bound = relay.serve(plan);
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = connect(&bound);
            let name = name_of(&mut client).unwrap();
            (name, client)
        })
        .collect();
    a.die();
    for round in 0..3 {
        for (name, client) in &mut clients {
            let text = format!("hello {round}");
            if name != "a" {
                say(client, &text);
                hear(client, &text);
            }
        }
        let new = names(&bound, 20);
        assert!(!new.contains('a'), "{new}");
    }
    let mut lost = 0;
    for (name, client) in &mut clients {
        lost += usize::from(name == "a" && matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert!((66..=67).contains(&lost), "{lost}");
}

#[test]
fn what_is_known_of_a_remote_outlives_a_reload() {
    let relay = Relay::new();
    let alive = Named::new("b");
    let other = Named::new("c");
    let dead = nobody();
    let bound = relay.serve(failing_over(&[dead, alive.addr], Balance::Failover, 60.0));
    assert_eq!(names(&bound, 3), "bbb");
    assert_eq!(states(&relay), ["down", "up"]);
    let plan = failing_over(&[other.addr, dead, alive.addr], Balance::Failover, 60.0);
    relay
        .engine
        .update(bound.handle, plan.clone(), None)
        .unwrap();
    assert_eq!(states(&relay), ["unknown", "down", "up"]);
    assert_eq!(names(&bound, 1), "c");
    // The same when it is bound anew under its name.
    let mut plan = plan;
    plan.remotes.remove(0);
    let again = relay.serve(plan);
    let stats = relay.stats();
    let endpoint = stats["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .find(|endpoint| endpoint["handle"] == again.handle)
        .unwrap();
    assert_eq!(endpoint["remotes"][0]["state"], "down");
}

fn error_of(plan: EndpointPlan) -> (String, String) {
    let error = Route::prepare(plan).err().expect("refused");
    (error.field.to_owned(), error.to_string())
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let two = [nobody(), nobody()];
    for (weights, why) in [
        (vec![1], "1 weights for 2 remotes"),
        (vec![1, 2, 3], "3 weights for 2 remotes"),
        (vec![0, 0], "all are 0"),
        (vec![1, 256], "256 is more than 255"),
    ] {
        let mut plan = plan_of(&two, Balance::Roundrobin);
        plan.weights = weights;
        let (field, text) = error_of(plan);
        assert_eq!(field, "weights");
        assert!(text.contains(why), "{text}");
    }
    type Change = fn(&mut CheckPlan);
    let checks: [(&str, Change); 7] = [
        ("health.check.interval", |check| check.interval = 0.0),
        ("health.check.timeout", |check| check.timeout = -1.0),
        ("health.check.rise", |check| check.rise = 0),
        ("health.check.fall", |check| check.fall = 0),
        ("health.check.udp", |check| check.kind = CheckKind::Udp),
        ("health.check.udp.send", |check| {
            check.kind = CheckKind::Udp;
            check.udp = Some(UdpCheckPlan {
                send: "xy".to_owned(),
                expect: String::new(),
            });
        }),
        ("health.check.http.path", |check| {
            check.kind = CheckKind::Http;
            check.http = Some(HttpCheckPlan {
                path: "/ HTTP/1.1\r\n".to_owned(),
                ..HttpCheckPlan::default()
            });
        }),
    ];
    for (field, change) in checks {
        let mut plan = plan_of(&two, Balance::Roundrobin);
        let mut check = CheckPlan::default();
        change(&mut check);
        plan.health.check = Some(check);
        assert_eq!(error_of(plan).0, field);
    }
    let mut plan = plan_of(&two, Balance::Failover);
    plan.health.fail_timeout = f64::NAN;
    assert_eq!(error_of(plan).0, "health.fail_timeout");
}

fn quick(kind: CheckKind) -> CheckPlan {
    CheckPlan {
        kind,
        interval: 0.05,
        timeout: 5.0,
        ..CheckPlan::default()
    }
}

fn checked(remotes: &[SocketAddr], check: CheckPlan) -> EndpointPlan {
    let mut plan = plan_of(remotes, Balance::Roundrobin);
    plan.health.check = Some(check);
    plan
}

#[test]
fn a_check_finds_a_dead_remote_before_any_client_does() {
    let relay = Relay::new();
    let [a, b] = [Named::new("a"), Named::new("b")];
    let bound = relay.serve(checked(&[a.addr, b.addr], quick(CheckKind::Tcp)));
    eventually("both up", || states(&relay) == ["up", "up"]);
    let addr = a.die();
    eventually("one down", || states(&relay) == ["down", "up"]);
    assert_eq!(names(&bound, 4), "bbbb");
    let notice = relay.event("notice");
    assert_eq!(notice["code"], "remote_down");
    let text = notice["text"].as_str().unwrap();
    assert!(text.starts_with(&format!("{addr} is down: ")), "{text}");
    let _back = Named::at(addr, "a");
    eventually("back", || states(&relay) == ["up", "up"]);
    assert_eq!(relay.event("notice")["code"], "remote_up");
    assert!(names(&bound, 4).contains('a'));
}

/// A server for one kind of question, which says what it is told to.
fn answering(answer: Arc<std::sync::Mutex<Vec<u8>>>) -> SocketAddr {
    let (listener, addr) = target();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let mut seen = Vec::new();
            let mut buf = [0; 1024];
            while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                match client.read(&mut buf) {
                    Ok(count @ 1..) => seen.extend_from_slice(&buf[..count]),
                    _ => break,
                }
            }
            if seen.starts_with(b"GET /alive HTTP/1.1\r\nHost: www.example\r\n") {
                // Byte by byte, as slow servers do.
                for byte in answer.lock().unwrap().iter() {
                    let _ = client.write_all(&[*byte]);
                }
            }
        }
    });
    addr
}

#[test]
fn http_is_checked_by_its_status() {
    let relay = Relay::new();
    let answer = Arc::new(std::sync::Mutex::new(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
    let addr = answering(Arc::clone(&answer));
    let mut check = quick(CheckKind::Http);
    check.http = Some(HttpCheckPlan {
        path: "/alive".to_owned(),
        host: Some("www.example".to_owned()),
        status: Vec::new(),
    });
    relay.serve(checked(&[addr], check));
    eventually("up", || states(&relay) == ["up"]);
    let say = |text: &[u8]| *answer.lock().unwrap() = text.to_vec();
    for (text, reason) in [
        (&b"HTTP/1.1 503 No\r\n\r\n"[..], "status 503"),
        (
            b"SSH-2.0-OpenSSH\r\n",
            "answered something that is not HTTP",
        ),
        (b"", "closed the connection without an answer"),
    ] {
        say(text);
        eventually(reason, || remotes(&relay)[0]["reason"] == reason);
        say(b"HTTP/1.0 204 \r\n\r\n");
        eventually("up again", || states(&relay) == ["up"]);
    }
}

#[test]
fn udp_is_checked_by_its_answer() {
    let relay = Relay::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let good = Arc::new(AtomicBool::new(true));
    let is_good = Arc::clone(&good);
    let thread = std::thread::spawn(move || {
        let mut buf = [0; 64];
        loop {
            let (count, from) = server.recv_from(&mut buf).unwrap();
            match &buf[..count] {
                b"ping" if is_good.load(Ordering::SeqCst) => {
                    server.send_to(b"pong, and more", from).unwrap();
                }
                b"ping" => {
                    server.send_to(b"what?", from).unwrap();
                }
                _ => return,
            }
        }
    });
    let mut check = quick(CheckKind::Udp);
    check.udp = Some(UdpCheckPlan {
        send: "70696e67".to_owned(),
        expect: "706f6e67".to_owned(),
    });
    relay.serve(checked(&[addr], check));
    eventually("up", || states(&relay) == ["up"]);
    good.store(false, Ordering::SeqCst);
    eventually("down", || states(&relay) == ["down"]);
    assert_eq!(remotes(&relay)[0]["reason"], "answered something else");
    good.store(true, Ordering::SeqCst);
    eventually("up again", || states(&relay) == ["up"]);
    // Nobody is there any more: the host says so at once.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"stop", addr).unwrap();
    thread.join().unwrap();
    eventually("down", || states(&relay) == ["down"]);
    let reason = remotes(&relay)[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn tls_is_checked_by_a_handshake() {
    let relay = Relay::new();
    let (inner, inner_addr) = target();
    // Our own TLS end is the server; what is behind it does not matter.
    let mut tls = plan(inner_addr);
    tls.listen_transport = Some(ListenTransportPlan {
        tls: Some(TlsListenPlan {
            self_signed: Some("localhost".to_owned()),
            ..TlsListenPlan::default()
        }),
        ..ListenTransportPlan::default()
    });
    let server = relay.serve(tls).tcp.unwrap();
    let plain = Named::new("x");
    let mut checked = checked(&[server, plain.addr], quick(CheckKind::Tls));
    checked.id = "checked".to_owned();
    relay.serve(checked);
    let states = || {
        let stats = relay.stats();
        let endpoints = stats["endpoints"].as_array().unwrap().clone();
        let one = endpoints
            .into_iter()
            .find(|one| one["endpoint"] == "checked")
            .unwrap();
        [0, 1].map(|place| one["remotes"][place]["state"].as_str().unwrap().to_owned())
    };
    eventually("one speaks TLS", || states() == ["up", "down"]);
    drop(inner);
}

#[test]
fn equal_checks_are_made_once() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let check = CheckPlan {
        interval: 1000.0,
        ..quick(CheckKind::Tcp)
    };
    for number in 0..50 {
        let mut plan = checked(&[addr], check.clone());
        plan.id = format!("endpoint {number}");
        relay.serve(plan);
    }
    eventually("all know", || {
        let stats = relay.stats();
        let endpoints = stats["endpoints"].as_array().unwrap();
        endpoints
            .iter()
            .all(|endpoint| endpoint["remotes"][0]["state"] == "up")
    });
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn checks_end_with_their_endpoint() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let first = relay.serve(checked(&[addr], quick(CheckKind::Tcp)));
    let mut other = checked(&[addr], quick(CheckKind::Tcp));
    other.id = "other".to_owned();
    let second = relay.serve(other);
    let grows = || {
        let before = count.load(Ordering::SeqCst);
        eventually("another check", || count.load(Ordering::SeqCst) > before);
    };
    grows();
    relay.engine.close(first.handle, None).unwrap();
    grows();
    relay.engine.close(second.handle, None).unwrap();
    // Some may have been under way.
    eventually("no more checks", || {
        let before = count.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(500));
        count.load(Ordering::SeqCst) == before
    });
}

/// A UDP server that answers with its name.
struct NamedUdp {
    addr: SocketAddr,
    socket: UdpSocket,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NamedUdp {
    fn new(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        let own = socket.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok((count, from)) = own.recv_from(&mut buf) {
                if &buf[..count] == b"stop" {
                    return;
                }
                let _ = own.send_to(name.as_bytes(), from);
            }
        });
        Self {
            addr,
            socket,
            thread: Some(thread),
        }
    }

    fn die(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.socket.send_to(b"stop", self.addr).unwrap();
            thread.join().unwrap();
        }
    }
}

impl Drop for NamedUdp {
    fn drop(&mut self) {
        self.end();
    }
}

fn by_udp(mut plan: EndpointPlan) -> EndpointPlan {
    plan.tcp = None;
    plan.udp = Some(UdpPlan::default());
    plan
}

fn udp_client(bound: &Bound) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(bound.udp.unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    client
}

fn udp_name(client: &UdpSocket) -> Option<String> {
    let mut buf = [0; 8];
    client.send(b"?").unwrap();
    let count = client.recv(&mut buf).ok()?;
    Some(String::from_utf8_lossy(&buf[..count]).into_owned())
}

#[test]
fn associations_are_spread_and_stay_where_they_are() {
    let relay = Relay::new();
    let [a, b] = [NamedUdp::new("a"), NamedUdp::new("b")];
    let bound = relay.serve(by_udp(plan_of(&[a.addr, b.addr], Balance::Roundrobin)));
    let clients: Vec<_> = (0..6).map(|_| udp_client(&bound)).collect();
    let names = |clients: &[UdpSocket]| -> String {
        clients.iter().map(|one| udp_name(one).unwrap()).collect()
    };
    assert_eq!(names(&clients), "ababab");
    assert_eq!(names(&clients), "ababab");
    assert_eq!(relay.flows()[1]["target"], b.addr.to_string());
    let open: Vec<_> = remotes(&relay)
        .iter()
        .map(|remote| remote["open"].as_u64().unwrap())
        .collect();
    assert_eq!(open, [3, 3]);
}

#[test]
fn an_association_leaves_a_target_that_is_gone() {
    let relay = Relay::new();
    let [a, b] = [NamedUdp::new("a"), NamedUdp::new("b")];
    let plan = failing_over(&[a.addr, b.addr], Balance::Failover, 60.0);
    let bound = relay.serve(by_udp(plan));
    let client = udp_client(&bound);
    assert_eq!(udp_name(&client).as_deref(), Some("a"));
    a.die();
    eventually("the other answers", || {
        udp_name(&client).as_deref() == Some("b")
    });
    assert_eq!(states(&relay), ["down", "up"]);
    // Whoever is new goes there at once.
    assert_eq!(udp_name(&udp_client(&bound)).as_deref(), Some("b"));
}

#[test]
fn an_association_takes_the_next_remote_when_a_name_means_nothing() {
    let relay = Relay::new();
    let b = NamedUdp::new("b");
    let mut plan = failing_over(&[nobody(), b.addr], Balance::Failover, 60.0);
    plan.remotes[0].host = "nowhere.invalid".to_owned();
    let bound = relay.serve(by_udp(plan));
    let client = udp_client(&bound);
    eventually("an answer", || udp_name(&client).as_deref() == Some("b"));
}

/// Several threads at once, so that workers choose at the same time.
#[test]
fn turns_are_shared_by_the_workers() {
    let relay = Relay::new();
    let [a, b] = [Named::new("a"), Named::new("b")];
    let bound = relay.serve(plan_of(&[a.addr, b.addr], Balance::Roundrobin));
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || names(&bound, 50)))
        .collect();
    let all: String = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(all.matches('a').count(), 100);
}

/// Connecting is not all: one that fails in the handshake is passed over as well.
#[test]
fn a_remote_that_fails_in_the_handshake_is_passed_over() {
    let relay = Relay::new();
    let no_tls = Named::new("x");
    let inner = Named::new("b");
    let mut tls = plan(inner.addr);
    tls.id = "tls".to_owned();
    tls.listen_transport = Some(ListenTransportPlan {
        tls: Some(TlsListenPlan {
            self_signed: Some("localhost".to_owned()),
            ..TlsListenPlan::default()
        }),
        ..ListenTransportPlan::default()
    });
    let server = relay.serve(tls).tcp.unwrap();
    let mut plan = failing_over(&[no_tls.addr, server], Balance::Failover, 60.0);
    plan.remote_transport = Some(RemoteTransportPlan {
        tls: Some(TlsSendPlan {
            sni: "localhost".to_owned(),
            alpn: Vec::new(),
            insecure: true,
            ca: None,
            cert: None,
            key: None,
            key_log: false,
        }),
        ..RemoteTransportPlan::default()
    });
    let bound = relay.serve(plan);
    assert_eq!(names(&bound, 4), "bbbb");
    let stats = relay.stats();
    let first = &stats["endpoints"][1]["remotes"][0];
    assert_eq!(first["state"], "down");
    assert_eq!(first["fails"], 2);
}
