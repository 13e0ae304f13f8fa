//! Strategies: their vectors, proportions, and what moves when a remote leaves.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use _engine::balance::{Candidate, Chooser, RoundRobin, WHOLE, mix, seed};
use _engine::plan::Balance;

fn weighted(weights: &[u32]) -> Vec<Option<Candidate>> {
    weights
        .iter()
        .enumerate()
        .map(|(place, weight)| {
            Some(Candidate {
                weight: *weight,
                open: 0,
                seed: seed(&format!("10.0.0.{place}:80"), 0),
                share: WHOLE,
            })
        })
        .collect()
}

fn anybody() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn client(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

fn turns(weights: &[u32], count: usize) -> Vec<usize> {
    let mut turns = RoundRobin::new(weights.len());
    let candidates = weighted(weights);
    (0..count)
        .map(|_| turns.pick(&candidates).unwrap())
        .collect()
}

#[test]
fn round_robin_follows_the_published_vectors() {
    let vectors: [(&[u32], &[usize]); 6] = [
        (&[4, 2, 1], &[0, 1, 0, 2, 0, 1, 0]),
        (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
        (&[1, 1, 1], &[0, 1, 2]),
        (&[1, 0, 2], &[2, 0, 2]),
        (&[2, 3], &[1, 0, 1, 0, 1]),
        (&[0, 0], &[0, 0, 0]),
    ];
    for (weights, cycle) in vectors {
        let expected: Vec<_> = cycle
            .iter()
            .copied()
            .cycle()
            .take(3 * cycle.len())
            .collect();
        assert_eq!(turns(weights, expected.len()), expected, "{weights:?}");
    }
}

#[test]
fn round_robin_takes_weights_beyond_16_bits_in_sum() {
    let weights = vec![255; 255];
    let mut picked = turns(&weights, 255);
    picked.sort_unstable();
    assert_eq!(picked, (0..255).collect::<Vec<_>>());
}

#[test]
fn round_robin_passes_over_those_that_are_away_and_stays_fair() {
    let mut turns = RoundRobin::new(3);
    let all = weighted(&[1, 1, 1]);
    let mut without = all.clone();
    without[1] = None;
    let mut count = [0; 3];
    for _ in 0..100 {
        count[turns.pick(&without).unwrap()] += 1;
    }
    assert_eq!(count, [50, 0, 50]);
    let later: Vec<_> = (0..6).map(|_| turns.pick(&all).unwrap()).collect();
    for place in 0..3 {
        assert_eq!(
            later.iter().filter(|one| **one == place).count(),
            2,
            "{later:?}"
        );
    }
    assert_eq!(turns.pick(&[None, None, None]), None);
    assert_eq!(turns.pick(&[]), None);
}

/// Where each of many clients goes.
fn homes(candidates: &[Option<Candidate>], clients: u32) -> Vec<usize> {
    let chooser = Chooser::new(Balance::Iphash, candidates.len());
    (0..clients)
        .map(|number| chooser.pick(candidates, client(number)).unwrap())
        .collect()
}

fn shares(homes: &[usize], remotes: usize) -> Vec<f64> {
    let mut count = vec![0_u32; remotes];
    for home in homes {
        count[*home] += 1;
    }
    count
        .into_iter()
        .map(|count| f64::from(count) / homes.len() as f64)
        .collect()
}

#[test]
fn iphash_spreads_clients_by_weight() {
    let shares = shares(&homes(&weighted(&[1, 0, 2, 5]), 40_000), 4);
    for (share, expected) in shares.iter().zip([0.125, 0.0, 0.25, 0.625]) {
        assert!((share - expected).abs() < 0.01, "{shares:?}");
    }
}

#[test]
fn iphash_spreads_neighbouring_ipv6_clients_too() {
    let chooser = Chooser::new(Balance::Iphash, 2);
    let candidates = weighted(&[1, 1]);
    for shift in [0, 16, 64, 100] {
        let first = (0..10_000_u128)
            .map(|number| IpAddr::V6(Ipv6Addr::from((0x2001_0db8 << 96) ^ (number << shift))))
            .filter(|client| chooser.pick(&candidates, *client) == Some(0))
            .count();
        assert!((4_700..5_300).contains(&first), "{first} at {shift}");
    }
}

#[test]
fn iphash_moves_only_the_clients_of_a_remote_that_leaves() {
    let all = weighted(&[1, 1, 1, 1]);
    let before = homes(&all, 10_000);
    let mut left = all.clone();
    left[2] = None;
    let after = homes(&left, 10_000);
    for (was, is) in before.iter().zip(&after) {
        assert!(*was == 2 || was == is);
        assert_ne!(*is, 2);
    }
    // Those that moved are spread over the others.
    let moved: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(was, _)| **was == 2)
        .map(|(_, is)| *is)
        .collect();
    for (place, share) in shares(&moved, 4).into_iter().enumerate() {
        assert!(place == 2 || (share - 0.333).abs() < 0.05);
    }
}

#[test]
fn iphash_keeps_clients_when_the_list_is_put_in_another_order() {
    let all = weighted(&[1, 2, 3]);
    let mut turned = all.clone();
    turned.reverse();
    for (one, other) in homes(&all, 1_000).iter().zip(homes(&turned, 1_000)) {
        assert_eq!(*one, 2 - other);
    }
}

#[test]
fn iphash_takes_a_mapped_client_for_the_one_it_is() {
    let chooser = Chooser::new(Balance::Iphash, 4);
    let all = weighted(&[1, 1, 1, 1]);
    for number in 0..1_000 {
        let IpAddr::V4(v4) = client(number) else {
            unreachable!();
        };
        let mapped = IpAddr::V6(v4.to_ipv6_mapped());
        assert_eq!(
            chooser.pick(&all, IpAddr::V4(v4)),
            chooser.pick(&all, mapped)
        );
    }
}

#[test]
fn iphash_gives_a_returning_remote_its_own_clients_bit_by_bit() {
    let all = weighted(&[1, 1]);
    let whole = homes(&all, 4_000);
    let mut before = usize::MAX;
    for share in [0, 26, 128, 230, WHOLE] {
        let mut part = all.clone();
        part[1].as_mut().unwrap().share = share;
        let homes = homes(&part, 4_000);
        // Nobody goes where they would not be in the end, but to the one that stands in.
        let away = whole
            .iter()
            .zip(&homes)
            .filter(|(end, now)| end != now)
            .count();
        assert!(
            whole
                .iter()
                .zip(&homes)
                .all(|(end, now)| end == now || *now == 0)
        );
        assert!(away < before);
        before = away;
    }
    assert_eq!(before, 0);
}

#[test]
fn two_remotes_of_one_name_share_its_clients() {
    let twin = |repeat| {
        Some(Candidate {
            weight: 1,
            open: 0,
            seed: seed("10.0.0.1:80", repeat),
            share: WHOLE,
        })
    };
    let shares = shares(&homes(&[twin(0), twin(1)], 4_000), 2);
    assert!((shares[0] - 0.5).abs() < 0.05, "{shares:?}");
}

fn spread(balance: Balance, candidates: &[Option<Candidate>], count: usize) -> Vec<f64> {
    let chooser = Chooser::new(balance, candidates.len());
    let picks: Vec<_> = (0..count)
        .map(|_| chooser.pick(candidates, anybody()).unwrap())
        .collect();
    shares(&picks, candidates.len())
}

#[test]
fn leastconn_prefers_the_emptiest_for_its_weight() {
    let chooser = Chooser::new(Balance::Leastconn, 3);
    let mut all = weighted(&[1, 2, 1]);
    let mut open = [0_u64; 3];
    for _ in 0..400 {
        let place = chooser.pick(&all, anybody()).unwrap();
        open[place] += 1;
        all[place].as_mut().unwrap().open += 1;
    }
    assert_eq!(open, [100, 200, 100]);
    // One that loses its flows gets the next ones.
    all[2].as_mut().unwrap().open = 0;
    for _ in 0..99 {
        assert_eq!(chooser.pick(&all, anybody()), Some(2));
        all[2].as_mut().unwrap().open += 1;
    }
}

#[test]
fn leastconn_spreads_short_flows_by_weight() {
    assert_eq!(
        spread(Balance::Leastconn, &weighted(&[3, 0, 1]), 400),
        [0.75, 0.0, 0.25]
    );
}

#[test]
fn random2_takes_the_less_loaded_of_two() {
    let mut all = weighted(&[1, 1, 1, 1]);
    all[0].as_mut().unwrap().open = 1_000;
    let shares = spread(Balance::Random2, &all, 10_000);
    assert_eq!(shares[0], 0.0);
    for share in &shares[1..] {
        assert!((share - 0.333).abs() < 0.03, "{shares:?}");
    }
    assert_eq!(spread(Balance::Random2, &weighted(&[7]), 10), [1.0]);
}

#[test]
fn random2_draws_by_weight() {
    let shares = spread(Balance::Random2, &weighted(&[3, 0, 1]), 20_000);
    assert!((shares[0] - 0.75).abs() < 0.02, "{shares:?}");
    assert_eq!(shares[1], 0.0);
}

#[test]
fn failover_takes_the_first_that_is_there() {
    let chooser = Chooser::new(Balance::Failover, 3);
    let mut all = weighted(&[1, 1, 1]);
    assert_eq!(chooser.pick(&all, anybody()), Some(0));
    all[0] = None;
    assert_eq!(chooser.pick(&all, anybody()), Some(1));
    all[1] = None;
    assert_eq!(chooser.pick(&all, anybody()), Some(2));
    all[2] = None;
    assert_eq!(chooser.pick(&all, anybody()), None);
}

#[test]
fn a_small_share_is_respected_by_every_strategy() {
    for balance in [
        Balance::Roundrobin,
        Balance::Leastconn,
        Balance::Random2,
        Balance::Failover,
    ] {
        let mut all = weighted(&[1, 1]);
        all[0].as_mut().unwrap().share = WHOLE / 4;
        let shares = spread(balance, &all, 20_000);
        let expected = if balance == Balance::Failover {
            0.25
        } else {
            0.125
        };
        assert!(
            (shares[0] - expected).abs() < 0.02,
            "{balance:?}: {shares:?}"
        );
        // Alone, it gets everything all the same.
        all[1] = None;
        assert_eq!(spread(balance, &all, 100), [1.0, 0.0], "{balance:?}");
    }
}

/// Whatever is asked, the answer is one of those that may be chosen, and one there is if any is.
#[test]
fn no_question_gets_a_wrong_answer() {
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_add(1);
        mix(state) % below
    };
    let strategies = [
        Balance::Off,
        Balance::Roundrobin,
        Balance::Iphash,
        Balance::Leastconn,
        Balance::Random2,
        Balance::Failover,
    ];
    let mut choosers: HashMap<usize, Chooser> = HashMap::new();
    for _ in 0..20_000 {
        let strategy = random(6) as usize;
        let chooser = choosers
            .entry(strategy)
            .or_insert_with(|| Chooser::new(strategies[strategy], 0));
        let count = random(6) as usize;
        let candidates: Vec<_> = (0..count)
            .map(|_| {
                (random(3) > 0).then(|| Candidate {
                    weight: [0, 1, 255, u32::MAX][random(4) as usize],
                    open: [0, 1, u64::from(u32::MAX), u64::MAX >> 1][random(4) as usize],
                    seed: random(u64::MAX),
                    share: random(u64::from(WHOLE) + 1) as u16,
                })
            })
            .collect();
        let picked = chooser.pick(&candidates, client(random(1 << 20) as u32));
        let any = candidates.iter().any(Option::is_some);
        assert_eq!(picked.is_some(), any, "{strategy} {candidates:?}");
        if let Some(place) = picked {
            assert!(candidates[place].is_some(), "{strategy} {candidates:?}");
        }
    }
}
