// One instrument on the screen: its heading, its canvases, and what a screen reader is told of it.
//
// Owned by page.js, which hands it what the worker sent and lets it draw once a frame. The document is
// touched when something changes that is no price; prices are only ever drawn, except in the table for
// screen readers, which follows them slowly.

import { nowMs } from "./clock.js";
import { set } from "./dom.js";
import { Surface } from "./surface.js";
import { LadderDrawing, drawDepth, drawMid, drawTape, rowsFor } from "./drawings.js";
import { groupsOf, tickOf } from "./exact.js";

/** Levels a side: of a large panel, of a small one. */
export const DEPTH = { full: 200, tile: 20 };

/** What a panel draws, the most important first. */
const DRAWINGS = ["ladder", "tape", "depth", "mid"];

/** States in which prices are good to look at as they are. */
const GOOD = new Set(["live", "suspect", "halted"]);

const WORDS = {
  connecting: "waiting for the first book",
  syncing: "being built by the gateway",
  suspect: "served without its proof",
  stale: "last known: the venue is silent",
  gap: "known wrong, being repaired",
  halted: "halted by the venue",
  closed: "no longer served",
  stalled: "last known: nothing is read",
  disconnected: "last known: no connection",
  resync: "a hole was noticed, being repaired",
  unlisted: "not listed here, or not yet",
  refused: "refused",
  ended: "ended",
};

/** States whose names are not what people say. */
const NAMES = { connecting: "waiting", unlisted: "not listed" };

export class Panel {
  isVisible = false;
  #ladder = new LadderDrawing();
  #data;
  #trades;
  #tapeState = "connecting";
  #curve;
  #mids;
  #state = "connecting";
  #reason = "";
  #sinceMs;
  #said = "";
  #due = new Set();
  #againAtMs = Infinity;

  /** `on.change` when the worker must know, `on.draw` when something is to be drawn. */
  constructor(instrument, mode, on) {
    this.symbol = instrument.symbol;
    this.on = on;
    this.element = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries([...this.element.querySelectorAll("[data-is]")].map((part) => [part.dataset.is, part]));
    this.surfaces = {};
    for (const name of DRAWINGS) {
      this.surfaces[name] = new Surface(this.element.querySelector(`canvas.${name}`), () => {
        if (name === "ladder") {
          this.#ladder.clear();
          on.change();
        }
        this.#mark(name);
      });
    }
    this.parts.venue.textContent = instrument.venue;
    this.element.dataset.symbol = this.symbol;
    this.element.querySelector("[data-do=close]").setAttribute("aria-label", `Close ${this.symbol}`);
    this.setMode(mode);
    this.#setInstrument(instrument);
    this.tell(nowMs());
  }

  #setInstrument(instrument) {
    const { base, quote, native, tick } = instrument;
    this.instrument = instrument;
    this.units = { base: base ?? "", quote: quote ?? "" };
    this.parts.name.textContent = base && quote ? `${base}/${quote}` : native;
    this.#setTick(tick ?? this.tick);
  }

  /** Takes what its venue lists of it, which may come after its prices, and change. */
  learn(instrument) {
    if (!instrument || (this.#isListed && ["base", "quote", "tick"].every((key) => instrument[key] === this.instrument[key]))) return;
    this.#setInstrument(instrument);
    this.#ladder.clear();
    this.redraw();
    this.on.change();
  }

  /** It has been in a list; of what came with a link, no more than its symbol may be known. */
  get #isListed() {
    return this.instrument.price_scale !== undefined;
  }

  /** It is served, and what its venue lists of it is not known yet. */
  get wantsListing() {
    return !this.#isListed && GOOD.has(this.#state);
  }

  #setTick(tick) {
    this.tick = tick;
    this.groups = groupsOf(tick);
    this.setGroup(this.group);
  }

  setMode(mode) {
    if (this.mode === mode) return;
    this.mode = mode;
    this.element.classList.toggle("tile", mode === "tile");
    this.#curve = this.#trades = undefined;
    this.redraw();
  }

  setGroup(group) {
    this.group = this.groups.includes(group) ? group : this.groups[0] ?? "";
    this.parts.group.textContent = this.group || "–";
    const at = this.groups.indexOf(this.group);
    this.element.querySelector("[data-do=finer]").disabled = at <= 0;
    this.element.querySelector("[data-do=coarser]").disabled = at < 0 || at === this.groups.length - 1;
  }

  /** Goes so many groups up or down; returns whether there was one. */
  step(by) {
    const group = this.groups[this.groups.indexOf(this.group) + by];
    if (group) this.setGroup(group);
    return group !== undefined;
  }

  /** What the worker is to make for it. */
  get wish() {
    return {
      symbol: this.symbol,
      mode: this.mode,
      depth: DEPTH[this.mode],
      group: this.group,
      tick: this.tick,
      rows: rowsFor(this.surfaces.ladder.height, this.mode === "tile"),
      visible: this.isVisible,
    };
  }

  /** What is on the screen, for whoever checks it. */
  get shown() {
    return { symbol: this.symbol, state: this.#state, group: this.group, ...this.#data };
  }

  take(frame) {
    if (frame.bids) {
      if (frame.priceScale !== undefined) this.#followScale(frame.priceScale);
      this.#data = { bids: frame.bids, asks: frame.asks, middle: frame.middle, version: frame.version };
      this.#mark("ladder");
    }
    if (frame.trades) {
      this.#trades = frame.trades;
      this.#tapeState = frame.tapeState;
      this.#mark("tape");
    }
    if (frame.curve) {
      this.#curve = frame.curve;
      this.#mark("depth");
    }
    if (frame.mids) {
      this.#mids = frame.mids;
      this.#mark("mid");
    }
    this.#sinceMs = frame.sinceMs;
    this.#become(frame.state, frame.reason);
  }

  /** A venue that lists no tick leaves it to the digits of its prices, which a book may get more of. */
  #followScale(priceScale) {
    if (this.instrument.tick !== undefined || this.tick === tickOf(priceScale)) return;
    this.#setTick(tickOf(priceScale));
    this.on.change();
  }

  /** Nothing is heard of the worker since then, so nobody knows whether the prices are still right. */
  fallSilent(sinceMs) {
    this.#sinceMs = sinceMs;
    this.#become("stalled", "");
  }

  #become(state, reason) {
    if (state === this.#state && reason === this.#reason) return;
    this.#state = state;
    this.#reason = reason;
    this.tell(nowMs());
    this.redraw();
  }

  get isDim() {
    return !GOOD.has(this.#state);
  }

  /** Trades have a state of their own: a gap in the book is none in them. */
  get #isTapeDim() {
    return this.#state === "stalled" || !GOOD.has(this.#tapeState);
  }

  #mark(name) {
    this.#due.add(name);
    this.on.draw();
  }

  redraw() {
    for (const name of DRAWINGS) this.#mark(name);
  }

  /** Draws what is due while there is time; returns when it is to be called again though nothing comes. */
  draw(now, hasTime) {
    if (!this.isVisible) return Infinity;
    if (now >= this.#againAtMs) this.#due.add("ladder");
    for (const name of DRAWINGS) {
      if (!this.#due.has(name)) continue;
      if (!hasTime()) return now;
      this.#due.delete(name);
      this.#draw(name, now);
    }
    return this.#againAtMs;
  }

  #draw(name, now) {
    const [surface, isTile] = [this.surfaces[name], this.mode === "tile"];
    if (name === "ladder") this.#drawLadder(surface, isTile, now);
    else if (name === "mid" && this.#mids) drawMid(surface, this.#mids, this.tick, isTile, this.isDim);
    else if (name === "depth" && this.#curve && !isTile) drawDepth(surface, this.#curve, this.units, this.isDim);
    else if (name === "tape" && !isTile) drawTape(surface, this.#trades ?? [], this.#isTapeDim);
  }

  #drawLadder(surface, isTile, now) {
    this.#againAtMs = Infinity;
    if (this.#data && (this.#data.bids.price.length > 0 || this.#data.asks.price.length > 0)) {
      this.#againAtMs = this.#ladder.draw(surface, this.#data, this.units, isTile, this.isDim, now);
    } else {
      this.#ladder.clear();
      surface.say(this.#words());
    }
  }

  #words() {
    return WORDS[this.#state] ?? this.#state;
  }

  /** The state in words, with its age where that matters; called each second, and on a change. */
  tell(nowMs) {
    // A code is words; in the text behind it stand symbols.
    const reason = this.#reason && this.#reason !== "none" ? this.#reason.replace(/^[a-z_]+/, (code) => code.replaceAll("_", " ")) : "";
    const age = this.#state !== "live" && this.#sinceMs ? ago(nowMs - this.#sinceMs) : "";
    const told = [NAMES[this.#state] ?? this.#state, this.#state === "connecting" ? "" : age].filter(Boolean).join(" · ");
    const why = this.#state === "connecting" || !reason ? "" : ` · ${reason}`;
    const said = told + why;
    if (said === this.#said) return;
    this.#said = said;
    this.parts.state.dataset.state = this.#state;
    set(this.parts.told, told);
    set(this.parts.why, why);
    this.parts.state.title = this.#words() + why;
    this.element.classList.toggle("dim", this.isDim);
    this.element.setAttribute("aria-label", `${this.symbol}, ${said}`);
  }

  /** Follows the prices for screen readers. */
  describe(levels) {
    const { table } = this.parts;
    if (!this.#data) return;
    const { bids, asks, middle } = this.#data;
    this.surfaces.ladder.canvas.setAttribute("aria-label",
      `Ladder: bid ${bids.price[0] ?? "none"}, ask ${asks.price[0] ?? "none"}, mid ${middle?.mid ?? "none"}, spread ${middle?.spread ?? "none"}`);
    this.surfaces.mid.canvas.setAttribute("aria-label", `Mid price over the last minute, now ${middle?.mid ?? "none"}`);
    this.surfaces.depth.canvas.setAttribute("aria-label", "Depth curve");
    const [newest] = this.#trades ?? [];
    this.surfaces.tape.canvas.setAttribute("aria-label", newest ? `Trades, newest ${newest[3]} ${newest[2]} at ${newest[1]}` : "Trades, none yet");
    if (table.rows.length === 0) this.#rule(table, levels);
    for (let index = 0; index < levels; index += 1) {
      const texts = [bids.size[index], bids.price[index], asks.price[index], asks.size[index]];
      for (const [column, text] of texts.entries()) set(table.rows[index + 1].cells[column], text ?? "");
    }
  }

  #rule(table, levels) {
    table.createCaption().textContent = `Best prices of ${this.symbol}`;
    for (const title of ["bid size", "bid", "ask", "ask size"]) {
      (table.rows[0] ?? table.insertRow()).appendChild(document.createElement("th")).textContent = title;
    }
    for (let index = 0; index < levels; index += 1) {
      const row = table.insertRow();
      for (let column = 0; column < 4; column += 1) row.insertCell();
    }
  }
}

/** A span of time as people say it. */
function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
