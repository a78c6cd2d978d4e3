// Objects that are always in step and say so: a book (also of the best bid and offer) and a tape of trades.
// `client.js` makes them; `registry.js` calls them for every update of their view. What they hold is their
// view's mirror, shared with whoever else reads it.

import { nowUs } from "./clock.js";
import { TickfanError } from "./error.js";
import { checkedTerms } from "./subscription.js";

class Live {
  #context;
  #handle;
  #view;
  #listeners = new Set();
  #changes = 0;
  #waiters = [];
  #over = undefined;
  #ready = Promise.withResolvers();

  /** `context` as in `Subscription`, and `ageMs(gatewayUs)`. */
  constructor(context, terms) {
    this.symbol = terms.symbols;
    this.channel = terms.channel;
    this.#context = context;
    this.#handle = {
      ...checkedTerms(terms),
      onAccepted: () => this.accepted(),
      onRefused: ({ result }) => this.fail(new TickfanError(result.code, result.message, this.symbol)),
      onUpdate: (update) => this.#take(update),
    };
    if (typeof this.symbol !== "string" || this.symbol.endsWith(":*")) {
      throw new TypeError(`one symbol is expected here, as "sim:BTCUSDT"; ${JSON.stringify(this.symbol)} came`);
    }
    this.#ready.promise.catch(() => {});
    [this.#view] = context.registry.attach(this.#handle);
  }

  get mirror() {
    return this.#view.mirror;
  }

  get state() {
    return this.#over?.state ?? this.mirror.state;
  }

  get reason() {
    return this.#over?.reason ?? this.mirror.reason;
  }

  get sinceUs() {
    return this.#over?.sinceUs ?? this.mirror.sinceUs;
  }

  get epoch() {
    return this.mirror.epoch;
  }

  get seq() {
    return this.mirror.seq;
  }

  get venueSeq() {
    return this.mirror.venueSeq;
  }

  get last() {
    return this.mirror.last;
  }

  get age() {
    return this.last === undefined ? undefined : this.#context.ageMs(this.last.gatewayUs);
  }

  get budget() {
    return this.#view.result?.budget;
  }

  get budgetMs() {
    return this.#view.result?.budgetMs;
  }

  get depth() {
    return this.#view.result?.depth;
  }

  get ready() {
    return this.#ready.promise;
  }

  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  modify({ budgetMs }) {
    this.#handle.budgetMs = checkedTerms({ ...this.#handle, budgetMs }).budgetMs;
    this.#context.registry.plan();
    return this.#context.registry.settled(this.#handle);
  }

  close() {
    this.#end("ended", "");
  }

  /** Ends it because of what the gateway said. */
  fail(error) {
    this.#end("refused", `${error.code}: ${error.message}`, error);
  }

  #end(state, reason, error) {
    if (this.#over !== undefined) return;
    this.#over = { state, reason, error, sinceUs: nowUs() };
    this.#context.registry.detach(this.#handle);
    this.#context.forget(this);
    this.#ready.reject(error ?? new TickfanError("closed", "it was closed before it was whole", this.symbol));
    this.#changed();
  }

  accepted() {
    if (this.isReady) this.#ready.resolve(this);
    this.#changed();
  }

  #take(update) {
    this.take(update);
    this.accepted();
  }

  #changed() {
    this.#changes += 1;
    for (const wake of this.#waiters.splice(0)) wake();
    for (const listener of this.#listeners) {
      try {
        listener(this);
      } catch (error) {
        this.#context.error(error);
      }
    }
  }

  async *[Symbol.asyncIterator]() {
    let seen = this.isReady ? -1 : this.#changes;
    while (this.#over === undefined) {
      if (seen === this.#changes) await new Promise((resolve) => this.#waiters.push(resolve));
      if (this.#over !== undefined) break;
      seen = this.#changes;
      yield this;
    }
    if (this.#over.error !== undefined) throw this.#over.error;
  }
}

export class Book extends Live {
  get bids() {
    return this.mirror.bids;
  }

  get asks() {
    return this.mirror.asks;
  }

  get trusted() {
    return this.mirror.trusted;
  }

  get mid() {
    const { bids, asks } = this;
    if (bids.length === 0 || asks.length === 0) return undefined;
    return (bids.priceScaled(0) + asks.priceScaled(0)) / (2 * 10 ** bids.priceScale);
  }

  get spread() {
    const { bids, asks } = this;
    if (bids.length === 0 || asks.length === 0) return undefined;
    return (asks.priceScaled(0) - bids.priceScaled(0)) / 10 ** bids.priceScale;
  }

  get isReady() {
    return this.mirror.isWhole;
  }

  take() {}
}

export class Tape extends Live {
  #keep;
  #isBegun = false;
  trades = [];
  lost = 0;

  constructor(context, { keep = 1000, ...terms }) {
    if (!(Number.isInteger(keep) && keep > 0)) throw new TypeError(`keep is a positive integer; ${JSON.stringify(keep)} came`);
    super(context, terms);
    this.#keep = keep;
  }

  get isReady() {
    return this.#isBegun;
  }

  accepted() {
    this.#isBegun = true;
    super.accepted();
  }

  take(update) {
    if (update.kind === "trades") {
      this.lost += update.lost;
      this.trades.push(...update.trades);
      if (this.trades.length > this.#keep) this.trades.splice(0, this.trades.length - this.#keep);
    } else if (update.kind === "hole") {
      this.lost += update.missed ?? 0;
    }
  }
}
