//! Faults of the exchange itself and of all its connections: how each begins and ends.
//!
//! Called by the faulty exchange when it is time. What happens to single messages and requests is not
//! decided here.

use super::FaultyExchange;
use super::line::Line;
use super::scheduled::Stage;
use crate::exchange::{Exchange, Lie, Status};
use crate::scenario::Kind;

/// How far the venue's clock steps when nobody says.
const CLOCK_STEP_MS: i64 = -3_600_000;

/// How many times as many orders there are in a burst.
const BURST_TIMES: u64 = 10;

impl FaultyExchange {
    /// A fault of the exchange itself, or of all connections, begins; one of messages ends.
    pub(super) fn strike(&mut self, place: usize) {
        let one = &self.scheduled[place];
        let (kind, fault) = (one.fault.kind, one.fault.clone());
        if kind.is_of_message() {
            // It was drawn for as long as it was to be.
            self.scheduled[place].stage = Stage::Over;
            return;
        }
        let symbols: Vec<usize> =
            (0..self.symbols.len()).filter(|symbol| one.concerns(*symbol)).collect();
        let exchange = &mut self.exchange;
        let mut at_each = |act: &mut dyn FnMut(&mut Exchange, usize) -> bool| {
            symbols.iter().filter(|symbol| act(exchange, **symbol)).count() > 0
        };
        let happened = match kind {
            Kind::WrongChecksum => at_each(&mut |exchange, at| exchange.lie(at, Lie::Wrong)),
            Kind::ZeroChecksum => at_each(&mut |exchange, at| exchange.lie(at, Lie::Zero)),
            Kind::Crossed => at_each(&mut |exchange, at| {
                exchange.cross(at);
                true
            }),
            Kind::TickChange => at_each(&mut |exchange, at| exchange.refine_tick(at)),
            Kind::Halt => at_each(&mut |exchange, at| {
                exchange.set_status(at, Status::Halted);
                true
            }),
            Kind::Delist => at_each(&mut |exchange, at| {
                exchange.set_status(at, Status::Ended);
                true
            }),
            Kind::List => {
                let symbol = self.list();
                self.scheduled[place].symbol = Some(symbol);
                true
            }
            Kind::NumbersRestart => at_each(&mut |exchange, at| exchange.restart_numbers(at)),
            Kind::KeepAlive => at_each(&mut |exchange, at| exchange.keep_alive(at)),
            Kind::AbsentLevel => at_each(&mut |exchange, at| {
                exchange.tell_absent(at);
                true
            }),
            Kind::Burst => {
                self.exchange.hurry(BURST_TIMES);
                true
            }
            Kind::Maintenance => self.exchange.announce_maintenance(true),
            Kind::CloseNotice => {
                self.closing = self.open_lines();
                self.exchange.announce_close()
            }
            Kind::ClockStep => {
                self.exchange.step_clock(fault.step_ms.unwrap_or(CLOCK_STEP_MS));
                true
            }
            Kind::CutAll => {
                self.end(&self.open_lines(), |line, now_ns| line.cut(now_ns));
                true
            }
            _ => false,
        };
        let one = &mut self.scheduled[place];
        if happened {
            one.happen(self.now_ns, one.symbol);
        } else {
            one.give_up(match kind {
                Kind::TickChange => "prices have as many digits as they can have",
                _ => "the venue has no words for it",
            });
        }
    }

    /// A symbol is listed that there was not; returns its place.
    fn list(&mut self) -> usize {
        let symbol = self.exchange.list_new();
        self.symbols = self.exchange.symbols().map(str::to_owned).collect();
        self.witness.add();
        symbol
    }

    /// A fault that lasted ends.
    pub(super) fn relieve(&mut self, place: usize) {
        let one = &mut self.scheduled[place];
        one.stage = Stage::Over;
        let (kind, fault) = (one.fault.kind, one.fault.clone());
        let symbols: Vec<usize> =
            (0..self.symbols.len()).filter(|symbol| one.concerns(*symbol)).collect();
        match kind {
            Kind::Crossed => symbols.iter().for_each(|symbol| self.exchange.uncross(*symbol)),
            Kind::Halt | Kind::Delist => {
                symbols.iter().for_each(|symbol| self.exchange.set_status(*symbol, Status::Open));
            }
            Kind::Maintenance => {
                self.exchange.announce_maintenance(false);
            }
            Kind::Burst => self.exchange.hurry(1),
            Kind::ClockStep => {
                self.exchange.step_clock(-fault.step_ms.unwrap_or(CLOCK_STEP_MS));
            }
            Kind::AckSilent => {
                for line in self.lines.values_mut() {
                    symbols.iter().for_each(|symbol| line.silence(*symbol, false));
                }
            }
            Kind::CloseNotice => {
                let closing = std::mem::take(&mut self.closing);
                self.end(&closing, |line, now_ns| line.close(now_ns, 1001, "going away"));
            }
            _ => {}
        }
    }

    /// The connections that have not ended.
    fn open_lines(&self) -> Vec<u64> {
        let open = self.lines.iter().filter(|(_, line)| !line.is_ended());
        open.map(|(connection, _)| *connection).collect()
    }

    /// Ends connections.
    fn end(&mut self, connections: &[u64], end: impl Fn(&mut Line, u64)) {
        for connection in connections {
            let Some(line) = self.lines.get_mut(connection) else { continue };
            self.waiting -= line.waiting();
            end(line, self.now_ns);
            self.waiting += line.waiting();
            self.exchange.disconnect(*connection);
        }
    }
}
