// What the tests of the page begin with: a browser, a gateway on a simulated market, and pages of gateways whose
// complaints are kept. In Chromium against the real gateway; every wait is for a condition.
//
// TICKFAN_BIN, CHROMIUM  as in lab.js and chromium.js

import { after, before } from "node:test";
import { launch } from "../chromium.js";
import { Lab } from "../lab.js";
import { until } from "../suite/check.js";

/** Sets it up for the file that calls it: `lab`, `market` once the tests begin, and `open`. */
export function stage(terms) {
  const lab = new Lab();
  let browser;
  const set = {
    lab,
    market: undefined,

    /** Opens the page of a gateway, until the test is over: the page, and what it complains of. */
    async open(t, { at = set.market.http, hash = "", prepare, ...options } = {}) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
      t.after(() => context.close());
      const page = await context.newPage();
      const complaints = [];
      page.on("pageerror", (error) => complaints.push(String(error.stack)));
      page.on("console", (message) => {
        if (message.type() === "error") complaints.push(message.text());
      });
      if (prepare) await page.addInitScript(prepare);
      await page.goto(`${at}/${hash}`);
      return { page, complaints };
    },
  };

  before(async () => {
    browser = await launch();
    set.market = await lab.market(terms);
  });

  after(async () => {
    await browser?.close();
    await lab.stopAll();
  });

  return set;
}

/** What a panel has on the screen; undefined where there is none. */
export const shown = (page, symbol) => page.evaluate((name) => globalThis.tickfan.shown(name), symbol);

export const becomes = (page, symbol, state) => until(`${symbol} is ${state}`, async () => (await shown(page, symbol))?.state === state);
