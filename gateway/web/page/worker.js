// The page's other thread: the gateway's frames → books, trades, delays; and, when the page asks, what
// is to be drawn of them.
//
// Started by page.js. The page names what is on the screen (`show`) and asks for a `frame` whenever it
// has drawn the one before; what changed in between is never drawn, so a slow page falls behind by no
// more than one. It never touches the document, and holds a bounded number of everything.

import { connect } from "../client.js";
import { nowMs } from "./clock.js";
import { decimalsOf, format, ladder, middle, parse, tickOf } from "./exact.js";
import { Delays } from "./delays.js";
import { Listing } from "./listing.js";
import { Story } from "./story.js";

/** Trades that a tape shows. */
const TAPE_MAX = 60;
/** The mid-price line: so many points, so far apart. */
const MIDS = 240;
const MID_MS = 250;
/** How often what need not be new in every frame is sent: curves and figures. */
const SLOW_MS = { full: 100, tile: 1000 };
const FIGURES_MS = 500;
const TICK_MS = 50;
/** A connection that is silent for two of these is lost: what is shown as live must be. */
const HEARTBEAT_MS = 1000;
/** When an update takes this long from exchange to gateway, one of the clocks is wrong. */
const CLOCK_US_MAX = 60e6;

/** States in which prices move. */
const FLOWING = new Set(["live", "suspect", "halted"]);
/** How the reason of a refusal begins where the gateway does not know the symbol, or not yet. */
const UNKNOWN = "unknown_symbol: ";

/** States that the client tells by its own clock. */
const OURS = new Set(["connecting", "disconnected", "resync", "refused", "ended"]);

let client;
let budgetMs = 100;
/** The gateway's clock minus ours, once it was measured. */
let offsetUs;
let focus;
let story;
let isWanted = false;
let isScheduled = false;
let figuresAtMs = 0;
let hasFigures = false;
const delays = new Delays();
/** Panels by symbol. */
const panels = new Map();
/** When those that are not listed are asked for again. */
const listing = new Listing();

/** One symbol on the screen. */
class Panel {
  #book;
  /** The book that takes over when it is whole, after a change of depth. */
  #next;
  #tape;
  #mids = new Float64Array(MIDS).fill(NaN);
  #midBin = 0;
  #hasBook = true;
  #hasTrades = true;
  #slowAtMs = 0;
  #tapeAtMs = 0;
  #qtyDecimals = 0;
  /** The state that the page was told last, and its reason. */
  #told = "";
  #wish;

  constructor(wish) {
    this.#wish = wish;
    this.#book = this.#open();
    this.wish(wish);
  }

  #open() {
    const { symbol, depth } = this.#wish;
    const book = client.book(symbol, { depth, budgetMs });
    book.onChange(() => this.#changed(book));
    // A refusal is told by its state.
    book.ready.catch(() => {});
    return book;
  }

  #openTape() {
    const tape = client.trades(this.#wish.symbol, { last: TAPE_MAX, keep: TAPE_MAX, budgetMs });
    tape.ready.catch(() => {});
    tape.onChange(() => {
      this.#hasTrades = true;
      schedule();
    });
    return tape;
  }

  get isUnlisted() {
    return this.#book.state === "refused" && this.#book.reason.startsWith(UNKNOWN);
  }

  /** Asks whether it is listed by now. */
  askAgain() {
    this.#next ??= this.#open();
  }

  #changed(book) {
    if (book === this.#next && book.state !== "connecting") {
      this.#book.close();
      this.#book = book;
      this.#next = undefined;
      if (this.#tape?.state === "refused" && book.state !== "refused") this.#tape = this.#openTape();
    }
    if (book !== this.#book) return;
    this.#hasBook = true;
    this.#noteMid();
    schedule();
  }

  #noteMid() {
    const mid = this.#book.mid;
    if (mid === undefined || !FLOWING.has(this.#book.state)) return;
    this.#turnMids();
    this.#mids[this.#midBin % MIDS] = mid;
  }

  #turnMids() {
    const bin = Math.floor(nowMs() / MID_MS);
    for (let next = Math.max(this.#midBin + 1, bin - MIDS + 1); next <= bin; next += 1) this.#mids[next % MIDS] = NaN;
    this.#midBin = bin;
  }

  /** Takes what the page wants of it. */
  wish(wish) {
    const was = this.#wish;
    this.#wish = wish;
    this.#hasBook = this.#hasTrades = true;
    // A page that heard nothing for a while says so in every panel, whatever it was told before.
    this.#told = "";
    if (was.mode !== wish.mode) {
      const before = this.#next;
      this.#next = this.#open();
      // Last: it says that it has ended, and must not take over for that.
      before?.close();
    }
    if (wish.mode === "full" && !this.#tape) {
      this.#tape = this.#openTape();
    } else if (wish.mode !== "full" && this.#tape) {
      this.#tape.close();
      this.#tape = undefined;
    }
  }

  modify() {
    // Who is refused says so by its state.
    for (const live of [this.#book, this.#next, this.#tape]) live?.modify({ budgetMs }).catch(() => {});
  }

  close() {
    for (const live of [this.#book, this.#next, this.#tape]) live?.close();
  }

  /** Out of sight only the state is told: who listens to the page hears it all the same. */
  isDue(now) {
    return this.#standing !== this.#told || (this.#wish.visible && (this.#hasBook || this.#isTapeDue(now)));
  }

  get #standing() {
    return `${this.#book.state} ${this.#book.reason}`;
  }

  #isTapeDue(now) {
    return this.#hasTrades && this.#tape !== undefined && now - this.#tapeAtMs >= SLOW_MS.full;
  }

  get budget() {
    return { ms: this.#book.budgetMs, infeasible: this.#book.budget === "infeasible" };
  }

  /** What is to be drawn, and the buffers that go with it. */
  frame(now, buffers) {
    const [book, wish, isUnlisted] = [this.#book, this.#wish, this.isUnlisted];
    this.#told = this.#standing;
    const clockUs = OURS.has(book.state) ? 0 : offsetUs ?? 0;
    const frame = {
      symbol: wish.symbol,
      state: isUnlisted ? "unlisted" : book.state,
      reason: isUnlisted ? book.reason.slice(UNKNOWN.length) : book.reason,
      sinceMs: book.sinceUs && !isUnlisted ? (book.sinceUs - clockUs) / 1000 : undefined,
      version: { epoch: book.epoch, seq: book.seq, venueSeq: book.venueSeq },
    };
    if (!wish.visible) return frame;
    if (this.#hasBook) {
      this.#hasBook = false;
      Object.assign(frame, this.#rows());
    }
    if (this.#isTapeDue(now)) {
      this.#hasTrades = false;
      this.#tapeAtMs = now;
      frame.tapeState = this.#tape.state;
      frame.trades = this.#tape.trades.slice(-TAPE_MAX).reverse().map((trade) =>
        [trade.exchangeUs / 1000, trade.priceText, trade.qtyText, trade.side]);
    }
    if (now - this.#slowAtMs >= SLOW_MS[wish.mode]) {
      this.#slowAtMs = now;
      this.#turnMids();
      const from = (this.#midBin + 1) % MIDS;
      frame.mids = new Float64Array(MIDS);
      frame.mids.set(this.#mids.subarray(from));
      frame.mids.set(this.#mids.subarray(0, from), MIDS - from);
      buffers.push(frame.mids.buffer);
      if (wish.mode === "full") {
        frame.curve = { bids: book.bids.columns(), asks: book.asks.columns() };
        for (const side of [frame.curve.bids, frame.curve.asks]) buffers.push(side.price.buffer, side.qty.buffer);
      }
    }
    return frame;
  }

  #rows() {
    const [{ bids, asks }, { group, rows: count }] = [this.#book, this.#wish];
    const scale = bids.priceScale;
    const tick = this.#wish.tick ?? tickOf(scale);
    const priceDecimals = decimalsOf(group || tick);
    const step = decimalsOf(group) <= scale ? parse(group, scale) : 0n;
    const sides = [ladder(bids, true, step || 1n, count), ladder(asks, false, step || 1n, count)];
    // Sizes keep one number of digits, so that the column stands still.
    for (const row of sides.flat()) {
      if (this.#qtyDecimals >= bids.qtyScale) break;
      this.#qtyDecimals = Math.max(this.#qtyDecimals, decimalsOf(format(row.size, bids.qtyScale)));
    }
    const sums = sides.map((rows) => rows.at(-1)?.sum ?? 0n);
    const most = Number(sums[0] > sums[1] ? sums[0] : sums[1]) || 1;
    const texts = (rows) => ({
      price: rows.map((row) => format(row.price, scale, priceDecimals)),
      size: rows.map((row) => format(row.size, bids.qtyScale, this.#qtyDecimals)),
      sum: rows.map((row) => format(row.sum, bids.qtyScale, this.#qtyDecimals)),
      part: rows.map((row) => Number(row.sum) / most),
    });
    return {
      bids: texts(sides[0]),
      asks: texts(sides[1]),
      middle: middle(bids, asks, decimalsOf(tick)),
      // Until there are levels, it is of no book.
      priceScale: bids.length + asks.length > 0 ? scale : undefined,
    };
  }
}

/** Answers the page's question as soon as there is something, once all that came together is applied. */
function schedule() {
  if (!isWanted || isScheduled) return;
  isScheduled = true;
  queueMicrotask(answer);
}

function answer() {
  isScheduled = false;
  const now = nowMs();
  const due = [...panels.values()].filter((panel) => panel.isDue(now));
  if (!isWanted || (due.length === 0 && !hasFigures)) return;
  isWanted = false;
  const buffers = [];
  const message = { is: "frame", panels: due.map((panel) => panel.frame(now, buffers)) };
  if (hasFigures) {
    hasFigures = false;
    message.figures = figures(now);
    buffers.push(message.figures.columns.buffer);
  }
  postMessage(message, buffers);
}

function figures(now) {
  const stats = client.stats();
  return {
    ...stats,
    budget: panels.get(focus)?.budget,
    columns: delays.columns(now),
    summary: delays.summary(now),
    lateShown: delays.late(),
    story: story?.facts,
  };
}

function tick() {
  const now = nowMs();
  if (story?.isOver(now)) {
    post({ is: "story", facts: story.facts });
    story = undefined;
  }
  if (now - figuresAtMs >= FIGURES_MS) {
    figuresAtMs = now;
    hasFigures = true;
  }
  if (client.state === "open" && listing.isDue(now)) {
    const unlisted = [...panels.values()].filter((panel) => panel.isUnlisted);
    if (unlisted.length > 0) listing.asked(now);
    for (const panel of unlisted) panel.askAgain();
  }
  // Tapes wait for their turn too.
  schedule();
}

function post(message) {
  postMessage(message);
}

function noteFrame(frame) {
  const now = frame.receivedUs / 1000;
  const sinceSentUs = frame.receivedUs + (offsetUs ?? 0) - frame.sentUs;
  if (offsetUs !== undefined && frame.updates.length > 0) delays.note(now, 2, sinceSentUs);
  for (const update of frame.updates) {
    const venueUs = update.gatewayUs - update.exchangeUs;
    if (update.exchangeUs && update.gatewayUs && Math.abs(venueUs) < CLOCK_US_MAX) delays.note(now, 0, venueUs);
    if (update.oldestUs) delays.note(now, 1, update.sentUs - update.oldestUs);
    if (update.late) delays.noteLate(now);
    if (story && update.symbol === focus && update.channel === "book") {
      story.update(update.kind, sinceSentUs / 1000, update.merged, update.late, nowMs());
    }
  }
}

function tellInstruments() {
  client.instruments().then((list) => post({ is: "instruments", list }), (error) => post({ is: "failed", message: error.message }));
}

function open(url) {
  client = connect(url, { encoding: "binary", heartbeatMs: HEARTBEAT_MS });
  client.on("open", (hello) => {
    story?.opened(nowMs());
    listing.begin();
    post({ is: "link", state: "open", hello, atMs: nowMs() });
    tellInstruments();
  });
  client.on("close", (closed) => {
    story?.closed(closed);
    post({ is: "link", state: client.state, closed, atMs: nowMs() });
  });
  client.on("drain", (drain) => post({ is: "drain", drain }));
  client.on("hole", (hole) => {
    if (hole.symbol === focus && hole.channel === "book") story?.hole(hole.missed, hole.downMs);
  });
  client.on("error", (error) => post({ is: "failed", message: error.message, symbol: error.symbol }));
  client.on("frame", noteFrame);
  client.on("ping", (ping) => {
    offsetUs = ping.offsetUs;
  });
  setInterval(tick, TICK_MS);
}

function show(wishes) {
  const wanted = new Set(wishes.map((wish) => wish.symbol));
  for (const [symbol, panel] of panels) {
    if (wanted.has(symbol)) continue;
    panel.close();
    panels.delete(symbol);
  }
  for (const wish of wishes) {
    const panel = panels.get(wish.symbol);
    if (panel) {
      panel.wish(wish);
    } else {
      panels.set(wish.symbol, new Panel(wish));
      listing.begin();
      listing.asked(nowMs());
    }
  }
  schedule();
}

const DOES = {
  open: ({ url }) => open(url),
  instruments: tellInstruments,
  show: ({ wishes, symbol }) => {
    focus = symbol;
    show(wishes);
  },
  budget: ({ ms }) => {
    budgetMs = ms;
    for (const panel of panels.values()) panel.modify();
  },
  frame: () => {
    isWanted = true;
    schedule();
  },
  stall: ({ ms }) => {
    client.stall(ms);
    story = new Story("stall", focus, nowMs(), ms);
  },
  cut: ({ waitMs }) => {
    story = new Story("cut", focus, nowMs());
    client.cut(waitMs);
  },
};

addEventListener("message", ({ data }) => DOES[data.op](data));
