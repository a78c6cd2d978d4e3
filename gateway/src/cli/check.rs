//! `tickfan check` and `tickfan config`: a configuration file, judged without starting anything, and
//! one to begin with.
//!
//! `main` calls them. They read files and open no socket.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;

use super::{Ended, Failure, exit};
use crate::config::{Config, Symbols};
use crate::serve;

/// A file with every key, to begin with.
const EXAMPLE: &str = include_str!("../../../deploy/tickfan.example.toml");

/// Say whether a configuration file can be used, and if not, on which line and what to write instead
#[derive(Debug, Clone, clap::Args)]
pub struct CheckOptions {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    pub path: PathBuf,
}

/// Print a configuration file to begin with
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigOptions {
    /// Which one
    #[command(subcommand)]
    pub which: ConfigCommand,
}

/// The files that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub enum ConfigCommand {
    /// Every key with its meaning; those that are commented out show their defaults
    Default,
}

/// Judges a configuration.
pub fn run(options: &CheckOptions) -> ExitCode {
    exit("check", check(options))
}

fn check(options: &CheckOptions) -> Result<Ended, Failure> {
    let file = options.path.display();
    let config = Config::load(&options.path).map_err(|error| anyhow!(error))?;
    serve::check(&config).map_err(|error| anyhow!("{file}: {error:#}"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{file} can be used")?;
    writeln!(out, "  clients    {}", config.listen)?;
    writeln!(out, "  operators  {}", config.admin)?;
    writeln!(out, "  shards     {}", config.shards)?;
    for feed in &config.feeds {
        let symbols = match &feed.symbols {
            Symbols::All => "all that it lists".to_owned(),
            Symbols::Named(names) => names.join(", "),
        };
        writeln!(out, "  feed       {}: {symbols}", feed.venue.name())?;
    }
    Ok(Ended::Done)
}

/// Prints a configuration.
pub fn config(options: &ConfigOptions) -> ExitCode {
    let text = match options.which {
        ConfigCommand::Default => EXAMPLE,
    };
    let written = io::stdout().lock().write_all(text.as_bytes());
    exit("config", written.map(|()| Ended::Done).map_err(Failure::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_to_begin_with_can_be_used_as_it_stands() {
        let config = Config::parse(EXAMPLE, "tickfan.example.toml").unwrap();
        serve::check(&config).unwrap();
    }
}
