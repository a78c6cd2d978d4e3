//! The overview of a gateway → a board: one line on the whole, then feeds, shards, classes and the
//! worst connections, each with as much as there is room for.
//!
//! `top` calls it.

use tickfan_core::market::Nanos;

use super::sheet::{Column, Row, Sheet};
use super::{Canvas, Look};
use crate::cli::top::Board;
use crate::cli::{count, span};
use crate::overview::{ClassOverview, ConnectionOverview, FeedOverview, Overview, ShardOverview};

/// Rows that the connections get before the other sheets take theirs.
const CONNECTION_ROWS_MIN: usize = 4;

/// With fewer rows, the sheets stand without an empty row between them.
const ROWS_WITH_SPACE: u16 = 20;

const FEEDS: &[Column] = &[
    Column::words("FEED", 0),
    Column::number("BOOKS", 5),
    Column::number("NOT LIVE", 0),
    Column::number("AGE", 0),
    Column::number("GAPS", 2),
    Column::number("CHECKSUMS", 6),
    Column::number("MSGS/S", 4),
    Column::number("BYTES/S", 7),
    Column::words("WORST BOOK", 1),
    Column::number("FOR", 3),
];

const SHARDS: &[Column] = &[
    Column::words("SHARD", 0),
    Column::number("CONNS", 0),
    Column::number("LAG", 0),
    Column::number("BLOCKED", 1),
    Column::number("UPDATES/S", 2),
    Column::number("MERGED/S", 3),
    Column::number("BYTES/S", 4),
    Column::number("FRAMES/S", 7),
    Column::number("LATE/S", 5),
    Column::number("CLIENT LATE/S", 6),
];

const CLASSES: &[Column] = &[
    Column::words("BUDGET", 0),
    Column::number("P99", 0),
    Column::number("OF IT", 1),
    Column::number("SEATS", 2),
    Column::number("MISSED", 3),
    Column::number("CLIENT MISSED", 4),
];

const CONNECTIONS: &[Column] = &[
    Column::words("CONNECTION", 0),
    Column::number("LAG", 0),
    Column::number("MERGED", 1),
    Column::number("BLOCKED", 0),
    Column::number("UNSENT", 3),
    Column::number("SUBS", 2),
    Column::number("BUDGET", 4),
    Column::number("FRAMES", 5),
    Column::words("ENCODING", 6),
    Column::number("SHARD", 7),
];

/// The rows that all of it needs.
pub fn rows_of_all(board: &Board) -> u16 {
    let Some((overview, _)) = &board.now else { return 1 };
    let sheets = sheets(board, overview);
    let all: usize = sheets.iter().map(|sheet| sheet.height() + 1).sum();
    (1 + all).min(1_000) as u16
}

/// Draws what is known at this moment.
pub fn draw(board: &Board, now: Nanos, canvas: &mut Canvas<'_>) {
    head(board, now, canvas);
    let Some((overview, _)) = &board.now else { return };
    let mut sheets = sheets(board, overview);
    if board.trouble.is_some() {
        for row in sheets.iter_mut().flat_map(|sheet| &mut sheet.rows) {
            row.look = Look::Faint;
        }
    }
    let rows = canvas.rows();
    let space = usize::from(rows >= ROWS_WITH_SPACE || !canvas.is_screen);
    // The first row is the head's, and a screen's last that of the keys.
    let end = usize::from(rows).saturating_sub(usize::from(canvas.is_screen));
    let heights = share(&sheets, end.saturating_sub(1), space);
    let mut top = 1;
    for (sheet, height) in sheets.iter().zip(heights) {
        if height > 0 {
            sheet.draw(canvas, (top + space) as u16, height);
            top += space + height;
        }
    }
    let by = board.by.name();
    canvas.keys(0, &format!("by {by}: l lag  m merged  b blocked  q quit"));
}

/// How many rows each sheet gets, empty rows before them not counted: the last has a few for sure,
/// those before it share, and what they leave is the last one's.
fn share(sheets: &[Sheet], rows: usize, space: usize) -> Vec<usize> {
    let Some((last, others)) = sheets.split_last() else { return Vec::new() };
    let kept = last.height().min(CONNECTION_ROWS_MIN) + space;
    let mut left = rows.saturating_sub(kept);
    let mut heights = Vec::new();
    for (done, sheet) in others.iter().enumerate() {
        let fair = left / (others.len() - done);
        // A title without a row says nothing.
        let height = sheet.height().min(fair.saturating_sub(space));
        let height = if height >= 2 { height } else { 0 };
        left -= if height > 0 { height + space } else { 0 };
        heights.push(height);
    }
    heights.push(last.height().min((left + kept).min(rows).saturating_sub(space)));
    heights
}

/// The whole in one line.
fn head(board: &Board, now: Nanos, canvas: &mut Canvas<'_>) {
    let mut column = 0;
    if let (Some(trouble), Some((_, heard_ns))) = (&board.trouble, &board.now) {
        let silent = span(now.saturating_sub(*heard_ns));
        column = canvas.text(0, 0, &format!("NO ANSWER for {silent}"), Look::Bad);
        canvas.text(column, 0, &format!(": {trouble}"), Look::Plain);
        return;
    }
    let Some((overview, _)) = &board.now else { return };
    column = canvas.text(column, 0, &overview.gateway, Look::Strong) + 2;
    if overview.draining {
        column = canvas.text(column, 0, "DRAINING", Look::Warning) + 2;
    }
    let Overview { connections, subscriptions, lanes, .. } = overview;
    let (connections, subscriptions) = (count(*connections), count(*subscriptions));
    let mut words = format!("{connections} connections  {subscriptions} subscriptions");
    if words.len() > usize::from(canvas.columns().saturating_sub(column)) {
        words = format!("{connections} conns  {subscriptions} subs");
    }
    column = canvas.text(column, 0, &words, Look::Plain);
    let lanes = format!("  {} lanes", count(*lanes));
    if usize::from(canvas.columns().saturating_sub(column)) >= lanes.len() {
        column = canvas.text(column, 0, &lanes, Look::Plain);
    }
    canvas.text_at_the_right(column + 2, 0, &board.url, Look::Faint);
}

fn sheets(board: &Board, overview: &Overview) -> [Sheet; 4] {
    [
        Sheet {
            columns: FEEDS,
            rows: overview.feeds.iter().map(|feed| feed_row(board, feed)).collect(),
        },
        Sheet {
            columns: SHARDS,
            rows: overview.shards.iter().map(|shard| shard_row(board, shard)).collect(),
        },
        Sheet { columns: CLASSES, rows: overview.classes.iter().map(class_row).collect() },
        Sheet { columns: CONNECTIONS, rows: overview.worst.iter().map(connection_row).collect() },
    ]
}

fn feed_row(board: &Board, feed: &FeedOverview) -> Row {
    let of = |counter: fn(&FeedOverview) -> u64| {
        rate(board.per_s(|overview| {
            overview.feeds.iter().find(|other| other.venue == feed.venue).map(counter)
        }))
    };
    let worst = feed.worst.as_ref().map_or_else(String::new, |book| {
        // The venue stands before it already.
        let native = book.symbol.split_once(':').map_or(&*book.symbol, |(_, native)| native);
        let why = if book.state == "live" { "" } else { &*book.why };
        format!("{native} {} {why}", book.state).trim_end().to_owned()
    });
    let for_us = feed.worst.as_ref().map_or_else(|| "-".to_owned(), |book| micros(book.for_us));
    let look = match feed.worst.as_ref().map(|book| book.state.as_str()) {
        Some("gap" | "stale") => Look::Bad,
        Some("live") | None => Look::Plain,
        Some(_) => Look::Warning,
    };
    let cells = vec![
        feed.venue.clone(),
        count(feed.books),
        count(feed.not_live),
        feed.age_us.map_or_else(|| "-".to_owned(), micros),
        count(feed.gaps),
        count(feed.checksum_mismatches),
        of(|feed| feed.messages),
        of(|feed| feed.bytes),
        worst,
        for_us,
    ];
    Row { cells, look }
}

fn shard_row(board: &Board, shard: &ShardOverview) -> Row {
    let of = |counter: fn(&ShardOverview) -> u64| {
        rate(board.per_s(|overview| {
            overview.shards.iter().find(|other| other.shard == shard.shard).map(counter)
        }))
    };
    let known = |text: String| if shard.answered { text } else { "?".to_owned() };
    let cells = vec![
        shard.shard.to_string(),
        count(shard.connections),
        known(none_or(shard.lag_us, micros(shard.lag_us))),
        known(count(shard.blocked_now)),
        of(|shard| shard.updates),
        of(|shard| shard.merged),
        of(|shard| shard.bytes),
        of(|shard| shard.frames),
        of(|shard| shard.late_gateway),
        of(|shard| shard.late_client),
    ];
    Row { cells, look: if shard.answered { Look::Plain } else { Look::Bad } }
}

fn class_row(class: &ClassOverview) -> Row {
    let budget_us = u64::from(class.budget_ms) * 1_000;
    let percent = class.p99_us.filter(|_| budget_us > 0).map(|p99_us| p99_us * 100 / budget_us);
    let cells = vec![
        format!("{} ms", class.budget_ms),
        class.p99_us.map_or_else(|| "-".to_owned(), micros),
        percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
        count(class.seats),
        count(class.missed_gateway),
        count(class.missed_client),
    ];
    let is_over = percent.is_some_and(|percent| percent > 100);
    Row { cells, look: if is_over { Look::Bad } else { Look::Plain } }
}

fn connection_row(connection: &ConnectionOverview) -> Row {
    let cells = vec![
        if connection.peer.is_empty() { "gone".to_owned() } else { connection.peer.clone() },
        none_or(connection.lag_us, micros(connection.lag_us)),
        count(connection.merged),
        none_or(connection.blocked_us, micros(connection.blocked_us)),
        none_or(connection.unsent_bytes, count(connection.unsent_bytes)),
        count(connection.subscriptions),
        connection.budget_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
        count(connection.frames),
        connection.encoding.clone(),
        connection.shard.to_string(),
    ];
    Row { cells, look: if connection.blocked_us > 0 { Look::Warning } else { Look::Plain } }
}

fn none_or(number: u64, text: String) -> String {
    if number == 0 { "-".to_owned() } else { text }
}

fn micros(us: u64) -> String {
    span(us.saturating_mul(1_000))
}

fn rate(per_s: Option<u64>) -> String {
    per_s.map_or_else(|| "-".to_owned(), count)
}
