//! Trains in and out.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};

use _engine::net::socket::set;

use crate::relay::{Relay, client, plan, receive, socket};

fn pattern(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 7 + at) as u8).collect()
}

fn send_train(socket: &UdpSocket, sizes: &[usize]) {
    let train: Vec<u8> = sizes
        .iter()
        .enumerate()
        .flat_map(|(number, size)| pattern(number, *size))
        .collect();
    let segment = sizes[0] as libc::c_int;
    set(
        &socket.as_raw_fd(),
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        segment,
    )
    .unwrap();
    assert_eq!(socket.send(&train).unwrap(), train.len());
    set(&socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).unwrap();
}

fn expect(socket: &UdpSocket, sizes: &[usize]) {
    for (number, size) in sizes.iter().enumerate() {
        assert_eq!(receive(socket), pattern(number, *size), "datagram {number}");
    }
}

const SIZES: [usize; 5] = [1_200, 1_200, 1_200, 1_200, 300];

#[test]
fn a_train_from_the_client_arrives_as_its_datagrams() {
    let target = socket("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", target.local_addr().unwrap()));
    let client = client(relay.addr);
    for _ in 0..10 {
        send_train(&client, &SIZES);
        expect(&target, &SIZES);
    }
    assert_eq!(relay.count("/packets_up"), 50);
    assert_eq!(relay.count("/bytes_up"), 10 * 5_100);
}

#[test]
fn a_train_from_the_target_arrives_as_its_datagrams() {
    let target = socket("127.0.0.1:0");
    let relay = Relay::start(plan("0.0.0.0:0", target.local_addr().unwrap()));
    let client = client(([127, 0, 0, 5], relay.addr.port()).into());
    client.send(b"hello").unwrap();
    let (_, source) = target.recv_from(&mut [0; 16]).unwrap();
    target.connect(source).unwrap();
    for _ in 0..10 {
        send_train(&target, &SIZES);
        expect(&client, &SIZES);
    }
    assert_eq!(relay.count("/packets_down"), 50);
}

#[test]
fn trains_of_the_smallest_datagrams_keep_within_the_limits() {
    let target = socket("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", target.local_addr().unwrap()));
    let client = client(relay.addr);
    let sizes = [8; 64];
    for _ in 0..5 {
        send_train(&client, &sizes);
        expect(&target, &sizes);
    }
}

/// Sends much in one direction, as fast as the other end takes it, and then a little.
fn one_way(from: &UdpSocket, to: &UdpSocket) {
    const COUNT: u32 = 40_000;
    const WINDOW: u32 = 100;
    let received = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                while number >= received.load(Ordering::Acquire) + WINDOW {
                    std::thread::yield_now();
                }
                let mut message = [0; 600];
                message[..4].copy_from_slice(&number.to_le_bytes());
                from.send(&message).unwrap();
            }
        });
        for number in 0..COUNT {
            assert_eq!(receive(to)[..4], number.to_le_bytes());
            received.store(number + 1, Ordering::Release);
        }
    });
    for number in 0..10_u8 {
        from.send(&[number]).unwrap();
        assert_eq!(receive(to), [number]);
    }
}

#[test]
fn much_in_either_direction_comes_whole_and_in_order() {
    let target = socket("127.0.0.1:0");
    let relay = Relay::start(plan("127.0.0.1:0", target.local_addr().unwrap()));
    let client = client(relay.addr);
    client.send(b"hello").unwrap();
    let (_, source) = target.recv_from(&mut [0; 16]).unwrap();
    target.connect(source).unwrap();
    one_way(&client, &target);
    one_way(&target, &client);
    one_way(&client, &target);
    assert_eq!(relay.count("/packets_up"), 2 * 40_010 + 1);
    assert_eq!(relay.count("/packets_down"), 40_010);
}
