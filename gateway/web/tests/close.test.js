// Whoever closes a client from within what it tells ends it for good: no connection is made anew, and nothing
// keeps Node alive. So each case is a program of its own, that has to end by itself.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { Lab } from "./lab.js";

const CLIENT = new URL("../client.js", import.meta.url);

/** What closes the client, of programs that have a `client`. */
const CLOSES = {
  "the greeting": `client.on("open", () => client.close());`,
  "a book that is whole": `client.book("sim:BTCUSDT").onChange((book) => book.state === "live" && client.close());`,
  "a book that lost its connection": `
    client.book("sim:BTCUSDT").onChange((book) => {
      if (book.state === "live") client.cut(0);
      if (book.state === "disconnected") client.close();
    });`,
  "a lost connection": `
    client.on("open", () => client.cut(0));
    client.on("close", () => client.close());`,
  "an update": `client.subscribe({ channel: "trades", symbols: "sim:*", last: 10, budgetMs: 0 }, () => client.close());`,
  "a frame": `client.on("frame", () => client.close());`,
};

const lab = new Lab();
let market;

before(async () => {
  market = await lab.market({ symbols: 2 });
});

after(() => lab.stopAll());

for (const [what, code] of Object.entries(CLOSES)) {
  test(`closed by ${what}, a program ends`, { timeout: 30_000 }, async (t) => {
    const program = `
      import { connect } from ${JSON.stringify(CLIENT.href)};
      const client = connect(${JSON.stringify(market.url)}, { pingMs: 100, heartbeatMs: 250 });
      process.on("exit", () => console.log(client.state, client.stats().reconnects));
      ${code}`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => child.kill("SIGKILL"));
    const ended = once(child, "exit");
    const said = (await Array.fromAsync(child.stdout.setEncoding("utf8"))).join("");
    assert.deepEqual(await ended, [0, null]);
    assert.match(said, /^closed [01]\n$/);
  });
}
