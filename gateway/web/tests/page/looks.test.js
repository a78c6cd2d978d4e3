// How the page looks where there is little room, or much: nothing that matters is cut off, nothing jumps, nothing is black,
// nothing is left empty.
//
// Run by .ci/page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { budgetSays } from "../../page/words.js";
import { until } from "../suite/check.js";
import { stage } from "./stage.js";

const SYMBOLS = ["sim:BTCUSDT", "sim:DOGEUSDT", "sim:ETHUSDT"];

const set = stage({ symbols: 9, rate: 200 });

/** Opens a page with some symbols, all of them live. */
async function open(t, options, symbols = SYMBOLS) {
  const { page } = await set.open(t, { colorScheme: "light", hash: `#show=${symbols.join(",")}`, ...options });
  const areLive = () => page.getByRole("article").evaluateAll((all) => all.filter((one) => one.getAttribute("aria-label").endsWith(", live")).length);
  await until("all are live", async () => (await areLive()) === symbols.length);
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
  // As many late updates as there may be, the widest offset, and a budget that cannot be kept.
  const widest = { late: "12,345 late (▼)", offset: "clock offset −888.8 ms ± 88.8 ms, from pings", "budget-says": budgetSays(5, true) };
  // In one go: what the gateway says of itself meanwhile comes after it.
  const looks = await page.evaluate((others) => {
    const part = (id) => document.getElementById(id);
    const look = () => ({ said: part("budget-says").textContent, top: part("try-title").getBoundingClientRect().top });
    const budgets = Array.from({ length: Number(part("budget").max) + 1 }, (_, step) => {
      part("budget").value = step;
      part("budget").dispatchEvent(new Event("input"));
      return look();
    });
    const rest = Object.entries(others).map(([id, words]) => {
      part(id).textContent = words;
      return look();
    });
    return { budgets, rest };
  }, widest);
  assert.equal(new Set(looks.budgets.map(({ said }) => said)).size, looks.budgets.length, "each budget has words of its own");
  assert.ok(looks.budgets.length > 5, `${looks.budgets.length} budgets`);
  const places = new Set([...looks.budgets, ...looks.rest].map(({ top }) => top));
  assert.equal(places.size, 1, `${[...places]} px from the top`);
});

test("up to nine panels fill a wide screen, and none stands alone", { timeout: 120_000 }, async (t) => {
  const { instruments } = await (await fetch(`${set.market.http}/v1/instruments`)).json();
  for (const count of [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    const page = await open(t, { viewport: { width: 1920, height: 1080 } }, instruments.slice(0, count).map(({ symbol }) => symbol));
    const { filled, isAbove } = await page.locator("#panels").evaluate((all) => {
      const gap = parseFloat(getComputedStyle(all).gap);
      const area = ({ width, height }) => (width + gap) * (height + gap);
      const panels = [...all.querySelectorAll(".panel")].map((panel) => panel.getBoundingClientRect());
      return { filled: panels.reduce((sum, panel) => sum + area(panel), 0) / area(all.getBoundingClientRect()), isAbove: panels.every(({ bottom }) => bottom <= innerHeight) };
    });
    assert.ok(Math.abs(filled - 1) < 0.01, `${count} panels fill ${filled} of their place`);
    assert.ok(isAbove, `${count} panels are in sight`);
    await page.context().close();
  }
});

test("on a phone a book that is no good says why, in full", { timeout: 60_000 }, async (t) => {
  const page = await open(t, { viewport: { width: 390, height: 844 }, isMobile: true });
  await set.lab.close(set.market.id);
  for (const symbol of SYMBOLS) {
    const state = page.locator(`[data-symbol="${symbol}"] .state`);
    await until(`${symbol} says so`, async () => /^stale · [1-9][0-9]? s · disconnected$/.test(await state.innerText()));
    const cut = await state.evaluate((element) => [element, ...element.querySelectorAll("span")].map((part) => part.scrollWidth - part.clientWidth).filter((px) => px > 0 && px < 390));
    assert.deepEqual(cut, [], `${symbol}: so many pixels are cut off`);
  }
});
