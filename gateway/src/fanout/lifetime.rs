//! What time does to a connection: pings, stalls, what it wants again and again, goodbyes.
//!
//! Part of a shard. Each connection has one timer; a timer that was moved to an earlier time leaves its
//! old entry behind, which is passed over when it is due.

use std::cmp::Reverse;

use tickfan_core::market::Nanos;
use tickfan_core::wire::message::Control;
use tickfan_core::ws;

use super::connection::{Cause, Phase, Piece};
use super::shard::Shard;
use super::table::ConnectionKey;
use crate::limits::{
    CLOSE_LINGER_NS, DRAIN_NS, DRAIN_RETRY_MS, MILLI_NS, PING_EVERY_NS, PINGS_UNANSWERED_MAX,
    STALL_NS_MAX,
};

impl Shard {
    pub(super) fn read_closing(&mut self, key: ConnectionKey, mut bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut reader = std::mem::take(&mut connection.pending_mut().reader);
        let mut is_closed = false;
        while let Ok(Some(incoming)) = reader.next(&mut bytes, &super::request::CLIENT_LIMITS) {
            is_closed |= matches!(incoming, ws::Incoming::Close { .. });
        }
        connection.pending_mut().reader = reader;
        if is_closed {
            self.remove(key);
        }
    }

    pub(super) fn set_timer(&mut self, key: ConnectionKey, at_ns: Nanos) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.timer_ns == 0 || at_ns < connection.timer_ns {
            connection.timer_ns = at_ns;
            self.timers.push(Reverse((at_ns, key)));
        }
    }

    pub(super) fn run_timers(&mut self) {
        let now = self.now();
        while let Some(Reverse((at_ns, key))) = self.timers.peek().copied()
            && at_ns <= now
        {
            self.timers.pop();
            match self.connections.get_mut(key) {
                Some(connection) if connection.timer_ns == at_ns => connection.timer_ns = 0,
                _ => continue,
            }
            let next_ns = self.on_timer(key, now);
            self.set_timer(key, next_ns);
        }
    }

    /// Looks after one connection; returns when to look again.
    fn on_timer(&mut self, key: ConnectionKey, now: Nanos) -> Nanos {
        let Some(connection) = self.connections.get_mut(key) else { return now + PING_EVERY_NS };
        match connection.phase {
            Phase::Closing(at_ns) | Phase::Draining(at_ns) if now < at_ns => return at_ns,
            Phase::Closing(_) => {
                // What the socket has not taken by now would be old.
                if connection.is_blocked() {
                    connection.socket.abort();
                }
                self.remove(key);
                return Nanos::MAX;
            }
            Phase::Draining(_) => {
                self.close(key, Cause::Restart, "the gateway goes away");
                return now + CLOSE_LINGER_NS;
            }
            Phase::Open => {}
        }
        if connection.is_blocked() && now >= connection.taken_ns + STALL_NS_MAX {
            connection.socket.abort();
            self.end(key, Cause::Stalled);
            return Nanos::MAX;
        }
        let mut next_ns = connection.read_ns.max(connection.pinged_ns) + PING_EVERY_NS;
        if now >= next_ns {
            let took_since = connection.taken_ns > connection.pinged_ns;
            if u32::from(connection.pings_unanswered) >= PINGS_UNANSWERED_MAX && !took_since {
                self.close(key, Cause::Silent, "no answer to pings");
                return now + CLOSE_LINGER_NS;
            }
            connection.pings_unanswered = connection.pings_unanswered.saturating_add(1);
            connection.pinged_ns = now;
            next_ns = now + PING_EVERY_NS;
            if !connection.is_blocked() {
                ws::write_ping(b"", &mut connection.pending_mut().control);
                self.send(key, &[]);
            }
        }
        let Some(connection) = self.connections.get(key) else { return Nanos::MAX };
        if connection.is_blocked() {
            next_ns = next_ns.min(connection.taken_ns + STALL_NS_MAX);
        }
        next_ns.min(self.run_periodic(key, now))
    }

    /// Sends what a connection wants again and again, where it is due; returns when it is next.
    fn run_periodic(&mut self, key: ConnectionKey, now: Nanos) -> Nanos {
        let Some(connection) = self.connections.get_mut(key) else { return Nanos::MAX };
        let unsent_bytes = connection.blocked_bytes();
        let may_send = connection.may_send();
        let Some(periodic) = &mut connection.periodic else { return Nanos::MAX };
        let mut next_ns = Nanos::MAX;
        let mut told = None;
        if let Some(report) = &mut periodic.report {
            if now >= report.due_ns {
                if may_send {
                    told = Some(report.take(unsent_bytes, now));
                } else {
                    report.postpone(now);
                }
            }
            next_ns = report.due_ns;
        }
        if periodic.heartbeat_ns > 0 {
            let due_ns = periodic.frame_sent_ns + periodic.heartbeat_ns;
            let is_due = now >= due_ns || told.is_some();
            next_ns = next_ns.min(if is_due { now + periodic.heartbeat_ns } else { due_ns });
            if now >= due_ns && told.is_none() {
                periodic.frame_sent_ns = now;
                if may_send {
                    self.send_frame(key, None, now);
                }
            }
        }
        if told.is_some() {
            self.send_frame(key, told, now);
        }
        next_ns
    }

    /// Says goodbye with a close frame, and ends the connection when the peer does or a while later.
    pub(super) fn close(&mut self, key: ConnectionKey, cause: Cause, detail: &str) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        self.totals.close(cause.name()).inc();
        tracing::debug!(cause = cause.name(), detail, "connection closed");
        // Frame, log and metric name the same cause.
        let reason = format!("{}: {detail}", cause.name());
        let mut control = connection.take_control();
        ws::write_close(cause.close_code(), &reason, &mut control);
        // Behind whatever the socket has not taken yet; it may never take it.
        let sent = connection.send(&[Piece::Copied(&control)], now);
        connection.phase = Phase::Closing(now + CLOSE_LINGER_NS);
        connection.timer_ns = 0;
        if let Some(pending) = connection.pending_if_any() {
            pending.work = None;
            pending.unread = Vec::new();
        }
        match sent {
            Ok(taken) => self.stats.bytes.inc_by(taken as u64),
            Err(_) => return self.remove(key),
        };
        // After a violation the peer's own close is not waited for (RFC 6455 §7.1.7): nobody knows
        // where in its stream that would begin.
        if matches!(cause, Cause::Protocol(_)) && !connection.is_blocked() {
            connection.socket.finish();
        }
        self.leave_all(key);
        self.set_timer(key, now + CLOSE_LINGER_NS);
        self.touched.push(key);
    }

    /// The connection is over, without another byte.
    pub(super) fn end(&mut self, key: ConnectionKey, cause: Cause) {
        if let Some(connection) = self.connections.get(key)
            && !matches!(connection.phase, Phase::Closing(_))
        {
            self.totals.close(cause.name()).inc();
            tracing::debug!(cause = cause.name(), "connection ended");
        }
        self.remove(key);
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) {
        self.leave_all(key);
        if let Some(connection) = self.connections.remove(key) {
            self.totals.connections.dec();
            self.ended.push((key, connection));
        }
    }

    /// Tells every client that the gateway goes away, and closes them spread over a while.
    pub fn drain(&mut self) {
        let now = self.now();
        let keys: Vec<ConnectionKey> = self.connections.keys().collect();
        let count = keys.len().max(1) as u64;
        for (i, key) in (0u64..).zip(keys) {
            let at_ns = now + DRAIN_NS * (i + 1) / count;
            // Spread, so that those who come back do not come at once; it need not be random.
            let retry_after_ms = DRAIN_RETRY_MS * (i + 1) / count;
            let drain = Control::Drain {
                in_ms: (at_ns - now) / MILLI_NS,
                retry_after_ms,
                reason: "restart".to_owned(),
            };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if !matches!(connection.phase, Phase::Open) {
                continue;
            }
            connection.push_control(&drain.to_json());
            connection.phase = Phase::Draining(at_ns);
            connection.timer_ns = 0;
            self.set_timer(key, at_ns);
            self.send(key, &[]);
        }
    }
}
