// Updates for a loop or a callback. `client.js` makes one for each `subscribe`; `registry.js` calls it for
// every update of its views, in order.

import { nowUs } from "./clock.js";
import { TickfanError } from "./error.js";

const CHANNELS = ["book", "bbo", "trades"];
const LAST_MAX = 1000;
/** Places of updates that were taken already are given back when there are more than so many, and more than of those that wait. */
const TAKEN_MAX = 1000;

/** What every reader may be asked for, checked. */
export function checkedTerms({ channel, symbols, depth = 20, budgetMs = 100, last = 0, strict = false }) {
  if (!CHANNELS.includes(channel)) throw new TypeError(`a channel is one of ${CHANNELS.join(", ")}; ${JSON.stringify(channel)} came`);
  if (depth !== "full" && !(Number.isInteger(depth) && depth > 0)) throw new TypeError(`a depth is a positive integer or "full"; ${JSON.stringify(depth)} came`);
  if (!(Number.isInteger(budgetMs) && budgetMs >= 0)) throw new TypeError(`a budget is a whole number of milliseconds; ${JSON.stringify(budgetMs)} came`);
  if (!(Number.isInteger(last) && last >= 0 && last <= LAST_MAX)) throw new TypeError(`last is 0 to ${LAST_MAX}; ${JSON.stringify(last)} came`);
  return { channel, symbols: [symbols].flat(), depth, budgetMs, last, strict };
}

export class Subscription {
  #context;
  #handle;
  #onUpdate;
  #queue;

  /** `context`: `{ registry, error(error), conflated(count), forget(reader) }`. */
  constructor(context, options, onUpdate) {
    this.#context = context;
    this.#onUpdate = onUpdate;
    if (onUpdate === undefined) this.#queue = new Queue(options.queue ?? 10_000);
    this.#handle = {
      ...checkedTerms(options),
      onAccepted() {},
      onRefused() {},
      onUpdate: (update, view) => this.#take(update, view),
    };
    context.registry.attach(this.#handle);
    this.accepted = this.#accept();
    // Whoever does not ask is told by the loop, or by the client's `error`.
    this.accepted.catch((error) => this.fail(error));
  }

  async #accept() {
    const results = await this.#context.registry.settled(this.#handle);
    const refused = results.filter((result) => !result.ok);
    if (refused.length > 0 && refused.length === results.length) {
      throw new TickfanError(refused[0].code, refused.map((result) => result.message).join("; "), refused[0].symbol);
    }
    for (const { code, message, symbol } of refused) this.#context.error(new TickfanError(code, message, symbol));
    return results;
  }

  modify({ budgetMs }) {
    this.#handle.budgetMs = checkedTerms({ ...this.#handle, budgetMs }).budgetMs;
    this.#context.registry.plan();
    return this.#context.registry.settled(this.#handle);
  }

  close() {
    this.#leave();
    this.#queue?.end();
  }

  /** Ends it because of what the gateway said. */
  fail(error) {
    if (!this.#leave()) return;
    if (this.#queue === undefined) this.#context.error(error);
    else this.#queue.end(error);
  }

  #leave() {
    this.#context.forget(this);
    return this.#context.registry.detach(this.#handle);
  }

  #take(update, view) {
    if (this.#queue !== undefined) {
      const conflated = this.#queue.push(update, view);
      if (conflated > 0) this.#context.conflated(conflated);
      return;
    }
    try {
      this.#onUpdate(update);
    } catch (error) {
      this.#context.error(error);
    }
  }

  [Symbol.asyncIterator]() {
    if (this.#queue === undefined) throw new TypeError("this subscription has a callback, which gets its updates; subscribe without one for a loop");
    return {
      next: () => this.#queue.next(),
      return: async (value) => {
        this.close();
        this.#queue.clear();
        return { done: true, value };
      },
    };
  }
}

/** Updates that wait for a loop: bounded by merging, never by loss that nobody is told of. */
class Queue {
  #limit;
  #items = [];
  #views = new Map();
  #head = 0;
  #waiters = [];
  #isOver = false;
  #error = undefined;

  constructor(limit) {
    if (!(Number.isInteger(limit) && limit > 0)) throw new TypeError(`a queue holds a positive number of updates; ${JSON.stringify(limit)} came`);
    this.#limit = limit;
  }

  /** Returns how many updates were merged into others because too many wait. */
  push(update, view) {
    if (this.#isOver) return 0;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve({ done: false, value: update });
      return 0;
    }
    this.#items.push(update);
    this.#views.set(view.symbol, view);
    const waiting = this.#items.length - this.#head;
    // Of a view, up to four things are left.
    if (waiting <= Math.max(this.#limit, 4 * this.#views.size)) return 0;
    this.#items = merged(this.#items.slice(this.#head), this.#views);
    this.#head = 0;
    return waiting - this.#items.length;
  }

  async next() {
    if (this.#head < this.#items.length) {
      const value = this.#items[this.#head];
      this.#items[this.#head] = undefined;
      this.#head += 1;
      // A loop that is always a little behind never empties it.
      const { length } = this.#items;
      if (this.#head === length || (this.#head > TAKEN_MAX && 2 * this.#head > length)) {
        this.#items = this.#items.slice(this.#head);
        this.#head = 0;
      }
      return { done: false, value };
    }
    if (this.#error !== undefined) {
      const error = this.#error;
      this.#error = undefined;
      throw error;
    }
    if (this.#isOver) return { done: true, value: undefined };
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  /** Nobody wants what waits. */
  clear() {
    this.#items = [];
    this.#head = 0;
  }

  /** What waits is still given out, then the error or the end. */
  end(error) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    for (const { resolve, reject } of this.#waiters.splice(0)) {
      if (this.#error === undefined) resolve({ done: true, value: undefined });
      else reject(this.#error);
      this.#error = undefined;
    }
  }
}

/**
 * Of each view: the newest hole, the newest state, and its content now, which is none while it is known to be wrong;
 * of trades, how many were lost.
 */
function merged(updates, views) {
  const bySymbol = new Map();
  for (const update of updates) {
    const of = bySymbol.get(update.symbol) ?? new Map();
    bySymbol.set(update.symbol, of);
    const what = update.kind === "hole" || update.kind === "state" ? update.kind : "content";
    const newest = update.kind === "trades" ? lostTrades(of.get(what), update) : update;
    // Behind what it came after.
    of.delete(what);
    of.set(what, newest);
  }
  const left = [];
  for (const [symbol, of] of bySymbol) {
    const content = of.get("content");
    if (content !== undefined && content.kind !== "trades") {
      of.delete("content");
      // Nothing where that is no good any more.
      const whole = views.get(symbol).mirror.wholeUpdate(nowUs(), 0);
      if (whole !== undefined) of.set("content", whole);
    }
    left.push(...of.values());
  }
  return left;
}

function lostTrades(before, update) {
  const lost = (before?.lost ?? 0) + update.lost + update.trades.length;
  return { ...update, prev: before?.prev ?? update.prev, trades: [], lost };
}
