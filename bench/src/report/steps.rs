//! A set of measurements as steps: in which order, which are done, and how long the rest takes.
//!
//! Scenarios say what the steps are and run one; this decides which is next.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::store::Store;
use super::{Run, RunKey, title};
use crate::clock;

/// One run that is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) key: RunKey,
    /// About how long it takes.
    pub(crate) about: Duration,
}

impl Step {
    fn title(&self) -> String {
        let key = &self.key;
        format!("{}, {}, round {}", title(&key.scenario, &key.parameters), key.peer, key.round)
    }
}

/// Runs that are compared with each other, each `rounds` times: all of them once, then all of them
/// again, so that what changes on the machine meanwhile meets all alike. The round of what is given
/// does not matter.
pub(crate) fn alternate(compared: &[Step], rounds: u32) -> Vec<Step> {
    let round = |round| {
        compared.iter().cloned().map(move |mut step| {
            step.key.round = round;
            step
        })
    };
    (1..=rounds).flat_map(round).collect()
}

/// Runs all steps that the store does not have, in order, and stores each when it is finished.
/// Tells on stderr where it is.
///
/// # Errors
/// When a step fails: what is finished is stored.
pub(crate) fn run_all(
    steps: &[Step],
    store: &mut Store,
    mut run: impl FnMut(&Step) -> Result<Run>,
) -> Result<()> {
    let open: Vec<&Step> = steps.iter().filter(|step| !store.has(&step.key)).collect();
    let finished = steps.len() - open.len();
    if finished > 0 {
        eprintln!("{finished} of {} runs were finished before", steps.len());
    }
    let began = clock::now();
    for (at, step) in open.iter().enumerate() {
        let place = finished + at + 1;
        let left = show(left(began.elapsed(), &open[..at], &open[at..]));
        eprintln!("[{place}/{}] {}; about {left} left", steps.len(), step.title());
        let result = run(step).with_context(|| format!("run {}", step.title()))?;
        // A run that is not what was asked for would be done again at every resumption.
        ensure!(
            result.key() == step.key,
            "run {} says that it is {}, {}, round {}",
            step.title(),
            title(&result.scenario, &result.parameters),
            result.peer,
            result.round
        );
        for remark in &result.remarks {
            eprintln!("    {remark}");
        }
        store.append(result)?;
    }
    Ok(())
}

/// How long what is open takes: as estimated, corrected by how long what is done took.
fn left(took: Duration, done: &[&Step], open: &[&Step]) -> Duration {
    let about = |steps: &[&Step]| steps.iter().map(|step| step.about).sum::<Duration>();
    let (estimated, rest) = (about(done), about(open));
    if estimated.is_zero() {
        return rest;
    }
    rest.mul_f64(took.as_secs_f64() / estimated.as_secs_f64())
}

fn show(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_what_steps_took() {
        let step = |seconds| Step {
            key: RunKey {
                scenario: String::new(),
                peer: String::new(),
                parameters: Default::default(),
                round: 1,
            },
            about: Duration::from_secs(seconds),
        };
        let (done, open) = (step(10), step(20));
        assert_eq!(left(Duration::ZERO, &[], &[&done, &open]), Duration::from_secs(30));
        assert_eq!(left(Duration::from_secs(15), &[&done], &[&open]), Duration::from_secs(30));
        assert_eq!(show(Duration::from_secs(3_700)), "1 h 1 min");
        assert_eq!(show(Duration::from_secs(61)), "1 min 1 s");
    }
}
