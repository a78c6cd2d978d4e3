//! The seeds of the fuzz targets, under plain `cargo test`: what libFuzzer begins with (and whatever
//! it once found) goes through the same bodies here, whole and broken off at every byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its seeds must fail")]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a library to the fuzzer")]
mod targets;

use targets::{Outcome, TARGETS, run};

/// The seed of every decoder that is all of a session's good messages.
const SESSION: &str = "session";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The seeds of a target: their names and bytes.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder().join("seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn every_seed_of_every_target_holds() {
    for (target, decoder) in TARGETS {
        let seeds = seeds(target);
        for (_, seed) in &seeds {
            run(target, seed);
        }
        if decoder.is_some() {
            // Seeds that nobody can read would lead the fuzzer nowhere.
            let (_, session) = seeds.iter().find(|(name, _)| name == SESSION).unwrap();
            for line in session.split_inclusive(|byte| *byte == b'\n') {
                let refused = run(target, line).refused;
                assert_eq!(refused, 0, "{target}: {}", String::from_utf8_lossy(line));
            }
            let Outcome { events, refused } = run(target, session);
            assert!(events > 3 && refused == 0, "{target}: {events} events, {refused} refused");
        }
    }
}

#[test]
fn a_seed_may_break_off_at_any_byte() {
    for (target, _) in TARGETS {
        for (_, seed) in seeds(target) {
            for line in seed.split(|byte| *byte == b'\n') {
                for end in 0..line.len() {
                    run(target, &line[..end]);
                }
            }
        }
    }
}

#[test]
fn every_target_is_built() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let bins = manifest["bin"].as_array().unwrap();
    let names: Vec<&str> = bins.iter().map(|bin| bin["name"].as_str().unwrap()).collect();
    assert_eq!(names, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for bin in bins {
        let file = fs::read_to_string(folder().join(bin["path"].as_str().unwrap())).unwrap();
        assert!(file.contains(&format!("run({}", bin["name"])), "{}: {file}", bin["name"]);
    }
}
