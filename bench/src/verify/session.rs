//! One connection: what it is sent → held against the protocol; its updates go to their
//! views.
//!
//! Fed by a reader on its thread with every message in order, and by the tests with frames written by
//! hand. It knows no socket and no time.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::binary::transcribe;
use super::chain::{State, needed};
use super::expected::Expected;
use super::follow::Depth;
use super::frame::{Envelope, Subscribed, Subscription, Update};
use super::report::{Broken, Counts, Difference, hold};
use super::view::{Channel, Terms, View, unreadable};

/// An image over this travels in a frame of its own.
const SHARED_BYTES_MAX: usize = 64 << 10;

/// Tolerance between two times that were each cut to microseconds.
const CUT_US: u64 = 1;

/// How data frames are told; control messages are text in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    /// As text.
    #[default]
    Json,
    /// As fixed fields.
    Binary,
}

impl Encoding {
    /// What asks for it in the upgrade.
    pub(crate) const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "tickfan.json.v1",
            Self::Binary => "tickfan.bin.v1",
        }
    }
}

/// One subscription of a connection, to all symbols.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// What.
    pub(crate) channel: Channel,
    /// How long a change may wait.
    pub(crate) budget_ms: u64,
}

impl Request {
    fn channel_name(self) -> &'static str {
        match self.channel {
            Channel::Book(_) => "book",
            Channel::Bbo => "bbo",
            Channel::Trades => "trades",
        }
    }

    fn depth(self) -> Option<serde_json::Value> {
        match self.channel {
            Channel::Book(Depth::One) => Some(json!(1)),
            Channel::Book(Depth::Twenty) => Some(json!(20)),
            Channel::Book(Depth::Full) => Some(json!("full")),
            Channel::Bbo | Channel::Trades => None,
        }
    }
}

struct Entry {
    view: View,
    budget_us: u64,
    /// It was sent whole: from then on its delays count.
    has_whole: bool,
}

/// See the top of this file.
pub(crate) struct Session {
    /// Who reads.
    name: String,
    expected: Arc<Expected>,
    requests: Vec<Request>,
    terms: Terms,
    views: HashMap<u32, Entry>,
    greeted: bool,
    n: u64,
    ts: u64,
    pongs: u64,
    counts: Counts,
}

impl Session {
    /// A connection that has not been greeted yet.
    pub(crate) fn new(
        name: &str,
        expected: &Arc<Expected>,
        requests: &[Request],
        terms: Terms,
    ) -> Self {
        Self {
            name: name.to_owned(),
            expected: Arc::clone(expected),
            requests: requests.to_vec(),
            terms,
            views: HashMap::new(),
            greeted: false,
            n: 0,
            ts: 0,
            pongs: 0,
            counts: Counts::default(),
        }
    }

    /// The messages that subscribe; the id of each is its place.
    pub(crate) fn subscriptions(&self) -> Vec<String> {
        let symbols: Vec<String> =
            self.expected.symbols.keys().map(|name| self.expected.spelt(name)).collect();
        let message = |(id, request): (usize, &Request)| {
            let mut message = json!({
                "op": "subscribe", "id": id, "channel": request.channel_name(),
                "symbols": symbols, "budget_ms": request.budget_ms, "strict": true,
            });
            if let Some(depth) = request.depth() {
                message["depth"] = depth;
            }
            message.to_string()
        };
        self.requests.iter().enumerate().map(message).collect()
    }

    /// How it wants to be told.
    pub(crate) const fn encoding(&self) -> Encoding {
        self.terms.encoding
    }

    /// Every subscription was acknowledged.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.views.len() == self.requests.len() * self.expected.symbols.len()
    }

    /// Whoever is to miss a line holds what the line would have changed.
    pub(crate) fn is_ready_for_loss(&self) -> bool {
        let is_ready = |entry: &Entry| entry.has_whole || !entry.view.is_to_miss_a_line();
        self.is_subscribed() && self.views.values().all(is_ready)
    }

    /// What was counted.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// How many pings were answered.
    pub(crate) const fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Every view has got everything that the recording has.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_subscribed() && self.views.values().all(|entry| entry.view.is_complete())
    }

    /// What is missing, when it is not complete in time.
    pub(crate) fn lacking(&self) -> Box<Difference> {
        let rule = "everything that the recording has arrives";
        let incomplete = self.views.values().map(|entry| &entry.view).find(|v| !v.is_complete());
        match incomplete {
            Some(view) => {
                let (expected, got) = view.lacks();
                let symbol = self.expected.spelt(view.name());
                Difference::new(&self.name, &symbol, Broken::new(rule, expected, got), "")
            }
            None => {
                let wanted = self.requests.len() * self.expected.symbols.len();
                let got = format!("{} subscriptions, {} pongs", self.views.len(), self.pongs);
                let expected = format!("{wanted} subscriptions and a pong to each ping");
                Difference::new(&self.name, "", Broken::new(rule, expected, got), "")
            }
        }
    }

    /// Something is wrong with the connection as such.
    pub(crate) fn broken(&self, broken: Broken, message: &str) -> Box<Difference> {
        Difference::new(&self.name, "", broken, message)
    }

    /// Judges one text.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(crate) fn hear(&mut self, text: &str) -> Result<(), Box<Difference>> {
        let envelope: Envelope<'_> =
            serde_json::from_str(text).map_err(|error| self.broken(unreadable(&error), text))?;
        match envelope.control {
            Some(kind) => self.control(kind, text).map_err(|broken| self.broken(broken, text)),
            None => {
                self.came_in(Encoding::Json).map_err(|broken| self.broken(broken, text))?;
                self.frame(&envelope, text, None)
            }
        }
    }

    /// Judges one binary message.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(crate) fn hear_binary(&mut self, frame: &[u8]) -> Result<(), Box<Difference>> {
        let shown = || format!("{frame:02x?}");
        self.came_in(Encoding::Binary).map_err(|broken| self.broken(broken, &shown()))?;
        let transcript = transcribe(frame).map_err(|broken| self.broken(broken, &shown()))?;
        let text = &transcript.text;
        let envelope: Envelope<'_> =
            serde_json::from_str(text).map_err(|error| self.broken(unreadable(&error), text))?;
        self.frame(&envelope, text, Some(&transcript.record_bytes))
    }

    fn came_in(&self, encoding: Encoding) -> Result<(), Broken> {
        let (chosen, came) = (self.encoding(), encoding);
        let rule = "the encoding is the one chosen";
        hold(came == chosen, rule, chosen.subprotocol(), came.subprotocol())
    }

    fn control(&mut self, kind: &str, text: &str) -> Result<(), Broken> {
        let rule = "a control message comes when it is due";
        match kind {
            "hello" => {
                hold(!self.greeted, rule, "one greeting", "another")?;
                self.greeted = true;
                let hello: serde_json::Value =
                    serde_json::from_str(text).map_err(|error| unreadable(&error))?;
                let version = &hello["protocol"];
                hold(*version == json!(1), "the protocol is version 1", 1, version)
            }
            "subscribed" => {
                hold(self.greeted, rule, "a greeting", kind)?;
                self.subscribed(&serde_json::from_str(text).map_err(|error| unreadable(&error))?)
            }
            "pong" => {
                self.pongs += 1;
                Ok(())
            }
            _ => Err(Broken::new(rule, "none of this kind", kind)),
        }
    }

    fn subscribed(&mut self, answer: &Subscribed<'_>) -> Result<(), Broken> {
        let Some(request) = self.requests.get(answer.id).copied() else {
            return Err(Broken::new("an answer has the id of its request", "one", answer.id));
        };
        for result in &answer.results {
            self.begin(request, result)?;
        }
        Ok(())
    }

    fn begin(&mut self, request: Request, result: &Subscription<'_>) -> Result<(), Broken> {
        let expected = Arc::clone(&self.expected);
        let name = expected.symbols.keys().find(|name| expected.spelt(name) == result.symbol);
        let (Some(name), true) = (name, result.ok) else {
            return Err(Broken::new("a subscription succeeds", "ok", format!("{result:?}")));
        };
        let is_echoed = result.channel == Some(request.channel_name())
            && result.depth == request.depth()
            && result.budget_ms == Some(request.budget_ms);
        hold(
            is_echoed,
            "values are echoed as they are",
            format!("{request:?}"),
            format!("{result:?}"),
        )?;
        let view = result.view.ok_or_else(|| Broken::new("a view has a number", "one", "none"))?;
        let stands =
            (needed(result.epoch, "epoch")?, State::read(result.state)?, needed(result.s, "s")?);
        let entry = Entry {
            view: View::new(&expected, name, request.channel, stands, &self.terms),
            budget_us: request.budget_ms * 1_000,
            // Trades have no whole to begin with.
            has_whole: request.channel == Channel::Trades,
        };
        let is_new = self.views.insert(view, entry).is_none();
        hold(is_new, "each view has its own number", "a new one", view)
    }

    /// A data frame; `record_bytes` where its updates did not come as these texts.
    fn frame(
        &mut self,
        envelope: &Envelope<'_>,
        text: &str,
        record_bytes: Option<&[usize]>,
    ) -> Result<(), Box<Difference>> {
        let raw = envelope.u.as_deref().unwrap_or_default();
        self.envelope(envelope, raw.len()).map_err(|broken| self.broken(broken, text))?;
        let late = envelope.late.as_deref().unwrap_or_default();
        let mut worst_us = 0;
        for (index, raw) in raw.iter().enumerate() {
            let update: Update<'_> = serde_json::from_str(raw.get())
                .map_err(|error| self.broken(unreadable(&error), raw.get()))?;
            let is_alone = envelope.u.as_ref().is_some_and(|updates| updates.len() == 1);
            let is_late = late.contains(&index);
            let judged = self.update(&update, is_late, &mut worst_us).and_then(|()| {
                let bytes = record_bytes.map_or(raw.get().len(), |bytes| bytes[index]);
                let is_small = update.t != "image" || bytes <= SHARED_BYTES_MAX;
                let rule = "an image over 64 KiB travels in a frame of its own";
                hold(is_small || is_alone, rule, "one update", "more")
            });
            if let Err(broken) = judged {
                let view = self.views.get(&update.v).map(|entry| entry.view.name());
                let symbol = view.map_or_else(String::new, |name| self.expected.spelt(name));
                return Err(Difference::new(&self.name, &symbol, broken, raw.get()));
            }
        }
        // Binary frames do not say by how much.
        if self.encoding() == Encoding::Binary {
            return Ok(());
        }
        let told_us = envelope.late_us.unwrap_or(0);
        let rule = "late_us is the worst overrun";
        hold(worst_us <= told_us + CUT_US, rule, format!("at least {worst_us}"), told_us)
            .map_err(|broken| self.broken(broken, text))
    }

    fn envelope(&mut self, envelope: &Envelope<'_>, count: usize) -> Result<(), Broken> {
        let (n, ts) = (needed(envelope.n, "n")?, needed(envelope.ts, "ts")?);
        hold(n == self.n + 1, "n counts without a hole", self.n + 1, n)?;
        hold(ts >= self.ts, "frames are sent one after the other", self.ts, ts)?;
        (self.n, self.ts) = (n, ts);
        self.counts.frames += 1;
        let late = envelope.late.as_deref().unwrap_or_default();
        let are_both = envelope.late.is_some() == envelope.late_us.is_some();
        let is_binary = self.encoding() == Encoding::Binary;
        hold(are_both || is_binary, "late and late_us come together", "both or none", "one")?;
        let is_meant = envelope.late.is_none() || !late.is_empty();
        hold(is_meant, "late is absent when nothing is", "something late", "nothing")?;
        let is_list = late.is_sorted_by(|a, b| a < b) && late.iter().all(|index| *index < count);
        hold(is_list, "late lists updates of the frame", count, format!("{late:?}"))
    }

    fn update(
        &mut self,
        update: &Update<'_>,
        is_late: bool,
        worst_us: &mut u64,
    ) -> Result<(), Broken> {
        let Some(entry) = self.views.get_mut(&update.v) else {
            return Err(Broken::new(
                "an update is of a view that was acknowledged",
                "one",
                update.v,
            ));
        };
        if is_late {
            let budget = entry.budget_us;
            hold(budget > 0, "nothing is late at budget 0", "no late", "late")?;
            self.counts.late += 1;
        }
        // What was held back at least this long is over the budget, whatever was skipped before it.
        let is_measured = entry.budget_us > 0
            && entry.has_whole
            && matches!(update.t, "delta" | "bbo" | "trades");
        if let Some(to) = update.to.filter(|_| is_measured) {
            let over_us = self.ts.saturating_sub(to).saturating_sub(entry.budget_us);
            let rule = "what waited for longer than its budget is late";
            let got = format!("{over_us} us over it");
            hold(is_late || over_us <= CUT_US, rule, "a late mark", got)?;
            *worst_us = over_us.max(*worst_us);
        }
        entry.has_whole |= matches!(update.t, "image" | "bbo");
        entry.view.update(update, self.ts, &mut self.counts)
    }
}
