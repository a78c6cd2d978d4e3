//! Where a run is: told by the thread that watches the replay, asked by the readers.
//!
//! Shared between them under one lock, which nobody holds for longer than a look.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

#[derive(Debug, Clone, Copy)]
struct At {
    line: u64,
    has_ended: bool,
    is_stopped: bool,
    deadline: Instant,
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Progress {
    at: Mutex<At>,
    moved: Condvar,
}

impl Progress {
    /// Before the first line; what is to happen must happen within `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        let deadline = clock::now() + patience;
        let at = At { line: 0, has_ended: false, is_stopped: false, deadline };
        Self { at: Mutex::new(at), moved: Condvar::new() }
    }

    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to happen from now on must happen within `patience`.
    pub(crate) fn allow(&self, patience: Duration) {
        self.at().deadline = clock::now() + patience;
    }

    /// The replay played this line, and was it the last?
    pub(crate) fn tell(&self, line: u64, has_ended: bool) {
        let mut at = self.at();
        at.line = line;
        at.has_ended = has_ended;
        self.moved.notify_all();
    }

    /// The run is over before its end.
    pub(crate) fn stop(&self) {
        self.at().is_stopped = true;
        self.moved.notify_all();
    }

    /// The run was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.at().is_stopped
    }

    /// The replay is at its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.at().has_ended
    }

    /// What was to happen took too long.
    pub(crate) fn is_late(&self) -> bool {
        clock::now() > self.at().deadline
    }

    /// Waits until the replay has played so many lines more, is at its end or was stopped, but for no
    /// longer than `patience`.
    pub(crate) fn wait_for_lines(&self, count: u64, patience: Duration) {
        let at = self.at();
        let line = at.line.saturating_add(count);
        let waits = |at: &mut At| at.line < line && !at.has_ended && !at.is_stopped;
        drop(self.moved.wait_timeout_while(at, patience, waits));
    }
}
