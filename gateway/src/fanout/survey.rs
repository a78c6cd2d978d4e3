//! All connections of a shard, a block of them at a time → what an operator is told of them.
//!
//! Part of a shard's turn, and only while somebody asked: a hundred thousand connections take so
//! many looks, with sends in between. Reads everything and changes nothing.

use tickfan_core::market::Nanos;
use tickfan_core::view::{BUDGETS_MS, BudgetClass};

use super::connection::Connection;
use super::shard::Shard;
use crate::limits::WORST_CONNECTIONS_MAX;
use crate::overview::{ConnectionOverview, ShardReport, WorstBy};

/// Nanoseconds in a microsecond.
const MICRO_NS: Nanos = 1_000;

/// A look at all connections that is under way.
#[derive(Debug)]
pub struct Survey {
    by: WorstBy,
    /// The block of the table that is looked at next; `None` = all were.
    block: Option<usize>,
    report: ShardReport,
}

impl Survey {
    /// One that has seen nothing yet.
    pub(super) const fn new(by: WorstBy) -> Self {
        let report = ShardReport {
            blocked_now: 0,
            lag_us: 0,
            seats: [0; BUDGETS_MS.len()],
            p99_us: [None; BUDGETS_MS.len()],
            worst: Vec::new(),
        };
        Self { by, block: Some(0), report }
    }

    /// It has seen all.
    pub(super) const fn is_done(&self) -> bool {
        self.block.is_none()
    }
}

impl Shard {
    /// Begins to look at all connections, in the turns to come. One that is under way is given up.
    pub fn survey(&mut self, by: WorstBy) {
        self.survey = Some(Survey::new(by));
    }

    /// What was seen, once all was.
    pub fn take_report(&mut self) -> Option<ShardReport> {
        let survey = self.survey.take_if(|survey| survey.is_done())?;
        let mut report = survey.report;
        survey.by.keep(&mut report.worst, WORST_CONNECTIONS_MAX);
        Some(report)
    }

    /// Looks at one more block of connections.
    pub(super) fn look_around(&mut self, now: Nanos) {
        let Some(mut survey) = self.survey.take() else { return };
        if let Some(block) = survey.block {
            match self.connections.block(block) {
                Some(connections) => {
                    // Few are among the worst: only for these are words made.
                    let is_full = survey.report.worst.len() == WORST_CONNECTIONS_MAX;
                    let best = survey.report.worst.last().filter(|_| is_full);
                    let threshold = best.map(|connection| survey.by.rank_of(connection));
                    for connection in connections {
                        let seen = self.see(connection, &mut survey.report, now);
                        let rank = survey.by.rank(seen.lag_us, connection.merged, seen.blocked_us);
                        if threshold.is_none_or(|threshold| rank > threshold) {
                            survey.report.worst.push(self.describe(connection, &seen));
                        }
                    }
                    survey.by.keep(&mut survey.report.worst, WORST_CONNECTIONS_MAX);
                    survey.block = Some(block + 1);
                }
                None => {
                    for class in BudgetClass::all() {
                        survey.report.p99_us[class.index()] = self.classes.measured(class, now).0;
                    }
                    survey.block = None;
                }
            }
        }
        self.survey = Some(survey);
    }

    /// What concerns all, and what this one is ranked by.
    fn see(&self, connection: &Connection, report: &mut ShardReport, now: Nanos) -> Seen {
        let mut oldest_ns = Nanos::MAX;
        let mut budget: Option<BudgetClass> = None;
        let mut next = connection.first_seat;
        while let Some(seat) = next.and_then(|key| self.seats.get(key)) {
            report.seats[seat.class.index()] += 1;
            budget = Some(budget.map_or(seat.class, |strictest| strictest.min(seat.class)));
            if seat.has_news() {
                oldest_ns = oldest_ns.min(seat.oldest_ns);
            }
            next = seat.next;
        }
        let lag_us = now.saturating_sub(oldest_ns) / MICRO_NS;
        report.lag_us = report.lag_us.max(lag_us);
        let mut blocked_us = 0;
        if connection.is_blocked() {
            report.blocked_now += 1;
            blocked_us = (now.saturating_sub(connection.taken_ns) / MICRO_NS).max(1);
        }
        Seen { lag_us, blocked_us, budget }
    }

    fn describe(&self, connection: &Connection, seen: &Seen) -> ConnectionOverview {
        let peer = connection.socket.tcp().and_then(|tcp| tcp.peer_addr().ok());
        ConnectionOverview {
            shard: self.id(),
            peer: peer.map_or_else(String::new, |peer| peer.to_string()),
            encoding: connection.encoding.subprotocol().to_owned(),
            subscriptions: connection.subscriptions.into(),
            budget_ms: seen.budget.map(BudgetClass::ms),
            lag_us: seen.lag_us,
            frames: connection.frames,
            merged: connection.merged,
            blocked_us: seen.blocked_us,
            unsent_bytes: connection.blocked_bytes() as u64,
        }
    }
}

/// What was seen of one connection.
struct Seen {
    lag_us: u64,
    blocked_us: u64,
    /// The strictest that it has.
    budget: Option<BudgetClass>,
}
