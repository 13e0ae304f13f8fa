//! Decisions of the owner's about flows, with real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use _engine::engine::Bound;
use _engine::plan::{
    AcceptProxy, Balance, EndpointPlan, HookPlan, LimitsPlan, OnFailure, ProxyProtocolPlan,
    RemotePlan,
};
use serde_json::{Value, json};
use support::*;

/// One endpoint with a hook and two targets.
struct Site {
    relay: Relay,
    bound: Bound,
    targets: Vec<TcpListener>,
}

impl Site {
    fn new(hook: HookPlan, change: impl FnOnce(&mut EndpointPlan)) -> Self {
        let relay = Relay::new();
        relay.engine.listen_to_questions().unwrap();
        let (targets, addrs): (Vec<_>, Vec<_>) = (0..2).map(|_| target()).unzip();
        let mut wanted = EndpointPlan {
            remotes: addrs
                .iter()
                .map(|addr| RemotePlan {
                    host: addr.ip().to_string(),
                    port: addr.port(),
                })
                .collect(),
            hook: Some(hook),
            ..plan(addrs[0])
        };
        change(&mut wanted);
        let bound = relay.serve(wanted);
        Self {
            relay,
            bound,
            targets,
        }
    }

    fn questions(&self, count: usize) -> Vec<Value> {
        let mut taken: Vec<Value> = Vec::new();
        eventually("the questions come", || {
            let texts = self.relay.engine.take_questions();
            taken.extend(texts.iter().map(|text| serde_json::from_str(text).unwrap()));
            taken.len() >= count
        });
        assert_eq!(taken.len(), count);
        taken
    }

    fn question(&self) -> Value {
        self.questions(1).remove(0)
    }

    fn answer(&self, question: &Value, mut answer: Value) {
        answer["id"] = question["id"].clone();
        let answers = serde_json::from_value(json!([answer])).unwrap();
        self.relay.engine.answer(answers);
    }

    fn ends(&self) -> (String, String) {
        let record = self.relay.event("ended");
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("detail"))
    }

    /// The flow that comes next reaches this target with what the client says.
    fn arrives(&self, at: usize, client: &std::net::TcpStream) {
        let (mut server, _) = self.targets[at].accept().unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let mut client = client;
        client.write_all(b"at last").unwrap();
        hear(&mut server, "at last");
    }

    fn counted(&self) -> Value {
        self.relay.stats()["endpoints"][0]["hook"].clone()
    }
}

fn asking() -> HookPlan {
    HookPlan {
        call: "rules:decide".to_owned(),
        timeout: 8.0,
        ..HookPlan::default()
    }
}

#[test]
fn a_flow_waits_for_its_answer_and_says_so() {
    let site = Site::new(asking(), |_| {});
    let client = connect(&site.bound);
    let question = site.question();
    let local = client.local_addr().unwrap().to_string();
    assert_eq!(question["kind"], "ask");
    assert_eq!(question["group"], site.relay.group);
    assert_eq!(question["endpoint"], "test");
    assert_eq!(question["call"], "rules:decide");
    assert_eq!(question["client"], local);
    assert_eq!(question["via"], Value::Null);
    assert_eq!(question["listener"], site.bound.tcp.unwrap().to_string());
    assert_eq!(question["first_bytes"], "");
    assert_eq!(question["timeout"], 8.0);
    let remotes: Vec<_> = site
        .targets
        .iter()
        .map(|target| target.local_addr().unwrap().to_string())
        .collect();
    assert_eq!(question["remotes"], json!(remotes));
    let flows = site.relay.flows();
    assert_eq!(flows[0]["state"], "deciding");
    assert_eq!(flows[0]["id"], question["id"]);
    assert_eq!(site.counted()["pending"], 1);
    site.answer(&question, json!({"answer": "allow"}));
    site.arrives(0, &client);
    assert_eq!(
        site.counted(),
        json!({"pending": 0, "allowed": 1, "refused": 0, "failed": 0})
    );
}

#[test]
fn an_answer_chooses_the_remote_or_refuses() {
    let site = Site::new(asking(), |_| {});
    for at in [1, 0] {
        let client = connect(&site.bound);
        let question = site.question();
        site.answer(&question, json!({"answer": "remote", "index": at}));
        site.arrives(at, &client);
        drop(client);
        site.relay.event("ended");
    }
    for (answer, why) in [
        (
            json!({"answer": "refuse", "reason": "not today"}),
            "not today",
        ),
        (
            json!({"answer": "remote", "index": 2}),
            "the hook chose remote 2 of 2",
        ),
    ] {
        let mut client = connect(&site.bound);
        let question = site.question();
        site.answer(&question, answer);
        assert!(read_all(&mut client).is_err(), "a reset, no orderly end");
        assert_eq!(site.ends(), ("hook_refused".to_owned(), why.to_owned()));
    }
    assert_eq!(site.counted()["refused"], 2);
}

#[test]
fn with_a_balancer_the_hook_only_refuses() {
    let site = Site::new(asking(), |plan| plan.balance = Balance::Failover);
    let client = connect(&site.bound);
    let question = site.question();
    site.answer(&question, json!({"answer": "remote", "index": 1}));
    site.arrives(0, &client);
    let mut client = connect(&site.bound);
    let question = site.question();
    site.answer(&question, json!({"answer": "remote", "index": 2}));
    assert!(read_all(&mut client).is_err());
}

#[test]
fn first_bytes_are_shown_and_not_taken() {
    let site = Site::new(
        HookPlan {
            first_bytes: 6,
            ..asking()
        },
        |_| {},
    );
    let mut client = connect(&site.bound);
    client.set_nodelay(true).unwrap();
    for piece in ["ab", "cd", "efgh"] {
        say(&mut client, piece);
    }
    let question = site.question();
    assert_eq!(question["first_bytes"], "616263646566");
    site.answer(&question, json!({"answer": "remote", "index": 1}));
    let (mut server, _) = site.targets[1].accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    hear(&mut server, "abcdefgh");
    // One that says less and ends is not waited for.
    let mut client = connect(&site.bound);
    say(&mut client, "x");
    end_writing(&client);
    let question = site.question();
    assert_eq!(question["first_bytes"], "78");
    site.answer(&question, json!({"answer": "allow"}));
    let (mut server, _) = site.targets[0].accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(read_all(&mut server).unwrap(), b"x");
}

#[test]
fn a_silent_client_is_asked_about_at_half_time() {
    let site = Site::new(
        HookPlan {
            first_bytes: 60_000,
            timeout: 2.0,
            ..asking()
        },
        |_| {},
    );
    let began = Instant::now();
    let mut client = connect(&site.bound);
    say(&mut client, "hi");
    let question = site.question();
    assert!(began.elapsed() >= Duration::from_millis(950));
    assert_eq!(question["first_bytes"], "6869");
    let left = question["timeout"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 1.05, "{left}");
    site.answer(&question, json!({"answer": "allow"}));
    let (mut server, _) = site.targets[0].accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    hear(&mut server, "hi");
}

#[test]
fn without_a_decision_the_plan_decides() {
    for (on_failure, fails) in [(OnFailure::Refuse, true), (OnFailure::Allow, false)] {
        let site = Site::new(
            HookPlan {
                timeout: 0.2,
                on_failure,
                ..asking()
            },
            |_| {},
        );
        // Nobody answers in time; then an answer says that there is no decision.
        for (late, why) in [(true, "the hook took too long"), (false, "it broke")] {
            let mut client = connect(&site.bound);
            let question = site.question();
            if !late {
                site.answer(&question, json!({"answer": "failed", "reason": why}));
            }
            if fails {
                assert!(read_all(&mut client).is_err());
                assert_eq!(site.ends(), ("hook_failed".to_owned(), why.to_owned()));
            } else {
                site.arrives(0, &client);
            }
            // Nobody is surprised by what comes too late.
            site.answer(&question, json!({"answer": "refuse", "reason": "late"}));
        }
        assert_eq!(site.counted()["failed"], 2);
        let notice = site.relay.event("notice");
        assert_eq!(notice["code"], "hook_failed");
    }
}

#[test]
fn while_nobody_fetches_questions_hooks_fail() {
    let relay = Relay::new();
    let (_target, addr) = target();
    let bound = relay.serve(EndpointPlan {
        hook: Some(asking()),
        ..plan(addr)
    });
    // The reset may come before it knows that it is connected.
    if let Ok(mut client) = TcpStream::connect(bound.tcp.unwrap()) {
        assert!(read_all(&mut client).is_err());
    }
    let record = relay.event("ended");
    assert_eq!(record["reason"], "hook_failed");
    assert_eq!(record["detail"], "nobody fetches the questions");
}

#[test]
fn flows_that_wait_can_be_killed_and_their_clients_can_go() {
    let site = Site::new(asking(), |_| {});
    let client = connect(&site.bound);
    let question = site.question();
    reset(client);
    assert_eq!(site.ends().0, "client_reset");
    site.answer(&question, json!({"answer": "allow"}));
    let mut client = connect(&site.bound);
    let question = site.question();
    let id = question["id"].as_u64().unwrap();
    assert!(site.relay.engine.kill(site.relay.group, id).unwrap());
    assert!(read_all(&mut client).is_err());
    assert_eq!(site.ends().0, "killed");
    assert_eq!(site.counted()["pending"], 0);
}

#[test]
fn one_flow_that_waits_holds_up_no_other() {
    let site = Site::new(asking(), |_| {});
    let clients: Vec<_> = (0..200).map(|_| connect(&site.bound)).collect();
    let questions = site.questions(200);
    // The last comes first, and the first never.
    for question in questions[1..].iter().rev() {
        site.answer(question, json!({"answer": "remote", "index": 1}));
    }
    let served: Vec<_> = (1..200)
        .map(|_| site.targets[1].accept().unwrap())
        .collect();
    assert_eq!(served.len(), 199);
    assert_eq!(site.counted()["pending"], 1);
    drop(clients);
}

fn allow_descriptors(count: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are to a live local.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_cur.max(count);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

#[test]
fn more_flows_than_may_wait_are_failures() {
    allow_descriptors(10_000);
    let relay = Relay::with(1, &LimitsPlan::default());
    relay.engine.listen_to_questions().unwrap();
    let (_target, addr) = target();
    let bound = relay.serve(EndpointPlan {
        hook: Some(asking()),
        ..plan(addr)
    });
    let mut clients = Vec::new();
    let hook = |key: &str| relay.stats()["endpoints"][0]["hook"][key].as_u64().unwrap();
    let most = 4_096;
    for _ in 0..most + 100 {
        // Those beyond may be reset before they know that they are connected.
        clients.extend(TcpStream::connect(bound.tcp.unwrap()));
    }
    eventually("the others failed", || hook("failed") == 100);
    assert_eq!(hook("pending"), most);
    drop(clients);
}

#[test]
fn the_announced_client_is_who_is_asked_about() {
    let site = Site::new(asking(), |plan| {
        plan.proxy = ProxyProtocolPlan {
            accept: AcceptProxy::Required,
            ..ProxyProtocolPlan::default()
        };
    });
    let mut client = connect(&site.bound);
    say(&mut client, "PROXY TCP4 192.0.2.7 192.0.2.1 4000 80\r\n");
    let question = site.question();
    assert_eq!(question["client"], "192.0.2.7:4000");
    assert_eq!(question["via"], client.local_addr().unwrap().to_string());
    site.answer(&question, json!({"answer": "allow"}));
    site.arrives(0, &client);
}

#[test]
fn what_no_buffer_holds_is_no_plan() {
    let relay = Relay::new();
    let (_target, addr) = target();
    let error = relay
        .engine
        .bind(
            relay.group,
            EndpointPlan {
                hook: Some(HookPlan {
                    first_bytes: 65_537,
                    ..asking()
                }),
                ..plan(addr)
            },
            _engine::binding::Inherited::default(),
            false,
        )
        .unwrap_err();
    assert!(error.message.contains("hook.first_bytes"), "{error}");
}
