// Recordings through the whole gateway: image and deltas equal to the independently rebuilt states.

import { equal, ok, until } from "./check.js";
import { Follower, parseStates } from "./oracle.js";

/** The followers of the books of some recordings, by symbol. */
async function followersOf(lab, names) {
  const followers = new Map();
  for (const name of names) {
    const { venue, text } = await lab.truths(name);
    for (const [native, rows] of parseStates(text)) followers.set(`${venue}:${native}`, new Follower(rows));
  }
  return followers;
}

/** Holds every book against its follower, and tells what came besides. */
async function follow(client, followers, budgetMs) {
  const books = new Map();
  const told = { states: [], images: 0, deltas: 0, errors: [] };
  for (const symbol of followers.keys()) books.set(symbol, client.book(symbol, { depth: 20, budgetMs }));
  const subscription = client.subscribe({ channel: "book", symbols: [...followers.keys()], depth: 20, budgetMs }, (update) => {
    const follower = followers.get(update.symbol);
    if (update.kind === "state") told.states.push(update);
    if (update.kind !== "image" && update.kind !== "delta") return;
    if (update.kind === "image") follower.restart();
    told[`${update.kind}s`] += 1;
    // The book is what the client made of all updates so far.
    const book = books.get(update.symbol);
    equal([book.seq, book.epoch], [update.seq, update.epoch], `the book of ${update.symbol} is at the update that was just given`);
    follower.show(update.venueSeq, book.bids.toJSON(), book.asks.toJSON());
  });
  client.on("error", (error) => told.errors.push(error.message));
  await subscription.accepted;
  return { told, books };
}

function expectNoDifference(followers, counts) {
  for (const [symbol, follower] of followers) {
    equal(follower.differences, [], `differences of ${symbol} (${JSON.stringify(counts)})`);
    ok(follower.shown > 0, `something of ${symbol} was shown`);
  }
}

function recordingCase(name, speed, budgetMs) {
  return {
    name: `image and deltas of ${name} are the states of the recording, budget ${budgetMs} ms`,
    needsRecordings: true,
    async run({ lab, connect, encoding }) {
      const { id, url } = await lab.recordings({ names: [name], speed });
      const client = connect(url, { encoding });
      const followers = await followersOf(lab, [name]);
      const { told } = await follow(client, followers, budgetMs);
      const expected = await lab.tradeCounts(name);
      const trades = new Map();
      const tapes = client.subscribe({ channel: "trades", symbols: [...followers.keys()], budgetMs: 0 }, (update) => {
        trades.set(update.symbol, (trades.get(update.symbol) ?? 0) + (update.trades?.length ?? 0) + (update.lost ?? 0));
      });
      await tapes.accepted;
      await lab.play(id);
      await until("every book is at the end of the recording", () => [...followers.values()].every((follower) => follower.isAtEnd), 60_000);
      expectNoDifference(followers, told);
      ok(told.images >= followers.size && told.deltas > 0, "images and deltas came");
      equal([told.errors, client.stats().resyncs], [[], 0], "errors, and images that were asked for");
      await until("every trade came", () => Object.entries(expected).every(([symbol, number]) => (trades.get(symbol) ?? 0) === number));
      client.close();
      await lab.stop(id);
    },
  };
}

const GAP_RECORDING = "binance-spot-4sym-20211012";

export const cases = [
  recordingCase("binance-spot-4sym-20211012", 10, 0),
  recordingCase("kraken-v2-derived-10sym-20210417", 10, 0),
  recordingCase("kraken-v2-derived-10sym-20210417", 10, 100),
  {
    name: "a gap of the venue is told before anything that follows, and mended",
    needsRecordings: true,
    async run({ lab, connect, encoding }) {
      const [fault] = (await lab.faults(GAP_RECORDING)).filter((row) => row.how === "gap");
      const { id, url } = await lab.recordings({ names: [GAP_RECORDING], speed: 10, dropLine: fault.drop_line });
      const followers = await followersOf(lab, [GAP_RECORDING]);
      const hit = [...followers.keys()].find((symbol) => symbol.endsWith(`:${fault.symbol}`));
      const client = connect(url, { encoding });
      const told = [];
      const { books } = await follow(client, followers, 0);
      client.subscribe({ channel: "book", symbols: [...followers.keys()], depth: 20, budgetMs: 0 }, (update) => {
        const { symbol, kind, epoch, state, reason } = update;
        const book = books.get(symbol);
        told.push({ symbol, kind, epoch, state, reason, shown: book.state, said: book.reason });
      });
      await lab.play(id);
      await until("every book is at the end of the recording", () => [...followers.values()].every((follower) => follower.isAtEnd));
      equal(await lab.metric(id, "tickfan_feed_gaps_total"), 1, "gaps that the gateway met");
      const gaps = told.filter((update) => update.state === "gap");
      equal(gaps.map(({ symbol, kind, reason, shown, said }) => [symbol, kind, reason, shown, said]), [[hit, "state", "sequence_gap", "gap", "sequence_gap"]], "gaps that were told");
      const own = told.filter((update) => update.symbol === hit);
      const next = own[own.indexOf(gaps[0]) + 1];
      equal([next.kind, next.state, next.shown], ["image", "live", "live"], "what comes after the gap");
      ok(next.epoch > gaps[0].epoch, "the image begins an epoch");
      expectNoDifference(followers, told.length);
      client.close();
      await lab.stop(id);
    },
  },
];

/** Three recordings of 344 s and more each; a turn of all is more than 17 minutes of market. */
const HOUR_RECORDINGS = ["binance-spot-btcusdt-20240808", "binance-usdm-btcusdt-20240808", "binance-coinm-btcusdperp-20240808"];
const TURNS = 4;
const TURN_MS = 3 * 344_000;
const HOUR_MS = 3_600_000;
/** A turn lasts a little longer than the gateway needs to take a connection for a good one, and to come back at once. */
const SPEED = 30;

/** More than an hour of real markets, in about a minute. */
export const hour = {
  name: `an hour of three venues, ${TURNS} turns of ${TURN_MS / 60_000} minutes at ${SPEED} times their speed, without a difference`,
  needsRecordings: true,
  encodings: ["both"],
  async run({ lab, connect, report }) {
    const { id, url } = await lab.recordings({ names: HOUR_RECORDINGS, speed: SPEED, loop: true });
    const clients = ["binary", "json"].map((encoding) => connect(url, { encoding }));
    const runs = await Promise.all(clients.map((client) => followHour(lab, client)));
    await lab.play(id);
    await until(`${TURNS} turns are over`, () => runs.every(({ turns }) => [...turns.values()].every((count) => count >= TURNS)), 200_000);
    ok(TURNS * TURN_MS > HOUR_MS, "it was more than an hour");
    for (const [index, { followers, told, trades }] of runs.entries()) {
      const { updates, merged, resyncs, reconnects } = clients[index].stats();
      equal([told.errors, resyncs, reconnects], [[], 0, 0], "errors, and holes that only the client saw");
      expectNoDifference(followers, told.states.length);
      const all = [...followers.values()];
      const sum = (key) => all.reduce((total, follower) => total + follower[key], 0);
      report(`${(TURNS * TURN_MS) / 60_000} minutes of market: ${updates} updates, ${merged} venue events merged in them, ${sum("shown")} books held against the states, ${sum("early")} older than the first of them, ${trades.seen} trades, 0 differences`);
    }
    for (const client of clients) client.close();
    await lab.stop(id);
  },
};

/** Follows all books, bids and offers, and trades; counts the turns whose last state was shown. */
async function followHour(lab, client) {
  const followers = await followersOf(lab, HOUR_RECORDINGS);
  const symbols = [...followers.keys()];
  const turns = new Map(symbols.map((symbol) => [symbol, 0]));
  // Before the books hear of it: an image begins a turn.
  const images = client.subscribe({ channel: "book", symbols, depth: 20, budgetMs: 0 }, ({ kind, symbol }) => {
    if (kind === "image" && followers.get(symbol).isAtEnd) turns.set(symbol, turns.get(symbol) + 1);
  });
  const { told } = await follow(client, followers, 0);
  const trades = { seen: 0, held: new Map() };
  const others = [
    client.subscribe({ channel: "trades", symbols, budgetMs: 10 }, (update) => {
      if (update.kind !== "trades") return;
      equal(update.prev, trades.held.get(update.symbol) ?? update.prev, "trades follow each other");
      equal(update.trades.length + update.lost, update.seq - update.prev, "trades and lost ones of an update");
      trades.held.set(update.symbol, update.seq);
      trades.seen += update.trades.length;
    }),
    client.subscribe({ channel: "bbo", symbols, budgetMs: 0 }, ({ kind, symbol, bids, asks }) => {
      if (kind !== "bbo") return;
      ok(bids.length === 1 && asks.length === 1 && bids.priceScaled(0) < asks.priceScaled(0), `the best of ${symbol} are a bid below an offer`);
    }),
  ];
  await Promise.all([images, ...others].map((subscription) => subscription.accepted));
  return { followers, turns, told, trades };
}
