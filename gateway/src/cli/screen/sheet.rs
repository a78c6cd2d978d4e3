//! A table → as many of its columns and rows as fit, the important ones first.
//!
//! The board is made of these. Pure.

use super::{Canvas, Look};

/// Columns between two columns.
const SPACE: usize = 2;

/// A column of a sheet.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// Its texts end at its right edge, as numbers do.
    pub is_number: bool,
    /// Where there is no room for all, those with the highest rank are left out; the first never is.
    pub rank: u8,
}

impl Column {
    /// A column of words.
    pub const fn words(title: &'static str, rank: u8) -> Self {
        Self { title, is_number: false, rank }
    }

    /// A column of numbers.
    pub const fn number(title: &'static str, rank: u8) -> Self {
        Self { title, is_number: true, rank }
    }
}

/// A row: a text for each column, and how they look.
#[derive(Debug, Clone)]
pub struct Row {
    /// The texts.
    pub cells: Vec<String>,
    /// How they look.
    pub look: Look,
}

/// A table.
#[derive(Debug)]
pub struct Sheet {
    /// The columns.
    pub columns: &'static [Column],
    /// The rows, the most important first.
    pub rows: Vec<Row>,
}

impl Sheet {
    /// How many rows of a canvas it would fill.
    pub const fn height(&self) -> usize {
        1 + self.rows.len()
    }

    /// Draws it into so many rows of the canvas, from this one on. What does not fit is counted.
    pub fn draw(&self, canvas: &mut Canvas<'_>, top: u16, height: usize) {
        if height == 0 {
            return;
        }
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = self.rows.iter().filter_map(|row| row.cells.get(at));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
                widest.max(column.title.len())
            })
            .collect();
        let room = height - 1;
        // What is left out is counted: in a row of its own, or where there is but one, above it.
        let has_own_row = self.rows.len() > room && room > 1;
        let fits = if has_own_row { room - 1 } else { room.min(self.rows.len()) };
        let left_out = self.rows.len() - fits;
        let above =
            if left_out > 0 && !has_own_row { format!("+{left_out}") } else { String::new() };
        let reserved = if above.is_empty() { 0 } else { above.len() + 1 };
        let shown = self.shown(&widths, usize::from(canvas.columns()).saturating_sub(reserved));
        let titles = shown.iter().map(|at| self.columns[*at].title);
        let end = self.line(canvas, top, &shown, &widths, titles, Look::Faint);
        for (row, below) in self.rows.iter().take(fits).zip(top + 1..) {
            let cells = shown.iter().map(|at| row.cells.get(*at).map_or("", String::as_str));
            self.line(canvas, below, &shown, &widths, cells, row.look);
        }
        canvas.text_at_the_right(end + 1, top, &above, Look::Faint);
        if has_own_row {
            let words = format!("... {left_out} more");
            canvas.text(0, top + fits as u16 + 1, &words, Look::Faint);
        }
    }

    /// The columns that fit, by their ranks. One that is too wide makes room for those behind it.
    fn shown(&self, widths: &[usize], room: usize) -> Vec<usize> {
        let mut ranked: Vec<usize> = (0..self.columns.len()).collect();
        ranked.sort_by_key(|at| self.columns[*at].rank);
        let mut left = room + SPACE;
        ranked.retain(|at| {
            let wide = widths[*at] + SPACE;
            let fits = wide <= left || *at == 0;
            left = left.saturating_sub(if fits { wide } else { 0 });
            fits
        });
        ranked.sort_unstable();
        ranked
    }

    fn line<'a>(
        &self,
        canvas: &mut Canvas<'_>,
        row: u16,
        shown: &[usize],
        widths: &[usize],
        cells: impl Iterator<Item = &'a str>,
        look: Look,
    ) -> u16 {
        let (mut column, mut end) = (0, 0);
        for (at, cell) in shown.iter().zip(cells) {
            let width = widths[*at];
            let text = if self.columns[*at].is_number {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            };
            end = canvas.text(column, row, &text, look);
            column += (width + SPACE) as u16;
        }
        end
    }
}
