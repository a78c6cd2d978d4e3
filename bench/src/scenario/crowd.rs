//! Many connections: idle ones, and ones that all come or go at once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::session::{Session, Setup, Trial};
use crate::clock;
use crate::load::client::Milestones;
use crate::peer::Name;

/// The first connections fill what starting left in the allocator; the others are weighed.
const SETTLING: usize = 1_000;

/// How long idle connections are looked at.
const IDLE_MS: u64 = 10_000;

/// How long everybody may take to get everything.
const COMPLETE_MS_MAX: u64 = 60_000;

/// For how long silences are measured before and after half of the clients vanish.
const SILENCE_MS: u64 = 2_000;

const STEP_NS: u64 = 10_000_000;
const MILLI_NS: u64 = 1_000_000;
const CONNECT_NS: u64 = 60_000_000_000;

/// Memory and CPU of connections on which nothing happens.
///
/// # Errors
/// When the server fails.
pub(super) fn idle(mut setup: Setup) -> Result<BTreeMap<String, f64>> {
    let connections = setup.plans.len() as f64;
    let settled = setup.plans.split_off(setup.plans.len().min(SETTLING));
    let weighed = settled.len().max(1) as f64;
    let mut first = Session::open_unconnected(setup.clone())?;
    first.load.connect(CONNECT_NS)?;
    first.load.run_until(clock::wall_ns() + 500 * MILLI_NS)?;
    let before = first.process.usage()?;
    let mut session = first.with_more(settled)?;
    let began = clock::now();
    session.load.connect(CONNECT_NS)?;
    let connect_s = began.elapsed().as_secs_f64();
    // What connecting left to be done.
    session.load.run_until(clock::wall_ns() + 500 * MILLI_NS)?;
    let connected = session.process.usage()?;
    session.load.run_until(clock::wall_ns() + IDLE_MS * MILLI_NS)?;
    let after = session.process.usage()?;
    let gone = session.load.gone();
    ensure!(gone == 0, "{gone} connections were cut off: {}", session.load.parting());
    let rss_bytes = after.rss_bytes as f64 - before.rss_bytes as f64;
    let cpu_us = (after.cpu_ns - connected.cpu_ns) as f64 / 1e3;
    Ok(BTreeMap::from([
        ("rss_kib_per_connection".to_owned(), rss_bytes / 1024.0 / weighed),
        ("cpu_us_per_connection_s".to_owned(), cpu_us / connections / IDLE_MS as f64 * 1e3),
        ("connect_s".to_owned(), connect_s),
        ("turned_away".to_owned(), session.load.turns() as f64),
        ("server_rss_mib".to_owned(), after.rss_bytes as f64 / f64::from(1 << 20)),
    ]))
}

/// Everybody connects, subscribes and gets everything at once; then half vanish.
///
/// # Errors
/// When the server fails, or somebody never gets everything.
pub(super) fn storm(setup: Setup, feed_per_s: u64) -> Result<BTreeMap<String, f64>> {
    let peer = setup.peer;
    let clients = setup.plans.len();
    let mut session = Session::open_unconnected(setup)?;
    let before = session.process.usage()?;
    let trial = Trial { feed_per_s, warm_ms: 0, window_ms: COMPLETE_MS_MAX };
    session.begin(trial, false)?;
    let began_ns = clock::wall_ns();
    session.load.connect(CONNECT_NS)?;
    // Without images, the first update of anything is what a client waits for.
    let has_all = |of: &Milestones| match peer {
        Name::Tickfan => of.complete_ns,
        _ => of.first_ns,
    };
    loop {
        let left = session.load.milestones().iter().filter(|of| has_all(of) == 0).count();
        if left == 0 {
            break;
        }
        let now = clock::wall_ns();
        let limit_ns = began_ns + COMPLETE_MS_MAX * MILLI_NS / 2;
        ensure!(now < limit_ns, "{left} of {clients} clients do not get everything");
        session.load.run_until(now + STEP_NS)?;
    }
    let after = session.process.usage()?;
    let milestones = session.load.milestones();
    let sorted_ms = |of: &dyn Fn(&Milestones) -> u64| {
        let mut times: Vec<f64> =
            milestones.iter().map(|one| of(one).saturating_sub(began_ns) as f64 / 1e6).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let upgraded_ms = sorted_ms(&|of| of.upgraded_ns);
    let first_ms = sorted_ms(&|of| of.first_ns);
    let all_ms = sorted_ms(&has_all);

    let silence_ms = |session: &mut Session| -> Result<f64> {
        session.load.begin_silence();
        session.load.run_until(clock::wall_ns() + SILENCE_MS * MILLI_NS)?;
        Ok(session.load.silence_ns() as f64 / 1e6)
    };
    let silence_before_ms = silence_ms(&mut session)?;
    session.load.vanish();
    let silence_after_ms = silence_ms(&mut session)?;
    Ok(BTreeMap::from([
        ("last_image_ms".to_owned(), all_ms[clients - 1]),
        ("first_p50_ms".to_owned(), first_ms[clients / 2]),
        ("upgraded_p50_ms".to_owned(), upgraded_ms[clients / 2]),
        ("upgraded_last_ms".to_owned(), upgraded_ms[clients - 1]),
        ("server_cpu_s".to_owned(), (after.cpu_ns - before.cpu_ns) as f64 / 1e9),
        ("turned_away".to_owned(), session.load.turns() as f64),
        ("silence_before_ms".to_owned(), silence_before_ms),
        ("silence_after_ms".to_owned(), silence_after_ms),
        ("silence_added_ms".to_owned(), silence_after_ms - silence_before_ms),
    ]))
}
