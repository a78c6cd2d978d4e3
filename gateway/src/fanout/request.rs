//! What clients ask, carried out on the shard that owns their connection.
//!
//! Bytes become requests here, and requests become seats, lanes and answers. A long request is
//! carried out in parts, each answered before the next begins, so that its answers are bounded and
//! nobody else waits for it.

use std::collections::HashSet;
use std::sync::Arc;

use tickfan_core::decimal::write_decimal;
use tickfan_core::market::{Channel, Instrument, Nanos};
use tickfan_core::snapshot::{Entry, Table};
use tickfan_core::view::{BudgetClass, View};
use tickfan_core::wire::message::{
    Control, ErrorCode, InstrumentInfo, Op, Refusal, Request, Subscribe, SubscribedView,
    SymbolResult, quoted,
};
use tickfan_core::ws::{self, Incoming};

use super::connection::{Admission, AnswerId, Cause, Connection, Piece};
use super::lane::Lane;
use super::seat::{Begin, Seated, Standing, Wants};
use super::shard::{Shard, Subscriber};
use super::table::{ConnectionKey, LaneKey, SeatKey};
use crate::limits::{
    CLIENT_FRAGMENTS_MAX, CLIENT_MESSAGE_BYTES_MAX, IMAGE_REQUEST_NS, INSTRUMENTS_PER_ANSWER,
    MILLI_NS, RESULTS_PER_ANSWER, SEND_BYTES, SUBSCRIPTIONS_MAX, SUGGESTIONS_MAX, SYMBOL_BYTES_MAX,
};
use crate::stats::Report;

/// What the frames of a client may be.
pub(super) const CLIENT_LIMITS: ws::Limits =
    ws::Limits { message_bytes_max: CLIENT_MESSAGE_BYTES_MAX, fragments_max: CLIENT_FRAGMENTS_MAX };

/// A request that is being carried out.
#[derive(Debug)]
pub enum Work {
    /// Views are begun.
    Subscribe {
        /// For the answers.
        id: AnswerId,
        /// What is wanted of each.
        subscribe: Subscribe,
        /// Of what: the client's spelling, and what it was found to be.
        targets: std::vec::IntoIter<(String, Option<Arc<Entry>>)>,
    },
    /// Budgets are changed.
    Modify {
        /// For the answers.
        id: AnswerId,
        /// The budget.
        budget: BudgetClass,
        /// Of which views.
        views: std::vec::IntoIter<u32>,
    },
    /// Instruments are listed.
    Instruments {
        /// For the answers.
        id: AnswerId,
        /// Which.
        entries: std::vec::IntoIter<Arc<Entry>>,
    },
}

/// A message with its kind, out of the reader's borrow.
enum Message {
    Text(Result<Request, Refusal>),
    Binary,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    /// The conformance build sends every message back.
    #[cfg(feature = "conformance")]
    Echo(ws::Opcode, Vec<u8>),
}

impl Shard {
    /// Looks at bytes of a client.
    pub(super) fn on_bytes(&mut self, key: ConnectionKey, mut bytes: &mut [u8]) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let may_send = connection.may_send();
            let pending = connection.pending_mut();
            if !may_send || pending.work.is_some() {
                // An answer has to go first. What is kept is at most what one read brought.
                pending.unread = bytes.to_vec();
                return;
            }
            let message = match pending.reader.next(&mut bytes, &CLIENT_LIMITS) {
                Ok(None) => break,
                #[cfg(feature = "conformance")]
                Ok(Some(Incoming::Text(text))) => Message::Echo(ws::Opcode::Text, text.into()),
                #[cfg(feature = "conformance")]
                Ok(Some(Incoming::Binary(bytes))) => {
                    Message::Echo(ws::Opcode::Binary, bytes.to_vec())
                }
                Ok(Some(incoming)) => match incoming {
                    Incoming::Text(text) => Message::Text(Request::parse(text)),
                    Incoming::Binary(_) => Message::Binary,
                    Incoming::Ping(payload) => Message::Ping(payload.to_vec()),
                    Incoming::Pong(_) => Message::Pong,
                    Incoming::Close { code, .. } => Message::Close(code),
                },
                Err(violation) => {
                    let cause = Cause::Protocol(violation.close_code());
                    self.close(key, cause, &violation.to_string());
                    return;
                }
            };
            self.on_message(key, message);
        }
        self.send(key, &[]);
    }

    fn on_message(&mut self, key: ConnectionKey, message: Message) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return };
        match message {
            Message::Pong => {}
            Message::Ping(payload) => {
                if !connection.allowance.ping(now) {
                    return self.close(key, Cause::Flood, "too many pings");
                }
                let control = &mut connection.pending_mut().control;
                ws::write_pong(&payload, control);
                if control.len() >= SEND_BYTES {
                    self.send(key, &[]);
                }
            }
            Message::Binary => {
                self.close(key, Cause::Unsupported, "requests are JSON text");
            }
            Message::Close(code) => self.on_close(key, code),
            #[cfg(feature = "conformance")]
            Message::Echo(opcode, payload) => {
                let control = &mut connection.pending_mut().control;
                ws::write_header(opcode, payload.len(), control);
                control.extend_from_slice(&payload);
                if control.len() >= SEND_BYTES {
                    self.send(key, &[]);
                }
            }
            Message::Text(request) => match connection.allowance.message(now) {
                Admission::Served => self.on_request(key, request, now),
                Admission::Flood => self.close(key, Cause::Flood, "too many messages"),
                Admission::Refused => {
                    self.stats.rate_limited.inc();
                    let id = request.map_or_else(|refusal| refusal.id, |request| request.id);
                    self.answer(
                        key,
                        &Control::Error {
                            id,
                            code: ErrorCode::RateLimited,
                            message: "too many messages; hello names the limit".to_owned(),
                        },
                    );
                }
            },
        }
    }

    /// The client closes: its code is echoed, and everything is over.
    fn on_close(&mut self, key: ConnectionKey, code: Option<u16>) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut echo = connection.take_control();
        match code {
            Some(code) => ws::write_close(code, "", &mut echo),
            None => ws::write_header(ws::Opcode::Close, 0, &mut echo),
        }
        // The peer has closed: if it does not take the echo, nobody misses it.
        let taken = connection.send(&[Piece::Copied(&echo)], now).unwrap_or(0);
        self.stats.bytes.inc_by(taken as u64);
        self.end(key, Cause::Done);
    }

    fn answer(&mut self, key: ConnectionKey, control: &Control) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.push_control(&control.to_json());
            if connection.pending_mut().control.len() >= SEND_BYTES {
                self.send(key, &[]);
            }
        }
    }

    fn refuse(&mut self, key: ConnectionKey, refusal: Refusal, now: Nanos) {
        self.stats.requests_refused.inc();
        self.answer(key, &refusal.into());
        let may_go_on = self
            .connections
            .get_mut(key)
            .is_some_and(|connection| connection.allowance.bad_request(now));
        if !may_go_on {
            self.close(key, Cause::BadRequests, "five bad requests in ten seconds");
        }
    }

    fn on_request(&mut self, key: ConnectionKey, request: Result<Request, Refusal>, now: Nanos) {
        let Request { id, op } = match request {
            Ok(request) => request,
            Err(refusal) => return self.refuse(key, refusal, now),
        };
        self.stats.requests.inc();
        let work = match op {
            Op::Subscribe(mut subscribe) => {
                let symbols = std::mem::take(&mut subscribe.symbols);
                let targets = targets(&self.registry.table(), symbols).into_iter();
                Work::Subscribe { id, subscribe, targets }
            }
            Op::Modify { views, budget } => Work::Modify { id, budget, views: views.into_iter() },
            Op::Instruments { pattern } => {
                let entries = matching(&self.registry.table(), &pattern).into_iter();
                Work::Instruments { id, entries }
            }
            Op::UnsubscribeViews(views) => return self.unsubscribe(key, id, views),
            Op::UnsubscribeSymbols { channel, symbols } => {
                let views = self.views_of(key, channel, symbols);
                return self.unsubscribe(key, id, views);
            }
            Op::Image { views } => return self.send_images(key, id, &views, now),
            Op::Heartbeat { every_ms } => {
                if let Some(connection) = self.connections.get_mut(key) {
                    let periodic = connection.periodic.get_or_insert_default();
                    periodic.heartbeat_ns = Nanos::from(every_ms) * MILLI_NS;
                    periodic.frame_sent_ns = now;
                    self.set_timer(key, now + Nanos::from(every_ms) * MILLI_NS);
                }
                return;
            }
            Op::Stats { every_ms } => {
                if let Some(connection) = self.connections.get_mut(key) {
                    let periodic = connection.periodic.get_or_insert_default();
                    periodic.report = (every_ms > 0).then(|| Box::new(Report::new(every_ms, now)));
                    self.set_timer(key, now + Nanos::from(every_ms) * MILLI_NS);
                }
                return;
            }
            Op::Ping => {
                let received = now / 1_000;
                let sent = self.now() / 1_000;
                return self.answer(key, &Control::Pong { id, received, sent });
            }
        };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.pending_mut().work = Some(work);
            self.be_busy(key);
        }
    }

    /// Carries out one part of a connection's request, or looks at bytes that had to wait; returns
    /// whether there is more.
    pub(super) fn work_on(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if !connection.may_send() {
            return false;
        }
        let Some(pending) = connection.pending_if_any() else { return false };
        match pending.work.take() {
            Some(work) => {
                let rest = self.work_part(key, work);
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.pending_mut().work = rest;
                }
                // The answer travels with the images that it announces.
                if !self.has_ready_seat(key) {
                    self.send(key, &[]);
                }
            }
            None if pending.unread.is_empty() => {
                self.send(key, &[]);
            }
            None => {
                let mut unread = std::mem::take(&mut pending.unread);
                self.on_bytes(key, &mut unread);
            }
        }
        self.connections.get(key).is_some_and(|connection| {
            connection.may_send()
                && connection
                    .pending()
                    .is_some_and(|pending| pending.work.is_some() || !pending.unread.is_empty())
        })
    }

    fn has_ready_seat(&self, key: ConnectionKey) -> bool {
        let mut next = self.first_seat(key);
        while let Some(seat) = next.and_then(|key| self.seats.get(key)) {
            if seat.standing == Standing::Ready {
                return true;
            }
            next = seat.next;
        }
        false
    }

    fn work_part(&mut self, key: ConnectionKey, work: Work) -> Option<Work> {
        match work {
            Work::Subscribe { id, subscribe, mut targets } => {
                let held: Vec<u32> = targets
                    .as_slice()
                    .iter()
                    .take(RESULTS_PER_ANSWER)
                    .filter_map(|(_, entry)| Some(view_of(&subscribe, entry.as_ref()?).number()))
                    .collect();
                if !self.catch_up(key, &held, subscribe.budget) {
                    return Some(Work::Subscribe { id, subscribe, targets });
                }
                // To look for the nearest name is dear, and of use only to a person.
                let suggests = targets.len() <= SUGGESTIONS_MAX;
                let results: Vec<SymbolResult> = targets
                    .by_ref()
                    .take(RESULTS_PER_ANSWER)
                    .map(|(symbol, entry)| self.subscribe(key, symbol, entry, &subscribe, suggests))
                    .collect();
                self.answer(key, &Control::Subscribed { id: id.clone(), results });
                (targets.len() > 0).then_some(Work::Subscribe { id, subscribe, targets })
            }
            Work::Modify { id, budget, mut views } => {
                let part = views.as_slice();
                let part = part[..part.len().min(RESULTS_PER_ANSWER)].to_vec();
                if !self.catch_up(key, &part, budget) {
                    return Some(Work::Modify { id, budget, views });
                }
                let results: Vec<SymbolResult> = views
                    .by_ref()
                    .take(RESULTS_PER_ANSWER)
                    .map(|view| self.modify(key, view, budget))
                    .collect();
                self.answer(key, &Control::Subscribed { id: id.clone(), results });
                (views.len() > 0).then_some(Work::Modify { id, budget, views })
            }
            Work::Instruments { id, mut entries } => {
                let instruments = entries
                    .by_ref()
                    .take(INSTRUMENTS_PER_ANSWER)
                    .map(|entry| instrument_info(&entry))
                    .collect();
                self.answer(key, &Control::Instruments { id: id.clone(), instruments });
                (entries.len() > 0).then_some(Work::Instruments { id, entries })
            }
        }
    }

    fn subscribe(
        &mut self,
        key: ConnectionKey,
        symbol: String,
        entry: Option<Arc<Entry>>,
        subscribe: &Subscribe,
        suggests: bool,
    ) -> SymbolResult {
        let Some(entry) = entry else {
            let message = unknown_symbol(&self.registry.table(), &symbol, suggests);
            return SymbolResult::refused(symbol, ErrorCode::UnknownSymbol, message);
        };
        let view = view_of(subscribe, &entry);
        let Some(connection) = self.connections.get(key) else {
            return SymbolResult::refused(symbol, ErrorCode::Internal, "closed".to_owned());
        };
        if self.place(key, view.number()).is_some() {
            let mut result = self.modify(key, view.number(), subscribe.budget);
            result.symbol = symbol;
            return result;
        }
        if connection.subscriptions as usize >= SUBSCRIPTIONS_MAX {
            let message = format!("a connection holds at most {SUBSCRIPTIONS_MAX} subscriptions");
            return SymbolResult::refused(symbol, ErrorCode::TooManySubscriptions, message);
        }
        let lane_key = self.lane(view, subscribe.budget, &entry);
        let Some(lane) = self.lanes.get(lane_key) else {
            return SymbolResult::refused(symbol, ErrorCode::Internal, "no lane".to_owned());
        };
        let held = match subscribe.channel {
            // No price is sent in other states, be it an old one.
            Channel::Trades if lane.status().state.has_whole() => {
                let tail = &lane.taken().trades.tail;
                lane.s() - subscribe.last.min(lane.s() - tail.floor().min(lane.s()))
            }
            _ => lane.s(),
        };
        self.sit(key, lane_key, held, 0, Begin::First);
        match self.subscribed(lane_key, held) {
            Some(subscribed) => SymbolResult::accepted(symbol, subscribed),
            None => SymbolResult::refused(symbol, ErrorCode::Internal, "no lane".to_owned()),
        }
    }

    /// What is in force of a subscription to a lane.
    fn subscribed(&mut self, lane_key: LaneKey, s: u64) -> Option<SubscribedView> {
        let now = self.now();
        let lane = self.lanes.get(lane_key)?;
        let status = lane.status();
        let scales = lane.taken().scales;
        let (p99_us, is_infeasible) = self.classes.measured(lane.class, now);
        Some(SubscribedView {
            view: lane.view.number(),
            channel: lane.view.channel.name().to_owned(),
            depth: SubscribedView::depth_value(lane.view.channel, lane.view.depth),
            budget_ms: lane.class.ms(),
            budget: if is_infeasible { "infeasible" } else { "accepted" }.to_owned(),
            p99_us,
            price_scale: scales.px,
            qty_scale: scales.qty,
            epoch: status.epoch,
            s,
            state: status.state.name().to_owned(),
        })
    }

    /// Moves a subscription to another budget without a gap.
    fn modify(&mut self, key: ConnectionKey, number: u32, budget: BudgetClass) -> SymbolResult {
        let Some(place) = self.place(key, number) else {
            let message = format!("view {number} is not subscribed");
            return SymbolResult::refused(String::new(), ErrorCode::NotSubscribed, message);
        };
        let Some((seated, lane)) = self.seated(place) else {
            return SymbolResult::refused(String::new(), ErrorCode::Internal, "no lane".to_owned());
        };
        let (lane_key, entry) = (seated.lane, Arc::clone(&lane.entry));
        let symbol = entry.instrument.symbol.to_string();
        let now_in =
            if lane.class == budget { lane_key } else { self.move_to(key, place, budget, &entry) };
        let held = self
            .place(key, number)
            .and_then(|place| self.seated(place))
            .map_or(0, |(seated, lane)| seated.held(lane.s()));
        match self.subscribed(now_in, held) {
            Some(subscribed) => SymbolResult::accepted(symbol, subscribed),
            None => SymbolResult::refused(symbol, ErrorCode::Internal, "no lane".to_owned()),
        }
    }

    /// Sends what views that are to move still have to tell, whatever their pace: all of them before
    /// any of them moves, so that answers and data keep their order. Returns whether they hold all
    /// now; if not, the connection is blocked, and the move has to wait.
    fn catch_up(&mut self, key: ConnectionKey, views: &[u32], budget: BudgetClass) -> bool {
        let mut seats: Vec<SeatKey> = Vec::new();
        for view in views {
            let Some(place) = self.place(key, *view) else { continue };
            let Some((seated, lane)) = self.seated(place) else { continue };
            if lane.class == budget {
                continue;
            }
            let (lane_key, newest) = (seated.lane, lane.entry.load());
            self.bring_to(lane_key, newest);
            if !seats.contains(&place.0) {
                seats.push(place.0);
            }
        }
        let has_news = |shard: &Self, seat: &SeatKey| {
            shard.seats.get(*seat).is_some_and(|seat| seat.has_news())
        };
        loop {
            seats.retain(|seat| has_news(self, seat));
            if seats.is_empty() {
                return true;
            }
            if !self.connections.get(key).is_some_and(Connection::may_send) {
                return false;
            }
            self.send(key, &seats);
        }
    }

    /// Moves a subscription that has caught up to the lane of another budget.
    fn move_to(
        &mut self,
        key: ConnectionKey,
        place: (SeatKey, usize),
        budget: BudgetClass,
        entry: &Arc<Entry>,
    ) -> LaneKey {
        let Some((seated, lane)) = self.seated(place) else {
            unreachable!("the caller has just seen it")
        };
        let (view, old_key) = (lane.view, seated.lane);
        let (taken, is_even) = (Arc::clone(lane.taken()), seated.position == lane.end());
        // The new lane before the old one ends, so that no mark is missed between them.
        let lane_key = self.lane_beside(view, budget, entry, Arc::clone(&taken));
        let Some(ended) = self.stand_up(key, view.number()) else { return old_key };
        let begin = match (ended.wants, ended.bridge) {
            (Wants::First, _) => Begin::First,
            (Wants::Bridge, Some(from)) => Begin::Bridge(from),
            (Wants::Log, _) if is_even && view.channel != Channel::Trades => Begin::Bridge(taken),
            _ => Begin::Whole,
        };
        self.sit(key, lane_key, ended.held, ended.oldest_ns, begin);
        lane_key
    }

    fn views_of(&self, key: ConnectionKey, channel: Channel, symbols: Vec<String>) -> Vec<u32> {
        let named: HashSet<&str> = symbols.iter().map(|symbol| &**symbol).collect();
        let is_wanted = |instrument: &Instrument| {
            let all = format!("{}:*", instrument.venue.name());
            named.contains(&*instrument.symbol) || named.contains(&*all)
        };
        let mut views = Vec::new();
        let mut next = self.first_seat(key);
        while let Some(seat) = next.and_then(|key| self.seats.get(key)) {
            let lanes = seat.subscriptions.iter().filter_map(|seated| self.lanes.get(seated.lane));
            let wanted = lanes
                .filter(|lane| lane.view.channel == channel && is_wanted(&lane.entry.instrument));
            views.extend(wanted.map(Lane::number));
            next = seat.next;
        }
        views.sort_unstable();
        views
    }

    fn unsubscribe(&mut self, key: ConnectionKey, id: AnswerId, views: Vec<u32>) {
        let ended: Vec<u32> =
            views.into_iter().filter(|view| self.stand_up(key, *view).is_some()).collect();
        let mut parts = ended.chunks(RESULTS_PER_ANSWER);
        // Nothing ended is an answer too.
        let first = parts.next().unwrap_or_default().to_vec();
        self.answer(key, &Control::Unsubscribed { id: id.clone(), views: first });
        for part in parts {
            self.answer(key, &Control::Unsubscribed { id: id.clone(), views: part.to_vec() });
        }
    }

    fn send_images(&mut self, key: ConnectionKey, id: AnswerId, views: &[u32], now: Nanos) {
        for view in views {
            let Some(place) = self.place(key, *view) else {
                let message = format!("view {view} is not subscribed");
                let code = ErrorCode::NotSubscribed;
                self.refuse(key, Refusal { id: id.clone(), code, message }, now);
                continue;
            };
            let Some(connection) = self.connections.get_mut(key) else { return };
            let images = &mut connection.pending_mut().images;
            images.retain(|(_, at_ns)| now < at_ns + IMAGE_REQUEST_NS);
            if images.iter().any(|(recent, _)| recent == view) {
                let message = format!("view {view} was sent whole less than a second ago");
                let code = ErrorCode::RateLimited;
                self.stats.rate_limited.inc();
                self.answer(key, &Control::Error { id: id.clone(), code, message });
                continue;
            }
            images.push((*view, now));
            let Some((seated, lane)) = self.seated(place) else { continue };
            if !wants_image(seated, lane) {
                continue;
            }
            let lane_key = seated.lane;
            if let Some(connection) = self.connections.get_mut(key) {
                connection.take_bridge(lane_key);
            }
            let Some(seat) = self.seats.get_mut(place.0) else { continue };
            let Some(seated) = seat.subscriptions.get_mut(place.1) else { continue };
            seated.set_wants(Wants::Whole);
            if seat.oldest_ns == 0 {
                seat.oldest_ns = now;
            }
            self.ready(place.0);
        }
    }
}

/// The view of an instrument that a request means.
fn view_of(subscribe: &Subscribe, entry: &Entry) -> View {
    View { instrument: entry.instrument.id, channel: subscribe.channel, depth: subscribe.depth }
}

/// The whole may be sent: the channel has one, and the client is not about to get it anyway.
fn wants_image(seated: &Seated, lane: &Lane<Subscriber>) -> bool {
    lane.view.channel != Channel::Trades
        && lane.status().state.has_whole()
        && matches!(seated.wants(), Wants::Log | Wants::Bridge)
}

/// What the symbols of a request name: `venue:*` stands for all of a venue, as far as a connection
/// can hold them and one more, which says so.
fn targets(table: &Table, symbols: Vec<String>) -> Vec<(String, Option<Arc<Entry>>)> {
    let mut targets = Vec::new();
    for symbol in symbols {
        match symbol.strip_suffix(":*") {
            Some(venue) => {
                let before = targets.len();
                let room = (SUBSCRIPTIONS_MAX + 1).saturating_sub(before).max(1);
                targets.extend(
                    table
                        .entries()
                        .iter()
                        .filter(|entry| entry.instrument.venue.name() == venue)
                        .take(room)
                        .map(|e| (e.instrument.symbol.to_string(), Some(Arc::clone(e)))),
                );
                if targets.len() == before {
                    targets.push((symbol, None));
                }
            }
            None => {
                let entry = table.find(&symbol).cloned();
                targets.push((symbol, entry));
            }
        }
    }
    targets
}

/// The instruments whose symbol is `pattern`, or begins with what stands before its `*`.
pub fn matching(table: &Table, pattern: &str) -> Vec<Arc<Entry>> {
    match pattern.strip_suffix('*') {
        Some(beginning) => table
            .entries()
            .iter()
            .filter(|entry| entry.instrument.symbol.starts_with(beginning))
            .cloned()
            .collect(),
        None => table.find(pattern).cloned().into_iter().collect(),
    }
}

/// Words for a symbol that is not there, with the nearest that is.
pub fn unknown_symbol(table: &Table, symbol: &str, suggests: bool) -> String {
    let known = if suggests && symbol.len() <= SYMBOL_BYTES_MAX { table.entries() } else { &[] };
    let nearest = known
        .iter()
        .map(|entry| &*entry.instrument.symbol)
        .min_by_key(|known| distance(known, symbol));
    match nearest {
        Some(nearest) => format!("no instrument {}; did you mean {nearest}?", quoted(symbol)),
        None => format!("no instrument {}", quoted(symbol)),
    }
}

/// A cheap distance of two symbols: what is left when the common beginning and end are taken away.
fn distance(known: &str, asked: &str) -> usize {
    let (known, asked) = (known.to_ascii_uppercase(), asked.to_ascii_uppercase());
    let common = |a: &mut dyn Iterator<Item = (char, char)>| a.take_while(|(a, b)| a == b).count();
    let beginning = common(&mut known.chars().zip(asked.chars()));
    let shorter = known.chars().count().min(asked.chars().count());
    let end = common(&mut known.chars().rev().zip(asked.chars().rev())).min(shorter - beginning);
    known.chars().count() + asked.chars().count() - 2 * (beginning + end)
}

/// An instrument as clients see it.
pub fn instrument_info(entry: &Entry) -> InstrumentInfo {
    let instrument = &entry.instrument;
    let snapshot = entry.load();
    let listing = entry.listing();
    let listing = listing.as_deref();
    let text = |decimal: tickfan_core::decimal::Decimal| {
        let mut out = Vec::new();
        write_decimal(decimal.mantissa, decimal.scale, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    InstrumentInfo {
        symbol: instrument.symbol.to_string(),
        venue: instrument.venue.name().to_owned(),
        native: instrument.native.to_string(),
        base: listing.map(|listing| listing.base.to_string()),
        quote: listing.map(|listing| listing.quote.to_string()),
        kind: listing.map(|listing| listing.kind.to_string()),
        tick: listing.map(|listing| text(listing.tick)),
        lot: listing.map(|listing| text(listing.lot)),
        price_scale: snapshot.scales.px,
        qty_scale: snapshot.scales.qty,
        state: snapshot.book.status.state.name().to_owned(),
    }
}
