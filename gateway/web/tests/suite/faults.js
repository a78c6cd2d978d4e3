// What may go wrong between a gateway and a client, on a simulated market that knows its true books.

import { equal, ok, thrown, until } from "./check.js";

const SYMBOL = "sim:BTCUSDT";
/** Two processes of a machine read its clock at different starts. */
const CLOCKS_US = 2_000;

/** The book that the client shows equals the simulator's own at the number that it names. */
async function expectTrue(lab, id, book) {
  await until(`the true book of ${book.symbol} is held`, async () => {
    const { venueSeq, state } = book;
    const came = [book.bids.toJSON(), book.asks.toJSON()];
    if (state !== "live") return false;
    const truth = await lab.truth(id, book.symbol.split(":")[1], venueSeq);
    if (truth === null) return false;
    const cut = (levels) => levels.slice(0, book.depth).map((level) => level.map(Number));
    equal(came.map((side) => side.map((level) => level.map(Number))), [cut(truth.bids), cut(truth.asks)], `${book.symbol} at ${venueSeq}`);
    return true;
  });
}

/** Follows trades: each must be told once, or be told as lost. */
function countTrades(client, symbol) {
  const count = { first: undefined, next: undefined, seen: 0, lost: 0, breaks: [] };
  client.subscribe({ channel: "trades", symbols: symbol, budgetMs: 0 }, (update) => {
    if (update.kind === "hole") count.lost += update.missed ?? NaN;
    if (update.kind !== "trades") return;
    count.first ??= update.prev;
    if (count.next !== undefined && update.prev !== count.next) count.breaks.push([count.next, update.prev]);
    count.next = update.seq;
    count.seen += update.trades.length;
    count.lost += update.lost;
  });
  return count;
}

async function states(client, symbol) {
  const told = [];
  await client.subscribe({ channel: "book", symbols: symbol, depth: 20, budgetMs: 10 }, (update) => told.push(update)).accepted;
  return told;
}

export const cases = [
  {
    name: "a book, bids and offers, and a tape are in step and say so",
    async run({ lab, connect, encoding }) {
      const { id, url, http } = await lab.market();
      // Every way in which the address may be written.
      const client = connect(encoding === "json" ? http : url.slice("ws://".length), { encoding, gatewayStatsMs: 100 });
      const book = client.book(SYMBOL, { depth: 10, budgetMs: 0 });
      equal([book.state, book.age, book.mid], ["connecting", undefined, undefined], "before anything came");
      const [bbo, tape] = [client.bbo(SYMBOL, { budgetMs: 0 }), client.trades(SYMBOL, { last: 50 })];
      await Promise.all([book.ready, bbo.ready, tape.ready]);
      equal([book.depth, book.budgetMs, book.budget], [10, 0, "accepted"], "terms in force");
      let steps = 0;
      for await (const same of book) {
        ok(same === book && book.state === "live", "a turn gives the book itself");
        if ((steps += 1) === 20) break;
      }
      for (let point = 0; point < 5; point += 1) await expectTrue(lab, id, book);
      ok(book.mid > book.bids.price(0) && book.mid < book.asks.price(0), "mid is between the best");
      // The first ping may have been held up in one direction, by as much as it says itself.
      const errorMs = ((client.stats().offsetErrorUs ?? 0) + CLOCKS_US) / 1000;
      ok(book.age >= -errorMs && book.age < 30_000, `its age is known: ${book.age} ms, give or take ${errorMs}`);
      equal([bbo.bids.length, bbo.asks.length, tape.state, tape.lost], [1, 1, "live", 0], "the others");
      await until("trades come", () => tape.trades.length > 0);
      ok(/^\d+(\.\d+)?$/.test(tape.trades.at(-1).priceText) && tape.trades.at(-1).id !== "", "a trade is whole");
      // In a tenth of a second that a busy machine skipped, nothing is sent.
      const stats = await until("the gateway reports what it sent", () => {
        const now = client.stats();
        return now.gateway?.sent > 0 && now.updatesPerS > 0 ? now : undefined;
      });
      ok(stats.bytes > 0, "it is counted");
      ok(stats.rttUs >= 0 && Math.abs(stats.offsetUs) <= stats.offsetErrorUs + CLOCKS_US, "one machine has one clock");
      equal((await client.instruments("sim:BTC*")).map(({ symbol }) => symbol), [SYMBOL], "instruments");
      book.close();
      equal(book.state, "ended", "a closed book says so");
      client.close();
      equal([tape.state, client.state], ["ended", "closed"], "what hung on the client");
      ok((await thrown(() => client.book(SYMBOL))).code === "closed", "nothing begins after the end");
      await lab.stop(id);
    },
  },
  {
    name: "an unknown symbol is refused by name, and disturbs no other",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market();
      const client = connect(url, { encoding });
      const nope = client.book("sim:NOPE");
      const refusal = await thrown(() => nope.ready);
      equal([refusal.code, refusal.symbol, nope.state], ["unknown_symbol", "sim:NOPE", "refused"], "a book");
      ok(nope.reason.includes("sim:NOPE"), "the reason names it");
      const loop = await thrown(async () => {
        for await (const update of client.subscribe({ channel: "bbo", symbols: ["sim:NOPE", "nope:*"] })) ok(false, `nothing comes: ${update}`);
      });
      equal(loop.code, "unknown_symbol", "a loop");
      const errors = [];
      client.on("error", (error) => errors.push([error.code, error.symbol]));
      const mixed = client.subscribe({ channel: "bbo", symbols: ["sim:NOPE", SYMBOL] });
      equal((await mixed.accepted).map(({ ok: isServed }) => isServed), [false, true], "one of two");
      for await (const update of mixed) {
        equal(update.symbol, SYMBOL, "what comes");
        break;
      }
      equal(errors, [["unknown_symbol", "sim:NOPE"]], "errors");
      await thrown(() => client.subscribe({ channel: "boook", symbols: SYMBOL }));
      equal(client.state, "open", "nothing of it ends the connection");
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "all of a venue, shared views, and a budget that changes without a gap",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market({ symbols: 100, rate: 1000 });
      const client = connect(url, { encoding });
      const all = client.subscribe({ channel: "bbo", symbols: "sim:*", budgetMs: 500 });
      const accepted = await all.accepted;
      equal(accepted.filter((result) => result.ok).length, 100, "symbols, in more than one answer");
      equal((await client.instruments()).length, 100, "instruments, in more than one answer");
      const again = new Set();
      const twin = client.subscribe({ channel: "bbo", symbols: "sim:*", budgetMs: 500 }, ({ symbol }) => again.add(symbol));
      equal((await twin.accepted).length, 100, "symbols of a second one");
      await until("the second one has all", () => again.size === 100);
      const seen = new Set();
      for await (const update of all) {
        seen.add(update.symbol);
        if (seen.size === 100) break;
      }
      const books = Array.from({ length: 3 }, () => client.book(SYMBOL, { budgetMs: 100 }));
      await Promise.all(books.map((book) => book.ready));
      const told = [];
      client.subscribe({ channel: "book", symbols: SYMBOL, budgetMs: 1000 }, (update) => told.push(update));
      await until("the late one has the whole", () => told.length > 0);
      equal([told[0].kind, told[0].bids.toJSON().length], ["image", 20], "what it is told first");
      equal((await books[0].modify({ budgetMs: 7 })).map(({ budgetMs }) => budgetMs), [5], "the budget in force");
      equal(books.map((book) => book.budgetMs), [5, 5, 5], "of all who share it");
      const before = told.length;
      await until("updates come", () => told.length > before + 20);
      await books[0].modify({ budgetMs: 2000 });
      equal(books[1].budgetMs, 100, "the smallest of those that are left");
      equal([...new Set(told.slice(1).map(({ kind }) => kind))], ["delta"], "nothing but changes came");
      equal(client.stats().resyncs, 0, "images that were asked for");
      for (let point = 0; point < 3; point += 1) await expectTrue(lab, id, books[2]);
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "a slow loop gets the newest, and is told what it missed",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market({ symbols: 1, rate: 1000 });
      const client = connect(url, { encoding });
      const books = client.subscribe({ channel: "book", symbols: SYMBOL, budgetMs: 0, queue: 10 })[Symbol.asyncIterator]();
      equal((await books.next()).value.kind, "image", "the first");
      await until("changes were merged", () => client.stats().conflated > 20);
      const { value: merged } = await books.next();
      equal([merged.kind, merged.bids.length], ["image", 20], "what is left of the changes");
      let { seq } = merged;
      for (let turn = 0; turn < 30; turn += 1) {
        const { value } = await books.next();
        equal([value.kind, value.prev], ["delta", seq], "a change follows what was given before");
        seq = value.seq;
      }
      const before = client.stats().conflated;
      const trades = client.subscribe({ channel: "trades", symbols: SYMBOL, budgetMs: 0, queue: 10 })[Symbol.asyncIterator]();
      const next = (await trades.next()).value.seq;
      await until("trades were merged", () => client.stats().conflated > before + 100);
      const { value: lost } = await trades.next();
      equal([lost.kind, lost.prev, lost.trades.length, lost.seq - lost.prev], ["trades", next, 0, lost.lost], "lost trades are counted");
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "a stall ends with the newest, not with a backlog",
    async run({ lab, connect, encoding, isPage }) {
      if (isPage) return;
      const { id, url } = await lab.market({ symbols: 10, rate: 10_000 });
      const client = connect(url, { encoding });
      const all = client.subscribe({ channel: "book", symbols: "sim:*", depth: "full", budgetMs: 0 }, () => {});
      await all.accepted;
      const book = client.book(SYMBOL, { depth: 20, budgetMs: 0 });
      await book.ready;
      const trades = countTrades(client, SYMBOL);
      await until("it runs", () => client.stats().updates > 1000);
      const blockedBefore = await lab.metric(id, "tickfan_shard_blocked_total");
      client.stall(5000);
      const mergedBefore = client.stats().merged;
      ok((await lab.metric(id, "tickfan_shard_blocked_total")) > blockedBefore, "the gateway found the socket full");
      await until("merged updates come", () => client.stats().merged > mergedBefore + 500);
      await until("the book is new", () => book.age < 500);
      for (let point = 0; point < 3; point += 1) await expectTrue(lab, id, book);
      equal([trades.breaks, trades.seen + trades.lost], [[], trades.next - trades.first], "trades");
      equal([client.stats().resyncs, client.stats().reconnects], [0, 0], "holes");
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "a cut connection is restored, and the hole reported",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market();
      const client = connect(url, { encoding, reconnect: { firstMs: 50 } });
      const told = await states(client, SYMBOL);
      const book = client.book(SYMBOL, { budgetMs: 10 });
      await book.ready;
      const trades = countTrades(client, SYMBOL);
      await until("trades come", () => trades.seen > 5);
      const holes = [];
      client.on("hole", (hole) => holes.push(hole));
      const before = { seq: book.seq, epoch: book.epoch, told: told.length, trades: trades.seen };
      client.cut(1000);
      equal([client.state, book.state], ["waiting", "disconnected"], "it says so at once");
      ok(book.reason.includes("cut by us") && book.bids.length === 20, "why, and what was last known");
      await until("it is restored", () => book.state === "live");
      const [lost, hole, image] = told.slice(before.told);
      equal([lost.kind, lost.state], ["state", "disconnected"], "told first");
      equal([hole.kind, hole.fromSeq, hole.toSeq, hole.missed], ["hole", before.seq, image.seq, image.seq - before.seq], "then the hole");
      ok(hole.missed > 0 && hole.downMs >= 1000, "the hole has a size");
      equal([image.kind, image.epoch], ["image", before.epoch], "then the whole");
      equal(holes.filter(({ channel }) => channel === "book").length, 1, "holes of the book, by event");
      await until("trades come again", () => trades.seen > before.trades + 5);
      equal([trades.breaks, trades.lost, trades.seen], [[], 0, trades.next - trades.first], "no trade is missing");
      for (let point = 0; point < 3; point += 1) await expectTrue(lab, id, book);
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "a gateway that goes away says so, and its successor is found",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market();
      const client = connect(url, { encoding, reconnect: { firstMs: 50, maxMs: 500 } });
      const told = await states(client, SYMBOL);
      const book = client.book(SYMBOL, { budgetMs: 10 });
      await book.ready;
      const [drains, closes] = [[], []];
      client.on("drain", (drain) => drains.push(drain));
      client.on("close", (closed) => closes.push(closed));
      const before = { epoch: book.epoch, told: told.length };
      await lab.drain(id);
      await until("the connection is closed", () => closes.length > 0);
      equal([drains.length, closes[0].code], [1, 1012], "drain, then the close");
      equal(closes[0].retryInMs, drains[0].retryAfterMs, "it comes back when it was told to");
      await lab.ended(id);
      await lab.start(id);
      await until("it is restored", () => book.state === "live", 60_000);
      ok(book.epoch > before.epoch, "history begins anew");
      const hole = told.slice(before.told).find(({ kind }) => kind === "hole");
      equal([hole.missed], [undefined], "nobody knows what was missed");
      for (let point = 0; point < 3; point += 1) await expectTrue(lab, id, book);
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "where no gateway answers it is said once, and one that comes is found",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market();
      await lab.kill(id);
      const client = connect(url, { encoding, reconnect: { firstMs: 20, maxMs: 50 } });
      const [errors, closes] = [[], []];
      client.on("error", (error) => errors.push(error));
      client.on("close", (closed) => closes.push(closed));
      await until("some attempts failed", () => closes.length >= 3);
      equal(errors.map(({ code }) => code), ["unreachable"], "errors");
      ok(errors[0].message.includes(`${url}/v1/stream`), "it names the address");
      await lab.start(id);
      await client.ready;
      client.cut(0);
      await until("it is open again", () => client.state === "open");
      equal(errors.length, 1, "errors in the end");
      client.close();
      await lab.stop(id);
    },
  },
  {
    name: "a gateway that is killed is tried again, less and less often",
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.market();
      const client = connect(url, { encoding, reconnect: { firstMs: 50, maxMs: 200 } });
      const tape = client.trades(SYMBOL, { last: 20 });
      await tape.ready;
      const closes = [];
      client.on("close", (closed) => closes.push(closed));
      await lab.kill(id);
      await until("some attempts failed", () => closes.length >= 4);
      equal(tape.state, "disconnected", "it says so");
      closes.forEach(({ retryInMs }, attempt) => ok(retryInMs <= Math.min(200, 50 * 2 ** attempt), "waits are bounded"));
      await lab.start(id);
      await until("it is restored", () => tape.state === "live");
      client.close();
      await lab.stop(id);
    },
  },
];
