// How the page looks where there is little room: nothing that matters is cut off, nothing jumps, nothing is black.
// In Chromium against the real gateway, as page.test.js; every wait is for a condition.
//
// Run by .ci/page. TICKFAN_BIN and CHROMIUM as there.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "../chromium.js";
import { Lab } from "../lab.js";
import { until } from "../suite/check.js";

const SYMBOLS = ["sim:BTCUSDT", "sim:DOGEUSDT", "sim:ETHUSDT"];

const lab = new Lab();
let browser;
let market;

before(async () => {
  browser = await launch();
  market = await lab.market({ symbols: 4, rate: 200 });
});

after(async () => {
  await browser?.close();
  await lab.stopAll();
});

async function open(t, options) {
  const context = await browser.newContext({ colorScheme: "light", ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${market.http}/#show=${SYMBOLS.join(",")}`);
  await until("all are live", async () => (await page.getByRole("article").evaluateAll((all) => all.filter((one) => one.getAttribute("aria-label").endsWith(", live")).length)) === SYMBOLS.length);
  return page;
}

test("what is not drawn yet has the colour of the page", { timeout: 60_000 }, async (t) => {
  const page = await open(t, { viewport: { width: 390, height: 700 } });
  const last = page.getByRole("article").last();
  assert.ok(await last.evaluate((panel) => panel.getBoundingClientRect().top > innerHeight + 100), "it is out of sight");
  const colours = await last.evaluate((panel) => [...panel.querySelectorAll("canvas")].map((canvas) => {
    const copy = new OffscreenCanvas(1, 1).getContext("2d");
    copy.drawImage(canvas, 0, 0);
    return [...copy.getImageData(0, 0, 1, 1).data];
  }));
  assert.deepEqual(colours, Array(4).fill([255, 255, 255, 255]));
});

test("words that change move nothing that stands below them", { timeout: 60_000 }, async (t) => {
  const page = await open(t, { viewport: { width: 1280, height: 800 } });
  await page.getByText("clock offset +").or(page.getByText("clock offset −")).waitFor();
  const said = new Set();
  const places = new Set();
  const look = async () => {
    said.add(await page.locator("#budget-says").textContent());
    places.add(await page.getByRole("heading", { name: "Try it" }).evaluate((heading) => heading.getBoundingClientRect().top));
  };
  const steps = Number(await page.locator("#budget").getAttribute("max"));
  for (let step = 0; step <= steps; step += 1) {
    await page.locator("#budget").fill(String(step));
    await look();
  }
  assert.ok(said.size > steps, "each budget has words of its own");
  // As many late updates as there may be, and the widest offset.
  for (const [id, words] of [["late", "12,345 late (▼)"], ["offset", "clock offset −888.8 ms ± 88.8 ms, from pings"]]) {
    await page.locator(`#${id}`).evaluate((element, text) => { element.textContent = text; }, words);
    await look();
  }
  assert.equal(places.size, 1, `${[...places]} px from the top`);
});

test("on a phone a book that is no good says why, in full", { timeout: 60_000 }, async (t) => {
  const page = await open(t, { viewport: { width: 390, height: 844 }, isMobile: true });
  await lab.close(market.id);
  for (const symbol of SYMBOLS) {
    const state = page.locator(`[data-symbol="${symbol}"] .state`);
    await until(`${symbol} says so`, async () => /^stale · [1-9][0-9]? s · disconnected$/.test(await state.innerText()));
    const cut = await state.evaluate((element) => [element, ...element.querySelectorAll("span")].map((part) => part.scrollWidth - part.clientWidth).filter((px) => px > 0 && px < 390));
    assert.deepEqual(cut, [], `${symbol}: so many pixels are cut off`);
  }
});
