// What is wanted of the gateway → the fewest messages that bring it about, over any number of connections.
// `subscription.js` and `live.js` attach what reads (a handle); `client.js` attaches sessions and hands frames on.
//
// A view (channel, symbol, depth) is held once however many handles read it, at the smallest of their
// budgets. Nothing is sent when something is wanted; the difference between what is wanted and what was asked
// for is sent when the gateway's allowance lets it, so that ten changes in a row become one message.

import { nowUs } from "./clock.js";
import { TickfanError } from "./error.js";
import { ChainBroken, Mirror, TRADES_KEPT } from "./mirror.js";

/** docs/PROTOCOL.md §2. */
const DEPTHS = [1, 5, 10, 20, 50, 100, 200, 500, 1000];
const utf8 = new TextEncoder();
/** Of a message of the gateway's largest size, for all but symbols. */
const MESSAGE_HEAD_BYTES = 512;
const SYMBOL_CHARS_MAX = 128;
const VIEWS_PER_MESSAGE = 1000;
/** The gateway sends a view whole once a second on request. */
const IMAGE_AGAIN_US = 1_100_000;
const REFUSED_AGAIN_MS = 1000;

/** The depth that the gateway serves for one that is asked for. */
function depthClass(depth) {
  return DEPTHS.find((served) => served >= depth) ?? "full";
}

/** What `venue:*` or a symbol is asked for, and how that stands: `idle`, `asked`, `held`, `refused`, or `later`: to be asked for again. */
class Wanted {
  status = "idle";
  handles = new Set();
  waiters = [];

  constructor(channel, symbol, depth) {
    this.channel = channel;
    this.symbol = symbol;
    this.depth = depth;
  }

  get budgetMs() {
    return Math.min(...[...this.handles].map((handle) => handle.budgetMs));
  }

  /** The terms of its subscription; what has the same may share a message. */
  terms() {
    const handles = [...this.handles];
    return {
      op: "subscribe",
      channel: this.channel,
      depth: this.channel === "book" ? this.depth : undefined,
      budget_ms: this.budgetMs,
      last: this.channel === "trades" ? this.last(handles) : undefined,
      strict: handles.some((handle) => handle.strict) || undefined,
    };
  }

  last(handles) {
    return Math.max(...handles.map((handle) => handle.last));
  }

  settle(results) {
    for (const resolve of this.waiters.splice(0)) resolve(results);
  }
}

class View extends Wanted {
  id = undefined;
  /** Handles that have not been told yet what the others were told before them. */
  joining = new Set();
  /** The gateway's last word on it. */
  result = undefined;
  askedMs = undefined;
  inFlight = 0;
  imageAskedUs = 0;

  constructor(channel, symbol, depth) {
    super(channel, symbol, depth);
    this.mirror = new Mirror(symbol, channel);
  }

  /** Who was there before asks for all that the gateway still has, to close the hole. */
  last(handles) {
    return this.mirror.seq > 0 ? TRADES_KEPT : super.last(handles);
  }

  get isSettled() {
    return this.status === "refused" || (this.status === "held" && this.inFlight === 0 && this.askedMs === this.budgetMs);
  }
}

class Pattern extends Wanted {
  /** The gateway's words on its symbols, as far as they have come. */
  results = [];

  covers({ channel, depth, symbol }) {
    return channel === this.channel && depth === this.depth && symbol.startsWith(this.symbol.slice(0, -1));
  }
}

export class Registry {
  #handles = new Set();
  #views = new Map();
  #patterns = new Map();
  /** Patterns whose answer is on its way, also those that nobody wants any more. */
  #answering = new Set();
  #byId = new Map();
  #leaving = [];
  #session = undefined;
  #timer = undefined;
  #again = undefined;
  #isPlanned = false;
  #on;

  /** `on`: `error(error)`, `told(update)` for each update and hole that readers get, `resync()`. */
  constructor(on) {
    this.#on = on;
  }

  /**
   * Attaches a reader: `{ channel, symbols, depth, budgetMs, last, strict, onAccepted(view), onRefused(view),
   * onUpdate(update, view) }`. Returns the views of the symbols that are no patterns.
   */
  attach(handle) {
    const symbols = new Set(handle.symbols);
    for (const symbol of symbols) {
      if (typeof symbol !== "string" || symbol.length === 0 || symbol.length > SYMBOL_CHARS_MAX) {
        throw new TypeError(`a symbol is a string of up to ${SYMBOL_CHARS_MAX} characters, as "sim:BTCUSDT"; ${JSON.stringify(symbol)} came`);
      }
    }
    handle.views = new Set();
    handle.waits = new Set();
    this.#handles.add(handle);
    const depth = handle.channel === "book" ? depthClass(handle.depth) : undefined;
    const views = [];
    for (const symbol of symbols) {
      if (symbol.endsWith(":*")) {
        const pattern = this.#wanted(this.#patterns, Pattern, handle, symbol, depth);
        pattern.handles.add(handle);
        // What it brought to others already.
        for (const result of pattern.results.filter((one) => one.ok)) this.#join(this.#wanted(this.#views, View, handle, result.symbol, depth), handle);
      } else {
        const view = this.#wanted(this.#views, View, handle, symbol, depth);
        this.#join(view, handle);
        views.push(view);
      }
    }
    this.plan();
    return views;
  }

  #wanted(map, Kind, { channel }, symbol, depth) {
    const key = `${channel} ${depth} ${symbol}`;
    let wanted = map.get(key);
    if (wanted === undefined) {
      wanted = new Kind(channel, symbol, depth);
      map.set(key, wanted);
    } else if (wanted.status === "refused") {
      wanted.status = "idle";
    }
    return wanted;
  }

  #join(view, handle) {
    if (view.handles.has(handle)) return;
    view.handles.add(handle);
    handle.views.add(view);
    if (view.status !== "held") return;
    // What the others were told already; told when the caller has its handle. What comes before is in it.
    view.joining.add(handle);
    queueMicrotask(() => {
      view.joining.delete(handle);
      if (!view.handles.has(handle) || view.status !== "held") return;
      const { mirror } = view;
      const update = mirror.wholeUpdate(nowUs(), handle.last) ?? mirror.stateUpdate(nowUs());
      handle.onAccepted(view);
      handle.onUpdate(update, view);
    });
  }

  /** Detaches a reader; returns false if it is not attached. */
  detach(handle) {
    if (!this.#handles.delete(handle)) return false;
    for (const pattern of this.#patterns.values()) {
      pattern.handles.delete(handle);
      if (pattern.handles.size === 0) this.#forget(this.#patterns, pattern);
    }
    for (const view of handle.views) {
      view.handles.delete(handle);
      if (view.handles.size === 0 && view.status !== "asked") this.#leave(view);
    }
    handle.views.clear();
    const closed = new TickfanError("closed", "it was closed before the answer");
    for (const reject of handle.waits) reject(closed);
    this.plan();
    return true;
  }

  /** Nobody reads it any more. */
  #leave(view) {
    // What a pattern is about to bring to others is left, if at all, after its answer: the gateway counts it as held once.
    if ([...this.#answering].some((pattern) => pattern.covers(view))) return;
    if (view.status === "held") this.#leaving.push(view.id);
    this.#byId.delete(view.id);
    this.#forget(this.#views, view);
    this.plan();
  }

  #forget(map, wanted) {
    const key = `${wanted.channel} ${wanted.depth} ${wanted.symbol}`;
    if (map.get(key) === wanted) map.delete(key);
  }

  /** Settles with the gateway's word on all that a handle wants, once that is in force. */
  async settled(handle) {
    const wanted = [...handle.views, ...[...this.#patterns.values()].filter((pattern) => pattern.handles.has(handle))];
    const waiting = Promise.withResolvers();
    handle.waits.add(waiting.reject);
    Promise.all(wanted.map((one) => this.#settled(one))).then(waiting.resolve);
    try {
      // What a pattern brought is settled by the pattern and by its view.
      return [...new Map((await waiting.promise).flat().map((result) => [result.symbol, result])).values()];
    } finally {
      handle.waits.delete(waiting.reject);
    }
  }

  #settled(wanted) {
    if (wanted instanceof Pattern && wanted.status === "held") return wanted.results;
    if (wanted instanceof View && wanted.isSettled) return [wanted.result];
    return new Promise((resolve) => wanted.waiters.push(resolve));
  }

  /** A connection is greeted. */
  attached(session) {
    this.#session = session;
    this.plan();
  }

  /** It is lost, or there is none at first. */
  detached(reason) {
    this.#session = undefined;
    clearTimeout(this.#timer);
    clearTimeout(this.#again);
    this.#byId.clear();
    this.#answering.clear();
    this.#leaving = [];
    const now = nowUs();
    for (const pattern of this.#patterns.values()) {
      pattern.status = "idle";
      pattern.results = [];
    }
    for (const view of [...this.#views.values()]) {
      const wasHeld = view.status === "held";
      Object.assign(view, { status: "idle", id: undefined, askedMs: undefined, inFlight: 0 });
      if (view.handles.size === 0) this.#forget(this.#views, view);
      if (!wasHeld) continue;
      view.mirror.disconnected(reason, now);
      this.#tell(view, [view.mirror.stateUpdate(now)]);
    }
  }

  scales(id) {
    return this.#byId.get(id)?.mirror.scales;
  }

  /** Takes the updates of a frame. */
  frame(frame, receivedUs) {
    for (const update of frame.updates) {
      const view = update.kind === "stats" ? undefined : this.#byId.get(update.view);
      if (view === undefined) continue;
      try {
        this.#tell(view, view.mirror.apply(update, receivedUs));
      } catch (error) {
        if (!(error instanceof ChainBroken)) throw error;
        view.mirror.resync(error.message, receivedUs);
        this.#on.resync();
        this.#tell(view, [view.mirror.stateUpdate(receivedUs)]);
        this.plan();
      }
    }
  }

  #tell(view, updates) {
    for (const update of updates) {
      this.#on.told(update);
      for (const handle of view.handles) if (!view.joining.has(handle)) handle.onUpdate(update, view);
    }
  }

  /** Sends what is missing, soon. */
  plan() {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    queueMicrotask(() => {
      this.#isPlanned = false;
      this.#carryOut();
    });
  }

  #planIn(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#carryOut(), ms);
  }

  #carryOut() {
    const session = this.#session;
    if (session === undefined) return;
    for (;;) {
      const waitMs = session.sendableInMs();
      if (waitMs > 0) return this.#planIn(waitMs);
      const isSent = this.#unsubscribe(session) || this.#subscribe(session) || this.#modify(session) || this.#images(session);
      if (!isSent) return;
    }
  }

  #unsubscribe(session) {
    if (this.#leaving.length === 0) return false;
    const views = this.#leaving.splice(0, VIEWS_PER_MESSAGE);
    session.request({ op: "unsubscribe", views }, () => true).catch((error) => this.#failed(session, error));
    return true;
  }

  #subscribe(session) {
    const idle = (wanted) => wanted.status === "idle" && wanted.handles.size > 0;
    let room = session.hello.limits.message_bytes - MESSAGE_HEAD_BYTES;
    let terms;
    const group = new Map();
    for (const view of this.#views.values()) {
      if (!idle(view)) continue;
      const own = view.terms();
      terms ??= own;
      room -= utf8.encode(JSON.stringify(view.symbol)).length + 1;
      if (room < 0 && group.size > 0) break;
      if (JSON.stringify(own) === JSON.stringify(terms) && !group.has(view.symbol)) group.set(view.symbol, view);
    }
    if (group.size === 0) {
      // After the views that they brought before a reconnect, which know what they missed.
      const pattern = [...this.#patterns.values()].find(idle);
      if (pattern !== undefined) this.#subscribePattern(session, pattern);
      return pattern !== undefined;
    }
    for (const view of group.values()) Object.assign(view, { status: "asked", askedMs: terms.budget_ms });
    let left = group.size;
    session
      .request({ ...terms, symbols: [...group.keys()] }, ({ results }) => {
        for (const result of results) {
          // Who was told of one may have ended the connection: what it granted of the others is void.
          if (session !== this.#session) return true;
          this.#answered(group.get(result.symbol), result);
        }
        left -= results.length;
        return left <= 0;
      })
      .catch((error) => this.#refusedWhole(session, group.values(), error));
    return true;
  }

  #subscribePattern(session, pattern) {
    const terms = pattern.terms();
    pattern.status = "asked";
    this.#answering.add(pattern);
    session
      .requestAll({ ...terms, symbols: [pattern.symbol] }, ({ results }) => {
        for (const result of results) if (session === this.#session) this.#patternAnswered(pattern, result, terms.budget_ms);
      })
      .then(() => {
        pattern.status = "held";
        pattern.settle(pattern.results);
      })
      .catch((error) => this.#refusedWhole(session, [pattern], error))
      .finally(() => {
        if (session === this.#session) this.#patternOver(pattern);
      });
  }

  #patternOver(pattern) {
    this.#answering.delete(pattern);
    for (const view of [...this.#views.values()]) if (view.handles.size === 0 && view.status === "held") this.#leave(view);
  }

  #patternAnswered(pattern, raw, budgetMs) {
    const result = symbolResult(raw);
    pattern.results.push(result);
    if (!result.ok) return;
    const depth = result.channel === "book" ? result.depth : undefined;
    const view = this.#wanted(this.#views, View, pattern, result.symbol, depth);
    const isNew = view.status !== "held";
    for (const handle of pattern.handles) this.#join(view, handle);
    view.askedMs = budgetMs;
    this.#bind(view, result, isNew);
  }

  #answered(view, raw) {
    const result = symbolResult(raw);
    if (view === undefined) return;
    if (result.ok) return this.#bind(view, result, view.status !== "held");
    this.#refuse(view, result);
  }

  #bind(view, result, isNew) {
    view.result = result;
    view.id = result.view;
    view.status = "held";
    this.#byId.set(view.id, view);
    if (view.handles.size === 0) return this.#leave(view);
    if (isNew) {
      const now = nowUs();
      const told = view.mirror.acknowledged(result, now);
      for (const handle of view.handles) handle.onAccepted(view);
      this.#tell(view, told);
    }
    this.#settle(view);
  }

  #settle(view) {
    if (view.isSettled) view.settle([view.result]);
    else this.plan();
  }

  #refuse(view, result) {
    // A gateway that has just begun may not know its instruments yet: what was served once is asked for again.
    if (view.result?.ok && view.handles.size > 0) return this.#refusedForNow(view, result);
    view.status = "refused";
    view.result = result;
    for (const handle of view.handles) handle.onRefused(view);
    view.settle([result]);
    if (view.handles.size === 0) this.#forget(this.#views, view);
  }

  #refusedForNow(view, { code, message }) {
    const now = nowUs();
    view.status = "later";
    clearTimeout(this.#again);
    this.#again = setTimeout(() => {
      for (const one of this.#views.values()) if (one.status === "later") one.status = "idle";
      this.plan();
    }, REFUSED_AGAIN_MS);
    // Last: who is told may close the client.
    view.mirror.disconnected(`${code}: ${message}`, now);
    this.#tell(view, [view.mirror.stateUpdate(now)]);
  }

  #refusedWhole(session, wanted, error) {
    if (session !== this.#session) return;
    const isFlood = error.code === "rate_limited";
    for (const one of wanted) {
      if (isFlood) one.status = "idle";
      else if (one instanceof View) this.#refuse(one, { symbol: one.symbol, ok: false, code: error.code, message: error.message });
      else {
        one.status = "held";
        one.results = [{ symbol: one.symbol, ok: false, code: error.code, message: error.message }];
        one.settle(one.results);
      }
    }
    if (isFlood) this.#planIn(REFUSED_AGAIN_MS);
  }

  #modify(session) {
    let budgetMs;
    const group = [];
    for (const view of this.#views.values()) {
      if (view.status !== "held" || view.handles.size === 0 || view.askedMs === view.budgetMs) continue;
      budgetMs ??= view.budgetMs;
      if (view.budgetMs === budgetMs && group.length < VIEWS_PER_MESSAGE) group.push(view);
    }
    if (group.length === 0) return false;
    for (const view of group) {
      view.askedMs = budgetMs;
      view.inFlight += 1;
    }
    let left = group.length;
    const ids = group.map((view) => view.id);
    session
      .request({ op: "modify", views: ids, budget_ms: budgetMs }, ({ results }) => {
        for (const raw of results) {
          const view = group[group.length - left];
          if (session !== this.#session || view === undefined) return true;
          left -= 1;
          view.inFlight -= 1;
          const result = symbolResult(raw);
          if (result.ok) view.result = result;
          else this.#on.error(new TickfanError(result.code, result.message, view.symbol));
          this.#settle(view);
        }
        return left <= 0;
      })
      .catch((error) => {
        if (session !== this.#session) return;
        this.#failed(session, error);
        for (const view of group.slice(group.length - left)) {
          view.inFlight -= 1;
          if (error.code === "rate_limited") view.askedMs = view.result.budgetMs;
          this.#settle(view);
        }
      });
    return true;
  }

  #images(session) {
    const now = nowUs();
    const wanting = [...this.#views.values()].filter((view) => view.status === "held" && view.mirror.wantsImage);
    const due = wanting.filter((view) => now - view.imageAskedUs >= IMAGE_AGAIN_US).slice(0, VIEWS_PER_MESSAGE);
    if (wanting.length > 0) this.#planIn(IMAGE_AGAIN_US / 1000);
    if (due.length === 0) return false;
    for (const view of due) view.imageAskedUs = now;
    session.send({ op: "image", views: due.map((view) => view.id) });
    return true;
  }

  #failed(session, error) {
    if (session === this.#session) this.#on.error(error);
  }
}

/** A result as users see it, in the words of the interface. */
function symbolResult({ symbol, ok, view, channel, depth, budget_ms, budget, p99_us, price_scale, qty_scale, epoch, s, state, code, message }) {
  if (!ok) return { symbol, ok, code, message };
  return {
    symbol, ok, view, channel, depth, budgetMs: budget_ms, budget, p99Us: p99_us,
    priceScale: price_scale, qtyScale: qty_scale, epoch, seq: s, state,
  };
}
