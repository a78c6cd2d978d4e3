//! Bans: how one begins, whom it refuses, and what it counts.
//!
//! Called by the faulty exchange for requests, and by whoever serves it before a client connects.

use super::scheduled::Scheduled;
use super::{FaultyExchange, MILLI_NS, Response};
use crate::exchange::Reply;
use crate::scenario::Kind;
use crate::venue::limits;

/// Requests that come so soon after a refusal was written out were under way before it was known.
const UNDER_WAY_NS: u64 = 5 * MILLI_NS;

/// Every request is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ban {
    /// With this status and body.
    refusal: (u16, &'static str),
    /// Connections too.
    is_of_all: bool,
    /// When the first refusal had been written out.
    known_ns: Option<u64>,
    until_ns: u64,
}

impl FaultyExchange {
    /// A client wants to connect; an answer refuses it.
    pub fn refuse_connection(&mut self, now_ns: u64) -> Option<Response> {
        self.now_ns = self.now_ns.max(now_ns);
        let is_first = |one: &Scheduled| one.fault.kind == Kind::Ban && one.awaits(self.now_ns);
        let ban = match self.ban_now() {
            Some(ban) => Some(ban).filter(|ban| ban.is_of_all),
            // Where nothing is fetched while it runs, a connection is all that is asked for.
            None if !self.dialect.fetches_images() => {
                let place = self.scheduled.iter().position(is_first);
                place.map(|place| self.begin_ban(place))
            }
            None => None,
        };
        let ban = ban?;
        self.note_connect();
        Some(self.refuse(ban))
    }

    /// A refusal has been written out: from now on the client knows that the venue wants to be left alone.
    pub fn refusal_is_out(&mut self, now_ns: u64) {
        if let Some(ban) = &mut self.ban {
            ban.known_ns.get_or_insert(now_ns);
        }
    }

    /// The ban that there is.
    pub(super) fn ban_now(&self) -> Option<Ban> {
        self.ban.filter(|ban| self.now_ns < ban.until_ns)
    }

    /// The venue wants to be left alone from now on.
    pub(super) fn begin_ban(&mut self, place: usize) -> Ban {
        let one = &mut self.scheduled[place];
        let is_of_all = one.fault.kind == Kind::Ban;
        let dialect = self.dialect;
        let refusal = if is_of_all { limits::ban(dialect) } else { limits::refusal(dialect) };
        let until_ns = self.now_ns + one.for_ns();
        one.happen(self.now_ns, None);
        let ban = Ban { refusal, is_of_all, known_ns: None, until_ns };
        self.ban = Some(ban);
        ban
    }

    /// The answer to whoever does not leave it alone.
    pub(super) fn refuse(&mut self, ban: Ban) -> Response {
        let is_known = ban.known_ns.is_some_and(|known_ns| self.now_ns >= known_ns + UNDER_WAY_NS);
        self.asked_in_ban += u64::from(is_known);
        let (status, body) = ban.refusal;
        let reply = Reply { status, body: body.to_owned() };
        let for_ns = ban.until_ns - self.now_ns;
        Response { reply, retry_after_s: Some(for_ns.div_ceil(1_000 * MILLI_NS)), delay_ns: 0 }
    }
}
