//! Keeps a process on one core, so that a server and its load never share one.
//!
//! Called before any other thread is started: threads and child processes inherit the choice.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread, and all that it starts from now on, on a core.
///
/// # Errors
/// When the machine has no such core, or this process may not use it.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("core {core} cannot be used"))
}
