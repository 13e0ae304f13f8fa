//! Datagrams pass, in order and whole; associations begin and end.

use std::time::{Duration, Instant};

use _engine::plan::UdpPlan;

use crate::relay::{Echo, Relay, ask, client, plan, receive, socket};

#[test]
fn a_datagram_goes_there_and_back() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", echo.addr));
    let client = client(relay.addr);
    assert_eq!(ask(&client, b"hello"), b"hello");
    assert_eq!(ask(&client, b""), b"");
    let flows = relay.flows();
    assert_eq!(flows.len(), 1);
    let flow = &flows[0];
    assert_eq!(flow["client"], client.local_addr().unwrap().to_string());
    assert_eq!(flow["peer"], echo.addr.to_string());
    assert_eq!(flow["protocol"], "udp");
    assert_eq!(flow["state"], "open");
    assert_eq!(flow["listener"], relay.addr.to_string());
    for (name, count) in [
        ("packets_up", 2),
        ("packets_down", 2),
        ("bytes_up", 5),
        ("bytes_down", 5),
    ] {
        assert_eq!(flow[name], count, "{name}");
        assert_eq!(relay.count(&format!("/{name}")), count, "{name}");
    }
}

#[test]
fn the_longest_datagram_passes_whole() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", echo.addr));
    let client = client(relay.addr);
    let message: Vec<u8> = (0..65_507_u32).map(|index| (index % 251) as u8).collect();
    assert_eq!(ask(&client, &message), message);
}

#[test]
fn each_client_has_its_own_answers() {
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", echo.addr));
    let clients: Vec<_> = (0..20).map(|_| client(relay.addr)).collect();
    for round in 0..5 {
        for (number, client) in clients.iter().enumerate() {
            client.send(format!("{number}/{round}").as_bytes()).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            assert_eq!(receive(client), format!("{number}/{round}").as_bytes());
        }
    }
    assert_eq!(relay.flows().len(), clients.len());
}

#[test]
fn order_is_kept_in_both_directions() {
    const COUNT: u32 = 10_000;
    const WINDOW: u32 = 50;
    let echo = Echo::start("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", echo.addr));
    let client = client(relay.addr);
    let mut sent = 0;
    for expected in 0..COUNT {
        while sent < COUNT.min(expected + WINDOW) {
            // Sizes that form trains, break them, and are too large for them.
            let len = match sent % 10 {
                0 => 4,
                9 => 1_000,
                _ => 500,
            };
            let mut message = vec![0; len];
            message[..4].copy_from_slice(&sent.to_le_bytes());
            client.send(&message).unwrap();
            sent += 1;
        }
        assert_eq!(receive(&client)[..4], expected.to_le_bytes());
    }
}

#[test]
fn whoever_knows_the_address_may_answer() {
    let target = socket("127.0.0.1:0");
    let stranger = socket("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", target.local_addr().unwrap()));
    let client = client(relay.addr);
    client.send(b"hello").unwrap();
    let (_, source) = target.recv_from(&mut [0; 16]).unwrap();
    stranger.send_to(b"from elsewhere", source).unwrap();
    assert_eq!(receive(&client), b"from elsewhere");
}

fn with_timeout(relay: &mut _engine::plan::EndpointPlan, seconds: f64) {
    relay.udp = Some(UdpPlan { timeout: seconds });
}

#[test]
fn silence_ends_an_association() {
    let echo = Echo::start("127.0.0.1:0");
    let mut plan = plan("127.0.0.1:0", echo.addr);
    with_timeout(&mut plan, 0.2);
    let relay = Relay::start(plan);
    let clients = [client(relay.addr), client(relay.addr)];
    let start = Instant::now();
    for client in &clients {
        ask(client, b"hello");
    }
    relay.wait_for("expired", |relay| relay.count("/ended/expired") == 2);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(relay.flows().is_empty());
    // The next datagram begins a new one.
    assert_eq!(ask(&clients[0], b"again"), b"again");
    let events = relay.engine.next_events(Duration::from_secs(5)).unwrap();
    assert!(events[0].contains(r#""reason":"expired""#), "{events:?}");
}

/// Sends in one direction alone for several times the timeout.
fn one_way(from_target: bool) {
    let target = socket("127.0.0.1:0");
    let mut plan = plan("127.0.0.1:0", target.local_addr().unwrap());
    with_timeout(&mut plan, 0.3);
    let relay = Relay::start(plan);
    let client = client(relay.addr);
    client.send(b"first").unwrap();
    let (_, source) = target.recv_from(&mut [0; 16]).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_000) {
        let receiver = if from_target {
            target.send_to(b"down", source).unwrap();
            &client
        } else {
            client.send(b"up").unwrap();
            &target
        };
        receiver.recv_from(&mut [0; 16]).unwrap();
        // Paced by the clock: the time that passes is what is tested.
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(relay.count("/total"), 1);
    assert_eq!(relay.count("/ended/expired"), 0);
}

#[test]
fn a_flow_from_the_client_alone_stays_alive() {
    one_way(false);
}

#[test]
fn a_flow_from_the_target_alone_stays_alive() {
    one_way(true);
}

#[test]
fn a_killed_association_begins_anew_from_another_port() {
    let target = socket("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", target.local_addr().unwrap()));
    let client = client(relay.addr);
    client.send(b"one").unwrap();
    let (_, before) = target.recv_from(&mut [0; 16]).unwrap();
    let id = relay.flows()[0]["id"].as_u64().unwrap();
    assert!(relay.engine.kill(relay.group, id).unwrap());
    assert_eq!(relay.count("/ended/killed"), 1);
    assert!(!relay.engine.kill(relay.group, id).unwrap());
    client.send(b"two").unwrap();
    let (_, after) = target.recv_from(&mut [0; 16]).unwrap();
    assert_ne!(before, after);
}
