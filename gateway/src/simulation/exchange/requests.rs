//! Requests for images over REST in virtual time: what feeds ask for → the answers that reach them,
//! and when.
//!
//! Owned by the world, which asks, and takes the answers. What is asked waits for the session's own
//! budget; the exchange answers, or a fault does in its stead. How an image is decoded is here, too,
//! as the thread that makes the requests does that; what a feed makes of it is the world's.

use std::collections::VecDeque;

use feed_sim::exchange::{Exchange, Reply};
use tickfan_core::market::{EventBatch, InstrumentId, Nanos};

use super::course::Course;
use crate::feed::Feed;
use crate::feed::rest::Budget;
use crate::limits::{MILLI_NS, SECOND_NS};

/// From asking for an image to having it.
const REST_NS: Nanos = 20 * MILLI_NS;

/// How long a venue that has had enough wants to be left alone.
const BAN_NS: Nanos = 2 * SECOND_NS;

/// A request for an image.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) instrument: InstrumentId,
    /// That of the feed that asks.
    pub(super) connection: u32,
    pub(super) path: String,
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) asked: Asked,
    /// The image, unless the venue wants to be left alone.
    pub(super) body: Option<Vec<u8>>,
}

/// A request on its way to the venue, or its answer on the way back.
#[derive(Debug)]
struct UnderWay {
    at_ns: Nanos,
    asked: Asked,
    sent_ns: Nanos,
    /// Once the venue answered.
    reply: Option<Reply>,
}

/// The time for which the venue wants to be left alone.
#[derive(Debug, Clone, Copy)]
struct Ban {
    /// When the gateway learns of it.
    from_ns: Nanos,
    until_ns: Nanos,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Requests {
    budget: Budget,
    waiting: VecDeque<Asked>,
    under_way: Vec<UnderWay>,
    /// When one that waits may be sent.
    wake_ns: Nanos,
    ban: Option<Ban>,
    asked_in_ban: u64,
}

impl Requests {
    pub(super) fn new(weight_per_minute: u32, now: Nanos) -> Self {
        Self {
            budget: Budget::full(weight_per_minute, now),
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            wake_ns: Nanos::MAX,
            ban: None,
            asked_in_ban: 0,
        }
    }

    /// How many came while the venue wanted to be left alone.
    pub(super) const fn asked_in_ban(&self) -> u64 {
        self.asked_in_ban
    }

    /// When anything happens here next.
    pub(super) fn next_ns(&self) -> Nanos {
        self.under_way.iter().map(|request| request.at_ns).fold(self.wake_ns, Nanos::min)
    }

    pub(super) fn ask(&mut self, asked: Asked, now: Nanos) {
        self.waiting.push_back(asked);
        self.wake_ns = now;
    }

    /// The next answer that has reached the gateway; on the way there the venue answers what has
    /// reached it.
    pub(super) fn take_answer(
        &mut self,
        exchange: &Exchange,
        course: &mut Course,
        now: Nanos,
    ) -> Option<Answer> {
        loop {
            let due = self.under_way.iter().position(|request| request.at_ns <= now)?;
            let mut request = self.under_way.remove(due);
            let Some(reply) = request.reply.take() else {
                request.reply = Some(self.serve(&request, exchange, course));
                request.at_ns = course.delay_image(now).unwrap_or(now + REST_NS / 2);
                self.under_way.push(request);
                continue;
            };
            let body = if reply.status == 200 {
                self.budget.served();
                Some(reply.body.into_bytes())
            } else {
                let until_ns = self.budget.ban(Some(BAN_NS), now);
                self.ban = Some(Ban { from_ns: now, until_ns });
                course.last_until(until_ns);
                None
            };
            return Some(Answer { asked: request.asked, body });
        }
    }

    /// What the venue answers.
    fn serve(&mut self, request: &UnderWay, exchange: &Exchange, course: &mut Course) -> Reply {
        let is_banned = self
            .ban
            .is_some_and(|ban| ban.from_ns < request.sent_ns && request.sent_ns < ban.until_ns);
        self.asked_in_ban += u64::from(is_banned);
        if self.ban.is_none()
            && let Some(refusal) = course.refuse()
        {
            return refusal;
        }
        if let Some(old) = course.take_old_image(request.asked.instrument) {
            return old;
        }
        let (path, query) = request.asked.path.split_once('?').unwrap_or_default();
        exchange.answer(path, query)
    }

    /// Sends what waits, as far as the budget goes; each weighs so much.
    pub(super) fn send_due(&mut self, weight: u32, course: &mut Course, now: Nanos) {
        self.wake_ns = Nanos::MAX;
        while !self.waiting.is_empty() {
            let wait_ns = self.budget.take(weight, now);
            if wait_ns > 0 {
                self.wake_ns = now + wait_ns;
                break;
            }
            let Some(asked) = self.waiting.pop_front() else { break };
            course.on_request(now);
            let at_ns = now + REST_NS / 2;
            self.under_way.push(UnderWay { at_ns, asked, sent_ns: now, reply: None });
        }
    }
}

/// An image as the REST thread decodes it.
pub(super) fn decoded(feed: &Feed, of: InstrumentId, mut body: Vec<u8>) -> Option<EventBatch> {
    let mut image = EventBatch::default();
    let decode = feed.decoder().image_decoder();
    decode(of, &mut body, &mut image).ok().map(|()| image)
}
