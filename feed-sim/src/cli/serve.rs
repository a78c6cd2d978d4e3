//! `feed-sim serve`: its arguments → a synthetic exchange on a socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use feed_sim::clock;
use feed_sim::door::tls::Identity;
use feed_sim::exchange::ear::ACK_DELAY_NS;
use feed_sim::exchange::{Exchange, ExchangeOptions, Preset};
use feed_sim::record::Example;
use feed_sim::scenario::Scenario;
use feed_sim::serve::{Manners, ServedExchange};
use feed_sim::venue::Dialect;

use crate::say;

/// The last moment at which an exchange may begin: times are nanoseconds in 64 bits, and go on from there.
const START_MS_MAX: u64 = 9_000_000_000_000;

/// Serve a seeded market in the words of any venue, in real time.
///
/// Same options, same bytes, but for the venue's times, which begin with now unless --start-ms says when.
/// The exchange knows its true books: `GET /truth?symbol=BTCUSDT&id=N` is the book as it was at the venue's
/// own number N (or, where its books have none, at our count of their states), without `id` as it is.
/// `GET /status` has the newest of them, and the digest of all that was said.
#[derive(Args)]
pub(crate) struct Serve {
    /// Whose words: binance-spot, binance-usdm, binance-coinm, coinbase, coinbase-advanced, kraken,
    /// kraken-v1, okx, bybit-spot, bybit-linear, deribit, bitfinex.
    #[arg(long, default_value = "binance-spot", value_parser = dialect)]
    dialect: Dialect,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Which market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many symbols trade.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    symbols: u16,
    /// Messages a second over all symbols, in the mean; as many as the venue was measured to send if
    /// not given. All times shrink or grow alike, those of the venue's timers too: at any rate it says
    /// the same in the same order, with other times in it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How orders arrive: poisson, hawkes, burst, open, calm.
    #[arg(long, default_value = "hawkes", value_parser = preset)]
    preset: Preset,
    /// The venue's time at the start, milliseconds since 1970; now if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=START_MS_MAX))]
    start_ms: Option<u64>,
    /// What goes wrong, from the first change of a book that goes out: a name of `feed-sim scenarios` or
    /// a FILE.toml. `GET /faults` tells what has happened, and a POST lets more happen.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Serve under TLS too, and write the certificate that clients must trust to this folder, as ca.pem.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Where to listen for TLS.
    #[arg(long, default_value = "127.0.0.1:9443", requires = "tls_dir")]
    tls_listen: SocketAddr,
    /// How long it takes until the venue hears a client, in milliseconds; 1 to 20, by the seed, if not given.
    #[arg(long)]
    ack_delay_ms: Option<u64>,
    /// Keep the venue's limits: attempts to connect, messages of a client and what they may name.
    #[arg(long)]
    limits: bool,
}

/// Reads the name of a dialect: its venue's in the protocol.
pub(crate) fn dialect(name: &str) -> Result<Dialect, String> {
    Dialect::ALL.into_iter().find(|dialect| dialect.venue().name() == name).ok_or_else(|| {
        format!("no dialect; one of {}", names(Dialect::ALL.map(|d| d.venue().name())))
    })
}

/// Reads the name of a preset.
pub(crate) fn preset(name: &str) -> Result<Preset, String> {
    Preset::ALL
        .into_iter()
        .find(|preset| preset.name() == name)
        .ok_or_else(|| format!("no preset; one of {}", names(Preset::ALL.map(Preset::name))))
}

fn names<const N: usize>(names: [&str; N]) -> String {
    names.join(", ")
}

impl Serve {
    fn options(&self) -> ExchangeOptions {
        let start_ns = self.start_ms.map_or_else(clock::wall_ns, |ms| ms.saturating_mul(1_000_000));
        let options =
            ExchangeOptions::of(self.dialect, self.seed, usize::from(self.symbols), start_ns);
        let options = ExchangeOptions { preset: self.preset, ..options };
        self.rate.map_or(options, |rate| options.at_rate(rate))
    }

    fn manners(&self) -> Manners {
        let exactly = |ms: u64| ms.saturating_mul(1_000_000)..=ms.saturating_mul(1_000_000);
        let ack_delay_ns = self.ack_delay_ms.map_or(ACK_DELAY_NS, exactly);
        Manners { ack_delay_ns, keeps_limits: self.limits }
    }

    /// Serves until it is interrupted.
    pub(crate) async fn run(self) -> Result<()> {
        let options = self.options();
        let listener = crate::listen(self.listen).await?;
        let address = listener.local_addr()?;
        say(format!(
            "feed-sim: seed {}, {} symbols, {} messages a second, as {} on ws://{address} and \
             http://{address}",
            self.seed,
            self.symbols,
            self.rate.map_or(options.rate(), u64::from),
            self.dialect.venue().name()
        ));
        let first = Exchange::new(ExchangeOptions { symbols: 1, ..options });
        let first = first.symbols().next().unwrap_or_default().to_owned();
        say(format!("try:      {}", Example::of_exchange(self.dialect, &first).at(address)));
        say(format!("truth:    curl 'http://{address}/truth?symbol={first}'"));
        let exchange = ServedExchange::with_manners(options, self.manners());
        if let Some(name) = &self.scenario {
            let scenario = Scenario::load(name)?;
            exchange.with(|exchange, _| exchange.prepare(&scenario))?;
            say(format!("scenario: {}", scenario.about));
        }
        say(format!("faults:   curl http://{address}/faults"));
        let served = tokio::select! {
            served = Arc::clone(&exchange).serve(listener) => served,
            served = self.serve_tls(Arc::clone(&exchange)), if self.tls_dir.is_some() => served,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for ctrl-c"),
        };
        let said = exchange.said();
        say(format!(
            "said:     {} messages, {} bytes, digest {:016x}",
            said.messages, said.bytes, said.digest
        ));
        served
    }

    /// The same under TLS.
    async fn serve_tls(&self, exchange: Arc<ServedExchange>) -> Result<()> {
        let identity = Identity::generate()?;
        let folder = self.tls_dir.clone().unwrap_or_default();
        let trusted = identity.write_authority(&folder)?;
        let listener = crate::listen(self.tls_listen).await?;
        let address = listener.local_addr()?;
        say(format!("tls:      wss://{address} and https://{address}; clients must trust"));
        say(format!("          {}", trusted.display()));
        exchange.serve_tls(listener, identity).await
    }
}
