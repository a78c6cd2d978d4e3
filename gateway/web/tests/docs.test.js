// The programs in the documents of the JavaScript client, as they stand there, through what comes before a whole
// book: an acknowledgement, and a market that has one side.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { until } from "./suite/check.js";
import { ACK, IMAGE, scripted } from "./scripted.js";

/** The first block of JavaScript of a document that imports the package, at another address and from here. */
async function program(document, address) {
  const text = await readFile(new URL(document, import.meta.url), "utf8");
  const [, code] = /```js\n(import [^]*?)```/.exec(text);
  const here = code.replace('from "tickfan"', `from ${JSON.stringify(new URL("../client.js", import.meta.url).href)}`).replaceAll("127.0.0.1:8080", address);
  assert.ok(!here.includes('"tickfan"') && here.includes(address), `it is the program that was meant: ${here}`);
  return here.replace("sim:BTCUSDT", "sim:A");
}

/** Runs it; gives the lines that it has said so far. */
function run(t, code) {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", code], { stdio: ["ignore", "pipe", "pipe"] });
  const said = { text: "" };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      said.text += text;
    });
  }
  t.after(async () => {
    if (child.exitCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  });
  return (line) => until(`it says ${line}`, () => {
    assert.equal(child.exitCode, null, `it ended: ${said.text}`);
    return said.text.split("\n").includes(line);
  });
}

test("the program of the README goes from the acknowledgement to the book", { timeout: 60_000 }, async (t) => {
  const { address, connections } = await scripted(t, () => {});
  const says = run(t, await program("../README.md", address));
  await says("connecting undefined undefined undefined");
  connections[0].frame(IMAGE);
  await says("live 1.5 1.6 1.55");
});

test("the program of JAVASCRIPT.md goes through a market that has one side", { timeout: 60_000 }, async (t) => {
  const { address, connections } = await scripted(t, () => {}, () => ({ ...ACK, channel: "bbo", depth: undefined }));
  const says = run(t, await program("../../../docs/JAVASCRIPT.md", address));
  const bbo = { t: "bbo", v: 3, s: 10, b: null, a: ["1.6", "3"] };
  await until("it has subscribed", () => connections[0]?.asked.some(({ op }) => op === "subscribe"));
  connections[0].frame(bbo);
  await says("sim:A undefined 1.6 merged 0");
  connections[0].frame({ ...bbo, s: 12, b: ["1.5", "2"] });
  await says("sim:A 1.5 1.6 merged 1");
});
