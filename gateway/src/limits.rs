//! Every bound, default and budget of the gateway, each with its reason. Nothing else hides one.
//!
//! What happens at a limit is written beside the limit; each has a counter in `stats.rs` and a test
//! one past it.

use tickfan_core::market::Nanos;

/// Nanoseconds of a millisecond.
pub const MILLI_NS: Nanos = 1_000_000;

/// Nanoseconds of a second.
pub const SECOND_NS: Nanos = 1_000 * MILLI_NS;

// --- The writing half: venues and feeds.

/// Instruments of all venues together: sizes the tables of dirty marks. More are refused at start.
pub const INSTRUMENTS_MAX: usize = 16_384;

/// The largest venue message: Coinbase's images are 5 MB. A larger one ends the connection to the
/// venue.
pub const VENUE_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes that one read from a venue may bring: four records of TLS.
pub const VENUE_READ_BYTES: usize = 64 << 10;

/// Reads in one turn of a session, so that a message of megabytes does not keep others of the feed
/// thread waiting while it comes in.
pub const VENUE_READS_PER_TURN: usize = 8;

/// A connection's buffer that a large message has made larger than this is given back after it.
pub const VENUE_BUFFER_BYTES_KEPT: usize = 1 << 20;

/// A batch of input ends after this many messages, so that a busy venue is published at least this
/// often …
pub const BATCH_MESSAGES_MAX: usize = 256;

/// … or after this long.
pub const BATCH_NS_MAX: Nanos = 200_000;

/// Book events of one instrument that wait for its image. When one more comes, all are dropped and
/// the image is asked for anew.
pub const IMAGE_BUFFER_EVENTS_MAX: usize = 8_192;

/// Fetched images of one instrument that are refused one after the other because they are older than
/// what its readers have seen: a server that lags has caught up by then. The next one is taken, as a
/// venue that began its numbers anew has no other.
pub const IMAGES_BEHIND_MAX: u32 = 3;

/// Level changes in those events, with the same policy.
pub const IMAGE_BUFFER_LEVELS_MAX: usize = 262_144;

/// A stream message over this that is one whole book is decoded on the REST thread: to read this much
/// takes about as long as a batch may.
pub const LARGE_MESSAGE_BYTES: usize = 256 << 10;

/// A book that is still crossed after this long is asked for anew: markets cross for an instant when
/// a venue tells one event in two messages.
pub const CROSSED_GRACE_NS: Nanos = 100 * MILLI_NS;

/// A trade that a heartbeat names and that has not come after this long is lost: it may only have
/// been overtaken.
pub const TRADES_GRACE_NS: Nanos = SECOND_NS;

/// Trades of the tail among which one that comes over a new connection is looked for: more than come
/// between two looks at a busy symbol, and few enough to be gone through.
pub const TRADES_COMPARED: u64 = 1_000;

/// So many times within [`MISMATCHES_NS`] the first checksum over an image of the venue's own may
/// differ. With the last of them it is the checksum that is not believed, until the next connection.
pub const MISMATCHES_MAX: usize = 3;

/// See [`MISMATCHES_MAX`].
pub const MISMATCHES_NS: Nanos = 60 * SECOND_NS;

/// Trades that may be missing between two that follow each other. One whose number is further ahead is
/// left out as malformed, and believed when the next is near it.
pub const TRADES_LOST_MAX: u64 = 1_000_000;

/// The largest number of a trade that is believed at all: no venue counts beyond what every JSON
/// reader holds exactly. Holes up to it may be told over a thousand times before they no longer add up.
pub const TRADE_NUMBER_MAX: u64 = (1 << 53) - 1;

/// An image that has not come after this long is asked for again.
pub const IMAGE_TIMEOUT_NS: Nanos = 30 * SECOND_NS;

/// A subscription that the venue has not confirmed by then is taken to be in force, and the image is
/// asked for.
pub const SUBSCRIBE_ACK_NS: Nanos = 3 * SECOND_NS;

/// First pause before something failed is tried again; doubled each time, drawn with full jitter.
pub const BACKOFF_FIRST_NS: Nanos = 500 * MILLI_NS;

/// Longest such pause.
pub const BACKOFF_MAX_NS: Nanos = 60 * SECOND_NS;

/// A book that stayed right for this long has recovered: its next resync is immediate again.
pub const RECOVERED_AFTER_NS: Nanos = 10 * SECOND_NS;

/// Connecting to a venue: name, TCP, TLS and upgrade together.
pub const CONNECT_TIMEOUT_NS: Nanos = 10 * SECOND_NS;

/// A connection of limited life is handed over to a new one with this fraction of it to spare (half an
/// hour of a day), so that a successor of many books has the time to catch up …
pub const HAND_OVER_SPARE_DIVISOR: Nanos = 48;

/// … and up to this fraction (three hours of a day) earlier, drawn at random: connections that were
/// made together are not handed over together.
pub const HAND_OVER_SPREAD_DIVISOR: Nanos = 8;

/// A successor does not take over sooner after its last text to the venue: a subscription is not in
/// force before the venue has read it, and of trades without numbers nothing else would tell.
pub const HAND_OVER_SETTLE_NS: Nanos = SECOND_NS;

/// A successor that has not caught up after this long takes over as it is: as long as the images of
/// a full connection of Binance take.
pub const HAND_OVER_NS_MAX: Nanos = 30 * 60 * SECOND_NS;

/// A book that was handed over to a connection that is behind it is held for this long until that
/// has caught up: two connections to one venue are not further apart. Then it is a gap: the numbers
/// of the new connection may not be those of the old one.
pub const HAND_OVER_LAG_NS_MAX: Nanos = 2 * SECOND_NS;

/// How long the venue may leave what is sent to it unread: nothing is heard of it meanwhile. Then the
/// connection is made anew.
pub const VENUE_SEND_NS_MAX: Nanos = 5 * SECOND_NS;

/// Texts that wait to be sent to a venue within its limit of messages; with more the connection is
/// made anew.
pub const VENUE_TEXTS_MAX: usize = 1_024;

/// Digits behind the point that an instrument without a listing begins with at most.
pub const FIRST_SCALE_MAX: u8 = 8;

/// The largest mantissa for which a scale is guessed: numbers a hundred thousand times as large
/// still fit.
pub const GUESSED_MANTISSA_MAX: u64 = i64::MAX as u64 / 100_000;

/// Pages that an instrument list may have: at a thousand a page, more than any venue lists.
pub const LIST_PAGES_MAX: usize = 20;

/// REST requests waiting for their turn at one venue: one per instrument can be under way. What does
/// not fit counts as failed.
pub const REST_QUEUE_MAX: usize = INSTRUMENTS_MAX;

/// Images parsed and not yet taken by their session. A full queue makes the REST thread wait.
pub const REST_RESULTS_MAX: usize = 16;

/// REST requests under way at once: more would only queue at the venue.
pub const REST_CONCURRENT_MAX: usize = 8;

/// Images of streams waiting to be decoded, for one venue: so many times
/// [`VENUE_MESSAGE_BYTES_MAX`] of memory at the very most. What does not fit counts as failed and is
/// asked for again.
pub const DECODE_QUEUE_MAX: usize = 32;

/// For how long a venue is left alone that says "too many" and not until when; doubled each time it
/// says so again, until it serves a request.
pub const BAN_FIRST_NS: Nanos = 30 * SECOND_NS;

/// Longest such pause.
pub const BAN_MAX_NS: Nanos = 60 * 60 * SECOND_NS;

/// Clients are let in without the instruments of a list that has not come this long after the start:
/// one venue that is down keeps nobody from the others for longer than a drain before it did.
pub const LISTS_WAIT_NS: Nanos = DRAIN_RETRY_MS * MILLI_NS;

/// Instrument lists are read again about this often: within a quarter of it, drawn at random.
pub const LISTINGS_EVERY_NS: Nanos = 10 * 60 * SECOND_NS;

/// The largest REST response: Binance's whole exchangeInfo is some 20 MB.
pub const REST_BODY_BYTES_MAX: usize = 64 << 20;

/// One REST request, from its connection to the end of the body.
pub const REST_TIMEOUT_NS: Nanos = 20 * SECOND_NS;

/// A feed that failed this often within [`FEED_FAILURES_NS`] ends the process for its supervisor.
pub const FEED_FAILURES_MAX: usize = 3;

/// See [`FEED_FAILURES_MAX`].
pub const FEED_FAILURES_NS: Nanos = 60 * SECOND_NS;

// --- The reading half: lanes, seats, connections.

/// A lane makes a new body at most once per this fraction of its budget …
pub const GRAIN_DIVISOR: Nanos = 8;

/// … unless the budget is shorter than this: then there is nothing to gain by waiting.
pub const GRAIN_BUDGET_NS_MIN: Nanos = 8 * MILLI_NS;

/// A seat is sent to at most once per this fraction of its budget: what remains after the grain is
/// left for the sending itself.
pub const PACE_NUMERATOR: Nanos = 3;

/// See [`PACE_NUMERATOR`].
pub const PACE_DIVISOR: Nanos = 4;

/// Grains and paces end on a grid of this fraction of the budget, so that a thread is woken once for
/// all that falls due within it.
pub const GRID_DIVISOR: Nanos = 25;

/// Bytes of one send: a frame grows to about this, then the next frame begins. A blocked connection
/// keeps at most this much, and what one update of at most [`BODY_BYTES_SHARED`] adds.
pub const SEND_BYTES: usize = 64 << 10;

/// Updates in one frame, as in the binary encoding's `late` bits.
pub const FRAME_UPDATES_MAX: usize = 64;

/// Room before the first update of a frame: its head with every update late, and the WebSocket
/// header.
pub const FRAME_HEAD_BYTES_MAX: usize = 384;

/// A body over this is not copied into a send but travels by reference, in a frame of its own.
pub const BODY_BYTES_SHARED: usize = 64 << 10;

/// Bytes that a lane's log may keep whatever the size of an image: past that, a reader that is
/// behind gets the whole.
pub const LOG_BYTES_MAX: usize = 64 << 10;

/// Bodies that a log may keep.
pub const LOG_BODIES_MAX: usize = 1_024;

/// Trades that the log of a trades lane keeps at least: a reader further behind is told how many it
/// lost.
pub const LOG_TRADES: usize = 4_096;

/// Trades in one body.
pub const BODY_TRADES_MAX: usize = 1_000;

/// Changes of state that a lane remembers for readers who are behind. Older ones are told by the
/// counter alone.
pub const LOG_STATES_MAX: usize = 16;

/// Classes are looked at again after this many sends, the strictest first.
pub const SENDS_PER_LOOK: usize = 8;

/// Looks in one turn of a shard: after so many the poller is asked again.
pub const LOOKS_PER_TURN: usize = 8;

/// Lanes that make a body in one look because their grain has passed: with the sends, so much is
/// done before the strictest class is looked at again.
pub const LANES_PER_LOOK: usize = 16;

/// Parts of requests carried out in one look: the rest waits while others are sent to.
pub const PARTS_PER_LOOK: usize = 8;

/// Connections that the poller reports at once. A storm of them must not keep others waiting.
pub const EVENTS_PER_ROUND: usize = 128;

/// Commands of the door carried out at once, for the same reason.
pub const COMMANDS_PER_ROUND: usize = 128;

/// The longest sleep of a thread that has a watchdog: it ticks at least this often.
pub const SLEEP_NS_MAX: Nanos = 500 * MILLI_NS;

/// Subscriptions of one connection. More are refused symbol by symbol.
pub const SUBSCRIPTIONS_MAX: usize = 2_000;

/// Bytes of one client message; a longer one closes with 1009. The conformance suite sends 16 MiB.
pub const CLIENT_MESSAGE_BYTES_MAX: usize =
    if cfg!(feature = "conformance-large") { 64 << 20 } else { 16 << 10 };

/// Fragments of one client message; more close with 1008. The conformance suite sends 64 bytes in
/// each.
pub const CLIENT_FRAGMENTS_MAX: usize =
    if cfg!(feature = "conformance-large") { 1 << 20 } else { 16 };

/// Client messages a second that are answered in the long run; more are refused as `rate_limited`.
pub const CLIENT_MESSAGES_PER_S: u32 = 20;

/// Client messages that may come at once.
pub const CLIENT_MESSAGES_BURST: u32 = 100;

/// Refused messages beyond the rate before the connection is closed with 1008.
pub const CLIENT_MESSAGES_EXCESS_MAX: u32 = 1_000;

/// Pings of a client in [`CLIENT_PINGS_NS`]; more close with 1008.
pub const CLIENT_PINGS_MAX: u32 = 250;

/// See [`CLIENT_PINGS_MAX`].
pub const CLIENT_PINGS_NS: Nanos = 5 * SECOND_NS;

/// Bad requests within [`BAD_REQUESTS_NS`] before the connection is closed with 4005.
pub const BAD_REQUESTS_MAX: u32 = 5;

/// See [`BAD_REQUESTS_MAX`].
pub const BAD_REQUESTS_NS: Nanos = 10 * SECOND_NS;

/// Requests with more symbols than this get no suggestions for those that are unknown: to look for
/// the nearest name is dear, and of use only to a person.
pub const SUGGESTIONS_MAX: usize = 4;

/// A longer symbol than this is none.
pub const SYMBOL_BYTES_MAX: usize = 64;

/// Results in one answer to a client: larger answers are split, so that they travel like all else.
pub const RESULTS_PER_ANSWER: usize = 64;

/// Instruments in one answer to a client.
pub const INSTRUMENTS_PER_ANSWER: usize = 64;

/// The gateway pings a connection after this long without having read from it.
pub const PING_EVERY_NS: Nanos = 20 * SECOND_NS;

/// Pings without a pong and without any byte taken before a connection is closed with 4202.
pub const PINGS_UNANSWERED_MAX: u32 = 2;

/// A blocked connection that takes no byte for this long is closed with 4201.
pub const STALL_NS_MAX: Nanos = 60 * SECOND_NS;

/// After a close frame was sent, how long the peer has to end the connection.
pub const CLOSE_LINGER_NS: Nanos = SECOND_NS;

/// One view is sent whole on request at most this often.
pub const IMAGE_REQUEST_NS: Nanos = SECOND_NS;

/// The kernel's send buffer of a connection: what a returning reader finds there is old.
pub const SOCKET_SEND_BYTES: usize = 64 << 10;

/// Unsent bytes in the kernel at which a connection counts as writable.
pub const SOCKET_UNSENT_BYTES: u32 = 16 << 10;

/// What may be asked for either: less than a packet sends nothing, more than this is old news for
/// seconds.
pub const SOCKET_BYTES: std::ops::RangeInclusive<usize> = 2 << 10..=16 << 20;

/// Bytes read from one connection in one turn, so that no client takes a shard for itself.
pub const READ_BYTES_PER_TURN: usize = 64 << 10;

/// Shards: more than any machine that this is for has cores; a larger number is a slip of the pen.
pub const SHARDS_MAX: usize = 256;

/// Connections and commands handed to one shard and not yet taken. What does not fit is closed with
/// 4102.
pub const SHARD_COMMANDS_MAX: usize = 4_096;

/// While every such queue is half full, the door lets nobody in and looks again after this long.
pub const ROOM_WAIT_NS: Nanos = MILLI_NS;

/// Connections in all. One more is closed with 4101. `connections_max` lowers it.
pub const CONNECTIONS_MAX: usize = 100_000;

/// Connections of one address: many, because a proxy or the exit of a company stands for all behind
/// it, and few enough that nobody takes the gateway for itself. One more is closed with 4101.
pub const CONNECTIONS_PER_ADDRESS: usize = 10_000;

/// Memory of an idle connection without its subscriptions: connection, seat, socket, and the timer
/// that pings it. With [`SUBSCRIPTION_BYTES`], ten subscriptions make 0.59 KiB. Tables grow by
/// doubling; what lies beyond their end was never touched, and so is not resident.
pub const CONNECTION_BYTES: usize = 240;

/// Memory of one subscription: its place in the seat, and the lane's way back to it.
pub const SUBSCRIPTION_BYTES: usize = 24 + 12;

/// Memory of a lane that is not busy, whatever the number of its subscribers. Its log comes on top,
/// and its whole, per encoding in use: each within [`LOG_BYTES_MAX`] or the size of an image.
pub const LANE_BYTES: usize = 2 << 10;

/// What a blocked connection may hold beyond an idle one: the rest of one send with the update that
/// exceeded it, one answer and what one read brought.
pub const BLOCKED_BYTES_MAX: usize =
    SEND_BYTES + BODY_BYTES_SHARED + SEND_BYTES + READ_BYTES_PER_TURN;

// --- The door and the admin listener.

/// Connections that have not been answered. More wait in the kernel's queue. `handshakes_max` lowers
/// it.
pub const HANDSHAKES_MAX: usize = 1_024;

/// Those of one address: who begins requests and never ends them leaves half for the others. One
/// more gets 429.
pub const HANDSHAKES_PER_ADDRESS: usize = HANDSHAKES_MAX / 2;

/// Who is refused because there are too many is told to come back after between a second and this:
/// spread, so that they do not come at once.
pub const REFUSED_RETRY_MS: u64 = 5_000;

/// Connections of operators; more wait in the kernel's queue.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Connections that an operator is told of: as many as fit any screen.
pub const WORST_CONNECTIONS_MAX: usize = 100;

/// A shard that has not told of its connections after this long is left out, and it is said.
pub const OVERVIEW_WAIT_NS: Nanos = SECOND_NS;

/// Bytes of an overview that is read: all that it lists is bounded, and far within this.
pub const OVERVIEW_BYTES_MAX: usize = 1 << 20;

/// From accept to the end of the request's head.
pub const REQUEST_HEAD_NS_MAX: Nanos = 5 * SECOND_NS;

/// From accept to the end of the answer: who does not read it would keep its place at the door.
pub const EXCHANGE_NS_MAX: Nanos = 30 * SECOND_NS;

/// Bytes of a request's head.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;

/// Header fields of a request.
pub const REQUEST_HEADERS_MAX: usize = 64;

/// The kernel's queue of connections not yet accepted: a storm of reconnects must fit, or its last
/// wait a second for their SYN to be repeated.
pub const LISTEN_BACKLOG: i32 = 4_096;

/// Trades that `GET /v1/trades` gives at most.
pub const HTTP_TRADES_MAX: usize = 1_000;

/// From SIGTERM to the last close: clients are closed spread over this time.
pub const DRAIN_NS: Nanos = 2 * SECOND_NS;

/// Clients of a drain are told to come back after a random part of this.
pub const DRAIN_RETRY_MS: u64 = 5_000;

/// A thread whose watchdog has not ticked for this long makes `/livez` fail.
pub const WATCHDOG_NS_MAX: Nanos = 5 * SECOND_NS;

const _: () = assert!(BODY_BYTES_SHARED <= SEND_BYTES, "a body that is copied fits a send");
const _: () = assert!(FRAME_UPDATES_MAX <= 64, "the binary frame has 64 late bits");
const _: () = assert!(
    LOG_TRADES + BODY_TRADES_MAX <= tickfan_core::snapshot::tail::TAIL_TRADES_MAX,
    "a lane can always be filled from the tail"
);
const _: () = assert!(
    (PACE_NUMERATOR * GRAIN_DIVISOR + PACE_DIVISOR) * GRID_DIVISOR + PACE_DIVISOR * GRAIN_DIVISOR
        < PACE_DIVISOR * GRAIN_DIVISOR * GRID_DIVISOR,
    "grain, pace and grid together leave part of the budget for the sending"
);
