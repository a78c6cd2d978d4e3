//! `tickfan completions` and `tickfan man`: the table of commands → what shells complete and what
//! `man` shows.
//!
//! `main` calls it with its table, from which alone both are made.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Command;
use clap_complete::Shell;

use super::{Ended, Failure, exit};

/// Print what a shell needs to complete the commands of tickfan
///
/// For bash: tickfan completions bash > ~/.local/share/bash-completion/completions/tickfan
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsOptions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Print the manual page of tickfan or of one of its commands
///
/// To read it: tickfan man | man -l -
#[derive(Debug, Clone, clap::Args)]
pub struct ManOptions {
    /// The command; without one, the page of tickfan itself
    pub command: Option<String>,
}

/// Prints a shell's completions.
pub fn completions(options: &CompletionsOptions, mut table: Command) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut table, "tickfan", &mut text);
    exit("completions", print(&text))
}

/// Prints a page of the manual.
pub fn man(options: &ManOptions, table: Command) -> ExitCode {
    exit("man", page(options, table).and_then(|page| print(&page)))
}

fn page(options: &ManOptions, mut table: Command) -> Result<Vec<u8>, Failure> {
    // Only then does a command know its whole name.
    table.build();
    let command = match &options.command {
        None => table,
        Some(name) => table.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = table.get_subcommands().map(Command::get_name).collect();
            anyhow!("there is no command {name:?}; commands are {}", names.join(", "))
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

fn print(text: &[u8]) -> Result<Ended, Failure> {
    io::stdout().lock().write_all(text)?;
    Ok(Ended::Done)
}
