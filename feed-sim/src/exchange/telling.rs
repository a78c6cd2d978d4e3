//! What the market did → what the venue says of it, to whoever subscribed to that.
//!
//! Part of the exchange: called as its time goes on. Each message is made once, whoever gets it, and counts
//! as said although nobody does.

use std::cmp::Reverse;

use bytes::Bytes;

use super::stream::Stream;
use super::symbol::{Board, LevelUpdate};
use super::{About, Cadence, Exchange, Planned, Streams, Told, manner, words};
use crate::market::{Happened, Trade};
use crate::venue::{Dialect, Message, Moment, Print};

impl Exchange {
    /// Says what the market did, or has it told when the timer says so.
    pub(super) fn follow(&mut self, happened: &Happened) {
        let index = happened.symbol;
        if let Some(Planned::RefineTick) = happened.planned {
            self.symbols[index].refine(10);
        }
        for trade in &happened.trades {
            let symbol = &mut self.symbols[index];
            symbol.trade_id += 1;
            symbol.order += 1;
            let (px, qty) = (symbol.px(trade.ticks), symbol.qty(trade.lots));
            let text = words::trade(&self.print(index, &px, &qty, trade.buyer_took));
            self.say(
                index,
                |streams| Some(&mut streams.trades),
                text,
                About::Trade { symbol: index },
            );
        }
        self.join(index, &happened.trades);
        if happened.changes.is_empty() {
            return;
        }
        let at_ns = self.stamp_ns();
        let symbol = &mut self.symbols[index];
        let has_new_best = symbol.change(&happened.changes, &mut self.market, index);
        if has_new_best && let Some(text) = symbol.ticker(at_ns) {
            let about = About::Other { symbol: index };
            self.say(index, |streams| streams.ticker.as_mut(), text, about);
        }
        match manner::interval_ns(self.options.dialect) {
            Some(interval_ns) if self.options.cadence == Cadence::Venue => {
                if !self.symbols[index].is_due {
                    self.symbols[index].is_due = true;
                    self.due.push(Reverse((due_ns(self.timers_ns, interval_ns, index), index)));
                }
            }
            _ => self.tell_book(index),
        }
    }

    /// Tells trades once more, those of one order at one price as one.
    fn join(&mut self, index: usize, trades: &[Trade]) {
        if self.streams[index].aggregates.is_none() {
            return;
        }
        let mut first = self.symbols[index].trade_id + 1 - trades.len() as u64;
        for same in trades
            .chunk_by(|one, next| (one.ticks, one.buyer_took) == (next.ticks, next.buyer_took))
        {
            let symbol = &self.symbols[index];
            let lots = same.iter().map(|trade| trade.lots).sum();
            let (px, qty) = (symbol.px(same[0].ticks), symbol.qty(lots));
            let next = first + same.len() as u64;
            self.streams[index].aggregate_id += 1;
            let ids = [self.streams[index].aggregate_id, first, next - 1];
            first = next;
            let print = self.print(index, &px, &qty, same[0].buyer_took);
            let Some(text) = words::aggregate(&print, ids) else { return };
            let about = About::Trade { symbol: index };
            self.tell_listeners(index, |streams| streams.aggregates.as_mut(), text, about);
        }
    }

    /// Tells what of a book changed since that was told last.
    pub(super) fn tell_book(&mut self, index: usize) {
        let at_ns = self.stamp_ns();
        let symbol = &mut self.symbols[index];
        let mut changes = symbol.take_changes(&mut self.market, index);
        if changes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.streams[index].tells_absent)
            && let Some((worst, _)) = self.market.side(index, false).last()
        {
            changes.push(LevelUpdate::absent(false, worst + 1));
        }
        let texts = symbol.update(index, &self.market, &changes, at_ns);
        symbol.told();
        let version = symbol.version;
        for (place, text) in texts.into_iter().enumerate() {
            let about = if place == 0 {
                About::Book { symbol: index, version }
            } else {
                About::Other { symbol: index }
            };
            self.say(index, |streams| Some(&mut streams.book), text, about);
        }
    }

    pub(super) fn print<'a>(
        &'a self,
        index: usize,
        px: &'a str,
        qty: &'a str,
        buyer_took: bool,
    ) -> words::PrintWording<'a> {
        let symbol = &self.symbols[index];
        let (id, at_ns) = (symbol.trade_id, self.stamp_ns());
        let print = Print { symbol: &symbol.name, at_ns, id, px, qty, buyer_took };
        let (dialect, channel) = (self.options.dialect, words::channel(index));
        words::PrintWording { dialect, print, channel, order: symbol.order }
    }

    /// Says something on a stream of a symbol to whoever subscribed to it.
    pub(super) fn say(
        &mut self,
        index: usize,
        stream: impl FnOnce(&mut Streams) -> Option<&mut Stream>,
        text: String,
        about: About,
    ) {
        self.said.add(text.as_bytes());
        self.tell_listeners(index, stream, text, about);
    }

    /// Says something that is not counted as said, because it only repeats.
    fn tell_listeners(
        &mut self,
        index: usize,
        stream: impl FnOnce(&mut Streams) -> Option<&mut Stream>,
        text: String,
        about: About,
    ) {
        let Some(stream) = self.streams.get_mut(index).and_then(stream) else { return };
        let inner = words::inner(self.options.dialect, &text);
        let payload = Bytes::from(text);
        stream.message.inner = inner.map(|range| payload.slice(range));
        stream.message.payload = payload;
        let board = Board { market: &self.market, symbols: &self.symbols, by_name: &self.by_name };
        let moment = Moment { books: &board, listed: &self.listed, at_ns: self.now_ns };
        let (listeners, message) = stream.listeners(&self.connections, self.turn);
        for connection in listeners {
            let session = self.connections.get_mut(connection);
            if let Some(text) = session.and_then(|session| session.tell(message, &moment)) {
                self.told.push(Told { connection: *connection, about, text });
            }
        }
    }

    /// Says something that is said seldom, on the stream that it says it is of.
    fn say_seldom(&mut self, text: &str) {
        self.said.add(text.as_bytes());
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let Some(recorded) = self.reader.read(text) else { return };
        let inner = recorded.inner.and_then(|inner| {
            let from = (inner.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            Some(payload.slice(from..from + inner.len()))
        });
        let (key, is_book) = (recorded.key, recorded.book.is_some());
        let message = Message { key, is_book, payload, inner };
        let board = Board { market: &self.market, symbols: &self.symbols, by_name: &self.by_name };
        let moment = Moment { books: &board, listed: &self.listed, at_ns: self.now_ns };
        for (connection, session) in &mut self.connections {
            if !session.has(&message.key) {
                continue;
            }
            if let Some(text) = session.tell(&message, &moment) {
                self.told.push(Told { connection: *connection, about: About::Nothing, text });
            }
        }
    }

    pub(super) fn tell(&mut self, connection: u64, about: About, text: String) {
        self.told.push(Told { connection, about, text: text.into() });
    }

    /// Every second, and where the venue does so more rarely, then.
    pub(super) fn beat(&mut self) {
        let (dialect, beats, at_ns) = (self.options.dialect, self.heartbeats, self.stamp_ns());
        for index in 0..self.symbols.len() {
            let symbol = &self.symbols[index];
            if let Some(text) = words::symbol_heartbeat(dialect, symbol, index, beats, at_ns) {
                self.say_seldom(&text);
            }
        }
        if let Some(text) = words::heartbeat(dialect, beats, at_ns) {
            self.say_seldom(&text);
        }
        if dialect == Dialect::Deribit && beats.is_multiple_of(10) {
            self.say_seldom(&crate::venue::deribit::heartbeat());
        }
    }
}

/// When a timer goes off next. Each symbol has its own phase, as if each had a timer of its own.
const fn due_ns(now_ns: u64, interval_ns: u64, index: usize) -> u64 {
    let phase_ns = index as u64 * 7_919_000 % interval_ns;
    let since_ns = (now_ns + interval_ns - phase_ns) % interval_ns;
    now_ns + interval_ns - since_ns
}
