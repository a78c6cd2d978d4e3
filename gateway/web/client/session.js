// One connection, from the attempt to its end: a socket → the greeting, answers to requests, data frames.
// `client.js` makes one after the other. It knows messages and frames, and nothing of views.

import { nowUs } from "./clock.js";
import { TickfanError } from "./error.js";
import { Malformed, SUBPROTOCOLS, decodeBinary, decodeJson } from "./wire.js";

/** Until the greeting, from the attempt. */
const GREETING_MS_MAX = 10_000;
/** So many ends of intervals of heartbeat may come in silence. */
const SILENT_TICKS_MAX = 2;
/** Requests that wait for their answer. */
const PENDING_MAX = 1000;
/** Of the messages that the gateway allows, so many may be sent: the rest is a reserve. */
const ALLOWANCE_SHARE = 0.8;
/** A connection that we ended ourselves; the codes of the protocol are others. */
export const OURS = { malformed: 4900, silent: 4901, cut: 4902, noGreeting: 4903 };

export class Session {
  hello = undefined;
  beganUs = nowUs();
  #socket;
  #on;
  #options;
  #timers = new Set();
  #pending = new Map();
  #nextId = 1;
  #frames = 0;
  #silentTicks = 0;
  #retryAfterMs = undefined;
  #isOpen = false;
  #isOver = false;
  #tokens = 1;
  #tokensAtUs = 0;

  /**
   * `on`: `hello(hello)`, `frame(frame, bytes, receivedUs)`, `control(message)` for what answers no request or goes on with its answer,
   * `ping(sent, received there, sent there, received)`, `scales(view)`, `end(ended)`, called once.
   */
  constructor(url, options, on) {
    this.#options = options;
    this.#on = on;
    this.#socket = new options.WebSocket(url, [SUBPROTOCOLS[options.encoding]]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onmessage = ({ data }) => this.#onMessage(data);
    this.#socket.onclose = ({ code, reason }) => this.#end(code, reason);
    this.#socket.onopen = () => {
      this.#isOpen = true;
    };
    // What went wrong is told to nobody by browsers. `close` follows, but in Node 22 not where nothing was open.
    this.#socket.onerror = () => {
      if (!this.#isOpen) this.#end(1006, "no connection");
    };
    this.#later(GREETING_MS_MAX, () => {
      if (this.hello === undefined) this.drop(OURS.noGreeting, `no greeting in ${GREETING_MS_MAX} ms`);
    });
  }

  /** Ends it as a lost connection; nothing more is heard of it. */
  drop(code, reason) {
    const socket = this.#socket;
    this.#end(code, reason);
    socket.close();
  }

  /** Ends it in peace. */
  close() {
    const socket = this.#socket;
    this.#end(1000, "closed by us");
    socket.close(1000);
  }

  /** Milliseconds until a message may be sent. */
  sendableInMs() {
    const perS = this.#allowance();
    const now = nowUs();
    this.#tokens = Math.min(perS, this.#tokens + ((now - this.#tokensAtUs) / 1e6) * perS);
    this.#tokensAtUs = now;
    return this.#tokens >= 1 ? 0 : Math.ceil(((1 - this.#tokens) / perS) * 1000);
  }

  #allowance() {
    return Math.max(1, (this.hello?.limits.messages_per_s ?? 1) * ALLOWANCE_SHARE);
  }

  /** Sends a message that is answered by none. */
  send(message) {
    this.#tokens -= 1;
    this.#socket.send(JSON.stringify(message));
  }

  /**
   * Sends a request. Each part of its answer goes to `onAnswer`, which returns true when it was the last.
   * Rejects when it is refused as a whole, or the connection ends.
   */
  request(message, onAnswer) {
    if (this.#pending.size >= PENDING_MAX) {
      return Promise.reject(new TickfanError("rate_limited", `${PENDING_MAX} requests wait for their answer; wait for some`));
    }
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { onAnswer, resolve, reject });
      this.send({ ...message, id });
    });
  }

  /** As `request`, where nobody knows how many parts the answer has: that to a ping behind it comes after the last. */
  requestAll(message, onPart) {
    const id = this.#nextId;
    const answered = this.request(message, (part) => {
      onPart(part);
      return false;
    });
    const behind = this.request({ op: "ping" }, () => true).finally(() => this.#pending.delete(id));
    return Promise.race([answered, behind]);
  }

  #onMessage(data) {
    if (this.#isOver) return;
    const receivedUs = nowUs();
    this.#silentTicks = 0;
    try {
      if (typeof data !== "string") return this.#onFrame(decodeBinary(data), data.byteLength, receivedUs);
      const message = parse(data);
      if (message.type === undefined) return this.#onFrame(decodeJson(message, this.#on.scales), data.length, receivedUs);
      this.#onControl(message, receivedUs);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.#on.error(new TickfanError("malformed", `what the gateway sent is no message of the protocol: ${error.message}`));
      this.drop(OURS.malformed, error.message);
    }
  }

  #onFrame(frame, bytes, receivedUs) {
    this.#frames += 1;
    if (frame.n !== this.#frames) throw new Malformed(`frame ${this.#frames} was due; ${frame.n} came`);
    for (const update of frame.updates) update.receivedUs = receivedUs;
    this.#on.frame(frame, bytes, receivedUs);
  }

  #onControl(message, receivedUs) {
    check(message);
    if (message.type === "hello") return this.#onHello(message);
    if (message.type === "drain") this.#retryAfterMs = message.retry_after_ms;
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return this.#on.control(message);
    if (message.type === "error") {
      this.#pending.delete(message.id);
      pending.reject(new TickfanError(message.code, message.message));
    } else if (pending.onAnswer(message, receivedUs)) {
      this.#pending.delete(message.id);
      pending.resolve();
    }
  }

  #onHello(message) {
    if (this.hello !== undefined) return;
    this.hello = message;
    this.#tokens = this.#allowance();
    this.#tokensAtUs = nowUs();
    const { heartbeatMs, pingMs, gatewayStatsMs } = this.#options;
    this.send({ op: "heartbeat", every_ms: heartbeatMs });
    if (gatewayStatsMs > 0) this.send({ op: "stats", every_ms: gatewayStatsMs });
    this.#every(heartbeatMs, () => {
      // Whoever was held up finds what has come only after this: one tick in silence proves nothing.
      this.#silentTicks += 1;
      if (this.#silentTicks > SILENT_TICKS_MAX) this.drop(OURS.silent, `nothing was heard for ${(SILENT_TICKS_MAX + 1) * heartbeatMs} ms`);
    });
    this.#on.hello(message);
    // Who was told so may have ended it.
    if (this.#isOver) return;
    if (pingMs > 0) {
      this.#ping();
      this.#every(pingMs, () => this.#ping());
    }
  }

  #ping() {
    if (this.sendableInMs() > 0) return;
    const sentUs = nowUs();
    this.request({ op: "ping" }, (pong, receivedUs) => {
      this.#on.ping(sentUs, pong.received, pong.sent, receivedUs);
      return true;
    }).catch(() => {});
  }

  #later(ms, then) {
    this.#timers.add(setTimeout(then, ms));
  }

  #every(ms, then) {
    this.#timers.add(setInterval(then, ms));
  }

  #end(code, reason) {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    const lost = new TickfanError("closed", `the connection ended before the answer: ${code} ${reason}`);
    for (const { reject } of this.#pending.values()) reject(lost);
    this.#pending.clear();
    this.#on.end({ code, reason, retryAfterMs: this.#retryAfterMs });
  }
}

/** The lists of answers. */
const LISTS = { subscribed: "results", instruments: "instruments" };

const isObject = (value) => value !== null && typeof value === "object";

/** Whether a control message has what is read of it without asking. */
function check(message) {
  const { type, limits } = message;
  if (type === "hello" && !(limits?.messages_per_s > 0 && limits.message_bytes > 0)) throw new Malformed("a greeting has limits");
  const list = LISTS[type];
  if (list !== undefined && !(Array.isArray(message[list]) && message[list].every(isObject))) throw new Malformed(`${type} has a list of ${list}`);
}

function parse(text) {
  let message;
  try {
    message = JSON.parse(text);
  } catch (error) {
    throw new Malformed(error.message);
  }
  if (!isObject(message)) throw new Malformed("a message is an object");
  return message;
}
