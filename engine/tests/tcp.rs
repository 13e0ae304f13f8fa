//! What a TCP flow goes through, with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use _engine::binding::Inherited;
use _engine::plan::{EndpointPlan, LimitsPlan, TcpPlan, UdpPlan};
use support::*;

#[test]
fn bytes_arrive_and_each_end_is_carried_over() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    say(&mut client, "question");
    hear(&mut server, "question");
    end_writing(&client);
    assert_eq!(read_all(&mut server).unwrap(), b"");
    // The other direction is still open.
    eventually("half closed", || relay.flows()[0]["state"] == "half_closed");
    say(&mut server, "a long answer");
    drop(server);
    assert_eq!(read_all(&mut client).unwrap(), b"a long answer");
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "client_closed");
    assert_eq!(ended["bytes_up"], 8);
    assert_eq!(ended["bytes_down"], 13);
    assert_eq!(ended["target"], addr.to_string());
    assert!(ended["connect"].as_f64().unwrap() < 5.0);
}

#[test]
fn the_side_that_ends_first_gives_the_reason() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, server) = pair(&listener, &bound);
    drop(server);
    assert_eq!(read_all(&mut client).unwrap(), b"");
    drop(client);
    assert_eq!(relay.event("ended")["reason"], "target_closed");
}

/// Large enough for both ways of moving bytes, in both directions at once, with slow readers.
#[test]
fn bulk_is_whole_in_both_directions() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (client, server) = pair(&listener, &bound);
    let up = pattern(40_000_003);
    let down = pattern(30_000_001);
    let send = |mut stream: TcpStream, bytes: Vec<u8>| {
        std::thread::spawn(move || {
            stream.write_all(&bytes).unwrap();
            end_writing(&stream);
        })
    };
    let receive = |mut stream: TcpStream, chunk: usize| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut buf = vec![0; chunk];
            loop {
                match stream.read(&mut buf).unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&buf[..count]),
                }
            }
        })
    };
    let threads = [
        send(client.try_clone().unwrap(), up.clone()),
        send(server.try_clone().unwrap(), down.clone()),
    ];
    let at_server = receive(server, 1 << 20);
    let at_client = receive(client, 777);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(at_server.join().unwrap() == up, "upstream bytes differ");
    assert!(at_client.join().unwrap() == down, "downstream bytes differ");
    let ended = relay.event("ended");
    assert_eq!(ended["bytes_up"], up.len());
    assert_eq!(ended["bytes_down"], down.len());
    let stats = relay.stats();
    let lent: u64 = stats["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["pipes_lent"].as_u64().unwrap())
        .sum();
    assert_eq!(lent, 0, "pipes were given back");
}

#[test]
fn a_stream_that_alternates_between_bulk_and_chat_stays_whole() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    let bulk = pattern(3_000_000);
    for round in 0..10 {
        let sent = bulk.clone();
        let mut writer = client.try_clone().unwrap();
        let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut got = vec![0; bulk.len()];
        server.read_exact(&mut got).unwrap();
        thread.join().unwrap();
        assert!(got == bulk, "round {round}");
        for count in 0..20 {
            let text = format!("message {round} {count}");
            say(&mut client, &text);
            hear(&mut server, &text);
            say(&mut server, &text);
            hear(&mut client, &text);
        }
    }
}

#[test]
fn a_reset_is_carried_over_as_a_reset() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    for (from_client, reason) in [(true, "client_reset"), (false, "target_reset")] {
        let (mut client, mut server) = pair(&listener, &bound);
        say(&mut client, "x");
        hear(&mut server, "x");
        let mut other = if from_client {
            reset(client);
            server
        } else {
            reset(server);
            client
        };
        let error = read_all(&mut other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(relay.event("ended")["reason"], reason);
    }
}

#[test]
fn what_was_said_before_a_reset_still_arrives() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    let words = pattern(200_000);
    server.write_all(&words).unwrap();
    eventually("the relay has taken all of it", || {
        relay.flows()[0]["bytes_down"].as_u64() == Some(words.len() as u64)
    });
    reset(server);
    let mut got = vec![0; words.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == words);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_refused_target_resets_the_client() {
    let relay = Relay::new();
    let (listener, addr) = target();
    drop(listener);
    let bound = relay.serve(plan(addr));
    let mut client = connect(&bound);
    let error = read_all(&mut client).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(relay.event("ended")["reason"], "connect_refused");
    let stats = relay.stats();
    assert_eq!(stats["endpoints"][0]["tcp"]["ended"]["connect_refused"], 1);
    assert_eq!(stats["endpoints"][0]["tcp"]["open"], 0);
}

/// The target answers and closes while the client still sends: the whole answer gets through, and
/// no reset overtakes it.
#[test]
fn an_early_answer_is_not_cut() {
    let relay = Arc::new(Relay::new());
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let answer = pattern(5_000_000);
    for _ in 0..3 {
        let (mut client, mut server) = pair(&listener, &bound);
        let expected = answer.clone();
        let uploading = client.try_clone().unwrap();
        let answered = Arc::new(AtomicBool::new(false));
        let upload = std::thread::spawn({
            let answered = Arc::clone(&answered);
            move || {
                let mut uploading = uploading;
                let chunk = vec![7; 65536];
                while !answered.load(Ordering::Relaxed) {
                    uploading.write_all(&chunk).unwrap();
                }
                end_writing(&uploading);
            }
        });
        let answering = std::thread::spawn({
            let answer = answer.clone();
            let relay = Arc::clone(&relay);
            move || {
                let mut some = [0; 1000];
                server.read_exact(&mut some).unwrap();
                server.write_all(&answer).unwrap();
                end_writing(&server);
                // Goes without reading the rest, once the relay has the whole answer.
                let flows = |state: &str| {
                    relay
                        .flows()
                        .iter()
                        .any(|flow| flow["state"] == state && flow["bytes_down"] == answer.len())
                };
                eventually("the answer was taken", || flows("half_closed"));
            }
        });
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == expected);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "an orderly end");
        answered.store(true, Ordering::Relaxed);
        answering.join().unwrap();
        upload.join().unwrap();
        assert_eq!(relay.event("ended")["reason"], "target_closed");
    }
}

/// A client that never stops sending to a target that has gone is not listened to for ever.
#[test]
fn an_endless_upload_to_nobody_is_cut() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    say(&mut client, "x");
    hear(&mut server, "x");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "an orderly end");
    let chunk = vec![7; 65536];
    while client.write_all(&chunk).is_ok() {}
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "linger_timeout");
    assert!(ended["duration"].as_f64().unwrap() < 9.0);
}

#[test]
fn an_idle_flow_ends_when_nothing_moves_for_the_limit() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = plan(addr);
    plan.tcp = Some(TcpPlan {
        idle_timeout: 0.3,
        ..TcpPlan::default()
    });
    let bound = relay.serve(plan);
    let (mut client, mut server) = pair(&listener, &bound);
    let began = Instant::now();
    // Traffic keeps it alive beyond the limit.
    while began.elapsed() < Duration::from_millis(700) {
        say(&mut client, "x");
        hear(&mut server, "x");
    }
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "idle_timeout");
    assert!(ended["duration"].as_f64().unwrap() >= 1.0);
}

#[test]
fn a_half_closed_flow_does_not_linger_for_ever() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = plan(addr);
    plan.tcp = Some(TcpPlan {
        linger: 0.3,
        ..TcpPlan::default()
    });
    let bound = relay.serve(plan);
    let (client, _server) = pair(&listener, &bound);
    end_writing(&client);
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "linger_timeout");
    assert!(ended["duration"].as_f64().unwrap() >= 0.3);
}

#[test]
fn a_silent_target_is_given_up_after_the_timeout() {
    let relay = Relay::new();
    // A listener whose queue is full drops what comes: the connection stays under way.
    let (listener, addr) = target();
    assert_eq!(
        // SAFETY: plain arguments.
        unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 0) },
        0
    );
    let _queued: Vec<_> = (0..4)
        .filter_map(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok())
        .collect();
    let mut plan = plan(addr);
    plan.tcp = Some(TcpPlan {
        connect_timeout: 0.4,
        ..TcpPlan::default()
    });
    let bound = relay.serve(plan);
    let mut client = connect(&bound);
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "connect_timeout");
    let took = ended["duration"].as_f64().unwrap();
    assert!((0.4..3.0).contains(&took), "{took}");
}

#[test]
fn limits_refuse_at_once_and_are_counted() {
    let relay = Relay::with(
        2,
        &LimitsPlan {
            connections: 3,
            ..LimitsPlan::default()
        },
    );
    let (listener, addr) = target();
    let mut plan = plan(addr);
    plan.limits = LimitsPlan {
        connections: 2,
        ..LimitsPlan::default()
    };
    let first = relay.serve(plan.clone());
    plan.id = "other".to_owned();
    let second = relay.serve(plan);
    let freed = pair(&listener, &first);
    let _more = pair(&listener, &first);
    let refused = |bound| {
        let error = read_all(&mut connect(bound)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    };
    refused(&first);
    let _third = pair(&listener, &second);
    refused(&second);
    let stats = relay.stats();
    assert_eq!(stats["endpoints"][0]["tcp"]["refused"]["connections"], 1);
    assert_eq!(
        stats["endpoints"][1]["tcp"]["refused"]["overall_connections"],
        1
    );
    // A place that is given back is free again.
    drop(freed);
    relay.event("ended");
    let _again = pair(&listener, &first);
}

#[test]
fn killing_ends_one_flow_and_leaves_the_others() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    let (mut other, mut other_server) = pair(&listener, &bound);
    let local = client.local_addr().unwrap().to_string();
    let flow = relay
        .flows()
        .into_iter()
        .find(|flow| flow["client"] == local)
        .unwrap();
    assert!(
        relay
            .engine
            .kill(relay.group, flow["id"].as_u64().unwrap())
            .unwrap()
    );
    assert!(!relay.engine.kill(relay.group, 12345).unwrap());
    for stream in [&mut client, &mut server] {
        assert_eq!(
            read_all(stream).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    assert_eq!(relay.event("ended")["reason"], "killed");
    say(&mut other, "still here");
    hear(&mut other_server, "still here");
}

#[test]
fn a_new_plan_serves_new_flows_and_lets_old_ones_be() {
    let relay = Relay::new();
    let (old, old_addr) = target();
    let (new, new_addr) = target();
    let bound = relay.serve(plan(old_addr));
    let (mut client, mut server) = pair(&old, &bound);
    relay
        .engine
        .update(bound.handle, plan(new_addr), None)
        .unwrap();
    let (mut second, mut second_server) = pair(&new, &bound);
    for (one, other) in [
        (&mut client, &mut server),
        (&mut second, &mut second_server),
    ] {
        say(one, "hello");
        hear(other, "hello");
    }
    // With a drain time, flows of older plans end when it is over.
    let mut third = plan(new_addr);
    third.limits.connections = 10;
    relay
        .engine
        .update(bound.handle, third, Some(Duration::from_millis(100)))
        .unwrap();
    let ended = [relay.event("ended"), relay.event("ended")];
    for record in ended {
        assert_eq!(record["reason"], "drained");
    }
}

/// The drain time of one change is about the flows that were there then, and not about those whose
/// plan came back.
#[test]
fn a_drain_time_spares_newer_flows_and_plans_that_came_back() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut first = plan(addr);
    let bound = relay.serve(first.clone());
    let mut other = first.clone();
    other.limits.connections = 1_000;
    let drain = Some(Duration::from_millis(300));
    let update = |plan: &EndpointPlan, drain| {
        relay
            .engine
            .update(bound.handle, plan.clone(), drain)
            .unwrap();
    };
    // Tried, and taken back.
    let (mut old, mut old_server) = pair(&listener, &bound);
    update(&other, drain);
    update(&first, None);
    // A later change, with flows of its own.
    first.limits.connections = 2_000;
    update(&other, drain);
    let (mut new, mut new_server) = pair(&listener, &bound);
    update(&first, None);
    assert_eq!(relay.event("ended")["reason"], "drained");
    let gone = read_all(&mut old).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionReset);
    assert!(read_all(&mut old_server).is_err());
    say(&mut new, "still here");
    hear(&mut new_server, "still here");
    assert_eq!(relay.flows().len(), 1);
}

/// Splice stops before an urgent byte; the bytes behind it still arrive.
#[test]
fn bytes_behind_urgent_data_arrive_in_bulk_too() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    let before = pattern(4_000_000);
    let after = pattern(300_000);
    let sent = [before.clone(), after.clone()];
    let writer = std::thread::spawn(move || {
        client.write_all(&sent[0]).unwrap();
        // SAFETY: the pointer and length describe one byte.
        let count = unsafe {
            libc::send(
                std::os::fd::AsRawFd::as_raw_fd(&client),
                b"!".as_ptr().cast(),
                1,
                libc::MSG_OOB,
            )
        };
        assert_eq!(count, 1);
        client.write_all(&sent[1]).unwrap();
        end_writing(&client);
        client
    });
    let heard = read_all(&mut server).unwrap();
    drop(writer.join().unwrap());
    assert_eq!(heard.len(), before.len() + after.len());
    assert!(heard[..before.len()] == before && heard[before.len()..] == after);
}

#[test]
fn closing_frees_the_port_and_keeps_flows_until_the_drain_is_over() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let port = bound.tcp.unwrap();
    let (mut client, mut server) = pair(&listener, &bound);
    relay.engine.close(bound.handle, None).unwrap();
    assert!(TcpStream::connect(port).is_err());
    drop(TcpListener::bind(port).unwrap());
    say(&mut client, "alive");
    hear(&mut server, "alive");
    let stats = relay.stats();
    assert_eq!(stats["endpoints"][0]["closed"], true);
    assert_eq!(stats["endpoints"][0]["tcp"]["open"], 1);
    drop((client, server));
    relay.event("ended");
    eventually("its counters are told a last time", || {
        let endpoints = relay.stats()["endpoints"].clone();
        endpoints.as_array().unwrap().is_empty()
    });
}

#[test]
fn a_takeover_binds_an_address_that_an_older_endpoint_holds() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let old = relay.serve(plan(addr));
    let mut next = plan(addr);
    next.listen = old.tcp.unwrap().to_string();
    let bind = |takeover| {
        relay
            .engine
            .bind(relay.group, next.clone(), Inherited::default(), takeover)
    };
    let error = bind(false).unwrap_err();
    assert_eq!((error.code, error.errno), ("bind", Some(libc::EADDRINUSE)));
    let new = bind(true).unwrap();
    relay.engine.serve(&[new.handle]).unwrap();
    relay.engine.close(old.handle, None).unwrap();
    for _ in 0..20 {
        let (mut client, mut server) = pair(&listener, &new);
        say(&mut client, "x");
        hear(&mut server, "x");
    }
    // The counters go on where the old endpoint's ended.
    eventually("20 flows in one endpoint", || {
        let stats = relay.stats();
        let endpoints = stats["endpoints"].as_array().unwrap().clone();
        endpoints.len() == 1 && endpoints[0]["tcp"]["total"] == 20
    });
}

/// Connections that wait in the queue when an endpoint is replaced are served by its successor.
#[test]
fn nobody_in_the_queue_is_lost_at_a_takeover() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut current = relay.serve(plan(addr));
    let address = current.tcp.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let served = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            stream.write_all(&byte).unwrap();
        }
    });
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    say(&mut stream, "x");
                    hear(&mut stream, "x");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..50 {
        let mut next = plan(addr);
        next.listen = address.to_string();
        // Something that needs another socket beside the one that is kept.
        next.udp = (round % 2 == 0).then(UdpPlan::default);
        let bound = relay
            .engine
            .bind(relay.group, next, Inherited::default(), true)
            .unwrap();
        relay.engine.serve(&[bound.handle]).unwrap();
        relay.engine.close(current.handle, None).unwrap();
        current = bound;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    drop(TcpStream::connect(address).unwrap());
    served.join().unwrap();
}

/// Half of many connections end up on each worker, however they were accepted.
#[test]
fn flows_are_spread_over_the_workers() {
    let relay = Relay::with(2, &LimitsPlan::default());
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let _pairs: Vec<_> = (0..40).map(|_| pair(&listener, &bound)).collect();
    let flows = relay.flows();
    let on_first = flows.iter().filter(|flow| flow["worker"] == 0).count();
    assert_eq!(flows.len(), 40);
    assert!((10..=30).contains(&on_first), "{on_first} of 40");
}

#[test]
fn names_are_tried_in_all_their_addresses() {
    let relay = Relay::new();
    // `localhost` has an IPv4 address; nothing listens on IPv6 there.
    let (listener, addr) = target();
    let bound = relay.serve(plan_for("localhost", addr.port()));
    let (mut client, mut server) = pair(&listener, &bound);
    say(&mut client, "by name");
    hear(&mut server, "by name");
    let peer = addr.to_string();
    eventually("the record names it", || relay.flows()[0]["peer"] == peer);
}

#[test]
fn an_unknown_name_resets_the_client_and_says_why() {
    let relay = Relay::new();
    let bound = relay.serve(plan_for("does-not-exist.invalid", 80));
    let mut client = connect(&bound);
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    let ended = relay.event("ended");
    assert_eq!(ended["reason"], "resolve_failed");
    assert!(ended["detail"].as_str().unwrap().contains("does-not-exist"));
}

#[test]
fn a_source_address_is_used() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let mut plan = plan(addr);
    plan.through = Some("127.0.0.9:0".to_owned());
    let bound = relay.serve(plan);
    let (_client, server) = pair(&listener, &bound);
    assert_eq!(server.peer_addr().unwrap().ip().to_string(), "127.0.0.9");
    let seen = server.peer_addr().unwrap().to_string();
    eventually("the record names it", || relay.flows()[0]["source"] == seen);
}

#[test]
fn after_shutdown_everything_is_closed_and_calls_say_so() {
    let relay = Relay::new();
    let (listener, addr) = target();
    let bound = relay.serve(plan(addr));
    let (mut client, mut server) = pair(&listener, &bound);
    relay.engine.shutdown();
    for stream in [&mut client, &mut server] {
        // What was cut off doesn't look complete.
        let error = read_all(stream).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(relay.event("ended")["reason"], "shutdown");
    assert!(TcpStream::connect(bound.tcp.unwrap()).is_err());
    assert_eq!(relay.engine.flows(relay.group).unwrap_err().code, "closed");
    relay.engine.shutdown();
}
