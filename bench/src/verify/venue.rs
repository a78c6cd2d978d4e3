//! A recording played in this process as its venue, and the control of it over HTTP.
//!
//! The replay runs on a thread of its own until this is dropped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use feed_sim::recording::Recording;
use feed_sim::replay::{self, ReplayOptions};
use serde::Deserialize;
use tokio::sync::oneshot;

/// How long an answer of the replay may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Where the replay is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Status {
    /// `waiting`, `running`, `paused` or `ended`.
    pub(crate) state: String,
    /// The number of lines that were played.
    pub(crate) line: u64,
    /// How many streams are subscribed to.
    pub(crate) subscriptions: usize,
}

/// See the top of this file.
pub(crate) struct Venue {
    /// Where it is served.
    pub(crate) address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Venue {
    /// Serves a recording on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn start(recording: Arc<Recording>, options: ReplayOptions) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (end, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let serve = move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    served = replay::serve(listener, recording, options) => served,
                    _ = ended => Ok(()),
                }
            })
        };
        let thread = std::thread::Builder::new().name("replay".to_owned()).spawn(serve)?;
        Ok(Self { address, end: Some(end), thread: Some(thread) })
    }

    /// Where the replay is.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn status(&self) -> Result<Status> {
        self.ask("GET", "/replay")
    }

    /// Plays the first line, or goes on after a pause.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) fn play(&self) -> Result<()> {
        self.ask("POST", "/replay/start").map(drop)
    }

    fn ask(&self, method: &str, path: &str) -> Result<Status> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: replay\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer from the replay")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "the replay answers {head}");
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // It may have ended by itself.
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            eprintln!("the replay failed");
        }
    }
}
