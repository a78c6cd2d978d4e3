//! A gateway in this process, fed by one venue that is served at an address.
//!
//! The one place that knows how a gateway is started. What it is asked afterwards goes over its
//! sockets, as anybody's would.

use std::net::SocketAddr;

use anyhow::Result;
use tickfan::config::Config;
use tickfan::serve::{self, Running};

/// What the gateway is fed with.
pub(crate) struct Feed<'a> {
    /// The venue, as the protocol calls it.
    pub(crate) venue: &'a str,
    /// Its symbols, as it spells them.
    pub(crate) symbols: Vec<&'a str>,
    /// Where it is served.
    pub(crate) address: SocketAddr,
    /// How deep its books are asked for, where it lets choose.
    pub(crate) depth: Option<u32>,
    /// Binance: which trade stream to take.
    pub(crate) trades: Option<&'a str>,
}

/// A gateway that runs until this is dropped.
pub(crate) struct Target {
    running: Running,
}

impl Target {
    /// Starts a gateway.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(feed: &Feed<'_>) -> Result<Self> {
        let config = Config::parse(&config(feed), "verify.toml")?;
        Ok(Self { running: serve::start(config)? })
    }

    /// Where it listens for clients.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.running.listen
    }
}

fn config(feed: &Feed<'_>) -> String {
    let Feed { venue, symbols, address, depth, trades } = feed;
    let depth = depth.map_or(String::new(), |depth| format!("depth = {depth}\n"));
    let trades = trades.map_or(String::new(), |stream| format!("trades = {stream:?}\n"));
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\n[[feed]]\nvenue = {venue:?}\n\
         symbols = {symbols:?}\nurl = \"ws://{address}\"\nrest_url = \"http://{address}\"\n\
         {depth}{trades}"
    )
}
