//! Where the recordings of real exchanges are, for the tests that need them.
//!
//! They are not part of the repository; `TICKFAN_RECORDINGS` names their folder. Without one the
//! tests say so and pass, except in CI, where their absence is a failure.

use std::path::{Path, PathBuf};

use feed_sim::recording::Recording;

/// The folder of the recordings, if there is one.
pub(crate) fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(beside, PathBuf::from);
    if folder.join("manifest.json").is_file() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no recordings in {}", folder.display());
    eprintln!("skipped: no recordings in {} (set TICKFAN_RECORDINGS)", folder.display());
    None
}

/// The file of a recording.
pub(crate) fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.tsv.zst"))
}

/// A recording, whole.
pub(crate) fn open(folder: &Path, name: &str) -> Recording {
    Recording::open(&path(folder, name)).unwrap_or_else(|error| panic!("{name}: {error:#}"))
}
