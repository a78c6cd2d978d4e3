// The Tickfan client: `connect` → a `Client` that keeps a connection to a gateway, and all that hangs on it.
// `client.d.ts` describes what is public. For pages, Workers and Node >= 22; no dependency.

import { Offset, Rate, nowUs } from "./client/clock.js";
import { TickfanError } from "./client/error.js";
import { Book, Tape } from "./client/live.js";
import { Registry } from "./client/registry.js";
import { waitMs } from "./client/retry.js";
import { OURS, Session } from "./client/session.js";
import { Subscription } from "./client/subscription.js";
import { SUBPROTOCOLS } from "./client/wire.js";

export { TickfanError };

const PATH = "/v1/stream";
const URL_DEFAULT = "ws://127.0.0.1:8080";
/** A connection that lasted so long was a good one. */
const LASTED_US = 10_000_000;

export function connect(url, options = {}) {
  return new Client(completeUrl(url), checkedOptions(options));
}

function completeUrl(url) {
  const fromPage = globalThis.location?.protocol?.startsWith("http") ? globalThis.location.origin : undefined;
  const text = String(url ?? fromPage ?? globalThis.process?.env?.TICKFAN_URL ?? URL_DEFAULT);
  const complete = /^[a-z]+:\/\//i.test(text) ? text : `ws://${text}`;
  if (!/^(ws|http)s?:/i.test(complete) || !URL.canParse(complete)) {
    throw new TypeError(`the address of a gateway is like "127.0.0.1:8080" or "wss://example.com"; ${JSON.stringify(text)} came`);
  }
  const full = new URL(complete);
  full.protocol = full.protocol.replace("http", "ws");
  if (full.pathname === "/") full.pathname = PATH;
  full.hash = "";
  return full.href;
}

function checkedOptions({ encoding = "binary", heartbeatMs = 5000, pingMs = 1000, gatewayStatsMs = 0, reconnect = {}, WebSocket = globalThis.WebSocket }) {
  if (!(encoding in SUBPROTOCOLS)) throw new TypeError(`an encoding is "binary" or "json"; ${JSON.stringify(encoding)} came`);
  if (typeof WebSocket !== "function") throw new TypeError("there is no WebSocket here: Node >= 22 has one, or give a class as the option WebSocket");
  const { firstMs = 500, maxMs = 15_000 } = reconnect;
  return { encoding, heartbeatMs, pingMs, gatewayStatsMs, reconnect: { firstMs, maxMs }, WebSocket };
}

class Client {
  url;
  state = "connecting";
  hello = undefined;
  #options;
  #session;
  #registry;
  #context;
  #readers = new Set();
  #listeners = new Map();
  #ready = Promise.withResolvers();
  #attempts = 0;
  #timer;
  #cutWaitMs;
  #offset = new Offset();
  #gatewayStats;
  #counts = { frames: 0, updates: 0, merged: 0, late: 0, bytes: 0, reconnects: 0, resyncs: 0, conflated: 0 };
  #rates = { updates: new Rate(), merged: new Rate(), late: new Rate(), bytes: new Rate() };

  constructor(url, options) {
    this.url = url;
    this.#options = options;
    this.#ready.promise.catch(() => {});
    this.#registry = new Registry({
      error: (error) => this.#emit("error", error),
      told: (update) => {
        if (update.kind === "hole") this.#emit("hole", update);
      },
      resync: () => {
        this.#counts.resyncs += 1;
      },
    });
    this.#context = {
      registry: this.#registry,
      error: (error) => this.#emit("error", error),
      conflated: (count) => {
        this.#counts.conflated += count;
      },
      forget: (reader) => this.#readers.delete(reader),
      ageMs: (us) => (nowUs() + (this.#offset.estimate()?.offsetUs ?? 0) - us) / 1000,
    };
    this.#open();
  }

  get ready() {
    return this.#ready.promise;
  }

  subscribe(options, onUpdate) {
    return this.#reader(() => new Subscription(this.#context, options, onUpdate));
  }

  book(symbol, { depth, budgetMs } = {}) {
    return this.#reader(() => new Book(this.#context, { channel: "book", symbols: symbol, depth, budgetMs }));
  }

  bbo(symbol, { budgetMs } = {}) {
    return this.#reader(() => new Book(this.#context, { channel: "bbo", symbols: symbol, budgetMs }));
  }

  trades(symbol, { last = 100, keep, budgetMs } = {}) {
    return this.#reader(() => new Tape(this.#context, { channel: "trades", symbols: symbol, last, keep, budgetMs }));
  }

  #reader(make) {
    if (this.state === "closed") throw new TickfanError("closed", "the client is closed; connect anew");
    const reader = make();
    this.#readers.add(reader);
    return reader;
  }

  async instruments(match = "*") {
    await this.ready;
    if (this.#session?.hello === undefined) throw new TickfanError("closed", `there is no connection now (${this.state}); try again when it is open`);
    const found = [];
    await this.#session.requestAll({ op: "instruments", match }, ({ instruments }) => found.push(...instruments));
    return found;
  }

  stats() {
    const now = nowUs();
    const { updates, merged, late, bytes } = this.#rates;
    const estimate = this.#offset.estimate();
    return {
      ...this.#counts,
      updatesPerS: updates.perS(now),
      mergedPerS: merged.perS(now),
      latePerS: late.perS(now),
      bytesPerS: bytes.perS(now),
      rttUs: estimate?.rttUs,
      offsetUs: estimate?.offsetUs,
      offsetErrorUs: estimate?.offsetErrorUs,
      gateway: this.#gatewayStats,
    };
  }

  nowUs() {
    return nowUs();
  }

  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  #emit(event, value) {
    const listeners = this.#listeners.get(event);
    if (event === "error" && !listeners?.size) console.error(value);
    for (const listener of listeners ?? []) {
      try {
        listener(value);
      } catch (error) {
        // What listens to errors must not be called for its own.
        if (event === "error") console.error(error);
        else this.#emit("error", error);
      }
    }
  }

  cut(waitMs) {
    if (this.#session === undefined) return;
    this.#cutWaitMs = waitMs;
    this.#session.drop(OURS.cut, "cut by us");
  }

  stall(ms) {
    if (typeof document !== "undefined") throw new TypeError("a page must not be blocked; run the client in a Worker to try this");
    if (typeof SharedArrayBuffer === "function") {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
      return;
    }
    const untilUs = nowUs() + ms * 1000;
    while (nowUs() < untilUs);
  }

  close() {
    if (this.state === "closed") return;
    const session = this.#session;
    this.#closeWith(undefined);
    session?.close();
  }

  #closeWith(error) {
    this.state = "closed";
    clearTimeout(this.#timer);
    this.#session = undefined;
    this.#registry.detached(error?.message ?? "closed");
    for (const reader of [...this.#readers]) {
      if (error === undefined) reader.close();
      else reader.fail(error);
    }
    this.#ready.reject(error ?? new TickfanError("closed", "the client was closed before it was connected"));
  }

  #open() {
    this.state = "connecting";
    this.#offset = new Offset();
    const session = new Session(this.url, this.#options, {
      hello: (message) => this.#onHello(session, message),
      frame: (frame, bytes, receivedUs) => this.#onFrame(frame, bytes, receivedUs),
      control: (message) => this.#onControl(message),
      ping: (...times) => {
        this.#offset.add(...times);
        this.#emit("ping", this.#offset.estimate());
      },
      scales: (view) => this.#registry.scales(view),
      error: (error) => this.#emit("error", error),
      end: (ended) => this.#onEnd(session, ended),
    });
    this.#session = session;
  }

  #onHello(session, { protocol, gateway, session: name, time, limits, budgets_ms, depths }) {
    this.hello = { protocol, gateway, session: name, timeUs: time, limits, budgetsMs: budgets_ms, depths };
    this.state = "open";
    this.#registry.attached(session);
    this.#ready.resolve(this.hello);
    this.#emit("open", this.hello);
  }

  #onFrame(frame, bytes, receivedUs) {
    const counts = this.#counts;
    this.#registry.frame(frame, receivedUs);
    let merged = 0;
    let late = 0;
    for (const update of frame.updates) {
      merged += update.merged;
      if (update.late) late += 1;
      if (update.kind === "stats") {
        this.#gatewayStats = update.report;
        this.#emit("stats", update.report);
      }
    }
    const updates = frame.updates.filter((update) => update.symbol !== "");
    counts.frames += 1;
    for (const [name, amount] of [["updates", updates.length], ["merged", merged], ["late", late], ["bytes", bytes]]) {
      counts[name] += amount;
      this.#rates[name].add(amount, receivedUs);
    }
    this.#emit("frame", { n: frame.n, bytes, sentUs: frame.sentUs, receivedUs, lateUs: frame.lateUs, updates });
  }

  #onControl(message) {
    if (message.type === "drain") {
      this.#emit("drain", { inMs: message.in_ms, retryAfterMs: message.retry_after_ms, reason: message.reason });
    } else if (message.type === "error" && message.code !== "rate_limited") {
      this.#emit("error", new TickfanError(message.code, message.message));
    }
  }

  #onEnd(session, ended) {
    if (this.state === "closed" || session !== this.#session) return;
    this.#session = undefined;
    const hasLasted = session.hello !== undefined && nowUs() - session.beganUs >= LASTED_US;
    if (hasLasted) this.#attempts = 0;
    const retryInMs = this.#cutWaitMs ?? waitMs(ended, this.#attempts, this.#options.reconnect, Math.random());
    this.#cutWaitMs = undefined;
    this.#attempts += 1;
    const { code, reason } = ended;
    if (retryInMs === undefined) {
      const error = new TickfanError("closed", `the gateway closed with ${code} ${reason}; to come back with the same would end the same`);
      this.#closeWith(error);
      this.#emit("close", { code, reason, retryInMs });
      this.#emit("error", error);
      return;
    }
    this.state = "waiting";
    this.#counts.reconnects += 1;
    this.#registry.detached(`connection lost: ${code} ${reason}`.trim());
    if (this.hello === undefined && this.#attempts === 1) {
      this.#emit("error", new TickfanError("unreachable", `no gateway has answered at ${this.url} (${code} ${reason}); it is tried again until close()`));
    }
    // Who was told so may have closed it.
    if (this.state === "closed") return;
    this.#timer = setTimeout(() => this.#open(), retryInMs);
    this.#emit("close", { code, reason, retryInMs });
  }
}
