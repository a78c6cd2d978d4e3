//! A peer as a child process: started, told what to publish, and looked at from outside.
//!
//! Used by the scenarios on the load generator's thread. A second thread does nothing but hand on
//! the lines of the child's standard output.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use super::{Order, PeerOptions, Report};

/// How long a peer may take to serve.
const START_MAX: Duration = Duration::from_secs(30);

/// Lines of a peer that nobody has looked at yet; with more its output waits.
const REPORTS_MAX: usize = 16;

/// A peer that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    reports: Receiver<Result<Report>>,
    /// Where it serves clients, on loopback.
    pub(crate) port: u16,
}

impl Process {
    /// Starts a peer and waits until it serves.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(options: &PeerOptions) -> Result<Self> {
        let word = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let name = word(&|| options.name.to_possible_value());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["peer", &name]);
        command.args(["--topics", &options.topics.to_string()]);
        command.args(["--channel", &word(&|| options.channel.to_possible_value())]);
        command.args(["--seed", &options.seed.to_string()]);
        if let Some(core) = options.core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the peer {name}"))?;
        let (Some(orders), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the peer {name} has no input and output");
        };
        let (sender, reports) = sync_channel(REPORTS_MAX);
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let report = line.map_err(Into::into).and_then(|line| line.parse());
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let mut process = Self { child, orders, reports, port: 0 };
        match process.report(START_MAX).with_context(|| format!("the peer {name}"))? {
            Some(Report::Listening(port)) => process.port = port,
            Some(report) => bail!("the peer {name} began with {report}"),
            None => bail!("the peer {name} does not serve after {START_MAX:?}"),
        }
        Ok(process)
    }

    /// Tells the peer what to do.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn order(&mut self, order: Order) -> Result<()> {
        writeln!(self.orders, "{order}").context("the peer is gone")?;
        self.orders.flush().context("the peer is gone")
    }

    /// The next thing that it says, if it says it in time.
    ///
    /// # Errors
    /// When it is gone or cannot be understood.
    pub(crate) fn report(&mut self, within: Duration) -> Result<Option<Report>> {
        match self.reports.recv_timeout(within) {
            Ok(report) => report.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("it ended")),
        }
    }

    /// What it has used so far, with all processes that it started.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn usage(&self) -> Result<Usage> {
        usage_of_family(self.child.id())
    }
}

impl Process {
    /// Has perf count system calls for a while, of this process and those that it started.
    ///
    /// # Errors
    /// When there is no perf.
    pub(crate) fn count_syscalls(&self, seconds: f64) -> Result<Counting> {
        let family: Vec<String> =
            family_of(self.child.id()).iter().map(ToString::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &family.join(",")])
            .args(["--", "sleep", &seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("no perf")?;
        Ok(Counting(perf))
    }
}

/// A perf that counts.
#[derive(Debug)]
pub(crate) struct Counting(Child);

impl Counting {
    /// How many it were; `None` when perf may not count.
    pub(crate) fn finish(self) -> Option<f64> {
        let output = self.0.wait_with_output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr);
        text.lines().find_map(|line| line.split(',').next()?.parse().ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already, or too busy to listen.
        let _ = self.order(Order::Quit);
        for _ in 0..20 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time on a core, user and system.
    pub(crate) cpu_ns: u64,
    /// Context switches, voluntary and not.
    pub(crate) switches: u64,
    /// Resident memory now.
    pub(crate) rss_bytes: u64,
}

/// What this process has used.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn own_usage() -> Result<Usage> {
    usage_of(std::process::id())
}

/// A process and those that it started.
fn family_of(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        family.extend(children.flat_map(family_of));
    }
    family
}

/// Adds up a process, its threads, and the processes that they started.
fn usage_of_family(id: u32) -> Result<Usage> {
    let mut usage = usage_of(id)?;
    for child in family_of(id).into_iter().skip(1) {
        // It may end while it is looked at.
        let Ok(of_child) = usage_of(child) else { continue };
        usage.cpu_ns += of_child.cpu_ns;
        usage.switches += of_child.switches;
        usage.rss_bytes += of_child.rss_bytes;
    }
    Ok(usage)
}

fn usage_of(id: u32) -> Result<Usage> {
    let mut usage = Usage::default();
    let status = fs::read_to_string(format!("/proc/{id}/status")).context("the peer is gone")?;
    usage.rss_bytes = field(&status, "VmRSS:").unwrap_or(0) * 1024;
    for task in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
        // A thread may end while it is looked at.
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let schedule = read("schedstat");
        let on_core = schedule.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        usage.cpu_ns += on_core.unwrap_or(0);
        let status = read("status");
        usage.switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0)
            + field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(usage)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = own_usage().unwrap();
        assert!(usage.rss_bytes > 1 << 20 && usage.cpu_ns > 0 && usage.switches > 0);
    }
}
