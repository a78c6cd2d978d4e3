// The same suite in headless Chromium, with the client as the gateway serves it: in a Worker, and what
// a page may do on the page.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./chromium.js";
import { Lab, hasRecordings } from "./lab.js";
import { serve } from "./lab_server.js";
import { cases } from "./suite/all.js";

/** What shows that the client runs on a page as well. */
const ON_PAGE = ["a book, bids and offers, and a tape are in step and say so"];

const lab = new Lab();
const withRecordings = hasRecordings();
let server;
let browser;
let page;
let gateway;

before(async () => {
  server = await serve(lab);
  browser = await launch();
  page = await browser.newPage();
  ({ http: gateway } = await lab.market({ symbols: 1, rate: 1 }));
  await page.goto(`${server.address}/browser/page.html`);
  await page.waitForFunction(() => window.runCase !== undefined);
});

after(async () => {
  await browser?.close();
  server?.close();
  await lab.stopAll();
});

function chromiumTest(where, one, encoding) {
  test(`chromium, ${where}: ${one.name} (${encoding})`, { timeout: 240_000 }, async (t) => {
    if (one.needsRecordings && !withRecordings) return t.diagnostic("passed without having been tested: there are no recordings");
    const run = ([name, ...rest]) => window.runCase(name, ...rest);
    const { error, reports } = await page.evaluate(run, [one.name, encoding, gateway, where === "page"]);
    for (const text of reports) t.diagnostic(text);
    assert.equal(error, undefined);
  });
}

for (const one of cases) {
  for (const encoding of one.encodings ?? ["binary", "json"]) {
    chromiumTest("worker", one, encoding);
    if (ON_PAGE.includes(one.name)) chromiumTest("page", one, encoding);
  }
}
