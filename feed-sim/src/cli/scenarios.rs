//! `feed-sim scenarios`: a name, or none → the library of scenarios, or one of them, on stdout.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Args;
use feed_sim::scenario::{Scenario, library, library_text};

/// List the scenarios that `serve` and `cert` know by name, or print one, to write your own after it.
#[derive(Args)]
pub(crate) struct Scenarios {
    /// Print this one.
    name: Option<String>,
}

impl Scenarios {
    pub(crate) fn run(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        if let Some(name) = &self.name {
            let text = library_text(name)
                .with_context(|| format!("no scenario {name}; `feed-sim scenarios` lists them"))?;
            return Ok(out.write_all(text.as_bytes())?);
        }
        for (name, text) in library() {
            writeln!(out, "{name:18} {}", Scenario::parse(name, text)?.about)?;
        }
        Ok(())
    }
}
