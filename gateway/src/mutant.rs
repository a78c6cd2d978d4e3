//! Planted bugs: the simulation must catch each of them, or its oracle proves nothing.
//!
//! In every build but the unit tests, [`planted`] is a constant `false` and costs nothing.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A lost event goes unnoticed.
    NoGapCheck,
    /// A batch is published in the middle of an event.
    #[cfg_attr(not(test), expect(dead_code, reason = "it needs memory that only tests have"))]
    PublishBeforeEventEnd,
    /// A seat leaves out one body of its range.
    SkipBody,
    /// The whole that a reader gets is that of an older turn.
    OldImage,
    /// Lateness counts from the newest change that a reader was not sent.
    BudgetFromNewest,
    /// A seat is sent to as soon as it has news.
    UnpacedSeat,
    /// One trade of those that skipped is not told as lost.
    UncountedLoss,
    /// One more event than was is counted as merged.
    MergedOffByOne,
    /// A blocked connection is sent more all the same, and keeps it.
    BlockedKeepsAll,
    /// What is found wrong with one instrument marks all.
    LeakyFault,
    /// A lost message of a connection goes unnoticed.
    NoNumberCheck,
    /// A checksum that differs goes unnoticed.
    ChecksumIgnored,
    /// What follows a loss is applied and served while the image that is to mend it is awaited.
    ServedUnmarked,
    /// A book is not cut back to the depth that the venue serves.
    NotCutBack,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or removes it.
#[cfg(test)]
pub(crate) fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}

/// Whether this bug is planted.
#[cfg(test)]
pub(crate) fn planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Whether this bug is planted: never, outside the tests.
#[cfg(not(test))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}
