//! A book → a ladder: asks above, bids below, the spread between them in a row that never moves, and
//! beside each price what is offered there and a bar of what is offered up to there.
//!
//! `book` calls it. Prices and quantities stay exact: they are added and divided as integers.

use tickfan_core::decimal::SCALE_MAX;
use tickfan_core::market::{Nanos, State};

use super::{Canvas, Look};
use crate::cli::book::{Ladder, Rung};
use crate::cli::{count, span};

/// Rows besides those of the levels: what it is, the spread, and the counts.
const ROWS_BESIDE: u16 = 3;

/// With fewer columns for its bar, what is offered in all is left out.
const BAR_MIN: usize = 12;

/// The rows that every level needs.
pub fn rows_of_all(ladder: &Ladder) -> u16 {
    let levels = ladder.bids.len().max(ladder.asks.len()).clamp(1, 10_000);
    ROWS_BESIDE + 2 * levels as u16
}

/// Draws a book as it is at this moment.
pub fn draw(ladder: &Ladder, now: Nanos, canvas: &mut Canvas<'_>) {
    let standing = ladder.standing(now);
    head(ladder, now, canvas);
    let levels = (canvas.rows().saturating_sub(ROWS_BESIDE) / 2) as usize;
    let asks = &ladder.asks[..ladder.asks.len().min(levels)];
    let bids = &ladder.bids[..ladder.bids.len().min(levels)];
    let columns = Columns::of(bids, asks, canvas.columns().into());
    let look = |look| if standing.is_current { look } else { Look::Faint };
    let middle = 1 + levels as u16;
    let mut total = 0;
    for (row, rung) in (1..middle).rev().zip(asks) {
        total = rung.1.finest().saturating_add(total);
        columns.ask(canvas, row, rung, total, &look);
    }
    total = 0;
    for (row, rung) in (middle + 1..).zip(bids) {
        total = rung.1.finest().saturating_add(total);
        columns.bid(canvas, row, rung, total, &look);
    }
    if levels > 0 {
        spread(ladder, &columns, canvas, middle);
    }
    if canvas.rows() >= ROWS_BESIDE {
        foot(ladder, canvas);
    }
}

/// What it is and what it is worth.
fn head(ladder: &Ladder, now: Nanos, canvas: &mut Canvas<'_>) {
    let standing = ladder.standing(now);
    let mut column = canvas.text(0, 0, &ladder.symbol, Look::Strong) + 2;
    let look = match State::from_name(standing.word) {
        Some(State::Live) => Look::Good,
        Some(State::Suspect | State::Halted | State::Syncing) => Look::Warning,
        None if standing.word == "connecting" => Look::Warning,
        _ => Look::Bad,
    };
    column = canvas.text(column, 0, &standing.word.to_uppercase(), look);
    if let Some(for_ns) = standing.for_ns {
        column = canvas.text(column, 0, &format!(" for {}", span(for_ns)), Look::Plain);
    }
    if look != Look::Good && !standing.why.is_empty() {
        column = canvas.text(column, 0, &format!(": {}", standing.why), look);
    }
    let age = ladder.age_ns(now).map_or_else(|| "-".to_owned(), span);
    canvas.text_at_the_right(column + 2, 0, &format!("age {age}"), Look::Plain);
}

/// Between the best bid and the best ask.
fn spread(ladder: &Ladder, columns: &Columns, canvas: &mut Canvas<'_>, row: u16) {
    let words = match (ladder.bids.first(), ladder.asks.first()) {
        (Some((bid, _)), Some((ask, _))) => {
            let (bid, ask) = (bid.finest(), ask.finest());
            let spread = decimal(ask - bid, columns.price_places);
            // Half of a last digit has one digit more.
            let middle = decimal((bid + ask) / 2, columns.price_places + 1);
            format!("spread {spread}   mid {middle}")
        }
        (None, None) => "no book".to_owned(),
        (Some(_), None) => "no asks".to_owned(),
        (None, Some(_)) => "no bids".to_owned(),
    };
    let column = usize::from(canvas.columns()).saturating_sub(words.chars().count()) / 2;
    canvas.text(column as u16, row, &words, Look::Faint);
}

fn foot(ladder: &Ladder, canvas: &mut Canvas<'_>) {
    let row = canvas.rows() - 1;
    let version = ladder.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
    let Ladder { updates, merged, late, epoch, .. } = ladder;
    let (updates, merged) = (count(*updates), count(*merged));
    let mut words = format!("updates {updates}  merged {merged}");
    if *late > 0 {
        words.push_str(&format!("  late {}", count(*late)));
    }
    let end = canvas.text(0, row, &words, Look::Faint);
    let numbers = format!("  s {version}  epoch {epoch}");
    let room = canvas.columns().saturating_sub(end + "  q quit".len() as u16);
    let has_room = numbers.len() <= room.into();
    let end = if has_room { canvas.text(end, row, &numbers, Look::Faint) } else { end };
    canvas.keys(end + 2, "q quit");
}

/// Where what stands: prices in the middle, quantities beside them, bars outside.
struct Columns {
    price_places: usize,
    price_wide: usize,
    quantity_places: usize,
    quantity_wide: usize,
    /// What is offered in all on the deeper side, which fills a bar.
    total_max: i128,
    total_wide: usize,
    /// Columns on each side of the prices.
    side: usize,
}

impl Columns {
    fn of(bids: &[Rung], asks: &[Rung], columns: usize) -> Self {
        let all = || bids.iter().chain(asks);
        let price_places = all().map(|(price, _)| places(&price.to_string())).max().unwrap_or(0);
        let quantity_places =
            all().map(|(_, quantity)| places(&quantity.to_string())).max().unwrap_or(0);
        let wide = |finest: i128, places: usize| decimal(finest, places).len();
        let price_wide = all().map(|(price, _)| wide(price.finest(), price_places)).max();
        let quantity_wide =
            all().map(|(_, quantity)| wide(quantity.finest(), quantity_places)).max();
        let total = |rungs: &[Rung]| {
            let quantities = rungs.iter().map(|(_, quantity)| quantity.finest());
            quantities.fold(0, i128::saturating_add)
        };
        let total_max = total(bids).max(total(asks));
        let price_wide = price_wide.unwrap_or(0);
        Self {
            price_places,
            price_wide,
            quantity_places,
            quantity_wide: quantity_wide.unwrap_or(0),
            total_max,
            total_wide: wide(total_max, quantity_places),
            side: columns.saturating_sub(price_wide + 2) / 2,
        }
    }

    /// The texts of a rung: its price, its quantity, what is offered up to it if there is room, its
    /// bar, and the columns that the bar may fill.
    fn texts(&self, (price, quantity): &Rung, total: i128) -> Texts {
        let mut quantity = decimal(quantity.finest(), self.quantity_places);
        if self.quantity_wide > self.side {
            // A number that is cut off is another number.
            quantity = "...".to_owned();
        }
        let quantity_wide = self.quantity_wide.min(self.side);
        let outside = self.side.saturating_sub(quantity_wide + 1);
        let has_total = outside >= self.total_wide + 1 + BAR_MIN;
        let bar_room = if has_total { outside - self.total_wide - 1 } else { outside };
        let halves = 2 * bar_room as i128;
        let filled = total / (self.total_max / halves.max(1)).max(1);
        let filled = filled.min(halves) as usize;
        Texts {
            price: format!("{:>1$}", decimal(price.finest(), self.price_places), self.price_wide),
            quantity: format!("{quantity:>quantity_wide$}"),
            total: has_total.then(|| decimal(total, self.quantity_places)),
            cells: filled / 2,
            has_half: filled % 2 == 1,
        }
    }

    fn bid(
        &self,
        canvas: &mut Canvas<'_>,
        row: u16,
        rung: &Rung,
        total: i128,
        look: &impl Fn(Look) -> Look,
    ) {
        let texts = self.texts(rung, total);
        let half = if texts.has_half { "\u{2590}" } else { " " };
        let bar = format!("{half}{}", "\u{2588}".repeat(texts.cells));
        let quantity_at = self.side.saturating_sub(texts.quantity.len());
        if let Some(total) = &texts.total {
            canvas.text(0, row, &format!("{total:>0$}", self.total_wide), look(Look::Faint));
        }
        let bar_at = quantity_at.saturating_sub(1 + bar.chars().count());
        if quantity_at > bar.chars().count() {
            canvas.text(bar_at as u16, row, &bar, look(Look::Bid));
        }
        canvas.text(quantity_at as u16, row, &texts.quantity, look(Look::Plain));
        canvas.text(self.side as u16 + 1, row, &texts.price, look(Look::Bid));
    }

    fn ask(
        &self,
        canvas: &mut Canvas<'_>,
        row: u16,
        rung: &Rung,
        total: i128,
        look: &impl Fn(Look) -> Look,
    ) {
        let texts = self.texts(rung, total);
        let half = if texts.has_half { "\u{258c}" } else { "" };
        let bar = format!("{}{half}", "\u{2588}".repeat(texts.cells));
        let quantity_at = self.side + self.price_wide + 2;
        canvas.text(self.side as u16 + 1, row, &texts.price, look(Look::Ask));
        canvas.text(quantity_at as u16, row, &texts.quantity, look(Look::Plain));
        let bar_at = quantity_at + texts.quantity.len() + 1;
        canvas.text(bar_at as u16, row, &bar, look(Look::Ask));
        if let Some(total) = &texts.total {
            let total_at = quantity_at + self.side - self.total_wide;
            canvas.text(
                total_at as u16,
                row,
                &format!("{total:>0$}", self.total_wide),
                look(Look::Faint),
            );
        }
    }
}

/// What a rung says.
struct Texts {
    price: String,
    quantity: String,
    total: Option<String>,
    /// Whole cells of the bar.
    cells: usize,
    has_half: bool,
}

/// Digits behind the point.
fn places(text: &str) -> usize {
    text.split_once('.').map_or(0, |(_, fraction)| fraction.len())
}

/// A number at the finest scale, with so many digits behind the point.
fn decimal(finest: i128, places: usize) -> String {
    let scale = usize::from(SCALE_MAX);
    let places = places.min(scale);
    let sign = if finest < 0 { "-" } else { "" };
    let digits = finest.unsigned_abs() / 10u128.pow((scale - places) as u32);
    let one = 10u128.pow(places as u32);
    if places == 0 {
        return format!("{sign}{digits}");
    }
    format!("{sign}{}.{:0places$}", digits / one, digits % one)
}
