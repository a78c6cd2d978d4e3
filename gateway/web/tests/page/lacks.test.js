// The page where something is missing that it is used to: a tick, storage, a budget that is a number, instruments,
// a market that moves, a clock that nobody sets, an answer.
//
// Run by .ci/page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../suite/check.js";
import { becomes, shown, stage } from "./stage.js";

const { lab, open } = stage({ symbols: 2, rate: 200 });

test("a book that does not move is live again after a stall", { timeout: 60_000 }, async (t) => {
  // A message a second for all; the least of them is in none of the first hundreds.
  const { id, http } = await lab.market({ symbols: 50, rate: 1 });
  const quiet = "sim:SIM0050USDT";
  const { page, complaints } = await open(t, { at: http, hash: `#show=${quiet}` });
  // Its state may come before it is in sight and has rows.
  const { version } = await until("its rows are shown", async () => {
    const now = await shown(page, quiet);
    return now?.state === "live" && now.version !== undefined ? now : undefined;
  });
  await page.getByRole("button", { name: "Stall me" }).click();
  await becomes(page, quiet, "stalled");
  await becomes(page, quiet, "live");
  assert.deepEqual((await shown(page, quiet)).version, version, "it did not move meanwhile");
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});

test("a book out of sight that does not move is said to be live again after a stall", { timeout: 90_000 }, async (t) => {
  const { id, http } = await lab.market({ symbols: 50, rate: 1 });
  const { instruments } = await (await fetch(`${http}/v1/instruments`)).json();
  const { page, complaints } = await open(t, { at: http, hash: `#show=${instruments.map(({ symbol }) => symbol).join(",")}` });
  const last = page.getByRole("article").last();
  const says = (state) => until(`the last says ${state}`, async () => (await last.getAttribute("aria-label", { timeout: 30_000 })).includes(`, ${state}`));
  await says("live");
  assert.equal(await last.evaluate((one) => one.getBoundingClientRect().top > innerHeight), true, "it is out of sight");
  await page.getByRole("button", { name: "Stall me" }).click();
  await says("stalled");
  await says("live");
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});

test("a page that is opened before there are instruments shows them when they are there", { timeout: 60_000 }, async (t) => {
  const { id, http } = await lab.market({ symbols: 2 });
  await lab.kill(id);
  await lab.hold(id);
  await lab.start(id);
  const { page, complaints } = await open(t, { at: http });
  await page.getByText("The gateway has no instruments").waitFor();
  await page.keyboard.press("/");
  await page.getByText("The list of instruments has not come yet").waitFor();
  await lab.release(id);
  await page.getByRole("option", { name: "ETHUSDT" }).click();
  await becomes(page, "sim:ETHUSDT", "live");
  await becomes(page, "sim:BTCUSDT", "live");
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});

test("what is listed while somebody searches is found", { timeout: 120_000 }, async (t) => {
  const { id, http } = await lab.venues(["binance-spot", "okx"]);
  await lab.kill(id);
  await lab.hold(id, "okx");
  await lab.start(id);
  const { page, complaints } = await open(t, { at: http, hash: "#show=binance-spot:BTCUSDT" });
  await becomes(page, "binance-spot:BTCUSDT", "live");
  await page.keyboard.press("/");
  await page.keyboard.type("okx");
  await page.getByText("Nothing is called “okx”").waitFor();
  await lab.release(id);
  await page.getByRole("option", { name: "BTC-USDT" }).waitFor({ timeout: 60_000 });
  await page.keyboard.press("Enter");
  await becomes(page, "okx:BTC-USDT", "live");
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});

test("where a browser keeps nothing for pages, the page runs and its theme is switched", { timeout: 60_000 }, async (t) => {
  const prepare = () => Object.defineProperty(globalThis, "localStorage", {
    get() {
      throw new DOMException("access is denied", "SecurityError");
    },
  });
  const { page, complaints } = await open(t, { prepare });
  assert.equal(await page.evaluate(() => {
    try {
      return localStorage.length;
    } catch ({ name }) {
      return name;
    }
  }), "SecurityError");
  await becomes(page, "sim:BTCUSDT", "live");
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  await page.keyboard.press("t");
  const first = await theme();
  await page.keyboard.press("t");
  assert.deepEqual([first, await theme()].sort(), ["dark", "light"]);
  assert.deepEqual(complaints, []);
});

test("an address whose budget is none is shown at the usual one", { timeout: 120_000 }, async (t) => {
  const wanted = { abc: "100 ms", "-1": "100 ms", "1.5": "100 ms", "": "100 ms", 0: "0 ms", 50: "50 ms", "99999999999999999999": "1 s" };
  for (const [budget, said] of Object.entries(wanted)) {
    const { page, complaints } = await open(t, { hash: `#show=sim:BTCUSDT&budget=${budget}` });
    await becomes(page, "sim:BTCUSDT", "live");
    assert.equal(await page.locator("#budget-value").textContent(), said, `budget=${budget}`);
    assert.equal(await page.locator("#link").textContent().then((text) => text.trim()), "connected");
    assert.deepEqual(complaints, []);
  }
});

test("the JavaScript that is copied outlives its connection", { timeout: 60_000 }, async (t) => {
  const { id, http } = await lab.market({ symbols: 1 });
  const { page } = await open(t, { at: http });
  await becomes(page, "sim:BTCUSDT", "live");
  const [logged, ends] = [[], []];
  page.on("console", (message) => logged.push(message.text()));
  page.on("pageerror", (error) => ends.push(String(error.stack)));
  await page.getByRole("tab", { name: "JavaScript" }).click();
  await page.evaluate(`void (async () => { ${await page.locator("#lines").textContent()}\n })()`);
  const says = (kind) => until(`${kind} is logged`, () => logged.some((line) => line.startsWith(`sim:BTCUSDT ${kind}`)));
  await says("image");
  await lab.kill(id);
  await says("state");
  logged.length = 0;
  await lab.start(id);
  await says("image");
  assert.deepEqual(ends, []);
  await lab.stop(id);
});

test("an instrument without a listing is shown with the digits of its prices, and found", { timeout: 60_000 }, async (t) => {
  const { id, http } = await lab.venue({ venue: "bitfinex", symbols: ["tBTCUSD", "tETHUSD"] });
  const [one] = (await (await fetch(`${http}/v1/instruments`)).json()).instruments;
  assert.deepEqual([one.tick, one.base, one.kind], [undefined, undefined, undefined], "the venue lists nothing of it");
  const { page, complaints } = await open(t, { at: http, hash: "#show=bitfinex:tBTCUSD" });
  await becomes(page, "bitfinex:tBTCUSD", "live");
  const { bids, group } = await until("rows are in the groups of the book", async () => {
    const now = await shown(page, "bitfinex:tBTCUSD");
    return now.group !== "" && now.bids?.price.length > 3 ? now : undefined;
  });
  assert.equal(group, "0.01");
  for (const price of bids.price) assert.match(price, /^[0-9]+\.[0-9]{2}$/);

  await page.keyboard.press("/");
  await page.keyboard.type("eth");
  const option = page.getByRole("option", { name: "tETHUSD" });
  await option.waitFor();
  assert.equal(await option.locator("span").textContent(), "bitfinex");
  await page.keyboard.press("Enter");
  await becomes(page, "bitfinex:tETHUSD", "live");
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});

test("what a link names and nobody lists yet stays, says so, and comes alive", { timeout: 120_000 }, async (t) => {
  const { id, http } = await lab.venues(["binance-spot", "okx"]);
  await lab.kill(id);
  await lab.hold(id, "okx");
  await lab.start(id);
  const hash = "#show=okx:BTC-USDT,binance-spot:BTCUSDT,nope:A_B";
  const { page, complaints } = await open(t, { at: http, hash });
  const label = (symbol) => page.locator(`[data-symbol="${symbol}"]`).getAttribute("aria-label");
  await becomes(page, "binance-spot:BTCUSDT", "live");
  for (const symbol of ["okx:BTC-USDT", "nope:A_B"]) {
    await becomes(page, symbol, "unlisted");
    assert.match(await label(symbol), new RegExp(`^${symbol}, not listed · no instrument "${symbol}"`));
    assert.match(await page.locator(`[data-symbol="${symbol}"]`).getAttribute("class"), /dim/);
  }
  assert.equal(new URL(page.url()).hash, hash);

  await lab.release(id);
  await until("it is live", async () => (await shown(page, "okx:BTC-USDT")).state === "live", 60_000);
  const panel = page.locator('[data-symbol="okx:BTC-USDT"]');
  await until("its name is that of its listing", async () => (await panel.locator("h2").innerText()).includes("BTC/USDT"));
  await panel.focus();
  await until("its trades are told", async () => /^Trades, newest/.test(await panel.locator("canvas.tape").getAttribute("aria-label")));
  assert.equal((await shown(page, "nope:A_B")).state, "unlisted");
  assert.equal(new URL(page.url()).hash, hash);
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});

test("a link that is followed in the same tab is shown, and that which skips to the books changes nothing", { timeout: 60_000 }, async (t) => {
  const { page, complaints } = await open(t, { hash: "#show=sim:BTCUSDT" });
  await becomes(page, "sim:BTCUSDT", "live");
  const loaded = page.waitForEvent("load");
  await page.evaluate(() => { location.hash = "#show=sim:ETHUSDT&budget=50"; });
  await loaded;
  await becomes(page, "sim:ETHUSDT", "live");
  assert.equal(await shown(page, "sim:BTCUSDT"), undefined);
  const { href } = new URL(page.url());
  await page.locator(".skip").focus();
  await page.keyboard.press("Enter");
  await until("the books have the focus", () => page.evaluate(() => document.activeElement.id === "panels"));
  await until("the address names them again", () => page.url() === href);
  assert.equal((await shown(page, "sim:ETHUSDT")).state, "live");
  assert.deepEqual(complaints, []);
});

test("ages and waits are right though the system's clock was set", { timeout: 60_000 }, async (t) => {
  const prepare = () => {
    const { now } = Date;
    Date.now = () => now() + 3_600_000;
  };
  const { page } = await open(t, { prepare });
  await becomes(page, "sim:BTCUSDT", "live");
  await page.getByRole("button", { name: "Cut my" }).click();
  const said = await until("it is told", () => page.evaluate(() => {
    const label = document.querySelector(".panel").getAttribute("aria-label");
    const link = document.querySelector("#link").innerText;
    return label.includes("disconnected") && link.includes("next try") ? `${label}; ${link}` : undefined;
  }));
  assert.match(said, /^sim:BTCUSDT, disconnected · [0-2] s · .*; no connection; next try in [0-2] s$/);
});

test("a panel that changes its size twice before the gateway answers goes on as it was", { timeout: 60_000 }, async (t) => {
  const { id, http } = await lab.market({ symbols: 6 });
  const { instruments } = await (await fetch(`${http}/v1/instruments`)).json();
  const [large, small] = instruments.map(({ symbol }) => symbol);
  const prepare = () => {
    globalThis.heard = [];
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (...args) {
      this.onmessage ??= ({ data }) => globalThis.heard.push(data);
      postMessage.apply(this, args);
    };
  };
  const { page, complaints } = await open(t, { at: http, hash: `#show=${instruments.map(({ symbol }) => symbol).join(",")}`, prepare });
  for (const symbol of [large, small]) await becomes(page, symbol, "live");
  await lab.pause(id);
  // Once there and back again, before anything else happens on the page.
  const told = await page.evaluate(async ([one, other]) => {
    const panel = (symbol) => document.querySelector(`[data-symbol="${symbol}"]`);
    globalThis.heard.length = 0;
    for (const symbol of [other, one]) {
      panel(symbol).dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
      await null;
    }
    // Figures come twice a second: with the second of them, what followed from both changes has come.
    while (globalThis.heard.filter(({ figures }) => figures).length < 2) await new Promise(requestAnimationFrame);
    return globalThis.heard.flatMap(({ panels = [] }) => panels).filter(({ symbol }) => symbol === one || symbol === other);
  }, [large, small]);
  assert.deepEqual([...new Set(told.map(({ symbol }) => symbol))].sort(), [large, small].sort());
  assert.ok(told.every(({ state }) => state !== "ended"), `${JSON.stringify(told.map(({ symbol, state }) => [symbol, state]))}`);
  await lab.resume(id);
  assert.deepEqual(complaints, []);
  await lab.stop(id);
});
