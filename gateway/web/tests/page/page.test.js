// The page in Chromium, against a gateway fed by the simulator: what it shows is held against the
// simulator's own books, and its experiments are made.
//
// Run by .ci/page. One browser, one page after the other; every wait is for a condition. Drawing times
// are measured and reported, since a shared machine may judge nothing by them; screenshots are kept in
// TICKFAN_SHOTS [target/page-shots].
//
// TICKFAN_BIN       the folder of `tickfan` and `feed-sim` [target/release]
// CHROMIUM          the browser [/usr/bin/chromium]

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch } from "../chromium.js";
import { Lab } from "../lab.js";
import { until } from "../suite/check.js";
import * as stage from "./stage.js";
import { mainThread } from "./trace.js";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../../../..");
const SHOTS = process.env.TICKFAN_SHOTS ?? join(ROOT, "target/page-shots");
/** How often the ladder is held against the truth. */
const POINTS = 20;
/** What the issue allows the page to weigh, compressed. */
const BYTES_MAX = 60_000;

const lab = new Lab();
let browser;
let market;
let context;
let page;
/** What the page should never say. */
const complaints = [];
/** What was loaded, by its address: compressed bytes. */
const loaded = new Map();

async function open(options, hash = "", at = market.http) {
  const opened = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  opened.on("response", (response) => {
    loaded.set(response.url(), response.request().sizes().then(({ responseBodySize }) => responseBodySize));
  });
  const tab = await opened.newPage();
  tab.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  tab.on("pageerror", (error) => complaints.push(String(error.stack)));
  await tab.goto(`${at}/${hash}`);
  return [opened, tab];
}

const shown = (symbol, tab = page) => stage.shown(tab, symbol);
const figure = async (name) => Number((await page.locator(`#figures [data-is=${name}]`).textContent()).replaceAll(",", "").match(/[0-9.]+/)?.[0] ?? NaN);
const becomes = (symbol, state, tab = page) => stage.becomes(tab, symbol, state);

/** Levels in groups of so many ticks, best first, as `[price, size]` in exact units of 10^-8. */
function grouped(levels, isBids, group) {
  const units = (text) => {
    const [whole, fraction = ""] = text.split(".");
    return BigInt(whole + fraction.padEnd(8, "0"));
  };
  const step = units(group);
  const sums = new Map();
  for (const [price, size] of levels) {
    const at = units(price);
    const key = isBids ? at - (at % step) : at + ((step - (at % step)) % step);
    sums.set(key, (sums.get(key) ?? 0n) + units(size));
  }
  return { rows: [...sums], units };
}

/** Holds so many different books, as they are shown, against the simulator's at the same number. */
async function holdAgainstTruth(symbol, points) {
  const native = symbol.split(":")[1];
  const truths = new Set();
  const seen = new Set();
  while (seen.size < points) {
    const book = await until("another book is shown", async () => {
      const now = await shown(symbol);
      return now?.state === "live" && now.bids?.price.length > 0 && !seen.has(now.version.venueSeq) ? now : undefined;
    });
    const at = book.version.venueSeq;
    seen.add(at);
    const truth = await lab.truth(market.id, native, at);
    assert.ok(truth, `the simulator knows its book at ${at}`);
    for (const side of ["bids", "asks"]) {
      const { rows, units } = grouped(truth[side], side === "bids", book.group);
      const came = book[side].price.map((price, index) => [units(price), units(book[side].size[index])]);
      assert.ok(came.length > 3, `${came.length} rows are shown`);
      assert.deepEqual(came, rows.slice(0, came.length), `${side} of ${symbol} at ${at}`);
    }
    truths.add(JSON.stringify([truth.bids.slice(0, 5), truth.asks.slice(0, 5)]));
  }
  assert.ok(truths.size > 1, "the market moved meanwhile");
}

/** How much of a drawing is in the full colour of texts: none of it where it is greyed. */
const strength = (symbol, drawing = "ladder") => page.evaluate(([name, kind]) => {
  const canvas = document.querySelector(`[data-symbol="${name}"] canvas.${kind}`);
  // A copy is read, so that the drawing itself stays as it is.
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--text");
  copy.fillRect(0, 0, 1, 1);
  const text = copy.getImageData(0, 0, 1, 1).data;
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) {
    if ([0, 1, 2].every((channel) => Math.abs(data[at + channel] - text[channel]) < 24)) count += 1;
  }
  return count;
}, [symbol, drawing]);

/** What a panel says and how it looks, at one moment: ages change. */
const looks = (symbol) => page.locator(`[data-symbol="${symbol}"]`).evaluate((panel) => ({
  label: panel.getAttribute("aria-label"), badge: panel.querySelector("[data-is=state]").innerText, isDim: panel.matches(".dim"),
}));

/** A book that is no good says so, with its reason and for how long, and is grey; the others are as ever. */
async function isToldFor(state, reason, symbol = "sim:ETHUSDT") {
  assert.ok((await strength(symbol)) > 100, "it is not grey to begin with");
  return async () => {
    await becomes(symbol, state);
    const said = await until("it has been so for a while", async () => {
      const now = await looks(symbol);
      return new RegExp(`^${symbol}, ${state} · [1-9][0-9]* s · ${reason}$`).test(now.label) ? now : undefined;
    });
    assert.deepEqual([said.badge, said.isDim], [said.label.slice(`${symbol}, `.length), true]);
    assert.ok((await shown(symbol)).bids.price.length > 3, "what was known last is still there");
    await until("it is grey", async () => (await strength(symbol)) === 0);
    await page.screenshot({ path: join(SHOTS, `${state}.png`) });
  };
}

/** The same book is good again, and looks it. */
async function isGoodAgain(symbol = "sim:ETHUSDT") {
  await becomes(symbol, "live");
  await until("its heading says so", async () => {
    const { label, isDim } = await looks(symbol);
    return label === `${symbol}, live` && !isDim;
  });
  await until("it is not grey", async () => (await strength(symbol)) > 100);
  await holdAgainstTruth(symbol, 5);
}

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  browser = await launch();
  market = await lab.market({ symbols: 8, rate: 800 });
  [context, page] = await open();
  await page.evaluate(() => {
    globalThis.violations = [];
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => globalThis.violations.push(`${violatedDirective} ${blockedURI}`));
  });
});

after(async () => {
  await browser?.close();
  await lab.stopAll();
});

test("it opens with an instrument that is live", async () => {
  const panel = page.getByRole("article").first();
  await panel.waitFor();
  const symbol = await panel.getAttribute("data-symbol");
  await becomes(symbol, "live");
  await until("its heading says so", async () => (await panel.getAttribute("aria-label")) === `${symbol}, live`);
});

test("an instrument is found by typing", async () => {
  await page.keyboard.press("/");
  await page.keyboard.type("eth");
  const option = page.getByRole("option", { name: "ETHUSDT" });
  await option.waitFor();
  await page.keyboard.press("Enter");
  await becomes("sim:ETHUSDT", "live");
  assert.equal(await page.getByRole("article").count(), 2);
  assert.match(page.url(), /#show=sim:BTCUSDT,sim:ETHUSDT/);
});

test(`the ladder is the simulator's book, at ${POINTS} points`, { timeout: 120_000 }, () => holdAgainstTruth("sim:ETHUSDT", POINTS));

test("groups are sums of the simulator's levels", { timeout: 120_000 }, async () => {
  await page.locator('[data-symbol="sim:ETHUSDT"]').focus();
  for (const _ of [1, 2, 3]) await page.keyboard.press("+");
  const group = (await shown("sim:ETHUSDT")).group;
  assert.equal(group, "0.1");
  await until("the ladder is in groups", async () => (await shown("sim:ETHUSDT")).bids.price.every((price) => /^[0-9]+\.[0-9]$/.test(price)));
  await holdAgainstTruth("sim:ETHUSDT", 5);
});

test("screen readers are told the prices", async () => {
  const table = page.locator('[data-symbol="sim:ETHUSDT"] table');
  const cells = await until("there is a table", async () => {
    const texts = await table.locator("tr").nth(1).locator("td").allTextContents();
    return texts.length === 4 ? texts : undefined;
  });
  for (const cell of cells) assert.match(cell, /^[0-9.]+$/);
  const label = await page.locator('[data-symbol="sim:ETHUSDT"] canvas.ladder').getAttribute("aria-label");
  assert.match(label, /^Ladder: bid [0-9.]+, ask [0-9.]+, mid [0-9.]+, spread [0-9.]+$/);
});

test("a longer budget merges more", { timeout: 120_000 }, async () => {
  const perUpdate = async () => (await figure("events")) / (await figure("updates"));
  const slider = page.getByRole("slider", { name: "Latency budget" });
  await slider.focus();
  await page.keyboard.press("Home");
  assert.equal(await page.locator("#budget-value").textContent(), "0 ms");
  assert.match(page.url(), /budget=0/);
  const few = await until("little is merged", async () => {
    const events = await perUpdate();
    return events > 0 && events < 10 ? events : undefined;
  });
  await page.keyboard.press("End");
  assert.equal(await page.locator("#budget-value").textContent(), "1 s");
  await until("more than twice as much is merged", async () => (await perUpdate()) > 2 * few);
  for (const _ of [1, 2, 3]) await page.keyboard.press("ArrowLeft");
  assert.equal(await page.locator("#budget-value").textContent(), "100 ms");
});

test("a stall is shown as such, and what comes first afterwards is told", { timeout: 60_000 }, async () => {
  await page.getByRole("button", { name: "Stall me" }).click();
  await becomes("sim:ETHUSDT", "stalled");
  await becomes("sim:ETHUSDT", "live");
  const said = await until("the story ends", async () => {
    const items = await page.locator("#story li").allTextContents();
    return items.at(-1).startsWith("In step again") ? items : undefined;
  });
  assert.equal(said[0], "Nothing was read for 5.0 s.");
  assert.match(said[1], /^First [0-9,]+ (delta|whole book)s? of ETHUSDT, sent /);
  await holdAgainstTruth("sim:ETHUSDT", 3);
});

test("a cut greys the books, tells the hole, and heals", { timeout: 60_000 }, async () => {
  await until("an experiment can be made", () => page.getByRole("button", { name: "Cut my" }).isEnabled());
  await page.getByRole("button", { name: "Cut my" }).click();
  await until("it is grey while it has no connection", async () => {
    const { label, isDim } = await looks("sim:ETHUSDT");
    return isDim && label.startsWith("sim:ETHUSDT, disconnected");
  });
  await becomes("sim:ETHUSDT", "live");
  const said = await until("the story ends", async () => {
    const items = await page.locator("#story li").allTextContents();
    return items.at(-1).startsWith("In step again") ? items : undefined;
  });
  assert.match(said.join("\n"), /^The connection was cut\.\nConnected again after .*\nFirst 1 whole book of ETHUSDT/);
  assert.match(said.join("\n"), /Hole: .* without a connection; [0-9,]+ versions? were never seen/);
  await holdAgainstTruth("sim:ETHUSDT", 3);
});

test("a gap is shown with reason and age while it lasts, and then the truth", { timeout: 120_000 }, async () => {
  const isTold = await isToldFor("gap", "sequence gap");
  // The image that is to mend it is refused for a while.
  await lab.fault(market.id, { kind: "rate-limit", for_ms: 8000 });
  await lab.fault(market.id, { kind: "gap", symbol: "ETHUSDT" });
  await isTold();
  assert.deepEqual([await lab.happened(market.id, "gap"), await lab.happened(market.id, "rate-limit")], [1, 1]);
  assert.equal((await shown("sim:BTCUSDT")).state, "live");
  assert.ok((await strength("sim:ETHUSDT", "tape")) > 100, "its trades are as good as ever");
  await isGoodAgain();
});

test("a venue that is gone leaves the last prices, which are shown as such, and then the truth", { timeout: 120_000 }, async () => {
  const isTold = await isToldFor("stale", "disconnected");
  await lab.close(market.id);
  await isTold();
  await until("its trades are grey, too", async () => (await strength("sim:ETHUSDT", "tape")) === 0);
  await lab.reopen(market.id);
  await isGoodAgain();
});

test("the lines do what is on the screen", { timeout: 60_000 }, async () => {
  const text = page.locator("#lines");
  const websocat = await text.textContent();
  const [, request, url] = /printf '%s\\n' '(.*)'; cat\) \\\n {2}\| websocat '(.*)'/.exec(websocat);
  const socket = new WebSocket(url);
  const came = [];
  socket.onmessage = ({ data }) => came.push(...(JSON.parse(data).u ?? []));
  socket.onopen = () => socket.send(request);
  await until("both books came", () => new Set(came.filter(({ t, b }) => t === "image" && b.length > 20).map(({ v }) => v)).size === 2);
  socket.close();

  await page.getByRole("tab", { name: "Python" }).click();
  assert.match(await text.textContent(), /client\.subscribe\("book", \["sim:BTCUSDT", "sim:ETHUSDT"\], depth=200, budget_ms=100\)/);

  await page.keyboard.press("ArrowRight");
  const javascript = await text.textContent();
  const logged = [];
  const console_ = (message) => logged.push(message.text());
  page.on("console", console_);
  await page.evaluate(`void (async () => { ${javascript} })()`);
  await until("updates of both are logged", () => ["BTC", "ETH"].every((base) => logged.some((line) => line.startsWith(`sim:${base}USDT image`))));
  page.off("console", console_);
});

test("a panel is closed by a key, and the last leaves a word", async () => {
  for (const left of [1, 0]) {
    await page.getByRole("article").first().focus();
    await page.keyboard.press("Delete");
    assert.equal(await page.getByRole("article").count(), left);
  }
  await page.getByText("Nothing on the screen. Press / and name an instrument.").waitFor();
});

test("pictures at three sizes, dark and light", { timeout: 180_000 }, async () => {
  const sizes = { phone: [390, 844], laptop: [1280, 800], wide: [1920, 1080] };
  const list = await (await fetch(`${market.http}/v1/instruments`)).json();
  const all = list.instruments.map(({ symbol }) => symbol);
  for (const [size, [width, height]] of Object.entries(sizes)) {
    for (const colorScheme of ["dark", "light"]) {
      const some = size === "laptop" ? all.slice(0, 1) : size === "wide" ? all : all.slice(0, 5);
      const [opened, tab] = await open({ viewport: { width, height }, colorScheme, isMobile: size === "phone" }, `#show=${some.join(",")}`);
      await becomes(some[0], "live", tab);
      await until("some seconds are on the plots", async () => Number((await tab.locator("#latency-table td").nth(3).textContent()).match(/[0-9]/)?.[0] ?? NaN) >= 0 && (await tab.evaluate(() => globalThis.tickfan.drawing().count)) > 150);
      await tab.screenshot({ path: join(SHOTS, `${size}-${colorScheme}.png`) });
      const overflow = await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${size}: ${overflow} px hang over the edge`);
      await opened.close();
    }
  }
});

/** What fifty symbols at budget 0 cost the main thread, in bursts as the venue has them, and in a market more than ten times as fast. */
for (const rate of [undefined, 10_000]) test(`fifty symbols at budget 0 in bursts, ${rate === undefined ? "as often as the venue has them" : `at ${rate} messages a second`}`, { timeout: 180_000 }, async (t) => {
  const fast = await lab.market({ symbols: 50, rate, preset: "burst" });
  const { instruments } = await (await fetch(`${fast.http}/v1/instruments`)).json();
  const symbols = instruments.map(({ symbol }) => symbol);
  assert.equal(symbols.length, 50);
  const [opened, tab] = await open({}, `#show=${symbols.join(",")}&budget=0`, fast.http);
  await until("the first panels are live", async () => (await Promise.all(symbols.slice(0, 5).map((symbol) => shown(symbol, tab)))).every((panel) => panel?.state === "live"));
  // Those out of sight are not drawn, but whoever has them read aloud is told the truth.
  await until("all say that they are live", async () => (await tab.getByRole("article").evaluateAll((all) => all.filter((one) => one.getAttribute("aria-label").endsWith(", live")).length)) === 50);
  const measured = await mainThread(browser, 10_000);
  assert.ok(measured.frames > 50, `${measured.frames} frames were drawn`);
  t.diagnostic(`main thread per frame, ${measured.frames} frames: CPU p50 ${measured.cpuMs.p50} ms, p95 ${measured.cpuMs.p95} ms; wall p50 ${measured.wallMs.p50} ms, p95 ${measured.wallMs.p95} ms (bound of the issue: p95 8 ms)`);
  t.diagnostic(`on the page: ${(await tab.locator("#figures").innerText()).replaceAll("\n", " ")}`);
  await tab.screenshot({ path: join(SHOTS, rate === undefined ? "fifty.png" : "fifty-fast.png") });
  await tab.getByRole("article").last().scrollIntoViewIfNeeded();
  await until("who scrolls to the last finds its ladder", async () => (await shown(symbols.at(-1), tab))?.bids?.price.length >= 4);
  await tab.screenshot({ path: join(SHOTS, rate === undefined ? "fifty-last.png" : "fifty-fast-last.png") });
  await opened.close();
  await lab.stop(fast.id);
});

test("all that is loaded is small", async (t) => {
  const own = [...loaded].filter(([url]) => url.startsWith(market.http));
  const paths = own.map(([url]) => new URL(url).pathname);
  for (const path of ["/", "/page/worker.js", "/client.js"]) assert.ok(paths.includes(path), `${path} was seen, of ${paths}`);
  const sizes = await Promise.all(own.map(([, size]) => size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  t.diagnostic(`${bytes} bytes in ${own.length} files`);
  assert.ok(bytes > 20_000 && bytes <= BYTES_MAX, `${bytes} bytes`);
});

test("nothing was complained of, and complaints are noticed", async () => {
  assert.deepEqual(complaints, []);
  assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "globalThis.wasRun = true";
    document.body.append(script);
  });
  assert.equal(await page.evaluate(() => globalThis.wasRun), undefined);
  assert.equal((await page.evaluate(() => globalThis.violations)).length, 1);
  assert.equal(complaints.length, 1);
});

test("a gateway that goes and comes back is shown as gone, then live", { timeout: 60_000 }, async () => {
  const [opened, tab] = await open();
  await becomes("sim:BTCUSDT", "live", tab);
  await lab.kill(market.id);
  await becomes("sim:BTCUSDT", "disconnected", tab);
  await tab.getByText(/no connection; next try/).waitFor();
  await lab.start(market.id);
  await becomes("sim:BTCUSDT", "live", tab);
  await tab.getByText("connected", { exact: true }).waitFor();
  await opened.close();
  await context.close();
});
