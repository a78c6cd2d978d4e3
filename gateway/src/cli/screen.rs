//! The terminal: what is drawn → a screen that follows it, or the same as plain text.
//!
//! The home of ratatui. The commands call it; its children draw what these know. A screen is put back
//! as it was when it is dropped, and when the program panics. `NO_COLOR` is honoured: whatever a
//! colour says, a word says too.

use std::env;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

pub mod sheet;
pub mod ladder;
pub mod board;

#[cfg(test)]
mod tests;

/// Between two drawings: more often nobody sees, and a slow line would carry for nothing.
pub const FRAME: Duration = Duration::from_millis(50);

/// Keys that were pressed and not yet looked at; more are dropped, as they are on a terminal.
const KEYS_MAX: usize = 16;

/// How often the thread that waits for keys looks whether anybody still does.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// It is enough.
    Quit,
    /// Ctrl-C, which a screen gets as a key.
    Interrupt,
    /// Any other character.
    Char(char),
}

/// Somebody looks at standard output, and can press keys.
pub fn is_there() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// What a text says by how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Look {
    /// Nothing.
    #[default]
    Plain,
    /// This is what it is about.
    Strong,
    /// This is beside the point, or not to be relied on.
    Faint,
    /// All is well.
    Good,
    /// This is not as it should be.
    Warning,
    /// This is wrong.
    Bad,
    /// A buyer's.
    Bid,
    /// A seller's.
    Ask,
}

/// How looks become colours, or do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    has_colors: bool,
}

impl Palette {
    /// As the environment wants it (<https://no-color.org>).
    pub fn of_environment() -> Self {
        Self { has_colors: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn style(self, look: Look) -> Style {
        let style = match look {
            Look::Plain => Style::new(),
            Look::Strong => Style::new().add_modifier(Modifier::BOLD),
            Look::Faint => Style::new().add_modifier(Modifier::DIM),
            Look::Good | Look::Bid => Style::new().fg(Color::Green),
            Look::Warning => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
            Look::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            Look::Ask => Style::new().fg(Color::Red),
        };
        if self.has_colors { style } else { Style { fg: None, ..style } }
    }
}

/// What is drawn on: columns and rows, from 0. Whatever does not fit is cut off.
#[derive(Debug)]
pub struct Canvas<'a> {
    buffer: &'a mut Buffer,
    palette: Palette,
    /// There are keys.
    is_screen: bool,
}

impl Canvas<'_> {
    /// How many columns there are.
    pub fn columns(&self) -> u16 {
        self.buffer.area.width
    }

    /// How many rows there are.
    pub fn rows(&self) -> u16 {
        self.buffer.area.height
    }

    /// Writes a text; returns the column behind it.
    pub fn text(&mut self, column: u16, row: u16, text: &str, look: Look) -> u16 {
        let Rect { x, y, width, height } = self.buffer.area;
        if column >= width || row >= height {
            return column;
        }
        let (room, style) = ((width - column).into(), self.palette.style(look));
        let (end, _) = self.buffer.set_stringn(x + column, y + row, text, room, style);
        end - x
    }

    /// Says which keys there are, where there are any: at the end of the last row, if there is room.
    pub fn keys(&mut self, from: u16, keys: &str) {
        if self.is_screen {
            self.text_at_the_right(from, self.rows().saturating_sub(1), keys, Look::Faint);
        }
    }

    /// Writes a text that ends at the right edge, unless that is beyond what stands there already.
    pub fn text_at_the_right(&mut self, from: u16, row: u16, text: &str, look: Look) {
        let length = text.chars().count() as u16;
        if let Some(column) = self.columns().checked_sub(length)
            && column >= from
        {
            self.text(column, row, text, look);
        }
    }
}

/// A terminal that is filled.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    keys: mpsc::Receiver<Key>,
    terminated: Signal,
    palette: Palette,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When standard output is none, or no signal can be waited for.
    pub fn open() -> io::Result<Self> {
        let terminated = signal(SignalKind::terminate())?;
        let terminal = ratatui::try_init()?;
        let (pressed, keys) = mpsc::channel(KEYS_MAX);
        // It ends with its receiver: nothing waits for it.
        thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&pressed))?;
        Ok(Self { terminal, keys, terminated, palette: Palette::of_environment() })
    }

    /// Waits for a key. A terminal that is gone, and SIGTERM, count as one.
    pub async fn key(&mut self) -> Key {
        tokio::select! {
            key = self.keys.recv() => key.unwrap_or(Key::Quit),
            _ = self.terminated.recv() => Key::Quit,
        }
    }

    /// Draws everything anew; only what differs is sent.
    ///
    /// # Errors
    /// When the terminal takes nothing.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Canvas<'_>)) -> io::Result<()> {
        let palette = self.palette;
        self.terminal.draw(|frame| {
            draw(&mut Canvas { buffer: frame.buffer_mut(), palette, is_screen: true });
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Hands on what is pressed, until nobody waits for it.
fn read_keys(pressed: &mpsc::Sender<Key>) {
    while !pressed.is_closed() {
        match event::poll(KEY_WAIT) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return,
        }
        let Ok(event) = event::read() else { return };
        if let Some(key) = key_of(&event) {
            // Who does not keep up with keys loses them.
            let _ = pressed.try_send(key);
        }
    }
}

fn key_of(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char(char) => Some(Key::Char(char)),
        _ => None,
    }
}

/// What would be drawn, as lines without colours.
pub fn text(columns: u16, rows: u16, draw: impl FnOnce(&mut Canvas<'_>)) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    let palette = Palette { has_colors: false };
    draw(&mut Canvas { buffer: &mut buffer, palette, is_screen: false });
    let mut text = String::new();
    for row in buffer.content.chunks(columns.into()) {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
