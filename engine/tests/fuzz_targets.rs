//! The fuzz targets, without a fuzzer: over their seeds, and over mutations of these for a moment.
//!
//! `QANAT_FUZZ_SECONDS` makes the moment longer (`make fuzz` does, where cargo-fuzz is not to be
//! had) and the mutations new ones; without it every run tries the same.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use targets::TARGETS;

const ROUNDS: usize = 20_000;

/// xorshift: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(7) {
                0 => bytes.insert(at, self.next() as u8),
                1 if !bytes.is_empty() => drop(bytes.remove(at % bytes.len())),
                2 if !bytes.is_empty() => {
                    let at = at % bytes.len();
                    bytes[at] ^= 1 << self.below(8);
                }
                3 => bytes.truncate(at),
                4 => {
                    let from = self.below(other.len() + 1);
                    bytes.splice(at..at, other[from..].iter().take(16).copied());
                }
                5 if !bytes.is_empty() => {
                    let at = at % bytes.len();
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'}', b'-'][self.below(8)];
                }
                _ => {
                    let again = bytes[..at].to_vec();
                    bytes.extend(again.iter().take(64));
                }
            }
        }
        bytes.truncate(4_096);
    }
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).expect("readable");
            (path, bytes)
        })
        .collect()
}

fn check(name: &str, target: fn(&[u8]), bytes: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
        panic!(
            "{name} failed on {origin}: {:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn no_target_fails() {
    let time = std::env::var("QANAT_FUZZ_SECONDS")
        .ok()
        .map(|text| Duration::from_secs(text.parse().expect("QANAT_FUZZ_SECONDS is a number")));
    let start = match time {
        None => 0x9e37_79b9_7f4a_7c15,
        Some(_) => SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |now| now.as_nanos() as u64 | 1),
    };
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (path, bytes) in &seeds {
            check(name, target, bytes, &path.display().to_string());
        }
        let mut random = Random(start);
        let began = Instant::now();
        let mut rounds = 0;
        while time.map_or(rounds < ROUNDS, |time| began.elapsed() < time) {
            let mut bytes = seeds[random.below(seeds.len())].1.clone();
            let other = &seeds[random.below(seeds.len())].1;
            random.mutate(&mut bytes, other);
            check(name, target, &bytes, "a mutation");
            rounds += 1;
        }
        println!("{name}: {} seeds, {rounds} mutations", seeds.len());
    }
}

#[test]
fn every_target_has_a_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("readable");
    for (name, _) in TARGETS {
        let program = folder.join("fuzz_targets").join(format!("{name}.rs"));
        assert!(program.exists(), "{} is missing", program.display());
        assert!(
            manifest.contains(&format!("name = \"{name}\"\n")),
            "{name} is not in Cargo.toml"
        );
    }
}
