//! Two sockets become a flow.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;

use crate::office::{Office, hear_out, pair};
use crate::support::{end_writing, eventually, hear, pattern, say};

fn lower(office: &Office, up: &[u8], down: &[u8]) -> (u64, TcpStream, TcpStream) {
    let (client_fd, client) = pair();
    let (target_fd, target) = pair();
    let flow = office
        .desk
        .lower(client_fd, target_fd, office.plan(), up.into(), down.into())
        .unwrap();
    (flow, client, target)
}

#[test]
fn what_was_read_before_goes_first() {
    let office = Office::open(2);
    let (flow, mut client, mut target) = lower(&office, b"one ", b"uno ");
    say(&mut client, "two");
    say(&mut target, "due");
    hear(&mut target, "one two");
    hear(&mut client, "uno due");
    assert_eq!(office.desk.counted(flow).unwrap(), Some((7, 7)));
    end_writing(&client);
    end_writing(&target);
    let ended = office.hear(flow, "ended");
    assert_eq!((&ended["up"], &ended["down"]), (&7.into(), &7.into()));
}

#[test]
fn more_than_a_socket_holds_waits_for_its_reader() {
    let office = Office::open(1);
    let up = pattern(8 << 20);
    let (flow, client, target) = lower(&office, &up, b"");
    end_writing(&client);
    assert_eq!(hear_out(&target), up);
    end_writing(&target);
    assert_eq!(office.hear(flow, "ended")["up"], up.len());
}

#[test]
fn flows_are_spread_over_the_workers() {
    let office = Office::open(4);
    let flows: Vec<_> = (0..40).map(|_| lower(&office, b"x", b"")).collect();
    for (_, _, target) in &flows {
        let mut target = target;
        hear(&mut target.try_clone().unwrap(), "x");
        target.write_all(b"y").unwrap();
    }
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&office.engine.flows(office.group).unwrap()).unwrap();
    let workers: Vec<_> = rows.iter().map(|row| row["worker"].as_u64()).collect();
    for worker in 0..4 {
        let mine = workers.iter().filter(|at| **at == Some(worker)).count();
        assert!((8..=12).contains(&mine), "{workers:?}");
    }
    let ids: HashSet<_> = flows.iter().map(|(flow, ..)| flow).collect();
    assert_eq!(ids.len(), 40);
}

#[test]
fn numbers_of_flows_and_legs_never_meet() {
    let office = Office::open(1);
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let (leg, _theirs) = office.adopt();
        let (flow, client, target) = lower(&office, b"", b"");
        assert!(seen.insert(leg) && seen.insert(flow));
        office.desk.abort(leg);
        drop((client, target));
        office.hear(flow, "ended");
    }
}

#[test]
fn the_end_of_the_desk_is_the_end_of_its_flows() {
    let office = Office::open(2);
    let (_, client, target) = lower(&office, b"x", b"y");
    let mut client_half = client.try_clone().unwrap();
    hear(&mut client_half, "y");
    let mut target_half = target.try_clone().unwrap();
    hear(&mut target_half, "x");
    office.desk.shutdown();
    for mut end in [client, target] {
        let error = std::io::Read::read(&mut end, &mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
    eventually("no flow is left", || {
        office.engine.flows(office.group).unwrap() == "[]"
    });
}
