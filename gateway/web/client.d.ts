// The public interface of the Tickfan client for browsers (pages and Workers) and Node >= 22.
//
// Words as in docs/PROTOCOL.md. Times are microseconds since the Unix epoch as plain numbers (they
// fit 2^53) and end in `Us`; spans end in `Us` or `Ms`. Prices and quantities are exact inside; they
// come out as the nearest double (`price`, for drawing), as an integer at the scale of the instrument
// (`priceScaled`, for arithmetic), and as the exact shortest decimal (`priceText`).

/**
 * Opens a connection, and keeps it: it reconnects by itself until `close()`.
 *
 * Returns at once; everything may be called before the connection is open.
 *
 * @param url `ws://host:port/v1/stream`; `http://host:port`, `host:port` and a missing path are
 *   completed. Left out: the gateway that served the page, in Node `TICKFAN_URL`, then
 *   `ws://127.0.0.1:8080/v1/stream`.
 */
export function connect(url?: string, options?: ConnectOptions): Client;

export interface ConnectOptions {
  /** How data frames come. Default `"binary"`. What you are given is the same. */
  encoding?: "binary" | "json";
  /** The gateway says something at least this often (250–60000). After three times that in silence the connection is given up. Default 5000. */
  heartbeatMs?: number;
  /** How often round trip and clock offset are measured. Default 1000; 0 = never. */
  pingMs?: number;
  /** How often the gateway reports how it serves us (100–60000), see `Stats.gateway`. Default 0 = never. */
  gatewayStatsMs?: number;
  /** Reconnects wait a random time between 0 and a bound that doubles from `firstMs` to `maxMs` (full jitter). Default 500 and 15000. */
  reconnect?: { firstMs?: number; maxMs?: number };
  /** The class that opens sockets. Default: the global `WebSocket`. */
  WebSocket?: typeof WebSocket;
}

/** `connecting`, `open`, `waiting` to connect again, `closed` for good (by `close()`, or by a refusal that trying again cannot mend). */
export type ConnectionState = "connecting" | "open" | "waiting" | "closed";

/** The state of a channel as the gateway tells it. */
export type ChannelState = "syncing" | "live" | "suspect" | "stale" | "gap" | "halted" | "closed";

/**
 * The state of what you hold: the gateway's word, or why there is none.
 *
 * Only `live` may be traded on as it stands. `suspect` is served without its proof, `halted` by
 * the venue; `stale` is the last known. In all others `bids` and `asks` keep what was last known, for
 * showing it greyed.
 * * `connecting`: nothing was received yet · `disconnected`: the connection is lost, being restored
 * * `resync`: a hole in the chain was noticed here; an image was asked for
 * * `refused`: the gateway does not serve it; `reason` says why · `ended`: `close()` was called
 */
export type State = ChannelState | "connecting" | "disconnected" | "resync" | "refused" | "ended";

export type Channel = "book" | "bbo" | "trades";
/** Rounded up to one that the gateway serves: 1 5 10 20 50 100 200 500 1000 full. */
export type Depth = number | "full";
export type Side = "buy" | "sell" | "";

export interface Client {
  readonly url: string;
  readonly state: ConnectionState;
  /** The greeting of the present (or last) connection. */
  readonly hello: Hello | undefined;
  /** Settles with the first greeting, however many attempts that takes; rejects if the client ends before. The first attempt that fails is told by `error`. */
  readonly ready: Promise<Hello>;

  /**
   * Subscribes, and gives the updates to a loop or to a callback:
   * ```js
   * for await (const u of client.subscribe({ channel: "trades", symbols: ["sim:BTCUSDT"] })) { … }
   * client.subscribe({ channel: "bbo", symbols: ["sim:*"], budgetMs: 50 }, (u) => { … });
   * ```
   * Leaving the loop unsubscribes.
   */
  subscribe(options: SubscribeOptions, onUpdate?: (update: Update) => void): Subscription;

  /** A book that is kept in step. */
  book(symbol: string, options?: BookOptions): Book;
  /** The best bid and offer, kept in step: a book with at most one level a side. */
  bbo(symbol: string, options?: LiveOptions): Book;
  /** The newest trades, kept in step. */
  trades(symbol: string, options?: TapeOptions): Tape;

  /** The instruments whose symbol matches, `*` and `venue:*` being patterns. */
  instruments(match?: string): Promise<Instrument[]>;

  stats(): Stats;
  /** This machine's clock now, as `receivedUs` tells it. */
  nowUs(): number;

  on<K extends keyof ClientEvents>(event: K, listener: (value: ClientEvents[K]) => void): () => void;

  /** Drops the connection without a word. It is restored as after any loss, after `waitMs` if given. */
  cut(waitMs?: number): void;
  /**
   * Stops reading for so long, by blocking the calling thread: then the gateway finds the
   * socket full, and conflates. For trying out what happens. In Node and in Workers; throws on the thread of a page.
   */
  stall(ms: number): void;
  /** Ends it for good. Loops end, objects become `ended`. */
  close(): void;
}

export interface ClientEvents {
  /** A connection is open and greeted. */
  open: Hello;
  /** A connection ended. */
  close: Closed;
  /** The gateway is about to go away; the client will come back by itself. */
  drain: { inMs: number; retryAfterMs: number; reason: string };
  /** What was missed, for each view that had something, once it is known. */
  hole: Hole;
  /** Each data frame, after its updates were given out. Heartbeats too. */
  frame: FrameInfo;
  /** A report of the gateway (`gatewayStatsMs`). */
  stats: GatewayStats;
  /** A measurement of `pingMs`. */
  ping: { rttUs: number; offsetUs: number; offsetErrorUs: number };
  /** What went wrong without a loop or promise to throw it: no gateway at the first attempt (once, while it is tried again), refused symbols, an exception in a callback, bytes that are no frame. Without a listener it goes to `console.error`. */
  error: Error;
}

/** What the gateway refused, or the client could not do; the message says whose fault and what to do. */
export class TickfanError extends Error {
  /** A code of the protocol (`unknown_symbol`, `bad_request` …), or `closed`, `malformed`, `unreachable`. */
  readonly code: string;
  readonly symbol: string | undefined;
}

export interface Closed {
  /** As docs/PROTOCOL.md §6; 4900 bytes that are no message, 4901 silence, 4902 `cut()`, 4903 no greeting are our own. */
  code: number;
  reason: string;
  /** Milliseconds until the next attempt; undefined: there is none. */
  retryInMs: number | undefined;
}

export interface Hello {
  protocol: number;
  gateway: string;
  session: string;
  timeUs: number;
  limits: { subscriptions: number; message_bytes: number; messages_per_s: number };
  budgetsMs: number[];
  depths: Depth[];
}

export interface LiveOptions {
  /** How old a change may be when it is sent; 0 = at once. Rounded down to a class of the gateway. Default 100. */
  budgetMs?: number;
}
export interface BookOptions extends LiveOptions {
  /** Levels a side. Default 20. */
  depth?: Depth;
}
export interface TapeOptions extends LiveOptions {
  /** Begin with that many of the newest (0–1000); where this client follows them already, with what has come since it does. Default 100. */
  last?: number;
  /** Keep that many. Default 1000. */
  keep?: number;
}
export interface SubscribeOptions extends BookOptions {
  channel: Channel;
  /** Symbols, or `venue:*`. */
  symbols: string | string[];
  /** Trades only: begin with that many of the newest, as `TapeOptions` has it. Default 0. */
  last?: number;
  /** Refuse an impossible budget or depth instead of rounding it. */
  strict?: boolean;
  /**
   * Updates that wait for a slow loop. When more would wait, all that waits is merged: a book into one
   * image, bids and offers into the newest, trades into one `lost`. Counted in `Stats.conflated`. Default 10000.
   */
  queue?: number;
}

export interface Subscription extends AsyncIterable<Update> {
  /** What the gateway answered, symbol by symbol; settles once, rejects if all were refused or the request was. */
  readonly accepted: Promise<SymbolResult[]>;
  /** Changes the budget; nothing is missed. Settles with the values in force. */
  modify(options: { budgetMs: number }): Promise<SymbolResult[]>;
  close(): void;
}

export type SymbolResult =
  | {
      symbol: string; ok: true; view: number; channel: Channel; depth?: Depth;
      budgetMs: number; budget: "accepted" | "infeasible"; p99Us: number | undefined;
      priceScale: number; qtyScale: number; epoch: number; seq: number; state: ChannelState;
    }
  | { symbol: string; ok: false; code: string; message: string };

/** What every update says of itself. */
export interface UpdateHead {
  symbol: string;
  channel: Channel;
  /** The gateway's number of (symbol, channel, depth). */
  view: number;
  /** The state as of this update. */
  state: State;
  epoch: number;
  /** The version after it; for trades the number of the last. */
  seq: number;
  /** The version that had to be held before it (`delta`, `trades`); else 0. */
  prev: number;
  /** The venue's own sequence number, when it has one. */
  venueSeq: number | undefined;
  /** By the venue's clock: its newest merged event. 0 = unknown. */
  exchangeUs: number;
  /** By the gateway's clock: receipt of the newest, and of the oldest, merged event; the send call. 0 = unknown. */
  gatewayUs: number;
  oldestUs: number;
  sentUs: number;
  /** By this machine's clock: when the frame arrived here. */
  receivedUs: number;
  /** It was over its budget when it was sent. */
  late: boolean;
  /** Venue events that it carries besides its newest: 0 = none was merged. Of trades always 0. */
  merged: number;
}

export type Update = BookUpdate | BboUpdate | TradesUpdate | StateUpdate | HoleUpdate;

/** `image`: the whole book. `delta`: the levels that changed; quantity 0 removes. */
export interface BookUpdate extends UpdateHead {
  kind: "image" | "delta";
  channel: "book";
  bids: Levels;
  asks: Levels;
  /** Images: levels a side that may be relied on, where the venue's own image was cut. */
  trusted: [number, number] | undefined;
}
export interface BboUpdate extends UpdateHead {
  kind: "bbo";
  channel: "bbo";
  bids: Levels;
  asks: Levels;
}
export interface TradesUpdate extends UpdateHead {
  kind: "trades";
  channel: "trades";
  trades: Trade[];
  /** Trades that were lost before these. */
  lost: number;
}
/** Also our own word: `disconnected` and `resync`. */
export interface StateUpdate extends UpdateHead {
  kind: "state";
  reason: string;
  sinceUs: number;
}
/** What a reconnect could not bridge; what follows is whole again. */
export interface HoleUpdate extends Hole {
  kind: "hole";
}
export interface Hole {
  symbol: string;
  channel: Channel;
  /** Versions (trades: trades) that were missed for good; undefined: the epoch changed, nobody knows. */
  missed: number | undefined;
  fromSeq: number;
  toSeq: number;
  /** For how long the view had no connection. */
  downMs: number;
}

/**
 * Levels of one side, best first, read in place: a reading allocates nothing.
 * Those of an update never change; those of a `Book` are its present ones.
 */
export interface Levels extends Iterable<Level> {
  readonly length: number;
  readonly priceScale: number;
  readonly qtyScale: number;
  /** The nearest double: for drawing. Throws a `RangeError` where there is no such level, as all of these do; `at` does not. */
  price(index: number): number;
  qty(index: number): number;
  /** `price × 10^priceScale`: exact where it is below 2^53, which `Number.isSafeInteger` tells. */
  priceScaled(index: number): number;
  qtyScaled(index: number): number;
  /** The exact, shortest decimal. */
  priceText(index: number): string;
  qtyText(index: number): string;
  at(index: number): Level | undefined;
  /** The nearest doubles as columns, up to `limit` levels: fresh buffers, to transfer out of a Worker. */
  columns(limit?: number): { price: Float64Array; qty: Float64Array };
  /** `[["45283","0.1"], …]`, exact. */
  toJSON(): [string, string][];
}
export interface Level {
  readonly price: number;
  readonly qty: number;
  readonly priceText: string;
  readonly qtyText: string;
}
export interface Trade extends Level {
  readonly exchangeUs: number;
  /** The aggressor's; "" = unknown. */
  readonly side: Side;
  /** The venue's; in the binary encoding "" where it is no number. */
  readonly id: string;
}

/** What a book and a tape have in common. */
interface Live<Self> extends AsyncIterable<Self> {
  readonly symbol: string;
  readonly channel: Channel;
  readonly state: State;
  /** Why it is in this state; "" when there is nothing to say. */
  readonly reason: string;
  /** Since when, by the gateway's clock; by ours where it is our own word. */
  readonly sinceUs: number;
  readonly epoch: number;
  /** The version held. */
  readonly seq: number;
  readonly venueSeq: number | undefined;
  /** Milliseconds since the gateway received the newest event in it (clock offset taken into account); undefined before the first. */
  readonly age: number | undefined;
  /** The times of the update that changed it last. */
  readonly last: UpdateHead | undefined;
  /** The budget in force, and whether the gateway can keep it; undefined before the answer. */
  readonly budgetMs: number | undefined;
  readonly budget: "accepted" | "infeasible" | undefined;
  /** Settles when it is whole for the first time; rejects when it is refused. */
  readonly ready: Promise<Self>;
  /** `for await (const book of client.book(…))`: itself, each time that it changed since the last turn. A slow loop misses steps, never the newest. */
  [Symbol.asyncIterator](): AsyncIterator<Self>;
  /** Called after each change of content or state. */
  onChange(listener: (self: Self) => void): () => void;
  modify(options: { budgetMs: number }): Promise<SymbolResult[]>;
  close(): void;
}

export interface Book extends Live<Book> {
  /** In force; undefined before the answer. */
  readonly depth: Depth | undefined;
  readonly bids: Levels;
  readonly asks: Levels;
  readonly trusted: [number, number] | undefined;
  /** Nearest doubles; undefined while a side is empty. */
  readonly mid: number | undefined;
  readonly spread: number | undefined;
}

export interface Tape extends Live<Tape> {
  /** Oldest first, at most `keep`. */
  readonly trades: readonly Trade[];
  /** Trades that were lost since it began. */
  readonly lost: number;
}

export interface Instrument {
  symbol: string;
  venue: string;
  native: string;
  /** These five as the venue lists them; missing where it lists none (Bitfinex), and until its list has come. */
  base?: string;
  quote?: string;
  kind?: string;
  tick?: string;
  lot?: string;
  price_scale: number;
  qty_scale: number;
  state: ChannelState;
}

export interface FrameInfo {
  n: number;
  bytes: number;
  sentUs: number;
  receivedUs: number;
  /** The worst overrun of the frame; JSON only, else 0. */
  lateUs: number;
  /** In their order. */
  updates: readonly UpdateHead[];
}

export interface Stats {
  /** Since the client was made. */
  frames: number;
  updates: number;
  merged: number;
  late: number;
  bytes: number;
  reconnects: number;
  /** Images that were asked for because the chain had a hole. */
  resyncs: number;
  /** Updates that were merged here because a loop was slow. */
  conflated: number;
  /** Over the last second. */
  updatesPerS: number;
  mergedPerS: number;
  latePerS: number;
  bytesPerS: number;
  /** The newest round trip. */
  rttUs: number | undefined;
  /** The gateway's clock minus ours, from the quickest of the last pings, wrong by at most `offsetErrorUs` (half that round trip). Estimated: both ways are taken to be equally long. */
  offsetUs: number | undefined;
  offsetErrorUs: number | undefined;
  gateway: GatewayStats | undefined;
}

/** As the gateway's `stats` update tells it. */
export interface GatewayStats {
  every_ms: number;
  p50_us: number;
  p99_us: number;
  max_us: number;
  sent: number;
  merged: number;
  late: number;
  late_gateway: number;
  late_client: number;
  feed_age_p50_us: number;
  unsent_bytes: number;
}
