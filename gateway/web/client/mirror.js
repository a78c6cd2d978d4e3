// What one view holds, rebuilt from what the gateway says of it: updates → a book, the best bid and
// offer, or the newest trades; and whether that may be relied on. `registry.js` calls it for every update, in order.
// Pure: no socket, no timer; times are arguments.

import { Ladder, LevelsBroken } from "./levels.js";

/** Trades that are kept, for whoever joins a view that is there already; as many as the gateway gives. */
export const TRADES_KEPT = 1000;

const HAS_WHOLE = new Set(["live", "suspect", "halted", "stale"]);

/** The chain of versions has a hole, or a change does not fit: an image is needed. */
export class ChainBroken extends Error {}

export class Mirror {
  /** Our own word, `connecting`, `disconnected` or `resync`, goes before the gateway's; undefined: there is none. */
  #own = { state: "connecting", reason: "", sinceUs: 0 };
  #told = { state: "syncing", reason: "", sinceUs: 0 };
  epoch = 0;
  /** The version held; undefined: nothing that the next update could follow from. */
  held = undefined;
  venueSeq = undefined;
  /** The update that changed the content last. */
  last = undefined;
  bids = new Ladder(1);
  asks = new Ladder(-1);
  trusted = undefined;
  /** Oldest first. */
  trades = [];
  /** What it holds is whole, and the next change fits it. */
  isWhole = false;
  /** Set while a lost connection is being made good: since when, and what was held then. */
  #down = undefined;

  constructor(symbol, channel) {
    this.symbol = symbol;
    this.channel = channel;
    /** At which scales the numbers of JSON are kept. */
    this.scales = { price: 0, qty: 0 };
  }

  get state() {
    return this.#word().state;
  }

  get reason() {
    return this.#word().reason;
  }

  get sinceUs() {
    return this.#word().sinceUs;
  }

  #word() {
    if (this.#own !== undefined) return this.#own;
    const isAwaited = this.channel !== "trades" && HAS_WHOLE.has(this.#told.state) && !this.isWhole;
    // The channel is said to be right again, and what makes it so here has not come yet.
    return isAwaited ? { ...this.#told, state: "syncing" } : this.#told;
  }

  /** The version last held, also while nothing follows from it. */
  get seq() {
    return this.held ?? this.#down?.held ?? this.last?.seq ?? 0;
  }

  /**
   * The gateway has acknowledged the subscription; `result` as in `SymbolResult`. Returns the updates that
   * the reader is to be told because of it: a hole in the trades, a state.
   */
  acknowledged(result, nowUs) {
    this.scales = { price: result.priceScale, qty: result.qtyScale };
    this.#told = { state: result.state, reason: "", sinceUs: nowUs };
    if (this.channel === "trades") return this.#resumeTrades(result, nowUs);
    this.epoch = result.epoch;
    this.isWhole = false;
    // The whole follows; until it is there, this is no better than before.
    if (HAS_WHOLE.has(result.state)) return [];
    this.#own = undefined;
    return [this.stateUpdate(nowUs)];
  }

  #resumeTrades(result, nowUs) {
    const before = this.#down;
    const isSame = before !== undefined && before.epoch === result.epoch && before.held !== undefined;
    this.#own = undefined;
    this.epoch = result.epoch;
    this.#down = undefined;
    // What the gateway repeats of before is passed over, by its number.
    this.held = isSame ? Math.max(before.held, result.seq) : result.seq;
    if (before === undefined) return [];
    const state = this.stateUpdate(nowUs);
    if (isSame && result.seq <= before.held) return [state];
    return [this.#hole(before, isSame ? result.seq - before.held : undefined, result.seq, nowUs), state];
  }

  /** The connection is lost. */
  disconnected(reason, nowUs) {
    this.#down ??= { atUs: nowUs, epoch: this.epoch, held: this.held };
    this.isWhole = false;
    this.held = undefined;
    this.#own = { state: "disconnected", reason, sinceUs: nowUs };
  }

  /** Something was lost on the way, or did not fit; an image is needed. */
  resync(reason, nowUs) {
    this.isWhole = false;
    this.#own = { state: "resync", reason, sinceUs: nowUs };
  }

  /** It is waiting for an image that has to be asked for. */
  get wantsImage() {
    return this.#own?.state === "resync";
  }

  /**
   * Takes an update, and completes what it says of itself. Returns what the reader is to be told: a hole that has now
   * been measured, and the update, unless it is of no use.
   * Throws `ChainBroken` if it cannot follow from what is held.
   */
  apply(update, nowUs) {
    update.symbol = this.symbol;
    update.channel = this.channel;
    switch (update.kind) {
      case "image":
        return this.#image(update, nowUs);
      case "delta":
        return this.#delta(update);
      case "bbo":
        return this.#bbo(update, nowUs);
      case "trades":
        return this.#trades(update, nowUs);
      case "state":
        return this.#state(update);
      default:
        return [];
    }
  }

  #image(update, nowUs) {
    const holes = this.#bridge(update, nowUs);
    if (update.epoch !== this.epoch) this.held = undefined;
    this.epoch = update.epoch;
    if (update.state !== this.#told.state) this.#told = { state: update.state, reason: "", sinceUs: update.sentUs };
    this.#advance(update);
    this.#replace(update);
    this.trusted = update.trusted;
    return [...holes, update];
  }

  #replace({ bids, asks }) {
    try {
      this.bids.replace(bids);
      this.asks.replace(asks);
    } catch (error) {
      throw broken(error);
    }
    this.#own = undefined;
    this.isWhole = true;
  }

  #delta(update) {
    // An image is on its way; what comes before it is in it.
    if (!this.isWhole) return [];
    update.epoch ??= this.epoch;
    update.state ??= this.#told.state;
    if (update.epoch !== this.epoch || update.prev !== this.held) {
      throw new ChainBroken(`an update follows version ${update.prev} of epoch ${update.epoch}; ${this.held} of ${this.epoch} is held`);
    }
    try {
      this.bids.change(update.bids);
      this.asks.change(update.asks);
    } catch (error) {
      throw broken(error);
    }
    this.#advance(update);
    return [update];
  }

  #bbo(update, nowUs) {
    update.epoch ??= this.epoch;
    update.state ??= this.#told.state;
    const holes = this.#bridge(update, nowUs);
    if (update.epoch !== this.epoch) this.held = undefined;
    this.epoch = update.epoch;
    this.#advance(update);
    this.#replace(update);
    return [...holes, update];
  }

  #trades(update, nowUs) {
    update.epoch ??= this.epoch;
    update.state ??= this.#told.state;
    if (update.epoch !== this.epoch) {
      this.epoch = update.epoch;
      this.held = undefined;
    }
    const holes = [];
    if (update.prev > this.held) {
      // Nobody said that they were lost, and nothing brings them back.
      holes.push(this.#hole({ atUs: nowUs, held: this.held }, update.prev - this.held, update.prev, nowUs));
    } else if (update.prev < this.held) {
      // Trades that a new connection repeats.
      if (update.seq <= this.held) return [];
      update.lost = Math.min(update.lost, update.seq - this.held);
      update.trades = update.trades.slice(update.trades.length - (update.seq - this.held - update.lost));
      update.prev = this.held;
    }
    this.held = update.seq;
    this.last = update;
    this.trades.push(...update.trades);
    if (this.trades.length > TRADES_KEPT) this.trades.splice(0, this.trades.length - TRADES_KEPT);
    return [...holes, update];
  }

  #state(update) {
    const isNewEpoch = update.epoch !== this.epoch;
    const hasWhole = HAS_WHOLE.has(update.state);
    if (isNewEpoch) this.held = undefined;
    // Known to be wrong, or ended, or of another history: what comes next is whole again.
    if (isNewEpoch || !hasWhole) this.isWhole = false;
    if (!hasWhole) this.#own = undefined;
    this.epoch = update.epoch;
    this.#told = { state: update.state, reason: update.reason, sinceUs: update.sinceUs };
    update.seq = this.seq;
    return [update];
  }

  #advance(update) {
    update.merged = this.held === undefined ? 0 : Math.max(0, update.seq - this.held - 1);
    this.held = update.seq;
    this.venueSeq = update.venueSeq;
    this.last = update;
  }

  /** The first whole after a lost connection tells how much was missed. */
  #bridge(update, nowUs) {
    const before = this.#down;
    this.#down = undefined;
    if (before === undefined || before.held === undefined) return [];
    const missed = before.epoch === update.epoch ? update.seq - before.held : undefined;
    return missed === 0 ? [] : [this.#hole(before, missed, update.seq, nowUs)];
  }

  #hole(before, missed, toSeq, nowUs) {
    const downMs = Math.round((nowUs - before.atUs) / 1000);
    return { kind: "hole", symbol: this.symbol, channel: this.channel, missed, fromSeq: before.held ?? 0, toSeq, downMs };
  }

  /** The present state as an update. */
  stateUpdate(nowUs) {
    return { ...this.#head("state", nowUs), reason: this.reason, sinceUs: this.sinceUs };
  }

  /** The present content as an update, or undefined if there is none that may be relied on. Of trades: the newest `last`. */
  wholeUpdate(nowUs, last) {
    if (this.channel !== "trades") {
      if (!this.isWhole) return undefined;
      const kind = this.channel === "bbo" ? "bbo" : "image";
      return { ...this.#head(kind, nowUs), bids: this.bids.copy(), asks: this.asks.copy(), trusted: this.trusted };
    }
    const trades = last > 0 ? this.trades.slice(-last) : [];
    if (trades.length === 0 || this.held === undefined) return undefined;
    return { ...this.#head("trades", nowUs), prev: this.held - trades.length, trades, lost: 0 };
  }

  #head(kind, nowUs) {
    const { symbol, channel, state, epoch, venueSeq, last } = this;
    return {
      kind, symbol, channel, view: last?.view ?? 0, state, epoch, seq: this.seq, prev: 0, venueSeq,
      exchangeUs: last?.exchangeUs ?? 0, gatewayUs: last?.gatewayUs ?? 0, oldestUs: last?.oldestUs ?? 0,
      sentUs: last?.sentUs ?? 0, receivedUs: nowUs, late: false, merged: 0,
    };
  }
}

function broken(error) {
  return error instanceof LevelsBroken ? new ChainBroken(error.message) : error;
}
