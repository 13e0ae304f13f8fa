//! Legs before they are flows.

use std::io::{Read, Write};
use std::net::TcpListener;

use _engine::desk::plan::DialPlan;

use crate::office::{Office, hear_out, pair};
use crate::support::{end_writing, hear, pattern, reset, say};

#[test]
fn legs_of_different_workers_meet() {
    let office = Office::open(3);
    for _ in 0..30 {
        let (client_leg, mut client) = office.adopt();
        let (target_leg, mut target) = office.adopt();
        say(&mut client, "hello and more");
        say(&mut target, "welcome and more");
        assert_eq!(office.read(client_leg, 5), b"hello");
        assert_eq!(office.read(target_leg, 7), b"welcome");
        assert_eq!(office.desk.write(client_leg, b"ok").unwrap(), 2);
        let flow = office
            .desk
            .join(
                client_leg,
                target_leg,
                office.plan(),
                b"lo".into(),
                Vec::new(),
            )
            .unwrap();
        end_writing(&client);
        end_writing(&target);
        assert_eq!(hear_out(&target), b"lo and more");
        assert_eq!(hear_out(&client), b"ok and more");
        office.hear(flow, "ended");
    }
}

#[test]
fn legs_are_left_in_any_state() {
    let office = Office::open(2);
    let (deaf, _) = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap(), listener)
    };
    for round in 0..60 {
        let (leg, mut peer) = office.adopt();
        let (other, _other_peer) = office.adopt();
        let dialled = office
            .desk
            .dial(DialPlan {
                addresses: vec![deaf.to_string()],
                ..DialPlan::default()
            })
            .unwrap();
        if round % 2 == 0 {
            let _ = office.desk.read(leg, 1, |_, _| ());
            say(&mut peer, "words");
        }
        if round % 3 == 0 {
            let _ = office.desk.write(other, &pattern(100_000));
        }
        if round % 5 == 0 {
            let joined = office
                .desk
                .join(leg, other, office.plan(), Vec::new(), Vec::new())
                .unwrap();
            office.desk.cut(joined).unwrap();
            assert_eq!(office.hear(joined, "ended")["reason"], "killed");
        }
        for handle in [leg, other, dialled] {
            match round % 7 {
                0 => office.desk.close(handle),
                _ => office.desk.abort(handle),
            }
        }
        if round % 4 == 0 {
            reset(peer);
        }
    }
    // Nothing that was left says anything any more.
    let (leg, mut peer) = office.adopt();
    say(&mut peer, "x");
    assert_eq!(office.read(leg, 1), b"x");
    assert!(office.desk.take().is_empty());
}

#[test]
fn what_fails_is_not_taken() {
    let office = Office::open(1);
    let (raw, mut peer) = pair();
    let error = office
        .desk
        .lower(raw, 1 << 20, office.plan(), Vec::new(), Vec::new())
        .unwrap_err();
    assert_eq!((error.code, error.errno), ("descriptor", Some(libc::EBADF)));
    let leg = office.desk.adopt(raw, b"un".into()).unwrap();
    let error = office.desk.adopt(raw, Vec::new()).unwrap_err();
    assert_eq!((error.code, error.errno), ("descriptor", Some(libc::EBUSY)));
    peer.write_all(b"read").unwrap();
    assert_eq!(office.read(leg, 6), b"unread");
}

#[test]
fn a_closed_leg_says_all_it_was_given() {
    let office = Office::open(1);
    let (leg, mut peer) = office.adopt();
    let words = pattern(128 * 1024);
    say(&mut peer, "nobody reads this");
    assert_eq!(office.desk.write(leg, &words).unwrap(), words.len());
    office.desk.close(leg);
    assert_eq!(hear_out(&peer), words);
}

#[test]
fn an_engine_that_ends_resets_what_is_held() {
    let office = Office::open(1);
    let (_parked, parked_peer) = office.adopt();
    let (leg, mut peer) = office.adopt();
    say(&mut peer, "x");
    assert_eq!(office.read(leg, 1), b"x");
    assert_eq!(office.desk.write(leg, b"y").unwrap(), 1);
    hear(&mut peer, "y");
    office.engine.shutdown();
    for mut end in [parked_peer, peer] {
        let error = end.read(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
}
