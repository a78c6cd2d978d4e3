// A gateway that is wrong: the client must say so, ask again or give up, and never show a wrong book as right.
// The gateway is a script here, because the real one does none of this.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../client.js";
import { ACK, IMAGE, scripted } from "./scripted.js";
import { until } from "./suite/check.js";

/** A client of a scripted gateway, and what it says went wrong. */
async function script(t, asked, options = {}, answer = undefined) {
  const { address, connections } = await scripted(t, asked, answer);
  const client = connect(address, { encoding: "json", pingMs: 0, reconnect: { firstMs: 10, maxMs: 20 }, ...options });
  const errors = [];
  client.on("error", (error) => errors.push(error));
  t.after(() => client.close());
  return { client, connections, errors };
}

/** What comes right after the subscription, and what must be noticed. */
const BREAKS = [
  ["a change that follows another version", { t: "delta", v: 3, s: 12, p: 11, b: [["1.5", "0"]], a: [] }, /version 11/],
  ["a level that is removed and was never held", { t: "delta", v: 3, s: 11, p: 10, b: [["1.4", "0"]], a: [] }, /does not hold/],
  ["a number that is finer than its book", { t: "delta", v: 3, s: 11, p: 10, b: [["1.45", "1"]], a: [] }, /scales/],
];

for (const [name, update, reason] of BREAKS) {
  test(`${name}: the book says so, asks for an image, and is right again`, { timeout: 60_000 }, async (t) => {
    const { client, connections, errors } = await script(t, (message, connection) => {
      if (message.op === "subscribe") connection.frame(IMAGE, update, { ...update, s: 14, p: 12 });
    });
    const told = [];
    client.subscribe({ channel: "book", symbols: "sim:A" }, ({ kind, state, seq }) => told.push([kind, state, seq]));
    const book = client.book("sim:A");
    await until("it is noticed", () => book.state === "resync");
    assert.match(book.reason, reason);
    await until("an image is asked for", () => connections[0].asked.some(({ op }) => op === "image"));
    assert.deepEqual(connections[0].asked.find(({ op }) => op === "image"), { op: "image", views: [3] });
    assert.equal(book.state, "resync");
    connections[0].frame({ ...IMAGE, s: 20, b: [["1.3", "1"]] });
    await until("it is right again", () => book.state === "live");
    assert.deepEqual([book.seq, book.reason, book.bids.toJSON(), client.stats().resyncs], [20, "", [["1.3", "1"]], 1]);
    assert.deepEqual(told.map(([kind, state]) => [kind, state]), [["image", "live"], ["state", "resync"], ["image", "live"]]);
    assert.deepEqual(errors, []);
  });
}

test("an image that does not come is asked for again", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.frame(IMAGE, { t: "delta", v: 3, s: 12, p: 11, b: [["1.5", "0"]], a: [] });
    if (message.op === "image") connection.send({ type: "error", code: "rate_limited", message: "less than a second ago" });
  });
  client.book("sim:A");
  await until("it is asked for twice", () => connections[0]?.asked.filter(({ op }) => op === "image").length === 2);
});

const MALFORMED = [
  ["a frame that skips a number", (connection) => connection.send({ n: 5, ts: 1, u: [] }), /frame 2 was due; 5 came/],
  ["a text that is no JSON", (connection) => connection.socket.send("{"), /no message/],
  ["a price that is no decimal", (connection) => connection.frame({ ...IMAGE, s: 11, b: [["1e5", "1"]] }), /exact decimal/],
  ["bytes that are no frame", (connection) => connection.socket.send(Buffer.alloc(40)), /begins with/],
];

for (const [name, send, expected] of MALFORMED) {
  test(`${name}: the connection is given up and made anew`, { timeout: 60_000 }, async (t) => {
    const { client, connections, errors } = await script(t, (message, connection, count) => {
      if (message.op !== "subscribe") return;
      connection.frame(IMAGE);
      if (count === 1) send(connection);
    });
    const closes = [];
    client.on("close", (closed) => closes.push(closed));
    const book = client.book("sim:A");
    await until("another connection stands", () => connections.length === 2 && book.state === "live");
    assert.deepEqual(closes.map(({ code }) => code), [4900]);
    assert.deepEqual(errors.map(({ code }) => code), ["malformed"]);
    assert.match(errors[0].message, expected);
  });
}

for (const [name, results] of [["without results", undefined], ["with a result that is none", [null]]]) {
  test(`an answer ${name}: the connection is given up and made anew`, { timeout: 60_000 }, async (t) => {
    const { client, connections, errors } = await script(t, (message, connection, count) => {
      if (message.op !== "subscribe") return;
      if (count === 1) connection.send({ type: "subscribed", id: message.id, results });
      else connection.frame(IMAGE);
    }, {}, () => (connections.length === 1 ? undefined : ACK));
    const book = client.book("sim:A");
    await until("another connection serves it", () => book.state === "live");
    assert.deepEqual(errors.map(({ code }) => code), ["malformed"]);
    assert.match(errors[0].message, /list of results/);
  });
}

test("a greeting that is none is said so", { timeout: 60_000 }, async (t) => {
  const { address } = await scripted(t, () => {}, undefined, { type: "hello" });
  const client = connect(address, { encoding: "json" });
  t.after(() => client.close());
  const error = await new Promise((resolve) => client.on("error", resolve));
  assert.deepEqual([error.code, /limits/.test(error.message)], ["malformed", true]);
});

test("kinds and messages that are not known are passed over", { timeout: 60_000 }, async (t) => {
  const { client, errors } = await script(t, (message, connection) => {
    if (message.op !== "subscribe") return;
    connection.send({ type: "weather", is: "fine" });
    connection.frame({ t: "candle", v: 3, o: "1" }, { ...IMAGE, colour: "red" }, { t: "delta", v: 99, s: 2, p: 1, b: [], a: [["1", "1"]] });
  });
  const book = await client.book("sim:A").ready;
  assert.deepEqual([book.state, book.mid, client.stats().updates, errors], ["live", 1.55, 1, []]);
});

test("silence is a lost connection", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, () => {}, { heartbeatMs: 250 });
  const closes = [];
  client.on("close", (closed) => closes.push(closed));
  await until("it is given up", () => closes.length > 0);
  assert.equal(closes[0].code, 4901);
  assert.deepEqual(connections[0].asked[0], { op: "heartbeat", every_ms: 250 });
});

test("a refusal for good ends everything, and says why", { timeout: 60_000 }, async (t) => {
  const { client, connections, errors } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.socket.close(4003, "forbidden");
  });
  const book = client.book("sim:A");
  await assert.rejects(async () => {
    for await (const update of client.subscribe({ channel: "trades", symbols: "sim:A" })) assert.fail(update);
  }, /4003 forbidden/);
  await assert.rejects(book.ready, /4003 forbidden/);
  assert.deepEqual([client.state, book.state, connections.length, errors.length], ["closed", "refused", 1, 1]);
});

test("a gateway that does not know its instruments yet is asked again for what it served before", { timeout: 60_000 }, async (t) => {
  const subscribed = (connection) => connection.asked.filter(({ op }) => op === "subscribe").length;
  const refusal = { symbol: "sim:A", ok: false, code: "unknown_symbol", message: "no instrument sim:A" };
  const { client, connections, errors } = await script(t, (message, connection, count) => {
    if (message.op !== "subscribe") return;
    if (count === 1) connection.frame(IMAGE);
    else if (subscribed(connection) === 3) connection.frame({ ...IMAGE, e: 8 });
  }, {}, (connection) => (connections.length === 2 && subscribed(connection) < 3 ? refusal : ACK));
  const told = [];
  client.subscribe({ channel: "book", symbols: "sim:A" }, ({ kind, state }) => told.push([kind, state]));
  const book = await client.book("sim:A").ready;
  client.cut(0);
  await until("it is refused for now", () => /no instrument/.test(book.reason));
  assert.equal(book.state, "disconnected");
  await until("it is served again", () => book.state === "live");
  assert.deepEqual([book.epoch, subscribed(connections[1]), errors], [8, 3, []]);
  assert.deepEqual([told.at(-2)[0], told.at(-1)], ["hole", ["image", "live"]]);
});

const BBO_ACK = { ...ACK, channel: "bbo", depth: undefined };
const BBO = { t: "bbo", v: 3, s: 10, b: ["1.5", "2"], a: ["1.6", "3"] };

/** A loop that has taken nothing while more came than may wait. */
async function slowLoop(t, updates) {
  const { client } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.frame(...updates);
  }, {}, () => BBO_ACK);
  const loop = client.subscribe({ channel: "bbo", symbols: "sim:A", queue: 1 })[Symbol.asyncIterator]();
  await until("what waits was merged", () => client.stats().conflated > 0);
  return loop;
}

test("what waits for a slow loop is merged into no price that is known to be wrong", { timeout: 60_000 }, async (t) => {
  const some = [10, 11, 12, 13].map((s) => ({ ...BBO, s }));
  const gap = { t: "state", v: 3, e: 7, state: "gap", why: "sequence_gap", since: 1 };
  const loop = await slowLoop(t, [...some, gap, { t: "state", v: 3, e: 8, state: "live", why: "", since: 2 }, { ...BBO, s: 20, b: ["1.4", "1"] }]);
  // Four and the gap are one too many: of the prices nothing is left.
  const came = [await loop.next(), await loop.next(), await loop.next()].map(({ value }) => value);
  assert.deepEqual(came.map(({ kind, state, seq }) => [kind, state, seq]), [["state", "gap", 13], ["state", "live", 13], ["bbo", "live", 20]]);
});

test("of bids and offers that wait for a slow loop the newest is left", { timeout: 60_000 }, async (t) => {
  const loop = await slowLoop(t, [10, 11, 12, 13, 14].map((s) => ({ ...BBO, s, b: [`1.${s - 10}`, "2"] })));
  const { value } = await loop.next();
  assert.deepEqual([value.kind, value.state, value.seq, value.bids.toJSON()], ["bbo", "live", 14, [["1.4", "2"]]]);
});

test("what one reader leaves while a pattern is bringing it to another stays", { timeout: 60_000 }, async (t) => {
  const pattern = (connection) => connection.asked.find(({ symbols }) => symbols?.[0] === "sim:*");
  // A gateway sends no whole of what is held already, and nothing more of what was unsubscribed.
  const { client, connections, errors } = await script(t, (message, connection) => {
    if (message.op === "subscribe" && message.symbols[0] === "sim:A") connection.frame(BBO);
    if (message.op === "ping" && pattern(connection)) connection.send({ type: "pong", id: message.id, received: 1, sent: 1 });
  }, {}, () => BBO_ACK);
  const first = await client.bbo("sim:A").ready;
  const told = [];
  const all = client.subscribe({ channel: "bbo", symbols: "sim:*" }, (update) => told.push(update));
  await null;
  first.close();
  assert.deepEqual((await all.accepted).map(({ symbol }) => symbol), ["sim:A"]);
  connections[0].frame({ ...BBO, s: 11 });
  await until("the change is told", () => told.some(({ seq }) => seq === 11));
  assert.equal(told[0].seq, 10, "what was held already is told first");
  assert.ok(!connections[0].asked.some(({ op }) => op === "unsubscribe"));
  all.close();
  await until("it is left when nobody reads it", () => connections[0].asked.some(({ op }) => op === "unsubscribe"));
  assert.deepEqual(errors, []);
});

test("what is left while a pattern that is left too is answered is unsubscribed once, after the answer", { timeout: 60_000 }, async (t) => {
  const { client, connections, errors } = await script(t, (message, connection) => {
    if (message.op === "subscribe" && message.symbols[0] === "sim:A") connection.frame(BBO);
    if (message.op === "ping") connection.send({ type: "pong", id: message.id, received: 1, sent: 1 });
  }, {}, () => BBO_ACK);
  const first = await client.bbo("sim:A").ready;
  const all = client.subscribe({ channel: "bbo", symbols: "sim:*" }, () => {});
  await null;
  all.accepted.catch(() => {});
  all.close();
  first.close();
  await until("it is left", () => connections[0].asked.some(({ op }) => op === "unsubscribe"));
  await client.instruments();
  assert.deepEqual(connections[0].asked.map(({ op }) => op), ["heartbeat", "subscribe", "subscribe", "ping", "unsubscribe", "instruments", "ping"]);
  assert.deepEqual(errors, []);
});

test("a symbol that is none leaves nothing of the others behind", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, (message, connection) => {
    if (message.op === "ping") connection.send({ type: "pong", id: message.id, received: 1, sent: 1 });
  });
  await client.ready;
  assert.throws(() => client.subscribe({ channel: "book", symbols: ["sim:A", ""] }), /a symbol is a string/);
  assert.throws(() => client.trades("sim:A", { keep: 0 }), /keep is a positive integer/);
  await client.instruments();
  assert.deepEqual(connections[0].asked.map(({ op }) => op), ["heartbeat", "instruments", "ping"]);
});

test("of a loop that was left, nothing is left for another", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.frame(IMAGE, { t: "delta", v: 3, s: 11, p: 10, b: [["1.5", "5"]], a: [] });
  });
  const updates = client.subscribe({ channel: "book", symbols: "sim:A" });
  for await (const { kind } of updates) {
    assert.equal(kind, "image");
    break;
  }
  for await (const update of updates) assert.fail(`${update.kind} of before`);
  await until("it is unsubscribed", () => connections[0].asked.some(({ op }) => op === "unsubscribe"));
});

test("who joins a view while it is told something is told the whole first, and nothing twice", { timeout: 60_000 }, async (t) => {
  const trade = (s) => [1, String(s), "1", "buy", String(s)];
  const trades = (p, s) => ({ t: "trades", v: 3, s, p, x: Array.from({ length: s - p }, (_, index) => trade(p + index + 1)) });
  const { client } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.frame(trades(10, 12), trades(12, 13), trades(13, 14));
  }, {}, () => ({ ...ACK, channel: "trades", depth: undefined }));
  let tape;
  client.subscribe({ channel: "trades", symbols: "sim:A" }, ({ kind }) => {
    if (kind === "trades") tape ??= client.trades("sim:A");
  });
  await until("the newest is there", () => tape?.trades.at(-1)?.id === "14");
  assert.deepEqual(tape.trades.map(({ id }) => id), ["11", "12", "13", "14"]);
});

test("what was granted on a connection that ended within the answer is asked for on the next", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, (message, connection) => {
    if (message.op !== "subscribe") return;
    for (const symbol of message.symbols) connection.frame({ ...IMAGE, v: symbol === "sim:A" ? 3 : 4 });
  }, {}, (connection, { symbols }) => symbols.map((symbol) => ({ ...ACK, symbol, view: symbol === "sim:A" ? 3 : 4 })));
  const [first, second] = [client.book("sim:A"), client.book("sim:B")];
  first.onChange(() => {
    if (connections.length === 1) client.cut(0);
  });
  await until("both are live", () => first.state === "live" && second.state === "live");
  assert.deepEqual(connections.map(({ asked }) => asked.find(({ op }) => op === "subscribe").symbols), [["sim:A", "sim:B"], ["sim:A", "sim:B"]]);
});

test("a pattern that is refused as a whole is refused to everybody who wants it", { timeout: 60_000 }, async (t) => {
  const isPattern = ({ symbols }) => symbols?.[0] === "sim:*";
  const { client } = await script(t, (message, connection) => {
    if (isPattern(message)) connection.send({ type: "error", id: message.id, code: "bad_budget", message: "100 is none" });
  }, {}, (connection, message) => (isPattern(message) ? undefined : ACK));
  const terms = { channel: "book", strict: true };
  const mixed = client.subscribe({ ...terms, symbols: ["sim:A", "sim:*"] }, () => {});
  assert.deepEqual((await mixed.accepted).map(({ symbol, ok }) => [symbol, ok]), [["sim:A", true], ["sim:*", false]]);
  await assert.rejects(client.subscribe({ ...terms, symbols: "sim:*" }, () => {}).accepted, { code: "bad_budget" });
});

test("symbols of many bytes are asked for in messages that the gateway takes", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, () => {}, {}, (connection, { symbols }) => symbols.map((symbol, index) => ({ ...ACK, symbol, view: index })));
  const symbols = Array.from({ length: 300 }, (_, index) => `sim:${"币".repeat(20)}${index}`);
  const accepted = await client.subscribe({ channel: "book", symbols }, () => {}).accepted;
  assert.equal(accepted.filter(({ ok }) => ok).length, 300);
  const sizes = connections[0].asked.map((message) => Buffer.byteLength(JSON.stringify(message)));
  assert.ok(Math.max(...sizes) <= 16384, `${Math.max(...sizes)} bytes`);
});

test("what changes often is asked for once", { timeout: 60_000 }, async (t) => {
  const { client, connections } = await script(t, (message, connection) => {
    if (message.op === "modify") connection.send({ type: "subscribed", id: message.id, results: [{ ...ACK, budget_ms: message.budget_ms }] });
  });
  const book = client.book("sim:A");
  await until("it is subscribed", () => book.budgetMs === 100);
  const changes = Array.from({ length: 200 }, (_, budgetMs) => book.modify({ budgetMs }));
  await Promise.all(changes);
  assert.equal(book.budgetMs, 199);
  assert.ok(connections[0].asked.filter(({ op }) => op === "modify").length <= 2);
});

test("a price that waited does not come after the word that it is no good any more", { timeout: 60_000 }, async (t) => {
  const bbo = (s) => ({ t: "bbo", v: 3, s, b: ["1.5", String(s)], a: ["1.6", "3"] });
  const { client } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.frame(...[11, 12, 13, 14].map(bbo), { t: "state", v: 3, e: 7, state: "gap", why: "sequence_gap", since: 1 });
  }, {}, () => ({ ...ACK, channel: "bbo" }));
  // Five wait where four may.
  const updates = client.subscribe({ channel: "bbo", symbols: "sim:A", queue: 1 });
  await until("some were merged", () => client.stats().conflated > 0);
  setTimeout(() => updates.close());
  const told = [];
  for await (const { kind, state } of updates) told.push([kind, state]);
  assert.deepEqual(told.at(-1), ["state", "gap"]);
});

test("an exception in a callback is told and disturbs nobody", { timeout: 60_000 }, async (t) => {
  const { client, errors } = await script(t, (message, connection) => {
    if (message.op === "subscribe") connection.frame(IMAGE);
  });
  client.subscribe({ channel: "book", symbols: "sim:A" }, () => {
    throw new Error("mine");
  });
  const book = client.book("sim:A");
  book.onChange(() => {
    throw new Error("mine, too");
  });
  await book.ready;
  await until("both are told", () => new Set(errors.map(({ message }) => message)).size === 2);
  assert.equal(book.state, "live");
});
