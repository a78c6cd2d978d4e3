// What stands beside the panels: the budget with its figures, the latency plot, the experiments, and
// the lines that show the same without this page.
//
// Owned by page.js, which hands it what the worker says. It knows nothing of panels but their symbols.

import { $, set, speak } from "./dom.js";
import { BINS, COLUMN } from "./delays.js";
import { drawLatency } from "./latency.js";
import { Surface, span } from "./surface.js";
import { budgetSays, lines, storySays } from "./words.js";

/** Until the gateway says which it has, and up to where the slider goes. */
const BUDGETS_MS = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const BUDGET_MS_MAX = 1000;
const STALL_MS = 5000;
/** How long a cut connection stays cut. */
const CUT_MS = 1500;
const COPIED_MS = 2000;

export const BUDGET_MS = 100;

/** The budget that an address asks for, within what the slider has; where it is no whole number, the usual one. */
export function budgetOf(text) {
  return /^\d+$/.test(text) ? Math.min(Number(text), BUDGET_MS_MAX) : BUDGET_MS;
}

const count = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export class Desk {
  budgetMs = BUDGET_MS;
  #budgets = BUDGETS_MS;
  #columns = new Float32Array(BINS * COLUMN).fill(NaN);
  /** The plot is to be drawn. */
  isDue = true;
  #language = "websocat";
  #symbols = [];
  #depth = 0;
  #figures = Object.fromEntries([...$("figures").querySelectorAll("[data-is]")].map((part) => [part.dataset.is, part]));
  #cells = [...$("latency-table").tBodies[0].rows].map((row) => [...row.cells].slice(1));

  /** `on.budget(ms)`, `on.experiment(message)`, and `on.draw()` when the plot is to be drawn. */
  constructor(url, on) {
    this.url = url;
    this.on = on;
    this.surface = new Surface($("latency"), () => this.redraw());
    $("budget").addEventListener("input", () => this.setBudget(this.#budgets[$("budget").valueAsNumber] ?? BUDGET_MS));
    $("stall").addEventListener("click", () => this.#begin({ op: "stall", ms: STALL_MS }, "Reading nothing for 5 s…"));
    $("cut").addEventListener("click", () => this.#begin({ op: "cut", waitMs: CUT_MS }, "The connection is cut…"));
    this.#listenToTabs();
    $("copy").addEventListener("click", () => this.#copy());
  }

  // ---- budget and figures

  /** What the gateway has to choose from. */
  offer(budgets) {
    this.#budgets = budgets.filter((ms) => ms <= BUDGET_MS_MAX);
    $("budget").max = this.#budgets.length - 1;
    this.#place();
  }

  setBudget(ms) {
    this.budgetMs = ms;
    this.#place();
    this.redraw();
    this.#showLines();
    this.on.budget(ms);
  }

  #place() {
    const ms = this.budgetMs;
    $("budget").value = Math.max(0, this.#budgets.findLastIndex((budget) => budget <= ms));
    $("budget").setAttribute("aria-valuetext", `${ms} milliseconds`);
    set($("budget-value"), ms === 1000 ? "1 s" : `${ms} ms`);
    set($("budget-says"), budgetSays(ms, false));
  }

  /** New figures of the worker's, and what drawing costs here. */
  take(figures, { drawnPerS, drawMs }) {
    this.#columns = figures.columns;
    this.redraw();
    const { updates, events, merged, bytes, frames, drawing } = this.#figures;
    set(updates, `${count.format(figures.updatesPerS)}/s`);
    set(events, `${count.format(figures.updatesPerS + figures.mergedPerS)}/s`);
    set(merged, short.format(figures.merged));
    set(bytes, rate(figures.bytesPerS));
    set(frames, `${count.format(drawnPerS)}/s`);
    set(drawing, `${drawMs.toFixed(1)} ms`);
    for (const [stage, summary] of figures.summary.entries()) {
      for (const [cell, key] of ["p50", "p99", "max"].entries()) set(this.#cells[stage][cell], summary ? span(summary[key]) : "–");
    }
    set($("late"), figures.lateShown === 0 ? "no late update" : `${count.format(figures.lateShown)} late (▼)`);
    $("late").classList.toggle("has-late", figures.lateShown > 0);
    set($("offset"), figures.offsetUs === undefined
      ? "clock offset: not measured yet"
      : `clock offset ${figures.offsetUs < 0 ? "−" : "+"}${span(Math.abs(figures.offsetUs))} ± ${span(figures.offsetErrorUs)}, from pings`);
    set($("budget-says"), budgetSays(this.budgetMs, figures.budget?.infeasible));
    if (figures.story) this.#showStory(figures.story);
  }

  redraw() {
    this.isDue = true;
    this.on.draw();
  }

  draw() {
    if (!this.isDue) return;
    this.isDue = false;
    drawLatency(this.surface, this.#columns, this.budgetMs);
  }

  // ---- experiments

  #begin(message, said) {
    for (const id of ["stall", "cut"]) $(id).disabled = true;
    this.#showItems([said]);
    this.on.experiment(message);
  }

  /** An experiment is over. */
  finish(facts) {
    for (const id of ["stall", "cut"]) $(id).disabled = false;
    this.#showStory(facts);
    speak(storySays(facts).join(" "));
  }

  #showStory(facts) {
    const said = storySays(facts);
    const shown = [...$("story").children];
    if (shown.length !== said.length || shown.some((item, index) => item.textContent !== said[index])) this.#showItems(said);
  }

  #showItems(texts) {
    $("story").classList.add("told");
    $("story").replaceChildren(...texts.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    }));
  }

  // ---- lines

  /** What is on the screen now. */
  show(symbols, depth) {
    this.#symbols = symbols;
    this.#depth = depth;
    this.#showLines();
  }

  #showLines() {
    const has = this.#symbols.length > 0;
    $("copy").disabled = !has;
    set($("lines"), has ? lines(this.url, this.#symbols, this.#depth, this.budgetMs)[this.#language] : "");
  }

  #listenToTabs() {
    const tabs = [...$("tabs").querySelectorAll("[role=tab]")];
    const turn = (tab) => {
      this.#language = tab.id.slice("tab-".length);
      for (const other of tabs) {
        other.setAttribute("aria-selected", String(other === tab));
        other.tabIndex = other === tab ? 0 : -1;
      }
      $("lines").setAttribute("aria-labelledby", tab.id);
      this.#showLines();
    };
    $("tabs").addEventListener("click", ({ target }) => {
      if (tabs.includes(target)) turn(target);
    });
    $("tabs").addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const at = tabs.indexOf(event.target);
      if (!by || at < 0) return;
      const tab = tabs[(at + by + tabs.length) % tabs.length];
      tab.focus();
      turn(tab);
    });
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText($("lines").textContent);
      set($("copy"), "Copied");
    } catch {
      // Browsers copy on pages with TLS and of this machine only: then it is at least selected.
      getSelection().selectAllChildren($("lines"));
      set($("copy"), "Selected: press Ctrl C");
    }
    setTimeout(() => set($("copy"), "Copy"), COPIED_MS);
  }
}

function rate(perS) {
  return perS >= 1e6 ? `${(perS / 1e6).toFixed(2)} MB/s` : `${(perS / 1e3).toFixed(perS >= 1e5 ? 0 : 1)} kB/s`;
}
