//! The connection that is to take the place of one that ends, driven as the session drives it: what
//! arrives on its line → a feed that has caught up.
//!
//! Owned by the world, which makes one when the gateway is about to lose a connection, and hands it
//! over once it is ready. It publishes nothing.

use std::collections::VecDeque;

use tickfan_core::market::Nanos;

use super::line::{Line, Text};
use super::requests::{Asked, Requests, decoded};
use crate::feed::{Feed, Request};

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    CatchingUp,
    /// It has all that the old one has.
    Ready,
}

/// See the top of this file.
pub(super) struct Successor {
    pub(super) feed: Feed,
    pub(super) line: Line,
    /// When it wants to act.
    wake_ns: Nanos,
}

impl Successor {
    /// Has just been connected.
    pub(super) fn new(mut feed: Feed, line: Line, now: Nanos) -> Self {
        feed.on_connected(now);
        Self { feed, line, wake_ns: Nanos::MAX }
    }

    /// When anything happens to it next.
    pub(super) fn next_ns(&self) -> Nanos {
        self.line.next_ns().min(self.wake_ns)
    }

    /// Lets time pass for it, carries out what it wants, and sends what may be sent.
    pub(super) fn attend(
        &mut self,
        requests: &mut Requests,
        outgoing: &mut VecDeque<Text>,
        now: Nanos,
    ) -> Progress {
        let Self { feed, line, .. } = self;
        line.read(feed, now);
        feed.set_texts_wait(line.has_texts());
        let mut wake_ns = feed.on_time(now);
        for request in feed.take_requests() {
            match request {
                Request::Send(text) => line.post(text),
                Request::Answer(text) => line.post_first(text),
                Request::Image { instrument, path, connection } => {
                    requests.ask(Asked { instrument, connection, path }, now);
                }
                Request::Decode { instrument, message, connection } => {
                    let image = decoded(feed, instrument, message);
                    feed.on_image(instrument, connection, image, now);
                }
                Request::HandOver | Request::Reconnect => {}
            }
        }
        wake_ns = wake_ns.min(line.send_due(outgoing, now));
        let settled_ns = line.settled_ns();
        if now < settled_ns {
            wake_ns = wake_ns.min(settled_ns);
        }
        self.wake_ns = wake_ns.max(now + 1);
        if now >= settled_ns && self.feed.is_synced() {
            Progress::Ready
        } else {
            Progress::CatchingUp
        }
    }
}
