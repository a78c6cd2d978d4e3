// What the suite runs against: gateways and simulators as processes, recordings, and the truth about
// them. In Node it is called as it is; pages call it over HTTP (`lab_server.js`).
//
// TICKFAN_BIN         the folder of `tickfan` and `feed-sim` [target/release]
// TICKFAN_RECORDINGS  the folder of the recordings [../shared/data beside the repository]

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { zstdDecompressSync } from "node:zlib";
import { until } from "./suite/check.js";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const BIN = resolve(process.env.TICKFAN_BIN ?? join(ROOT, "target/release"));
const RECORDINGS = resolve(process.env.TICKFAN_RECORDINGS ?? join(ROOT, "../shared/data"));
const GOLDEN = join(ROOT, "gateway/core/tests/golden/frames.txt");

/** The venue of a recording, by how its name begins. */
const VENUES = { "binance-spot": "binance-spot", "binance-usdm": "binance-usdm", "binance-coinm": "binance-coinm", "kraken-v2": "kraken" };

/** Those whose trades come over another stream than `trade`. */
const TRADES = { "binance-spot-4sym-20211012": "aggTrade" };

function venueOf(name) {
  return VENUES[Object.keys(VENUES).find((start) => name.startsWith(start))];
}

/** Whether there are recordings; where CI says that there must be, their absence is an error. */
export function hasRecordings() {
  if (existsSync(join(RECORDINGS, "faults.json"))) return true;
  if (process.env.CI) throw new Error(`there are no recordings in ${RECORDINGS}; set TICKFAN_RECORDINGS`);
  console.error(`without recordings: there are none in ${RECORDINGS}; set TICKFAN_RECORDINGS`);
  return false;
}

/** A process whose stderr says when it is ready. */
class Program {
  #log = "";
  #child;
  ended;

  constructor(name, args) {
    const path = join(BIN, name);
    if (!existsSync(path)) throw new Error(`there is no ${path}: build it with cargo build --release --workspace, or set TICKFAN_BIN`);
    this.#child = spawn(path, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.#child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#log = (this.#log + text).slice(-100_000);
    });
    this.ended = new Promise((ended) => this.#child.once("exit", ended));
  }

  /** The lines that it has written, whole ones alone: of an address, half could have come. */
  get log() {
    return this.#log.slice(0, this.#log.lastIndexOf("\n") + 1);
  }

  /** What stands in its log for a pattern. */
  async says(pattern) {
    const found = await until(`the log has ${pattern}`, () => {
      if (this.#child.exitCode !== null) throw new Error(`it ended with ${this.#child.exitCode}: ${this.#log}`);
      return pattern.exec(this.log);
    });
    return found[1];
  }

  signal(name) {
    this.#child.kill(name);
  }

  async kill() {
    this.signal("SIGKILL");
    await this.ended;
  }
}

export class Lab {
  #setups = new Map();
  #folder;
  #next = 1;

  /** A gateway on a simulated market: `{ id, url, http }`. Without a rate the market is as fast as its venue was measured to be. */
  async market({ symbols = 5, rate = 500, preset = "hawkes" } = {}) {
    const args = ["serve", "--symbols", String(symbols), "--preset", preset];
    if (rate !== undefined) args.push("--rate", String(rate));
    const simulator = new Program("feed-sim", [...args, "--listen", "127.0.0.1:0"]);
    return this.#begin([{ simulator, args, venue: "sim", symbols: ["*"] }]);
  }

  /** A gateway on recordings that are held until `play`: `{ id, url, http }`. */
  async recordings({ names, speed, loop = false, dropLine }) {
    const feeds = [];
    for (const name of names) {
      const args = ["replay", join(RECORDINGS, `${name}.tsv.zst`), "--listen", "127.0.0.1:0", "--speed", String(speed), "--hold"];
      if (loop) args.push("--loop");
      if (dropLine !== undefined) args.push("--drop-line", String(dropLine));
      const trades = name.startsWith("binance") ? TRADES[name] ?? "trade" : undefined;
      feeds.push({ simulator: new Program("feed-sim", args), venue: venueOf(name), symbols: await this.symbols(name), trades });
    }
    return this.#begin(feeds);
  }

  /** A gateway on a simulated venue, in its own words: `{ id, url, http }`. */
  async venue({ venue, symbols, rate = 100 }) {
    const simulator = new Program("feed-sim", ["serve", "--dialect", venue, "--listen", "127.0.0.1:0", "--symbols", "5", "--rate", String(rate)]);
    return this.#begin([{ simulator, venue, symbols }]);
  }

  /** A gateway on several simulated venues, with all that they list: `{ id, url, http }`. */
  async venues(venues) {
    const args = (venue) => ["serve", "--dialect", venue, "--listen", "127.0.0.1:0", "--symbols", "2", "--rate", "100"];
    return this.#begin(venues.map((venue) => ({ simulator: new Program("feed-sim", args(venue)), venue, symbols: ["*"] })));
  }

  async #begin(feeds) {
    this.#folder ??= await mkdtemp(join(tmpdir(), "tickfan-web-"));
    const id = this.#next;
    this.#next += 1;
    const lines = ['admin = "127.0.0.1:0"', "shards = 1"];
    // Of a port that is found free and given back, somebody else may become the owner.
    const setup = { feeds, listen: "127.0.0.1:0", lines, config: join(this.#folder, `${id}.toml`) };
    this.#setups.set(id, setup);
    for (const feed of feeds) {
      feed.exchange = await feed.simulator.says(/http:\/\/([0-9.:]+)/);
      lines.push("[[feed]]", `venue = "${feed.venue}"`, `symbols = ${JSON.stringify(feed.symbols)}`);
      lines.push(`url = "ws://${feed.exchange}"`, `rest_url = "http://${feed.exchange}"`);
      if (feed.trades !== undefined) lines.push(`trades = "${feed.trades}"`);
    }
    await this.start(id);
    return { id, url: `ws://${setup.listen}`, http: `http://${setup.listen}` };
  }

  #setup(id) {
    const setup = this.#setups.get(id);
    if (setup === undefined) throw new Error(`there is no setup ${id}`);
    return setup;
  }

  /** Starts the gateway of a setup, again at the same address. */
  async start(id) {
    const setup = this.#setup(id);
    await writeFile(setup.config, [`listen = "${setup.listen}"`, ...setup.lines].join("\n"));
    setup.gateway = new Program("tickfan", ["--config", setup.config]);
    setup.listen = await setup.gateway.says(/clients=([0-9.:]+)/);
    setup.admin = await setup.gateway.says(/operators=([0-9.:]+)/);
    if (setup.feeds[0].venue === "sim" && !setup.isHeld) await this.#ready(setup);
  }

  async #ready({ admin, gateway }) {
    let said;
    const isReady = async () => {
      const answer = await fetch(`http://${admin}/readyz`);
      said = await answer.text();
      return answer.ok;
    };
    await until("the gateway is ready", isReady).catch((error) => {
      throw new Error(`${error.message}; it says ${said}${gateway.log}`);
    });
  }

  /** Tells the gateway to go. */
  async drain(id) {
    this.#setup(id).gateway.signal("SIGTERM");
  }

  async ended(id) {
    return this.#setup(id).gateway.ended;
  }

  /** The exchanges, or that of one venue, neither hear nor say anything, until `release`. */
  async hold(id, venue) {
    const setup = this.#setup(id);
    setup.isHeld = true;
    for (const feed of setup.feeds) if (venue === undefined || feed.venue === venue) feed.simulator.signal("SIGSTOP");
  }

  async release(id) {
    const setup = this.#setup(id);
    setup.isHeld = false;
    for (const { simulator } of setup.feeds) simulator.signal("SIGCONT");
  }

  /** The gateway neither hears nor says anything, until `resume`. */
  async pause(id) {
    this.#setup(id).gateway.signal("SIGSTOP");
  }

  async resume(id) {
    this.#setup(id).gateway.signal("SIGCONT");
  }

  async kill(id) {
    await this.#setup(id).gateway.kill();
  }

  async stop(id) {
    const { gateway, feeds } = this.#setup(id);
    this.#setups.delete(id);
    await Promise.all([gateway, ...feeds.map((feed) => feed.simulator)].map((program) => program?.kill()));
  }

  async stopAll() {
    await Promise.all([...this.#setups.keys()].map((id) => this.stop(id)));
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  async play(id) {
    await Promise.all(this.#setup(id).feeds.map(({ exchange }) => fetch(`http://${exchange}/replay/start`, { method: "POST" })));
  }

  /** Takes the exchange of a market away. */
  async close(id) {
    await this.#setup(id).feeds[0].simulator.kill();
  }

  /** Brings it back where it was. */
  async reopen(id) {
    const [feed] = this.#setup(id).feeds;
    feed.simulator = new Program("feed-sim", [...feed.args, "--listen", feed.exchange]);
    await feed.simulator.says(/http:\/\/([0-9.:]+)/);
  }

  /** Lets something go wrong at the exchange of a market: `{ kind, … }`, as feed-sim has it. */
  async fault(id, fault) {
    const answer = await fetch(`http://${this.#setup(id).feeds[0].exchange}/faults`, { method: "POST", body: JSON.stringify(fault) });
    if (!answer.ok) throw new Error(`the simulator answers ${answer.status} to ${JSON.stringify(fault)}: ${await answer.text()}`);
  }

  /** How often a kind of fault has happened. */
  async happened(id, kind) {
    const { faults } = await (await fetch(`http://${this.#setup(id).feeds[0].exchange}/faults`)).json();
    return faults.filter((fault) => fault.kind === kind).reduce((sum, fault) => sum + fault.happened, 0);
  }

  /** The simulator's own book at a number of its own; undefined if it is not kept any more. */
  async truth(id, native, venueSeq) {
    const answer = await fetch(`http://${this.#setup(id).feeds[0].exchange}/truth?symbol=${native}&u=${venueSeq}`);
    return answer.ok ? answer.json() : null;
  }

  /** The sum of a metric of the gateway over its labels. */
  async metric(id, name) {
    const text = await (await fetch(`http://${this.#setup(id).admin}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }

  async golden() {
    return readFile(GOLDEN, "utf8");
  }

  /** The states of a recording, and how its symbols begin. */
  async truths(name) {
    return { venue: venueOf(name), text: await this.states(name) };
  }

  async states(name) {
    return zstdDecompressSync(await readFile(join(RECORDINGS, `${name}.states.tsv.zst`))).toString();
  }

  async symbols(name) {
    const lines = (await this.states(name)).split("\n");
    return [...new Set(lines.filter((line) => line !== "").map((line) => line.split("\t")[1]))].sort();
  }

  /** How many trades of each symbol a recording has. */
  async tradeCounts(name) {
    const text = await readFile(join(RECORDINGS, `${name}.truth.jsonl`), "utf8");
    const points = text.trim().split("\n").map((line) => JSON.parse(line));
    return Object.fromEntries(points.map(({ symbol, trades }) => [`${venueOf(name)}:${symbol}`, trades]));
  }

  /** Lines whose loss can be noticed. */
  async faults(name) {
    const rows = JSON.parse(await readFile(join(RECORDINGS, "faults.json"), "utf8"));
    return rows.filter((row) => row.recording === name && row.first_detectable_at_line !== null);
  }
}
