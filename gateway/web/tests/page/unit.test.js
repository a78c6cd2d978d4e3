// The pure parts of the page, by themselves: exact decimals and groups, delays, stories, search, words.
//
// Run by .ci/page with Node. Expectations are written out by hand, or come from plain arithmetic on
// texts; nothing here uses the page's own code to judge it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

import { readAddress, writeAddress } from "../../page/address.js";
import { format, groupsOf, ladder, middle, parse, tickOf } from "../../page/exact.js";
import { BINS, BIN_MS, COLUMN, Delays } from "../../page/delays.js";
import { Listing } from "../../page/listing.js";
import { find } from "../../page/search.js";
import { Story } from "../../page/story.js";
import { budgetSays, lines, storySays } from "../../page/words.js";

/** A side of a book as the client reads it out. */
function levels(pairs, priceScale = 2, qtyScale = 3) {
  const scaled = (text, scale) => Math.round(Number(text) * 10 ** scale);
  return {
    length: pairs.length,
    priceScale,
    qtyScale,
    priceScaled: (index) => scaled(pairs[index][0], priceScale),
    qtyScaled: (index) => scaled(pairs[index][1], qtyScale),
    priceText: (index) => pairs[index][0],
    qtyText: (index) => pairs[index][1],
  };
}

test("decimals go through unharmed", () => {
  for (const [text, scale, mantissa] of [
    ["0", 0, 0n], ["0.00000001", 8, 1n], ["61799.9", 2, 6179990n], ["-0.5", 1, -5n], ["123456789012345678.9", 1, 1234567890123456789n],
  ]) {
    assert.equal(parse(text, scale), mantissa);
    assert.equal(format(mantissa, scale), text);
  }
  assert.equal(format(6179990n, 2, 2), "61799.90");
  assert.equal(format(5n, 0, 2), "5.00");
  assert.equal(format(-5n, 3), "-0.005");
});

test("groups are multiples of the tick, as exact texts", () => {
  assert.deepEqual(groupsOf("0.01").slice(0, 5), ["0.01", "0.02", "0.05", "0.1", "0.2"]);
  assert.deepEqual(groupsOf("0.25").slice(0, 3), ["0.25", "0.5", "1.25"]);
  assert.deepEqual(groupsOf("0"), []);
});

test("where no tick is listed there are no groups, until the digits of a book give one", () => {
  assert.deepEqual(groupsOf(undefined), []);
  assert.deepEqual([0, 2, 8].map(tickOf), ["1", "0.01", "0.00000001"]);
  assert.deepEqual(groupsOf(tickOf(2)).slice(0, 2), ["0.01", "0.02"]);
});

test("bids fall and asks rise to their group, and sums are exact", () => {
  const bids = levels([["10.07", "0.1"], ["10.05", "0.2"], ["10.01", "0.3"], ["9.99", "0.7"], ["9.5", "1"]]);
  assert.deepEqual(ladder(bids, true, 5n, 3), [
    { price: 1005n, size: 300n, sum: 300n },
    { price: 1000n, size: 300n, sum: 600n },
    { price: 995n, size: 700n, sum: 1300n },
  ]);
  const asks = levels([["10.07", "0.1"], ["10.1", "0.2"], ["10.11", "0.3"]]);
  assert.deepEqual(ladder(asks, false, 5n, 9), [
    { price: 1010n, size: 300n, sum: 300n },
    { price: 1015n, size: 300n, sum: 600n },
  ]);
});

test("a group below zero keeps its side", () => {
  const spread = levels([["-0.03", "1"]]);
  assert.equal(ladder(spread, true, 5n, 1)[0].price, -5n);
  assert.equal(ladder(spread, false, 5n, 1)[0].price, 0n);
});

test("numbers that no double holds are read from their text", () => {
  const side = levels([["90071992547409.93", "9007199254740.993"]]);
  const [row] = ladder(side, true, 1n, 1);
  assert.equal(format(row.price, 2), "90071992547409.93");
  assert.equal(format(row.size, 3), "9007199254740.993");
});

test("the middle of an odd spread has one digit more", () => {
  assert.deepEqual(middle(levels([["10.01", "1"]]), levels([["10.04", "1"]]), 2), { mid: "10.025", spread: "0.03" });
  assert.deepEqual(middle(levels([["10", "1"]]), levels([["10.4", "1"]]), 2), { mid: "10.20", spread: "0.40" });
  assert.equal(middle(levels([]), levels([["1", "1"]]), 2), undefined);
});

test("delays keep their order of size, and fall out after the span of the ring", () => {
  const delays = new Delays();
  for (let index = 0; index < 99; index += 1) delays.note(1000, 1, 1000);
  delays.note(1000, 1, 50_000);
  const [, inside] = delays.summary(1000);
  assert.ok(inside.p50 > 900 && inside.p50 < 1100, `p50 ${inside.p50}`);
  assert.equal(inside.max, 50_000);
  delays.noteLate(1000);
  assert.equal(delays.late(), 1);
  const columns = delays.columns(1000);
  assert.equal(columns[(BINS - 1) * COLUMN + 3], 50_000);
  assert.equal(columns[(BINS - 1) * COLUMN + COLUMN - 1], 1);
  assert.equal(delays.summary(1000 + BINS * BIN_MS)[1], undefined);
  assert.equal(delays.late(), 0);
});

test("a bin that comes round again begins empty", () => {
  const delays = new Delays();
  delays.note(0, 0, 7);
  delays.note(BINS * BIN_MS, 0, 9000);
  assert.equal(delays.summary(BINS * BIN_MS)[0].max, 9000);
  assert.ok(delays.summary(BINS * BIN_MS)[0].p50 > 8000);
});

test("nothing is beyond the worst", () => {
  const delays = new Delays();
  delays.note(0, 0, 9000);
  assert.deepEqual(delays.summary(0)[0], { p50: 9000, p99: 9000, max: 9000 });
  assert.deepEqual([...delays.columns(0).slice((BINS - 1) * COLUMN, (BINS - 1) * COLUMN + 2)], [9000, 9000]);
});

test("what is found has every word, and what begins with it comes first", () => {
  const list = ["BTCUSDT", "ETHBTC", "ETHUSDT"].map((native) => ({ symbol: `sim:${native}`, native, base: native.slice(0, 3), quote: native.slice(3), kind: "spot" }));
  assert.deepEqual(find(list, "btc").map(({ native }) => native), ["BTCUSDT", "ETHBTC"]);
  assert.deepEqual(find(list, "eth usdt").map(({ native }) => native), ["ETHUSDT"]);
  assert.deepEqual(find(list, "xyz"), []);
  assert.equal(find(list, "").length, 3);
});

test("what a venue does not list is no word that is found", () => {
  const bare = { symbol: "bitfinex:tBTCUSD", venue: "bitfinex", native: "tBTCUSD", price_scale: 2, qty_scale: 5, state: "live" };
  assert.deepEqual(find([bare], "undefined"), []);
  assert.deepEqual(find([bare], "bitfinex btc"), [bare]);
});

test("a stall is told by its runs: what had waited, then what is new", () => {
  const story = new Story("stall", "sim:BTCUSDT", 10_000, 5000);
  story.update("delta", 5000, 3, true, 10_001);
  story.update("delta", 4000, 4, false, 10_002);
  story.update("image", 3, 90, false, 10_004);
  story.update("delta", 2, 1, false, 10_010);
  assert.equal(story.isOver(10_010), true);
  assert.deepEqual(storySays(story.facts), [
    "Nothing was read for 5.0 s.",
    "First 2 deltas of BTCUSDT, sent 5.0 s to 4.0 s ago, which had waited on the way, 7 venue events merged in, 1 marked late.",
    "Then 1 whole book of BTCUSDT, sent 3 ms ago: the market as it is, 90 venue events merged in.",
    "In step again 4 ms after reading went on.",
  ]);
});

test("a cut tells the hole", () => {
  const story = new Story("cut", "sim:BTCUSDT", 0);
  story.opened(1600);
  story.hole(31, 1610);
  story.update("image", 1, 0, false, 1611);
  assert.deepEqual(storySays(story.facts).slice(1, 4), [
    "Connected again after 1.6 s.",
    "First 1 whole book of BTCUSDT, sent 1 ms ago: the market as it is.",
    "Hole: 1.6 s without a connection; 31 versions were never seen. Nothing is replayed: the book is the newest.",
  ]);
});

test("a story names its instrument in full, whatever it is called", () => {
  const story = new Story("stall", "bitfinex:tBTCF0:USTF0", 0, 5000);
  story.update("delta", 3, 0, false, 1);
  assert.match(storySays(story.facts)[1], /^First 1 delta of tBTCF0:USTF0, /);
});

test("a story without an end ends by itself", () => {
  const story = new Story("cut", "sim:BTCUSDT", 0);
  assert.equal(story.isOver(19_000), false);
  assert.equal(story.isOver(21_000), true);
  assert.match(storySays(story.facts).at(-1), /has not become current/);
});

test("lines name what is on the screen, and quote it", () => {
  const said = lines("wss://example.test/v1/stream", ["kraken:BTC/USD", "sim:BTCUSDT"], 20, 50);
  assert.ok(said.websocat.includes('{"op":"subscribe","channel":"book","symbols":["kraken:BTC/USD","sim:BTCUSDT"],"depth":20,"budget_ms":50}'));
  assert.ok(said.websocat.includes("websocat 'wss://example.test/v1/stream'"));
  assert.ok(said.javascript.includes('import("https://example.test/client.js")'));
  assert.ok(said.python.includes('["kraken:BTC/USD", "sim:BTCUSDT"]'));
});

test("whatever a symbol is called, the shell only passes it on", () => {
  const symbols = ["sim:A'; touch /tmp/x; '", "sim:$(id)`id`", 'sim:"\\n', "sim:B, C"];
  const { websocat } = lines("ws://example.test/v1/stream?a='b'", symbols, 20, 50);
  // What websocat would be given, as its input and as its argument.
  const said = execFileSync("sh", ["-c", `websocat() { cat; printf '%s' "$1"; }\n${websocat}`], { input: "", encoding: "utf8" });
  const [request, url] = said.split("\n");
  assert.deepEqual(JSON.parse(request).symbols, symbols);
  assert.equal(url, "ws://example.test/v1/stream?a='b'");
});

test("each budget is told in words", () => {
  assert.match(budgetSays(0, false), /at once/);
  assert.match(budgetSays(100, false), /100 ms .* 75 ms/);
  assert.match(budgetSays(1, false), /0\.75 ms/);
  assert.match(budgetSays(5, true), /cannot keep/);
});

test("the list is asked for less and less often, at random, and soon again when somebody begins to wait", () => {
  /** When it is asked for, by whoever looks each half second: milliseconds after the time before. */
  const waits = (listing, from, to) => {
    const asked = [from];
    listing.asked(from);
    for (let now = from; now <= to; now += 500) {
      if (!listing.isDue(now)) continue;
      asked.push(now);
      listing.asked(now);
    }
    return asked.slice(1).map((now, index) => now - asked[index]);
  };
  const latest = new Listing(() => 0);
  assert.ok(latest.isDue(0), "there is none to begin with");
  assert.deepEqual(waits(latest, 0, 60_000), [2000, 4000, 8000, 15_000, 15_000, 15_000]);
  assert.ok(!latest.isDue(60_500));
  latest.begin();
  assert.ok(latest.isDue(61_000), "what is two seconds old is asked for when the search begins");
  latest.asked(61_000);
  latest.begin();
  assert.ok(!latest.isDue(62_500), "not so soon after");
  assert.deepEqual(waits(new Listing(() => 1), 0, 30_000), [1000, 2000, 4000, 7500, 7500, 7500]);
});

test("an address is read as it was written, whatever symbols are called", () => {
  const symbols = ["sim:BTCUSDT", "kraken:BTC/USD", "bitfinex:tBTCF0:USTF0", "x:A,B", "x:A%2CB", "x:A&b=c", "x:A B", "x:A+B", "x:100%", "x:#1", "binance-usdm:币安人生USDT"];
  assert.deepEqual(readAddress(writeAddress(symbols, 50)), { symbols, budget: "50" });
  assert.deepEqual(readAddress(writeAddress(symbols)), { symbols, budget: null });
  assert.equal(writeAddress(["sim:BTCUSDT", "kraken:BTC/USD"], 0), "#show=sim:BTCUSDT,kraken:BTC/USD&budget=0");
});

test("an address of others is read as far as it names symbols", () => {
  assert.equal(readAddress(""), undefined);
  assert.equal(readAddress("#panels"), undefined);
  const symbolsOf = (text) => readAddress(`#show=${text}`).symbols;
  assert.deepEqual(symbolsOf("sim%3AA%2Csim%3AB"), ["sim:A", "sim:B"], "written by a program");
  assert.deepEqual(symbolsOf("sim:A,,sim:A,nonsense,sim:*,sim:,:A,%"), ["sim:A"]);
  assert.deepEqual(symbolsOf(`sim:${"A".repeat(124)},sim:${"B".repeat(125)}`), [`sim:${"A".repeat(124)}`]);
  assert.deepEqual(readAddress("#budget=5"), { symbols: [], budget: "5" });
});
