// The pure parts of the client against naive ones: decimals, ladders, retries, the clock.

import assert from "node:assert/strict";
import { test } from "node:test";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { connect } from "../client.js";
import { Offset, Rate } from "../client/clock.js";
import { micros, toNumber, toText, unsignedText, writeMantissa } from "../client/decimal.js";
import { Ladder, Levels, LevelsBroken } from "../client/levels.js";
import { waitMs } from "../client/retry.js";
import { Subscription } from "../client/subscription.js";
import { decodeBinary } from "../client/wire.js";

/** The same draws for the same seed. */
function draws(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * below);
  };
}

function wordsOf(mantissa) {
  return { lo: Number(BigInt.asIntN(32, mantissa)), hi: Number(BigInt.asIntN(64, mantissa) >> 32n) };
}

/** The shortest decimal, by the book and with big integers only. */
function naiveText(mantissa, scale) {
  const sign = mantissa < 0n ? "-" : "";
  const digits = String(mantissa < 0n ? -mantissa : mantissa).padStart(scale + 1, "0");
  const whole = digits.slice(0, digits.length - scale);
  const fraction = digits.slice(digits.length - scale).replace(/0+$/, "");
  return sign + (fraction === "" ? whole : `${whole}.${fraction}`);
}

test("a decimal is written and read as big integers would", () => {
  const draw = draws(7);
  const limits = [0n, 1n, -1n, 2n ** 53n, -(2n ** 53n), 2n ** 63n - 1n, -(2n ** 63n), 4294967296n, -4294967297n];
  const random = Array.from({ length: 5000 }, () => {
    const bits = BigInt(1 + draw(63));
    return BigInt.asIntN(64, ((BigInt(draw(2 ** 31)) << 32n) | BigInt(draw(2 ** 31)) * 2n) % (1n << bits)) * (draw(2) ? 1n : -1n);
  });
  for (const mantissa of [...limits, ...random]) {
    for (const scale of [0, 2, 8, 18]) {
      const { hi, lo } = wordsOf(mantissa);
      const text = naiveText(mantissa, scale);
      assert.equal(toText(hi, lo, scale), text);
      assert.equal(toNumber(hi, lo, scale), Number(text));
      const words = new Int32Array(2);
      writeMantissa(text, scale, words, 0);
      assert.deepEqual([...words], [lo, hi], text);
    }
  }
});

test("what is no decimal of the scale is refused", () => {
  for (const text of ["", "1e5", "1.", ".5", "+1", "0x1", " 1", "1.001", "NaN", "9223372036854775808", 5, null, undefined]) {
    assert.throws(() => writeMantissa(text, 2, new Int32Array(2), 0), Error, String(text));
  }
});

test("nanoseconds become microseconds exactly", () => {
  const draw = draws(3);
  for (let turn = 0; turn < 5000; turn += 1) {
    const ns = (BigInt(draw(2 ** 30)) << 32n) | BigInt(draw(2 ** 32));
    const [hi, lo] = [Number(ns >> 32n), Number(ns & 0xffffffffn)];
    assert.equal(BigInt(micros(hi, lo)), ns / 1000n);
    assert.equal(unsignedText(hi, lo), String(ns));
  }
});

function levelsOf(rows, priceScale = 2) {
  const words = new Int32Array(rows.length * 4);
  rows.forEach(([price, qty], index) => {
    const [one, other] = [wordsOf(price), wordsOf(qty)];
    words.set([one.lo, one.hi, other.lo, other.hi], index * 4);
  });
  return new Levels(words, 0, rows.length, priceScale, 0);
}

test("a ladder holds what a map would, best first", () => {
  for (const [seed, sign] of [[1, 1], [2, -1], [3, 1], [4, -1]]) {
    const draw = draws(seed);
    const ladder = new Ladder(sign);
    const map = new Map();
    // Prices around zero and beyond what a double holds.
    const base = seed > 2 ? 2n ** 60n : 0n;
    for (let turn = 0; turn < 3000; turn += 1) {
      const price = base + BigInt(draw(120) - 60);
      const isRemoved = map.has(price) && draw(3) === 0;
      const qty = isRemoved ? 0n : BigInt(1 + draw(1000)) * 4294967296n;
      if (isRemoved) map.delete(price);
      else map.set(price, qty);
      ladder.change(levelsOf([[price, qty]]));
      if (turn % 100 === 0) {
        const copy = new Ladder(sign);
        copy.replace(ladder);
        assert.deepEqual(copy.toJSON(), ladder.copy().toJSON());
      }
      const expected = [...map].sort(([one], [other]) => (one < other ? 1 : -1) * sign).map(([p, q]) => [naiveText(p, 2), naiveText(q, 0)]);
      if (turn % 10 === 0) assert.deepEqual(ladder.toJSON(), expected);
    }
  }
});

test("a ladder refuses what cannot be", () => {
  const ladder = new Ladder(1);
  assert.throws(() => ladder.replace(levelsOf([[1n, 1n], [2n, 1n]])), LevelsBroken);
  assert.throws(() => ladder.replace(levelsOf([[1n, 1n], [1n, 1n]])), LevelsBroken);
  ladder.replace(levelsOf([[2n, 1n], [1n, 1n]]));
  assert.throws(() => ladder.change(levelsOf([[3n, 0n]])), LevelsBroken);
  assert.throws(() => ladder.change(levelsOf([[3n, 1n]], 3)), LevelsBroken);
  assert.throws(() => ladder.price(2), RangeError);
  assert.equal(ladder.at(2), undefined);
  assert.deepEqual(ladder.at(-1), { price: 0.01, qty: 1, priceText: "0.01", qtyText: "1" });
});

test("when to come back is what the protocol says", () => {
  const times = { firstMs: 500, maxMs: 15_000 };
  const wait = (code, reason = "", { attempts = 0, retryAfterMs, random = 1 } = {}) => waitMs({ code, reason, retryAfterMs }, attempts, times, random);
  for (const code of [1002, 1003, 1007, 1008, 1009, 4001, 4003, 4005]) assert.equal(wait(code), undefined, String(code));
  for (const code of [1001, 1012]) assert.equal(wait(code, "deploy", { retryAfterMs: 3400 }), 3400);
  for (const code of [4101, 4102]) assert.equal(wait(code, "gateway_full: 3400"), 3400);
  for (const code of [4201, 4202]) {
    assert.equal(wait(code), 0);
    assert.equal(wait(code, "", { attempts: 3 }), 4000);
  }
  for (const code of [1000, 1006, 1011, 1012, 4101]) {
    assert.deepEqual([0, 1, 2, 5, 99].map((attempts) => wait(code, "", { attempts })), [500, 1000, 2000, 15_000, 15_000]);
    assert.equal(wait(code, "", { attempts: 9, random: 0 }), 0);
  }
});

test("the quickest ping tells the offset", () => {
  const offset = new Offset();
  assert.equal(offset.estimate(), undefined);
  // The gateway is 1,000 ahead; the first ping was held up on its way back.
  offset.add(10_000, 11_100, 11_150, 15_150);
  offset.add(20_000, 21_100, 21_150, 20_250);
  offset.add(30_000, 31_400, 31_400, 30_500);
  assert.deepEqual(offset.estimate(), { rttUs: 500, offsetUs: 1000, offsetErrorUs: 100 });
});

test("after a clock stood still, or drifted away, no ping of before tells the offset", () => {
  const offset = new Offset();
  offset.add(10_000, 11_100, 11_100, 10_200);
  offset.add(20_000, 21_050, 21_050, 20_100);
  assert.deepEqual(offset.estimate(), { rttUs: 100, offsetUs: 1000, offsetErrorUs: 50 });
  // Ours stood still for three seconds, as clocks of pages do while the machine sleeps.
  offset.add(30_000, 3_031_250, 3_031_250, 30_500);
  assert.deepEqual(offset.estimate(), { rttUs: 500, offsetUs: 3_001_000, offsetErrorUs: 250 });
  // What agrees with the newest is kept, as far as it is quicker.
  offset.add(40_000, 3_041_150, 3_041_150, 40_300);
  offset.add(50_000, 3_051_500, 3_051_500, 51_000);
  assert.deepEqual(offset.estimate(), { rttUs: 1000, offsetUs: 3_001_000, offsetErrorUs: 150 });
});

test("a loop that is always a little behind costs no more for it", async () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc");
  let handle;
  const registry = { attach: (one) => { handle = one; }, settled: () => new Promise(() => {}), detach: () => true };
  const loop = new Subscription({ registry, error() {}, conflated() {}, forget() {} }, { channel: "bbo", symbols: "sim:A" })[Symbol.asyncIterator]();
  const view = { symbol: "sim:A" };
  const used = () => {
    gc();
    return getHeapStatistics().used_heap_size;
  };
  handle.onUpdate({ seq: 0 }, view);
  const before = used();
  for (let seq = 1; seq <= 500_000; seq += 1) {
    handle.onUpdate({ seq }, view);
    assert.equal((await loop.next()).value.seq, seq - 1);
  }
  const more = used() - before;
  assert.ok(more < 2e6, `${more} bytes more after half a million updates`);
});

test("a rate is of the last second", () => {
  const rate = new Rate();
  const second = 1_000_000;
  for (let tenth = 0; tenth < 20; tenth += 1) rate.add(5, 50 * second + tenth * 100_000);
  assert.equal(rate.perS(52 * second - 1), 50);
  assert.equal(rate.perS(52 * second + 400_000), 25);
  assert.equal(rate.perS(60 * second), 0);
});

test("a trade that is kept does not keep the frame that brought it", () => {
  const frame = new DataView(new ArrayBuffer(32 + 64 + 8 + 40));
  frame.setUint16(0, 0x4654, true);
  frame.setUint8(2, 1);
  frame.setUint16(4, 1, true);
  const [record, trade] = [32, 32 + 64 + 8];
  frame.setUint32(record, 64 + 8 + 40, true);
  frame.setUint8(record + 4, 4);
  frame.setUint8(record + 5, 1);
  frame.setUint16(record + 6, (2 << 8) | (3 << 12), true);
  frame.setUint32(record + 64, 1, true);
  frame.setBigInt64(trade + 8, 15_050n, true);
  frame.setBigInt64(trade + 16, -7n, true);
  const [{ trades }] = decodeBinary(frame.buffer).updates;
  structuredClone(frame.buffer, { transfer: [frame.buffer] });
  assert.equal(frame.buffer.byteLength, 0, "the frame is gone");
  assert.deepEqual([trades[0].priceText, trades[0].qtyText], ["150.5", "-0.007"]);
});

test("what cannot be meant is refused with what can", () => {
  for (const url of ["", "http://", "ftp://x", "host:99999", "ws://a b"]) {
    assert.throws(() => connect(url), { name: "TypeError", message: /like "127\.0\.0\.1:8080".* came$/ }, url);
  }
  const client = connect("127.0.0.1:1");
  client.on("error", () => {});
  for (const symbols of [["sim:A", "sim:B"], "sim:*", undefined]) {
    assert.throws(() => client.book(symbols), { name: "TypeError", message: /^one symbol is expected here/ });
  }
  client.close();
  assert.throws(() => connect("host", { encoding: "xml" }), { name: "TypeError", message: /"binary" or "json"; "xml" came/ });
});
