//! Ladders and boards as they are drawn on screens of several sizes, with and without colours.
//!
//! The expected screens are files that a person has looked at.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tickfan_core::market::State;

use super::{Canvas, Key, Palette, board, key_of, ladder, text};
use crate::cli::book::{Ladder, Link};
use crate::cli::top::Board;
use crate::client::mirror::Number;
use crate::overview::{
    BookOverview, ClassOverview, ConnectionOverview, FeedOverview, Overview, ShardOverview, WorstBy,
};
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

const SECOND_NS: u64 = 1_000_000_000;
const NOW: u64 = 1_000 * SECOND_NS;

const COLORFUL: Palette = Palette { has_colors: true };
const PLAIN: Palette = Palette { has_colors: false };

/// A terminal of that size on which that was drawn.
fn drawn(
    (columns, rows): (u16, u16),
    palette: Palette,
    draw: impl FnOnce(&mut Canvas<'_>),
) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| {
            draw(&mut Canvas { buffer: frame.buffer_mut(), palette, is_screen: true });
        })
        .unwrap();
    terminal.backend().clone()
}

/// Holds a screen against the file of this name.
fn assert_screen(screen: &TestBackend, name: &str) {
    let rows = screen.buffer().content.chunks(screen.buffer().area.width.into());
    let mut came = String::new();
    for row in rows {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        came.push_str(line.trim_end());
        came.push('\n');
    }
    let path = format!("{}/testdata/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(came, expected, "{name}: what was drawn is\n{came}");
}

fn number(hundredths: u64) -> Number {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    Number::parse(text.trim_end_matches('0').trim_end_matches('.')).unwrap()
}

/// Sixty levels a side around 62,000.
fn book() -> Ladder {
    let mut ladder = Ladder::new("sim:BTCUSDT".to_owned(), NOW);
    ladder.state = Some(State::Live);
    ladder.changed_ns = Some(NOW - 14_000_000);
    (ladder.epoch, ladder.version) = (17, Some(20_417));
    (ladder.updates, ladder.merged) = (1_234, 56_789);
    let quantity = |level: u64| number(1 + (level * 37) % 250);
    ladder.bids = (0..60).map(|level| (number(6_199_991 - 3 * level), quantity(level))).collect();
    ladder.asks =
        (0..60).map(|level| (number(6_199_994 + 4 * level), quantity(level + 7))).collect();
    ladder
}

#[test]
fn a_ladder_fits_any_screen() {
    let ladder = book();
    for size in [(80, 24), (40, 12), (200, 50)] {
        let screen = drawn(size, COLORFUL, |canvas| ladder::draw(&ladder, NOW, canvas));
        assert_screen(&screen, &format!("ladder-{}x{}", size.0, size.1));
    }
    // Nothing that is cut off panics.
    for size in [(1, 1), (3, 2), (9, 3), (17, 5), (30, 4), (u16::MAX, 1)] {
        drawn(size, COLORFUL, |canvas| ladder::draw(&ladder, NOW, canvas));
    }
}

#[test]
fn a_ladder_that_is_wrong_is_grey_and_says_why() {
    let mut ladder = book();
    ladder.state = Some(State::Gap);
    ladder.why = Some(("sequence_gap".to_owned(), NOW - 3_250_000_000));
    let draw =
        |ladder: &Ladder, now| drawn((80, 8), COLORFUL, |canvas| ladder::draw(ladder, now, canvas));
    let screen = draw(&ladder, NOW);
    assert_screen(&screen, "ladder-gap");
    let has_color = |screen: &TestBackend, color| {
        let below_head = screen.buffer().content.iter().skip(80);
        below_head.filter(|cell| cell.fg == color).count() > 0
    };
    assert!(!has_color(&screen, Color::Green) && !has_color(&screen, Color::Red));

    ladder.state = Some(State::Live);
    let screen = draw(&ladder, NOW);
    assert!(
        has_color(&screen, Color::Green) && has_color(&screen, Color::Red),
        "while it is right"
    );
    assert_screen(&draw(&ladder, NOW + 5 * SECOND_NS), "ladder-silent");
    ladder.link = Link::Down("the gateway closed the connection: 1012 deploy".to_owned(), NOW);
    assert_screen(&draw(&ladder, NOW + 61 * SECOND_NS), "ladder-disconnected");
    assert_screen(&draw(&Ladder::new("sim:A".to_owned(), NOW), NOW), "ladder-connecting");
}

#[test]
fn a_number_is_never_cut_off() {
    let mut ladder = book();
    ladder.bids[0].1 = Number::parse("1234567890.12345678").unwrap();
    let text = text(30, 5, |canvas| ladder::draw(&ladder, NOW, canvas));
    assert!(text.contains("..."), "{text}");
    assert!(!text.contains("123456"), "{text}");
}

/// A gateway with troubles of every kind.
fn overview(time_us: u64, counted: u64) -> Overview {
    let book = |symbol: &str, state: &str, why: &str| BookOverview {
        symbol: symbol.to_owned(),
        state: state.to_owned(),
        why: why.to_owned(),
        for_us: 3_250_000,
        age_us: Some(3_260_000),
    };
    let feed = |venue: &str, not_live, worst| FeedOverview {
        venue: venue.to_owned(),
        books: 120,
        not_live,
        age_us: Some(2_300),
        messages: 4_000 + 812 * counted,
        bytes: 1_000_000 + 96_000 * counted,
        gaps: not_live,
        checksum_mismatches: 0,
        worst: Some(worst),
    };
    let shard = |shard: u32, answered| ShardOverview {
        shard,
        answered,
        connections: 6_172,
        blocked_now: 1,
        lag_us: 12_400_000,
        frames: 100 + 61_000 * counted,
        updates: 100 + 88_000 * counted,
        bytes: 100 + 21_000_000 * counted,
        merged: 100 + 1_900_000 * counted,
        blocked: 4,
        late_gateway: 3 * counted,
        late_client: 40 + counted,
    };
    let class = |budget_ms, p99_us, missed_gateway| ClassOverview {
        budget_ms,
        seats: 4_000,
        p99_us,
        missed_gateway,
        missed_client: 7,
    };
    let connection = |port: u16, lag_us, blocked_us| ConnectionOverview {
        shard: u32::from(port % 2),
        peer: format!("203.0.113.{}:{port}", port % 200),
        encoding: "tickfan.json.v1".to_owned(),
        subscriptions: 12,
        budget_ms: Some(50),
        lag_us,
        frames: 81_234,
        merged: 1_234_567 - u64::from(port),
        blocked_us,
        unsent_bytes: if blocked_us > 0 { 65_321 } else { 0 },
    };
    Overview {
        gateway: "tickfan/0.1.0".to_owned(),
        time_us,
        draining: false,
        connections: 12_344,
        subscriptions: 148_128,
        lanes: 731,
        feeds: vec![
            feed("kraken", 3, book("kraken:BTC/USD", "gap", "checksum_mismatch")),
            feed("okx", 1, book("okx:BTC-USDT", "suspect", "crossed")),
            feed("binance-spot", 0, book("binance-spot:BTCUSDT", "live", "synced")),
        ],
        shards: vec![shard(0, true), shard(1, false)],
        classes: vec![
            class(0, Some(310), 0),
            class(20, Some(23_400), 51),
            class(50, Some(37_600), 2),
            class(1_000, None, 0),
        ],
        worst: (0..40)
            .map(|at| match at {
                0 => connection(51_200, 12_400_000, 12_399_000),
                1..9 => connection(51_200 + at, 40_000 - 1_000 * u64::from(at), 0),
                _ => connection(51_200 + at, 0, 0),
            })
            .collect(),
    }
}

fn board() -> Board {
    let mut board = Board::new("http://127.0.0.1:9180".to_owned(), WorstBy::Lag);
    board.hear(overview(5_000_000, 0), NOW - SECOND_NS);
    board.hear(overview(6_000_000, 1), NOW);
    board
}

#[test]
fn a_board_fits_any_screen() {
    let board = board();
    for size in [(80, 24), (40, 12), (200, 50)] {
        let screen = drawn(size, COLORFUL, |canvas| board::draw(&board, NOW, canvas));
        assert_screen(&screen, &format!("board-{}x{}", size.0, size.1));
    }
    for size in [(1, 1), (3, 2), (9, 3), (17, 5), (30, 4), (u16::MAX, 1)] {
        drawn(size, COLORFUL, |canvas| board::draw(&board, NOW, canvas));
    }
}

#[test]
fn rates_are_of_the_time_between_two_answers() {
    let mut board = board();
    let messages = |overview: &Overview| Some(overview.feeds[0].messages);
    assert_eq!(board.per_s(messages), Some(812));
    board.hear(overview(6_500_000, 2), NOW + SECOND_NS);
    assert_eq!(board.per_s(messages), Some(1_624), "half a second by the gateway's clock");
    board.hear(overview(7_500_000, 0), NOW + SECOND_NS);
    assert_eq!(board.per_s(messages), None, "the gateway began anew");
}

#[test]
fn a_board_whose_gateway_does_not_answer_says_so_and_is_grey() {
    let mut board = board();
    board.trouble = Some("Connection refused (os error 111)".to_owned());
    let later = NOW + 4 * SECOND_NS;
    let screen = drawn((80, 24), COLORFUL, |canvas| board::draw(&board, later, canvas));
    let rows: Vec<&[_]> = screen.buffer().content.chunks(80).collect();
    let head: String = rows[0].iter().map(|cell| cell.symbol()).collect();
    assert!(head.starts_with("NO ANSWER for 4.0 s: Connection refused"), "{head}");
    let colors = rows[1..].iter().copied().flatten().filter(|cell| cell.fg != Color::Reset);
    assert_eq!(colors.count(), 0);
}

#[test]
fn without_colors_every_word_is_there_and_no_color() {
    let (book, board) = (book(), board());
    for draw in [
        &(|canvas: &mut Canvas<'_>| ladder::draw(&book, NOW, canvas)) as &dyn Fn(&mut Canvas<'_>),
        &|canvas| board::draw(&board, NOW, canvas),
    ] {
        let (plain, colorful) = (drawn((80, 24), PLAIN, draw), drawn((80, 24), COLORFUL, draw));
        let symbols = |screen: &TestBackend| -> String {
            screen.buffer().content.iter().map(|cell| cell.symbol()).collect()
        };
        let colors = |screen: &TestBackend| {
            let cells = screen.buffer().content.iter();
            cells.filter(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset)).count()
        };
        assert_eq!(symbols(&plain), symbols(&colorful));
        assert_eq!(colors(&plain), 0);
        assert!(colors(&colorful) > 0);
    }
}

#[test]
fn keys_are_few() {
    let key = |code, modifiers| key_of(&Event::Key(KeyEvent::new(code, modifiers)));
    assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
    assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Quit));
    assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
    assert_eq!(key(KeyCode::Char('m'), KeyModifiers::NONE), Some(Key::Char('m')));
    assert_eq!(key(KeyCode::Up, KeyModifiers::NONE), None);
}
