//! What may go wrong between an exchange and the gateway, and which venue it can happen at.
//!
//! Used by the world that brings it about and by the tests that go through all of them.

use feed_sim::venue::Dialect;

/// One fault, of `reliability.md` 2a or of the venue's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Changes of a book are lost.
    Gap,
    /// Trades are lost.
    TradesLost,
    /// A message comes twice.
    Duplicate,
    /// A change is lost, and the image that is to mend it is older than what came before it.
    StaleImage,
    /// A change is lost, and the image that is to mend it takes its time.
    LateImage,
    /// A checksum is a lie.
    WrongChecksum,
    /// A checksum is zero.
    ZeroChecksum,
    /// Best bid and best offer cross for a while.
    Crossed,
    /// The venue says nothing, though the line stands.
    Silence,
    /// Nothing comes over the line any more, and nobody says so.
    HalfOpen,
    /// The connection ends in the middle of a frame.
    Cut,
    /// A message is no JSON.
    BadJson,
    /// A message is no UTF-8.
    BadUtf8,
    /// The venue wants to be left alone for a while.
    Ban,
    /// The venue says that it will close the connection, and does.
    CloseNotice,
    /// The venue halts everything for a while.
    Maintenance,
    /// The tick becomes finer.
    TickChange,
    /// The instrument is taken off the list, and comes back.
    Delisting,
    /// The venue's numbers begin anew.
    NumbersRestart,
    /// They begin anew in a message that is lost.
    NumbersRestartLost,
    /// The venue says that nothing changed.
    KeepAlive,
}

impl Fault {
    pub(super) const ALL: [Self; 21] = [
        Self::Gap,
        Self::TradesLost,
        Self::Duplicate,
        Self::StaleImage,
        Self::LateImage,
        Self::WrongChecksum,
        Self::ZeroChecksum,
        Self::Crossed,
        Self::Silence,
        Self::HalfOpen,
        Self::Cut,
        Self::BadJson,
        Self::BadUtf8,
        Self::Ban,
        Self::CloseNotice,
        Self::Maintenance,
        Self::TickChange,
        Self::Delisting,
        Self::NumbersRestart,
        Self::NumbersRestartLost,
        Self::KeepAlive,
    ];

    /// It can happen at this venue, and the venue's own words or numbers give it away.
    pub(super) const fn applies(self, dialect: Dialect) -> bool {
        use Dialect::{Bitfinex, BybitLinear, BybitSpot, Coinbase, Kraken, KrakenV1, Okx};
        match self {
            // A lost `l2update` leaves no trace there: the guards are about trades and heartbeats.
            Self::Gap | Self::LateImage => !matches!(dialect, Coinbase),
            Self::TradesLost => matches!(dialect, Coinbase),
            Self::StaleImage | Self::Ban => dialect.fetches_images(),
            Self::WrongChecksum | Self::ZeroChecksum => {
                matches!(dialect, Kraken | KrakenV1 | Okx | Bitfinex)
            }
            Self::CloseNotice => dialect.fetches_images() || matches!(dialect, Okx | Bitfinex),
            // The others tell it in their lists, except for Binance, which then lists nothing.
            Self::Maintenance => !dialect.fetches_images(),
            // It has no list of instruments: a finer number says all there is.
            Self::Delisting => !matches!(dialect, Bitfinex),
            Self::NumbersRestart | Self::NumbersRestartLost => {
                matches!(dialect, Okx | BybitSpot | BybitLinear)
            }
            Self::KeepAlive => matches!(dialect, Okx),
            Self::Duplicate
            | Self::Crossed
            | Self::Silence
            | Self::HalfOpen
            | Self::Cut
            | Self::BadJson
            | Self::BadUtf8
            | Self::TickChange => true,
        }
    }

    /// Whether somebody who looks must see that the book is not simply live: `None` = either way.
    pub(super) const fn is_told(self, dialect: Dialect) -> Option<bool> {
        match self {
            // Nothing is wrong, or it is known to be right over a second connection first.
            Self::Duplicate | Self::CloseNotice | Self::NumbersRestart | Self::KeepAlive => {
                Some(false)
            }
            // It says "not told" there.
            Self::ZeroChecksum if matches!(dialect, Dialect::Okx) => Some(false),
            Self::TickChange => None,
            // What comes next may make good what was lost.
            Self::Gap | Self::LateImage
                if matches!(dialect, Dialect::Kraken | Dialect::KrakenV1) =>
            {
                None
            }
            _ => Some(true),
        }
    }
}
