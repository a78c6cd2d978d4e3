// The page: what is on the screen, what the user does with it, and one drawing per frame of the screen.
//
// The worker (worker.js) holds the connection and everything that comes over it. Here is a loop of
// three steps: ask the worker for a frame, take what it sends, draw it when the screen is next
// refreshed. Asked again only then, so that the newest is drawn and nothing waits in line.

import { readAddress, writeAddress } from "./address.js";
import { nowMs } from "./clock.js";
import { $, set, speak } from "./dom.js";
import { BUDGET_MS, Desk, budgetOf } from "./desk.js";
import { Listing } from "./listing.js";
import { DEPTH, Panel } from "./panel.js";
import { Search } from "./search.js";
import { readColours } from "./surface.js";

/** Panels at once; and up to how many are shown large. */
const PANELS_MAX = 64;
const LARGE_MAX = 4;
/** How often states and their ages are looked after. */
const TELL_MS = 500;
/** The worker says something at least every half second; after this long something is wrong with it. */
const SILENT_MS = 1500;
/** Drawing in a frame stops after this long; what is left comes in the next, as new as it is then. */
const DRAW_MS = 3;
/** Draw times that are kept for the figure. */
const DRAWS = 256;
/** Rows of the table for screen readers. */
const TABLE_ROWS = 5;

const url = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/v1/stream`;
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const panels = new Map();
/** What the address asks to be shown, once the instruments are known. */
const asked = readAddress(location.hash);
let hasBegun = false;
let focus;
let retryAtMs;
const listing = new Listing();
let heardAtMs = nowMs();
/** The panels say that nothing is heard. */
let isSilent = false;
let isDrawing = false;
let isAwaited = false;
let againTimer;
/** The panel whose turn it is to be drawn first. */
let turn = 0;
/** What taking the message cost, which belongs to the drawing that follows. */
let takeMs = 0;
const drawTimes = { ms: new Float64Array(DRAWS), count: 0, counted: 0, sinceMs: performance.now(), perS: 0 };

const desk = new Desk(url, {
  budget(ms) {
    worker.postMessage({ op: "budget", ms });
    remember();
  },
  experiment: (message) => worker.postMessage(message),
  draw: plan,
});

// ---- the frame

function ask() {
  worker.postMessage({ op: "frame" });
}

function plan() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(draw);
}

/** Time for one thing. */
function once() {
  let isLeft = true;
  return () => {
    const was = isLeft;
    isLeft = false;
    return was;
  };
}

function draw() {
  isDrawing = false;
  const began = performance.now();
  const hasTime = () => performance.now() - began < DRAW_MS;
  // Who had no turn in the last frame is first in this one; the panel that is looked at always has one.
  const order = [...panels.values()];
  panels.get(focus)?.draw(began, once());
  let [again, drawn] = [Infinity, 0];
  for (; drawn < order.length && hasTime(); drawn += 1) {
    again = Math.min(again, order[(turn + drawn) % order.length].draw(began, hasTime));
  }
  turn = order.length > 0 ? (turn + drawn) % order.length : 0;
  if (hasTime()) desk.draw();
  if (drawn < order.length || desk.isDue) again = began;
  drawTimes.ms[drawTimes.count % DRAWS] = performance.now() - began + takeMs;
  drawTimes.count += 1;
  takeMs = 0;
  clearTimeout(againTimer);
  // Marks fade though the market stands still.
  if (again <= began) plan();
  else if (again < Infinity) againTimer = setTimeout(plan, again - began);
  if (!isAwaited) return;
  isAwaited = false;
  ask();
}

/** The time that this share of the newest drawings took no longer than, ms. */
function drawTime(share) {
  const some = drawTimes.ms.slice(0, Math.min(drawTimes.count, DRAWS)).sort();
  return some.length === 0 ? 0 : some[Math.min(some.length - 1, Math.floor(some.length * share))];
}

function drawnPerS() {
  const now = performance.now();
  const elapsed = now - drawTimes.sinceMs;
  if (elapsed >= 1000) {
    drawTimes.perS = ((drawTimes.count - drawTimes.counted) * 1000) / elapsed;
    drawTimes.counted = drawTimes.count;
    drawTimes.sinceMs = now;
  }
  return drawTimes.perS;
}

// ---- what the worker says

const HEARS = {
  frame({ panels: frames, figures }) {
    const began = performance.now();
    for (const frame of frames) panels.get(frame.symbol)?.take(frame);
    if (figures) desk.take(figures, { drawnPerS: drawnPerS(), drawMs: drawTime(0.95) });
    isAwaited = true;
    takeMs += performance.now() - began;
    plan();
  },
  link({ state, hello, closed, atMs }) {
    if (hello) {
      // The worker asks by itself then.
      listing.begin();
      listing.asked(atMs);
      desk.offer(hello.budgetsMs);
      $("link").title = `${hello.gateway}, session ${hello.session}`;
    }
    retryAtMs = closed?.retryInMs === undefined ? undefined : atMs + closed.retryInMs;
    $("link").dataset.state = state;
    showLink(closed);
  },
  instruments({ list }) {
    const bySymbol = new Map(list.map((instrument) => [instrument.symbol, instrument]));
    search.take(list);
    for (const panel of panels.values()) panel.learn(bySymbol.get(panel.symbol));
    if (!hasBegun) begin(list, bySymbol);
  },
  story({ facts }) {
    desk.finish(facts);
  },
  drain({ drain }) {
    speak(`The gateway goes away in ${Math.round(drain.inMs / 1000)} seconds; the page comes back by itself.`);
  },
  failed({ message }) {
    speak(message);
    if (panels.size === 0) set($("empty"), message);
  },
};

worker.addEventListener("message", ({ data }) => {
  heardAtMs = nowMs();
  if (isSilent) {
    isSilent = false;
    // What did not change meanwhile would not be sent again, and its panel go on saying so.
    tellWorker();
  }
  HEARS[data.is](data);
});
worker.addEventListener("error", () => {
  $("link").dataset.state = "closed";
  set($("link").lastElementChild, "the page failed; reload it");
});

function showLink(closed) {
  const { state } = $("link").dataset;
  const words = { open: "connected", connecting: "connecting", closed: closed?.reason || "closed for good; reload to try again" };
  const wait = retryAtMs === undefined ? "" : ` in ${Math.max(0, Math.ceil((retryAtMs - nowMs()) / 1000))} s`;
  set($("link").lastElementChild, words[state] ?? `no connection; next try${wait}`);
  if (!hasBegun && state === "waiting") set($("empty"), `The gateway at ${location.host} does not answer. Next try${wait}.`);
}

// ---- panels

/** Panels in sight are drawn; the others need not even be made. */
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const panel = panels.get(target.dataset.symbol);
    if (!panel) continue;
    panel.isVisible = isIntersecting;
    panel.redraw();
  }
  tellWorker();
}, { rootMargin: "60px" });

let isTelling = false;

/** Tells the worker what is on the screen, once however much of it changes at a time. */
function tellWorker() {
  if (isTelling) return;
  isTelling = true;
  queueMicrotask(() => {
    isTelling = false;
    worker.postMessage({ op: "show", wishes: [...panels.values()].map((panel) => panel.wish), symbol: focus });
  });
}

function arrange() {
  const isMany = panels.size > LARGE_MAX;
  $("panels").classList.toggle("many", isMany);
  $("panels").dataset.count = panels.size;
  for (const panel of panels.values()) panel.setMode(isMany && panel.symbol !== focus ? "tile" : "full");
  $("empty").hidden = panels.size > 0;
  if (panels.size === 0) set($("empty"), "Nothing on the screen. Press / and name an instrument.");
  desk.show([...panels.keys()], isMany ? DEPTH.tile : DEPTH.full);
  tellWorker();
  remember();
}

function open(instrument) {
  const { symbol } = instrument;
  if (panels.has(symbol)) return;
  const panel = new Panel(instrument, "full", { change: tellWorker, draw: plan });
  panels.set(symbol, panel);
  $("panels").append(panel.element);
  sight.observe(panel.element);
}

/** Makes a panel the one that experiments are about, and the large one of many. */
function choose(symbol) {
  focus = symbol;
  arrange();
  const { element } = panels.get(symbol);
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
}

function add(instrument) {
  if (!panels.has(instrument.symbol) && panels.size === PANELS_MAX) {
    speak(`${PANELS_MAX} panels are the most; close one first`);
    return;
  }
  open(instrument);
  choose(instrument.symbol);
}

function close(symbol) {
  const panel = panels.get(symbol);
  const order = [...panels.keys()];
  const next = order[order.indexOf(symbol) + 1] ?? order[order.indexOf(symbol) - 1];
  sight.unobserve(panel.element);
  panel.element.remove();
  panels.delete(symbol);
  if (focus === symbol) focus = next;
  arrange();
  if (next) panels.get(next).element.focus({ preventScroll: true });
}

/** Asks for the instruments again, when it is time: a gateway that has just begun has few, or none, and venues list new ones. */
function askForList() {
  const now = nowMs();
  if (!listing.isDue(now) || $("link").dataset.state !== "open") return;
  listing.asked(now);
  worker.postMessage({ op: "instruments" });
}

function beginSearch() {
  listing.begin();
  askForList();
}

/** What is known of a symbol that nobody lists. */
function unlisted(symbol) {
  const [venue] = symbol.split(":", 1);
  return { symbol, venue, native: symbol.slice(venue.length + 1) };
}

/** Once, when the instruments are known: what the address names, listed or not, or the first that is live. */
function begin(list, bySymbol) {
  const wanted = (asked?.symbols ?? []).slice(0, PANELS_MAX).map((symbol) => bySymbol.get(symbol) ?? unlisted(symbol));
  const first = list.find((instrument) => instrument.state === "live") ?? list[0];
  if (wanted.length === 0 && first) wanted.push(first);
  if (wanted.length === 0) {
    set($("empty"), "The gateway has no instruments yet.");
    return;
  }
  hasBegun = true;
  for (const instrument of wanted) open(instrument);
  focus = (wanted.find(({ symbol }) => bySymbol.has(symbol)) ?? wanted[0]).symbol;
  arrange();
}

/** Keeps what is on the screen in the address, so that it can be sent to somebody. */
function remember() {
  if (!hasBegun) return;
  const budgetMs = desk.budgetMs === BUDGET_MS ? undefined : desk.budgetMs;
  history.replaceState(null, "", panels.size > 0 ? writeAddress([...panels.keys()], budgetMs) : location.pathname);
}

// Who follows another link in the same tab means it. That which skips to the books asks for nothing.
addEventListener("hashchange", () => {
  if (readAddress(location.hash)) location.reload();
  else remember();
});

function step(panel, by) {
  if (panel.step(by)) tellWorker();
}

$("panels").addEventListener("click", ({ target }) => {
  const panel = panels.get(target.closest(".panel")?.dataset.symbol);
  if (!panel) return;
  const does = target.closest("[data-do]")?.dataset.do;
  if (does === "close") close(panel.symbol);
  else if (does) step(panel, does === "coarser" ? 1 : -1);
  else if (panel.mode === "tile") choose(panel.symbol);
});

$("panels").addEventListener("focusin", ({ target }) => {
  const panel = panels.get(target.closest(".panel")?.dataset.symbol);
  // A small panel grows when it is asked to, not because the focus went by.
  if (panel?.mode !== "full" || panel.symbol === focus) return;
  focus = panel.symbol;
  tellWorker();
});

// ---- the bar and the keyboard

const search = new Search($("find"), $("found"), { isShown: (symbol) => panels.has(symbol), onChoose: add, onOpen: beginSearch });

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function useTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  readColours();
  desk.redraw();
  for (const panel of panels.values()) panel.redraw();
}

/** What was chosen before, where the browser keeps anything for pages. */
function keptTheme() {
  try {
    return localStorage.getItem("theme") ?? undefined;
  } catch {
    return undefined;
  }
}

function keepTheme(theme) {
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Then it lasts as long as the page.
  }
}

function switchTheme() {
  const { theme } = document.documentElement.dataset;
  const next = (theme ? theme === "dark" : prefersDark.matches) ? "light" : "dark";
  keepTheme(next);
  useTheme(next);
}

$("theme").addEventListener("click", switchTheme);
prefersDark.addEventListener("change", () => useTheme());
$("help").addEventListener("click", () => $("about").showModal());

/** Moves the focus so many panels on. */
function go(by) {
  const order = [...$("panels").querySelectorAll(".panel")];
  const at = order.indexOf(document.activeElement.closest(".panel"));
  order[(at + by + order.length) % order.length]?.focus();
}

const KEYS = {
  "/": () => $("find").focus(),
  b: () => $("budget").focus(),
  t: switchTheme,
  "?": () => $("about").showModal(),
};

const PANEL_KEYS = {
  Enter: (panel) => choose(panel.symbol),
  Delete: (panel) => close(panel.symbol),
  "+": (panel) => step(panel, 1),
  "=": (panel) => step(panel, 1),
  "-": (panel) => step(panel, -1),
  ArrowRight: () => go(1),
  ArrowLeft: () => go(-1),
};

addEventListener("keydown", (event) => {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input[type=search], dialog")) return;
  const panel = target.matches(".panel") ? panels.get(target.dataset.symbol) : undefined;
  const does = KEYS[event.key] ?? (panel && PANEL_KEYS[event.key]);
  if (!does) return;
  event.preventDefault();
  does(panel);
});

// ---- the beginning

setInterval(() => {
  const now = nowMs();
  isSilent ||= now - heardAtMs > SILENT_MS && !document.hidden;
  for (const panel of panels.values()) {
    if (isSilent) panel.fallSilent(heardAtMs);
    panel.tell(now);
  }
  if ($("link").dataset.state === "waiting") showLink();
  if (!hasBegun || search.isOpen || [...panels.values()].some((panel) => panel.wantsListing)) askForList();
  panels.get(focus)?.describe(TABLE_ROWS);
}, TELL_MS);

useTheme(keptTheme());
worker.postMessage({ op: "open", url });
desk.setBudget(budgetOf(asked?.budget));
ask();

/** For whoever checks the page from outside: what it shows, and what its drawings cost. */
globalThis.tickfan = {
  shown: (symbol) => panels.get(symbol)?.shown,
  drawing: () => ({ count: drawTimes.count, p50Ms: drawTime(0.5), p95Ms: drawTime(0.95) }),
};
