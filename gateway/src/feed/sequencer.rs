//! The continuity of one book: does this event follow what is held, is it old news, or was
//! something lost?
//!
//! One rule for every venue, in the numbers of [`Continuity`]. The feed thread asks it for every
//! book event; it knows no levels and no time. Beside it the numbers that some venues give to all
//! messages of a connection.

use tickfan_core::market::Continuity;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It follows: apply it.
    Apply,
    /// It is contained in what is held: ignore it.
    Old,
    /// There is no image yet that it could follow: keep it.
    Early,
    /// At least one event before it was lost.
    Gap {
        /// The sequence held.
        held: u64,
        /// The sequence that the event follows.
        follows: u64,
    },
}

/// Where a book stands in its venue's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// No image.
    Nowhere,
    /// At an image: the next event may begin before its end.
    AtImage(Option<u64>),
    /// After an event.
    AtEvent(Option<Continuity>),
}

/// Checks the continuity of one book.
#[derive(Debug, Clone)]
pub struct Sequencer {
    position: Position,
}

impl Default for Sequencer {
    fn default() -> Self {
        Self { position: Position::Nowhere }
    }
}

impl Sequencer {
    /// Forgets where the book stood: only an image helps now.
    pub fn lose(&mut self) {
        self.position = Position::Nowhere;
    }

    /// There is no image to follow.
    pub fn is_lost(&self) -> bool {
        self.position == Position::Nowhere
    }

    /// The book now stands at an image with this sequence.
    pub fn begin(&mut self, image: Option<u64>) {
        self.position = Position::AtImage(image);
    }

    /// Judges the next event; after [`Verdict::Apply`] the book is taken to stand behind it.
    ///
    /// Events may be older than an image that was fetched beside the stream. Where images come
    /// `in_order` with the events, a smaller number is a repetition only when it is that of the very
    /// last event: any other may belong to a numbering that was begun anew unseen.
    pub fn judge(&mut self, continuity: Option<Continuity>, in_order: bool) -> Verdict {
        let (held, before) = match self.position {
            Position::Nowhere => return Verdict::Early,
            Position::AtImage(held) => (held, None),
            Position::AtEvent(event) => (event.map(|event| event.last), event),
        };
        // A venue that does not number its events proves its books by other means.
        let (Some(held), Some(event)) = (held, continuity) else {
            self.position = Position::AtEvent(continuity);
            return Verdict::Apply;
        };
        // What follows exactly is taken at its word: a venue that begins its numbers anew goes back.
        let is_next = event.follows == held;
        let is_known = match before {
            _ if !in_order => event.last <= held,
            Some(before) => event == before,
            None => event.last == held,
        };
        if is_known && !is_next {
            return Verdict::Old;
        }
        if is_next || (before.is_none() && (event.follows < held && held < event.last)) {
            self.position = Position::AtEvent(continuity);
            return Verdict::Apply;
        }
        if crate::mutant::planted(crate::mutant::Mutant::NoGapCheck) {
            self.position = Position::AtEvent(continuity);
            return Verdict::Apply;
        }
        Verdict::Gap { held, follows: event.follows }
    }
}

/// Checks the numbers of all messages of one connection, which rise one by one.
#[derive(Debug, Default)]
pub struct MessageNumbers {
    newest: Option<u64>,
    /// The message before had an old number.
    was_old: bool,
    /// Messages since, whose numbers could not be read.
    unread: u64,
}

impl MessageNumbers {
    /// A message could not be read: whatever its number was, it is not missing.
    pub const fn unreadable(&mut self) {
        self.unread += 1;
    }

    /// Judges the number of the next message. After a [`Verdict::Gap`] it goes on from there; the
    /// first number of a connection is as good as any. One old number is a repetition; a second one
    /// after it is a numbering begun anew, whose beginning was left out.
    pub fn judge(&mut self, number: u64) -> Verdict {
        let Some(held) = self.newest else {
            self.newest = Some(number);
            self.unread = 0;
            return Verdict::Apply;
        };
        let was_old = std::mem::replace(&mut self.was_old, number <= held);
        if number <= held && !was_old {
            return Verdict::Old;
        }
        if number <= held {
            *self = Self { newest: Some(number), ..Self::default() };
            return Verdict::Gap { held, follows: number.saturating_sub(1) };
        }
        let skipped = number - held - 1;
        self.newest = Some(number);
        if skipped > std::mem::take(&mut self.unread) {
            Verdict::Gap { held, follows: number - 1 }
        } else {
            Verdict::Apply
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(follows: u64, last: u64) -> Option<Continuity> {
        Some(Continuity { follows, last })
    }

    #[test]
    fn joins_an_image_at_every_offset_that_the_venues_allow() {
        // An image at 100, met by events of three numbers each that begin around it.
        for (follows, expected) in [
            (95, Verdict::Old),
            (97, Verdict::Old),
            (98, Verdict::Apply),
            (99, Verdict::Apply),
            (100, Verdict::Apply),
            (101, Verdict::Gap { held: 100, follows: 101 }),
            (102, Verdict::Gap { held: 100, follows: 102 }),
        ] {
            let mut sequencer = Sequencer::default();
            assert_eq!(sequencer.judge(event(follows, follows + 3), false), Verdict::Early);
            sequencer.begin(Some(100));
            assert_eq!(sequencer.judge(event(follows, follows + 3), false), expected, "{follows}");
        }
    }

    #[test]
    fn after_an_event_only_its_successor_follows() {
        let mut sequencer = Sequencer::default();
        sequencer.begin(Some(10));
        assert_eq!(sequencer.judge(event(10, 12), false), Verdict::Apply);
        assert_eq!(sequencer.judge(event(10, 12), false), Verdict::Old, "a duplicate");
        assert_eq!(
            sequencer.judge(event(11, 14), false),
            Verdict::Gap { held: 12, follows: 11 },
            "an overlap cannot come about without a loss"
        );
        assert_eq!(sequencer.judge(event(12, 15), false), Verdict::Apply);
        sequencer.lose();
        assert_eq!(sequencer.judge(event(15, 16), false), Verdict::Early);
    }

    #[test]
    fn a_venue_without_numbers_is_taken_at_its_word() {
        let mut sequencer = Sequencer::default();
        assert_eq!(sequencer.judge(None, false), Verdict::Early);
        sequencer.begin(None);
        assert_eq!(sequencer.judge(None, false), Verdict::Apply);
    }

    #[test]
    fn numbers_that_begin_anew_go_on_from_the_smaller_one() {
        let mut sequencer = Sequencer::default();
        sequencer.begin(Some(100));
        assert_eq!(
            sequencer.judge(event(100, 100), false),
            Verdict::Apply,
            "it only shows that it lives"
        );
        assert_eq!(sequencer.judge(event(100, 7), false), Verdict::Apply);
        assert_eq!(sequencer.judge(event(7, 9), false), Verdict::Apply);
        assert_eq!(sequencer.judge(event(7, 9), false), Verdict::Old);
    }

    #[test]
    fn where_images_come_in_order_only_the_last_event_can_come_again() {
        let gap = |held, follows| Verdict::Gap { held, follows };
        let mut sequencer = Sequencer::default();
        sequencer.begin(Some(1_000));
        assert_eq!(sequencer.judge(event(990, 1_000), true), Verdict::Old, "the image holds it");
        assert_eq!(sequencer.judge(event(1_000, 1_005), true), Verdict::Apply);
        assert_eq!(sequencer.judge(event(1_000, 1_005), true), Verdict::Old);
        // The numbers began anew at 3, in an event that was lost.
        assert_eq!(sequencer.judge(event(3, 7), true), gap(1_005, 3));
        sequencer.begin(Some(1_000));
        assert_eq!(sequencer.judge(event(1, 2), true), gap(1_000, 1));
    }

    #[test]
    fn a_second_old_number_is_a_numbering_begun_anew() {
        let mut numbers = MessageNumbers::default();
        for (number, expected) in [
            (100, Verdict::Apply),
            (1, Verdict::Old),
            (2, Verdict::Gap { held: 100, follows: 1 }),
            (3, Verdict::Apply),
            (3, Verdict::Old),
            (4, Verdict::Apply),
        ] {
            assert_eq!(numbers.judge(number), expected, "{number}");
        }
    }

    #[test]
    fn messages_are_numbered_one_by_one_from_anywhere() {
        let mut numbers = MessageNumbers::default();
        for (number, expected) in [
            (0, Verdict::Apply),
            (0, Verdict::Old),
            (1, Verdict::Apply),
            (3, Verdict::Gap { held: 1, follows: 2 }),
            (2, Verdict::Old),
            (4, Verdict::Apply),
        ] {
            assert_eq!(numbers.judge(number), expected, "{number}");
        }
    }

    #[test]
    fn a_message_that_cannot_be_read_is_not_missing() {
        let mut numbers = MessageNumbers::default();
        assert_eq!(numbers.judge(10), Verdict::Apply);
        numbers.unreadable();
        assert_eq!(numbers.judge(12), Verdict::Apply);
        numbers.unreadable();
        assert_eq!(numbers.judge(13), Verdict::Apply, "it had no number, or an old one");
        assert_eq!(numbers.judge(15), Verdict::Gap { held: 13, follows: 14 });
        numbers.unreadable();
        assert_eq!(numbers.judge(18), Verdict::Gap { held: 15, follows: 17 });
    }
}
