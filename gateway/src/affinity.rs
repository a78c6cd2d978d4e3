//! Threads on cores of their own, where the configuration asks for it.
//!
//! Called by a thread about itself, once, when it starts.

use rustix::thread::{CpuSet, sched_setaffinity};

/// Pins the calling thread to a core. What cannot be had is told and done without: a gateway that
/// runs on another core is slower, and one that does not run is of no use.
pub(crate) fn pin(core: usize, thread: &str) {
    let mut cores = CpuSet::new();
    cores.set(core);
    match sched_setaffinity(None, &cores) {
        Ok(()) => tracing::info!(core, thread, "pinned"),
        Err(error) => tracing::warn!(core, thread, %error, "cannot be pinned"),
    }
}
