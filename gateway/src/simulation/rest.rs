//! What must hold whenever a shard has nothing left to do, and when everybody has left.
//!
//! Called by the simulated world in virtual time. It looks at the gateway from outside where it can:
//! counters, what connections hold, and the numbers of what there is; never at how it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::atomic::Ordering;

use tickfan_core::market::{Channel, Nanos, State};

use super::checker::{Asked, Checked, Violation, hold};
use super::lateness::Overdue;
use super::mirror::{Shows, View};
use super::pace::{Pace, on_grid};
use super::venue::MICRO_NS;
use super::{Report, World};
use crate::fanout::connection::{Cause, Phase};
use crate::fanout::shard::Census;
use crate::limits::{
    BODY_BYTES_SHARED, BODY_TRADES_MAX, CLOSE_LINGER_NS, DRAIN_NS, LOG_BODIES_MAX, LOG_BYTES_MAX,
    LOG_STATES_MAX, LOG_TRADES, MILLI_NS, READ_BYTES_PER_TURN, SECOND_NS, SEND_BYTES, STALL_NS_MAX,
};

/// Room for the head of a frame and the answers before it.
const HEAD_BYTES: usize = 4 << 10;

/// Timers that one connection may have set: that of its pings, and earlier ones since.
const TIMERS_PER_CONNECTION: usize = 4;

/// An eighth of a budget, for which a lane waits after a body; the strictest do not wait.
const fn grain_ns(budget_ns: Nanos) -> Nanos {
    if budget_ns < 8 * MILLI_NS { 0 } else { budget_ns / 8 }
}

impl World {
    /// What must hold of every connection that took all it was sent, whenever nothing is left to do.
    pub(super) fn is_right_at_rest(&mut self) -> Checked {
        hold(!self.importunate, "I9", || "an image is asked for without a reason".to_owned())?;
        let now = self.now();
        let mut is_all_known = true;
        let mut held = BTreeSet::new();
        let mut subscriptions = 0;
        for (index, client) in self.clients.iter().enumerate() {
            let Some(line) = &client.line else { continue };
            let Some(connection) = self.shard.connection(line.key) else { continue };
            let bytes = connection.blocked_bytes();
            let bytes_max = SEND_BYTES + BODY_BYTES_SHARED + HEAD_BYTES + READ_BYTES_PER_TURN;
            hold(bytes <= bytes_max, "I9", || format!("client {index} holds {bytes} bytes"))?;
            let wanted = (connection.may_read(), connection.is_blocked());
            let is_watched = self.polled.get(&line.key) == Some(&wanted);
            let is_closing = matches!(connection.phase, Phase::Closing(_));
            hold(is_watched || is_closing, "I9", || {
                format!("client {index} wants {wanted:?} and the poller was not told")
            })?;
            if connection.is_blocked() || is_closing || line.is_aborted {
                is_all_known = false;
                continue;
            }
            subscriptions += line.session.views.len();
            for (number, view) in &line.session.views {
                held.insert((*number, view.budget_ns));
                self.is_up_to_date(index, *number, view, &line.session.pace, now)?;
            }
        }
        self.is_within_bounds(is_all_known.then_some((subscriptions, held.len())))
    }

    /// The shard holds what its connections need and no more; with all of them known, so many
    /// subscriptions to so many lanes.
    fn is_within_bounds(&self, known: Option<(usize, usize)>) -> Checked {
        let census = self.shard.census();
        let all = [census.places, census.seated, census.subscribers];
        let subscriptions = self.stats.subscriptions.get();
        let fits = all.iter().all(|count| *count as i64 == subscriptions)
            && census.lanes as i64 == self.stats.lanes.get()
            && census.connections as i64 == self.stats.connections.get()
            && census.seats_empty == 0
            && census.lanes_empty == 0
            && census.seats <= census.places
            && census.lanes <= census.places;
        hold(fits, "I9", || format!("{subscriptions} subscriptions are counted, {census:?}"))?;
        let is_known = known.is_none_or(|known| known == (census.places, census.lanes));
        hold(is_known, "I9", || {
            format!("clients hold {known:?} subscriptions and lanes, {census:?}")
        })?;
        // Those of connections that ended stand there until their time has come.
        let timers_max = TIMERS_PER_CONNECTION * self.report.connections as usize;
        let is_bounded = census.log_bodies <= LOG_BODIES_MAX
            && census.log_bytes <= LOG_BYTES_MAX
            && census.log_states <= LOG_STATES_MAX
            && census.log_trades <= LOG_TRADES + BODY_TRADES_MAX
            && census.timers <= timers_max;
        hold(is_bounded, "I9", || format!("{census:?}"))
    }

    /// The view's reader was told every state, and waits for nothing beyond its budget.
    fn is_up_to_date(
        &self,
        client: usize,
        number: u32,
        view: &View,
        pace: &Pace,
        now: Nanos,
    ) -> Checked {
        let snapshot = self.entries[view.symbol].load();
        let truth = &self.venue.truth[view.symbol];
        let channel = view.shows.channel();
        let status = snapshot.status(channel);
        let is_told = view.state == status.state.name() && view.epoch == status.epoch;
        hold(is_told, "I6", || {
            format!(
                "client {client} view {number} {:?} holds {} of epoch {}, and it is {} of epoch {}",
                view.shows,
                view.state,
                view.epoch,
                status.state.name(),
                status.epoch
            )
        })?;
        let is_due = match view.shows {
            // Trades of a phase that came and went while the shard was busy wait for the next.
            Shows::Trades => status.state.flows(),
            _ => status.state.has_whole(),
        };
        if !is_due {
            return Ok(());
        }
        hold(view.is_whole || view.shows == Shows::Trades, "I8", || {
            format!("client {client} view {number} {:?} was not sent its whole", view.shows)
        })?;
        let overdue = match view.shows {
            Shows::Book(_) => view.behind(truth, snapshot.book.sequence.unwrap_or(0)),
            Shows::Bbo => view.behind(truth, snapshot.bbo.sequence.unwrap_or(0)),
            Shows::Trades => view.behind_trades(truth, snapshot.trades.tail.newest()),
        };
        let Overdue { certain_ns: Some(since_ns), .. } = overdue else { return Ok(()) };
        // What was received while updates did not flow had to wait.
        let since_ns = since_ns.max(status.since_ns);
        // A lane waits for its grain only after a body, and that tells of something told before.
        let moments = truth.moments(channel);
        let before = moments[..moments.partition_point(|moment| *moment < since_ns)].last();
        let grain_ns = grain_ns(view.budget_ns);
        let busy =
            self.busy_ns[..self.busy_ns.partition_point(|(from, _)| *from < since_ns)].last();
        let since_ns = busy.map_or(since_ns, |(_, to_ns)| since_ns.max(*to_ns));
        let longest_ns = on_grid(since_ns + grain_ns, view.budget_ns) - since_ns;
        let was_quiet =
            grain_ns == 0 || before.is_none_or(|before_ns| before_ns + 2 * longest_ns <= since_ns);
        let made_ns = if was_quiet { since_ns } else { since_ns + longest_ns };
        let due_ns = made_ns.max(pace.rests_until_ns(view.budget_ns));
        hold(now < due_ns, "I5", || {
            format!(
                "client {client} view {number} {:?} waits since {since_ns} under a budget of {} us, \
                 and was to be sent to at {due_ns}; told before: {before:?}",
                view.shows,
                view.budget_ns / MICRO_NS,
            )
        })
    }

    /// Everything is live, and every client's socket took all that it was sent.
    pub(super) fn has_settled(&self) -> bool {
        let is_live = self.entries.iter().all(|entry| {
            let snapshot = entry.load();
            Channel::ALL.iter().all(|channel| snapshot.status(*channel).state == State::Live)
        });
        is_live
            && self.clients.iter().all(|client| {
                client.line.as_ref().is_some_and(|line| {
                    let connection = self.shard.connection(line.key);
                    connection.is_some_and(|connection| !connection.is_blocked())
                })
            })
    }

    /// The market is over and everybody has what it was: all leave, and all must add up.
    pub(super) fn finish(&mut self) -> Checked<Report> {
        for (index, client) in self.clients.iter().enumerate() {
            let Some(line) = &client.line else { continue };
            for view in line.session.views.values() {
                view.is_final(&self.venue.truth[view.symbol]).map_err(|violation| Violation {
                    what: format!("client {index}: {}", violation.what),
                    ..violation
                })?;
            }
            let mut asked = line.session.asked.values();
            let unanswered = asked.find(|(asked, _)| *asked != Asked::Image);
            hold(unanswered.is_none() && line.session.pings.is_empty(), "I8", || {
                format!("client {index} has no answer to {unanswered:?}")
            })?;
            let session = &line.session;
            let quiet_ns = self.now() - session.frame_ns;
            hold(session.heartbeat_ns == 0 || quiet_ns <= session.heartbeat_ns, "I8", || {
                format!("client {index} has had no heartbeat for {quiet_ns} ns")
            })?;
        }
        self.leave()?;
        self.adds_up()?;
        self.report.digest = self.digest.finish();
        Ok(self.report)
    }

    /// Everybody leaves, or is told to: then nothing is left of them.
    fn leave(&mut self) -> Checked {
        self.is_over = true;
        let until_ns = self.now() + DRAIN_NS + 2 * CLOSE_LINGER_NS;
        if self.random.coin() {
            self.shard.drain();
            self.settle()?;
        } else {
            for line in self.clients.iter_mut().filter_map(|client| client.line.as_mut()) {
                line.abort(false);
            }
        }
        self.shard_due_ns = self.now();
        while self.clients.iter().any(|client| client.line.is_some()) {
            self.step()?;
            hold(self.now() < until_ns, "I10", || "somebody does not leave".to_owned())?;
        }
        // The timers of those that left have come by then.
        self.now_ns.fetch_add(STALL_NS_MAX + SECOND_NS, Ordering::Relaxed);
        self.shard.turn();
        let census = self.shard.census();
        hold(census == Census::default(), "I9", || format!("nobody is there, and {census:?}"))
    }

    /// What was counted is what clients were told, and every end has one cause.
    fn adds_up(&mut self) -> Checked {
        let (seen, stats) = (self.report.counts, &self.shard_stats);
        let late = stats.late_gateway.get() + stats.late_client.get();
        let pairs = [
            ("updates", stats.updates.get(), seen.updates),
            ("merged", stats.merged.get(), seen.merged),
            ("frames", stats.frames.get(), seen.frames),
            ("late", late, seen.late),
            ("bytes", stats.bytes.get(), self.bytes),
        ];
        // What was on its way to a client that was gone was counted and never seen.
        let is_whole = self.report.unseen == 0;
        for (name, counted, seen) in pairs {
            hold(counted == seen || (!is_whole && counted > seen), "I4", || {
                format!("{counted} {name} are counted, {seen} were seen")
            })?;
        }
        let by_cause = [
            (stats.late_gateway.get(), seen.late_gateway),
            (stats.late_client.get(), seen.late_client),
        ];
        for (counted, known) in by_cause {
            let fits = (known..=known + seen.late_either).contains(&counted);
            hold(fits || (!is_whole && counted > known), "I5", || {
                format!("{counted} are counted late by a cause and {known} were, {seen:?}")
            })?;
        }
        let skipped: u64 = self.venue.truth.iter().map(|truth| truth.trades_skipped).sum();
        let lost = (self.feed_stats.trades_lost.get(), stats.trades_lost.get());
        hold(lost == (skipped, 0), "I4", || {
            format!("{skipped} trades never came; lost by feed and readers: {lost:?}")
        })?;
        self.ends_have_causes()
    }

    fn ends_have_causes(&self) -> Checked {
        let known: BTreeMap<&str, u64> =
            self.ended.iter().filter_map(|(cause, count)| Some(((*cause)?, *count))).collect();
        let unknown = self.ended.get(&None).copied().unwrap_or(0);
        let names: BTreeSet<&str> = CAUSES.iter().map(|cause| cause.name()).collect();
        let counted: BTreeMap<&str, u64> =
            names.iter().map(|name| (*name, self.stats.close(name).get())).collect();
        let is_counted = known.iter().all(|(name, count)| counted.get(name) >= Some(count));
        let sum: u64 = counted.values().sum();
        let is_known = known.values().sum::<u64>() + unknown == sum;
        hold(is_counted && is_known && sum == self.report.connections, "I10", || {
            format!(
                "of {} connections ended {counted:?}, and their clients know {:?}",
                self.report.connections, self.ended
            )
        })
    }
}

/// Every cause that has a name of its own.
const CAUSES: [Cause; 13] = [
    Cause::Done,
    Cause::Gone,
    Cause::Restart,
    Cause::Protocol(1002),
    Cause::Protocol(1007),
    Cause::Protocol(1008),
    Cause::Protocol(1009),
    Cause::Unsupported,
    Cause::Flood,
    Cause::Internal,
    Cause::BadRequests,
    Cause::Stalled,
    Cause::Silent,
];
