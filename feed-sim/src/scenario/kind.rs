//! What can go wrong, by name, and what may be said about each.
//!
//! Used by the schedule, which checks against it, and by the faults, which carry it out.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Changes of a book are lost.
    Gap,
    /// A change comes twice.
    Duplicate,
    /// A change comes after the one that follows it.
    Reorder,
    /// The next image that is fetched is older than the stream, or newer.
    StaleImage,
    /// The next image takes its time, and at venues that send it so does what comes after it.
    LateImage,
    /// A checksum is wrong.
    WrongChecksum,
    /// A checksum is zero.
    ZeroChecksum,
    /// Best bid and best offer cross for a while.
    Crossed,
    /// The next subscription is acknowledged, and nothing of the symbol comes.
    AckSilent,
    /// A connection stands still for a while; pings are answered, what was held back comes later.
    Silence,
    /// A connection is neither read nor written any more, and cut after a while.
    HalfOpen,
    /// A connection ends in the middle of a frame.
    Cut,
    /// A giant frame comes before a message.
    Giant,
    /// A message comes in several frames, with a ping between them.
    Fragmented,
    /// A message comes byte by byte; a long one in hundreds of pieces.
    Drip,
    /// A message is no UTF-8.
    BadUtf8,
    /// A message is half a JSON.
    BadJson,
    /// The next image is refused with 429, and so is every request for a while.
    RateLimit,
    /// The next image is refused, or where none is fetched the next connection, and so is every request
    /// and every connection for a while.
    Ban,
    /// All connections are cut at once.
    CutAll,
    /// The venue says that it will close all connections, and does after a while.
    CloseNotice,
    /// The venue says that maintenance begins, and after a while that it is over.
    Maintenance,
    /// The stamps of the venue step.
    ClockStep,
    /// Prices get a digit more.
    TickChange,
    /// The symbol does not trade for a while.
    Halt,
    /// The symbol is taken off the list, and comes back after a while.
    Delist,
    /// A symbol is listed that there was not.
    List,
    /// The venue's numbers of a book begin anew.
    NumbersRestart,
    /// The venue says that nothing changed.
    KeepAlive,
    /// Zero is spelt otherwise.
    ZeroSpelling,
    /// Prices and quantities are written with an exponent.
    Exponent,
    /// The fields of a message come in another order.
    FieldOrder,
    /// A level goes that there was not.
    AbsentLevel,
    /// Many times as many orders come for a while.
    Burst,
}

/// Which messages, and how many.
const MESSAGES: &[&str] = &["symbol", "message", "one_in", "count", "for_ms"];

impl Kind {
    /// All there are.
    pub const ALL: [Self; 34] = [
        Self::Gap,
        Self::Duplicate,
        Self::Reorder,
        Self::StaleImage,
        Self::LateImage,
        Self::WrongChecksum,
        Self::ZeroChecksum,
        Self::Crossed,
        Self::AckSilent,
        Self::Silence,
        Self::HalfOpen,
        Self::Cut,
        Self::Giant,
        Self::Fragmented,
        Self::Drip,
        Self::BadUtf8,
        Self::BadJson,
        Self::RateLimit,
        Self::Ban,
        Self::CutAll,
        Self::CloseNotice,
        Self::Maintenance,
        Self::ClockStep,
        Self::TickChange,
        Self::Halt,
        Self::Delist,
        Self::List,
        Self::NumbersRestart,
        Self::KeepAlive,
        Self::ZeroSpelling,
        Self::Exponent,
        Self::FieldOrder,
        Self::AbsentLevel,
        Self::Burst,
    ];

    /// As it is spelt.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::StaleImage => "stale-image",
            Self::LateImage => "late-image",
            Self::WrongChecksum => "wrong-checksum",
            Self::ZeroChecksum => "zero-checksum",
            Self::Crossed => "crossed",
            Self::AckSilent => "ack-silent",
            Self::Silence => "silence",
            Self::HalfOpen => "half-open",
            Self::Cut => "cut",
            Self::Giant => "giant",
            Self::Fragmented => "fragmented",
            Self::Drip => "drip",
            Self::BadUtf8 => "bad-utf8",
            Self::BadJson => "bad-json",
            Self::RateLimit => "rate-limit",
            Self::Ban => "ban",
            Self::CutAll => "cut-all",
            Self::CloseNotice => "close-notice",
            Self::Maintenance => "maintenance",
            Self::ClockStep => "clock-step",
            Self::TickChange => "tick-change",
            Self::Halt => "halt",
            Self::Delist => "delist",
            Self::List => "list",
            Self::NumbersRestart => "numbers-restart",
            Self::KeepAlive => "keep-alive",
            Self::ZeroSpelling => "zero-spelling",
            Self::Exponent => "exponent",
            Self::FieldOrder => "field-order",
            Self::AbsentLevel => "absent-level",
            Self::Burst => "burst",
        }
    }

    /// The fields that say something about it, besides its time.
    pub const fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Gap
            | Self::Duplicate
            | Self::Reorder
            | Self::Fragmented
            | Self::BadUtf8
            | Self::BadJson
            | Self::ZeroSpelling
            | Self::Exponent
            | Self::FieldOrder => MESSAGES,
            Self::Cut | Self::Giant => &["symbol", "message", "bytes"],
            Self::Drip | Self::Silence | Self::HalfOpen => &["symbol", "message", "for_ms"],
            Self::StaleImage => &["symbol", "updates"],
            Self::AckSilent | Self::LateImage | Self::Crossed | Self::Halt | Self::Delist => {
                &["symbol", "for_ms"]
            }
            Self::WrongChecksum
            | Self::ZeroChecksum
            | Self::TickChange
            | Self::NumbersRestart
            | Self::KeepAlive
            | Self::AbsentLevel => &["symbol"],
            Self::RateLimit | Self::Ban | Self::CloseNotice | Self::Maintenance | Self::Burst => {
                &["for_ms"]
            }
            Self::CutAll | Self::List => &[],
            Self::ClockStep => &["step_ms", "for_ms"],
        }
    }

    /// It happens to a message on its way; the others to the exchange itself or to requests.
    pub const fn is_of_message(self) -> bool {
        matches!(
            self,
            Self::Gap
                | Self::Duplicate
                | Self::Reorder
                | Self::Silence
                | Self::HalfOpen
                | Self::Cut
                | Self::Giant
                | Self::Fragmented
                | Self::Drip
                | Self::BadUtf8
                | Self::BadJson
        ) || self.is_of_spelling()
    }

    /// A message says the same in another spelling.
    pub const fn is_of_spelling(self) -> bool {
        matches!(self, Self::ZeroSpelling | Self::Exponent | Self::FieldOrder)
    }

    /// It happens to what a client asks for: an image, a subscription.
    pub const fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::StaleImage | Self::LateImage | Self::AckSilent | Self::RateLimit | Self::Ban
        )
    }

    /// It happens to all connections, of which there must be one.
    pub const fn is_of_connections(self) -> bool {
        matches!(self, Self::CutAll | Self::CloseNotice | Self::Maintenance)
    }

    /// It happens to one symbol, or to each; the others to a whole connection or to all.
    pub fn is_of_symbol(self) -> bool {
        self.takes().contains(&"symbol")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_spelt() {
        for kind in Kind::ALL {
            let read: Kind = serde_json::from_value(kind.name().into()).unwrap();
            assert_eq!(read, kind);
        }
    }
}
