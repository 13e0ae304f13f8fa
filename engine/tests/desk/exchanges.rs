//! Messages of HTTP between two sockets. What is ordinary about them is tried in `http`, and beside
//! Python in its tests; here is what a desk makes of it.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::FromRawFd;

use _engine::desk::Desk;
use _engine::desk::plan::ExchangePlan;
use _engine::flow::exchange::Left;

use crate::office::{Office, hear_out, pair};
use crate::support::{eventually, hear, say};

const GET: &str = "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n";
const PASSED: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 us\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 us\r\n\r\nok";

fn plan(office: &Office) -> ExchangePlan {
    ExchangePlan {
        flow: office.plan(),
        authority: "a.test".to_owned(),
        via: "us".to_owned(),
        credentials: None,
        checked: false,
        head_timeout: None,
        next_timeout: None,
        answer_timeout: None,
        told: false,
    }
}

fn exchange(office: &Office, plan: ExchangePlan, unread: &str) -> (u64, TcpStream, TcpStream) {
    let (client_fd, client) = pair();
    let (target_fd, target) = pair();
    let flow = office
        .desk
        .exchange(client_fd, target_fd, plan, unread.into())
        .unwrap();
    (flow, client, target)
}

fn left(desk: &Desk, flow: u64) -> Left {
    desk.recover(flow).expect("something is left")
}

/// A socket that is ours again.
fn stream(fd: Option<_engine::net::fd::Fd>) -> TcpStream {
    // SAFETY: it was given away, and is nobody else's.
    unsafe { TcpStream::from_raw_fd(fd.expect("open").give_away()) }
}

#[test]
fn messages_go_both_ways_until_the_client_ends() {
    let office = Office::open(1);
    let mut plan = plan(&office);
    plan.told = true;
    let (flow, mut client, mut target) = exchange(&office, plan, &GET[..9]);
    say(&mut client, &GET[9..]);
    for turn in 0..3 {
        hear(&mut target, PASSED);
        say(&mut target, OK);
        hear(&mut client, ANSWER);
        let told = office.hear(flow, "answered");
        assert_eq!(
            (&told["method"], &told["status"]),
            (&"GET".into(), &200.into())
        );
        assert_eq!(told["down"], ANSWER.len());
        if turn < 2 {
            say(&mut client, GET);
        }
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let ended = office.hear(flow, "ended");
    assert_eq!(ended["reason"], "client_closed");
    assert_eq!(ended["up"], 3 * PASSED.len());
    assert_eq!(ended["down"], 3 * ANSWER.len());
    let left = left(&office.desk, flow);
    assert!(left.client.is_none() && left.target.is_none() && left.requests == 3);
    assert!(office.desk.recover(flow).is_none(), "it was fetched");
    assert!(hear_out(&client).is_empty() && hear_out(&target).is_empty());
}

#[test]
fn what_is_out_of_the_ordinary_comes_back_untouched() {
    let office = Office::open(1);
    let odd = "GET http://b.test/ HTTP/1.1\r\n\r\nand more";
    let (flow, mut client, mut target) = exchange(&office, plan(&office), GET);
    hear(&mut target, PASSED);
    say(&mut target, OK);
    say(&mut client, odd);
    hear(&mut client, ANSWER);
    assert_eq!(office.hear(flow, "ended")["reason"], "handed_back");
    let left = left(&office.desk, flow);
    assert_eq!((left.why, left.requests), ("request", 1));
    assert_eq!((left.unread, left.asked), (odd.into(), Vec::new()));
    // Both go on as what they were.
    say(&mut stream(left.client), "to the client");
    hear(&mut client, "to the client");
    say(&mut stream(left.target), "to the target");
    hear(&mut target, "to the target");
}

#[test]
fn an_answer_out_of_the_ordinary_comes_back_with_its_question() {
    let office = Office::open(1);
    let odd = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
    let (flow, mut client, mut target) = exchange(&office, plan(&office), GET);
    say(&mut client, "more of the client");
    hear(&mut target, PASSED);
    say(&mut target, odd);
    assert_eq!(office.hear(flow, "ended")["reason"], "handed_back");
    let left = left(&office.desk, flow);
    assert_eq!((left.why, left.requests), ("answer", 0));
    assert_eq!(left.asked, GET.as_bytes());
    assert_eq!(left.answered, odd.as_bytes());
    assert_eq!(left.up, PASSED.len() as u64);
    // What the client said behind its request was not read yet.
    assert!(left.unread.is_empty());
    hear(&mut stream(left.client), "more of the client");
}

#[test]
fn a_body_goes_with_its_head_or_not_at_all() {
    let office = Office::open(1);
    for (size, why) in [(60_000, None), (70_000, Some("body"))] {
        let head = format!("PUT http://a.test/ HTTP/1.1\r\nContent-Length: {size}\r\n\r\n");
        let (flow, mut client, mut target) = exchange(&office, plan(&office), &head);
        let body = "x".repeat(size);
        client.write_all(body.as_bytes()).unwrap();
        if let Some(why) = why {
            assert_eq!(office.hear(flow, "ended")["detail"], why);
            assert_eq!(left(&office.desk, flow).unread, head.as_bytes());
            continue;
        }
        hear(
            &mut target,
            &format!(
                "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\nVia: 1.1 us\r\n\r\n{body}"
            ),
        );
    }
}

#[test]
fn an_owner_that_does_not_listen_gets_its_work_back() {
    let office = Office::with_reports(1, 2);
    let mut plan = plan(&office);
    plan.told = true;
    let (flow, mut client, mut target) = exchange(&office, plan, "");
    for _ in 0..2 {
        say(&mut client, GET);
        hear(&mut target, PASSED);
        say(&mut target, OK);
        hear(&mut client, ANSWER);
    }
    eventually("the flow ends", || {
        office.engine.flows(office.group).unwrap() == "[]"
    });
    assert_eq!(office.hear(flow, "ended")["detail"], "reports");
    assert_eq!(left(&office.desk, flow).requests, 2);
}

#[test]
fn a_closed_desk_leaves_nothing() {
    let office = Office::open(1);
    let (flow, mut client, _target) = exchange(&office, plan(&office), "nonsense\r\n\r\n");
    office.hear(flow, "ended");
    office.desk.shutdown();
    assert!(office.desk.recover(flow).is_none());
    // The socket was not fetched, so it is gone.
    assert!(std::io::Read::read(&mut client, &mut [0; 8]).map_or(true, |count| count == 0));
}
