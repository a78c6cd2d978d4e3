// Data frames in both encodings → the same updates (docs/PROTOCOL.md §4 and §5).
// `session.js` calls it for each frame. Pure, and believes nothing: whatever comes, it gives a frame or
// throws `Malformed`. Levels of a binary frame are read in place, in the buffer that came; nothing may
// change that buffer afterwards.

import { fractionDigits, micros, toNumber, toText, unsigned, unsignedText, writeMantissa } from "./decimal.js";
import { LEVEL_WORDS, Levels } from "./levels.js";

/** The subprotocol of each encoding. */
export const SUBPROTOCOLS = { binary: "tickfan.bin.v1", json: "tickfan.json.v1" };

/** States in the order of their numbers. */
const STATES = ["syncing", "live", "suspect", "stale", "gap", "halted", "closed"];
const SIDES = ["", "buy", "sell"];
const KINDS = [undefined, "image", "delta", "bbo", "trades", "state", "stats"];

const MAGIC = 0x4654;
const VERSION = 1;
const FRAME_HEAD_BYTES = 32;
const RECORD_HEAD_BYTES = 64;
const RECORDS_MAX = 64;
const ALIGNMENT = 8;
const BOOK_HEAD_BYTES = 16;
const LEVEL_BYTES = 16;
const TRADES_HEAD_BYTES = 8;
const TRADE_BYTES = 40;
const STATE_HEAD_BYTES = 12;
const SCALE_MAX = 18;
const ALL_LEVELS = 0xffffffff;
const LOST_BY_DIFFERENCE = 0xffffffff;
const STATS_FIELDS = [
  "every_ms", "p50_us", "p99_us", "max_us", "sent", "merged", "late", "late_gateway", "late_client",
  "feed_age_p50_us", "unsent_bytes",
];
const STATS_BYTES = 12 * 8;
const NO_WORDS = new Int32Array(0);

/** Bytes that are no frame. The gateway's fault, or of what stands between it and us. */
export class Malformed extends Error {}

/** A trade. Its text is made when it is asked for. */
export class Trade {
  #words;
  #priceScale;
  #qtyScale;

  /** `words`: price low and high, quantity low and high. */
  constructor(exchangeUs, words, priceScale, qtyScale, side, id) {
    this.exchangeUs = exchangeUs;
    this.side = side;
    this.id = id;
    this.#words = words;
    this.#priceScale = priceScale;
    this.#qtyScale = qtyScale;
  }

  get price() {
    return toNumber(this.#words[1], this.#words[0], this.#priceScale);
  }

  get qty() {
    return toNumber(this.#words[3], this.#words[2], this.#qtyScale);
  }

  get priceText() {
    return toText(this.#words[1], this.#words[0], this.#priceScale);
  }

  get qtyText() {
    return toText(this.#words[3], this.#words[2], this.#qtyScale);
  }
}

/** An update with nothing in it yet: one shape for all kinds. */
function blank(kind) {
  return {
    kind,
    symbol: "",
    channel: undefined,
    view: 0,
    state: undefined,
    epoch: undefined,
    seq: 0,
    prev: 0,
    venueSeq: undefined,
    exchangeUs: 0,
    gatewayUs: 0,
    oldestUs: 0,
    sentUs: 0,
    receivedUs: 0,
    late: false,
    merged: 0,
  };
}

/**
 * A frame of `tickfan.bin.v1`: `{ n, sentUs, lateUs, updates }`. An update names its view; of which symbol that is,
 * the caller knows. Kinds that this version does not know are left out.
 */
export function decodeBinary(buffer) {
  if (buffer.byteLength < FRAME_HEAD_BYTES) {
    throw new Malformed(`a frame begins with ${FRAME_HEAD_BYTES} bytes; ${buffer.byteLength} came`);
  }
  const view = new DataView(buffer);
  if (view.getUint16(0, true) !== MAGIC) throw new Malformed(`a frame begins with ${MAGIC}; ${view.getUint16(0, true)} came`);
  if (view.getUint8(2) !== VERSION) throw new Malformed(`expected version ${VERSION} of the frame; ${view.getUint8(2)} came`);
  const count = view.getUint16(4, true);
  if (count > RECORDS_MAX) throw new Malformed(`a frame has at most ${RECORDS_MAX} updates; ${count} came`);
  if (buffer.byteLength % ALIGNMENT !== 0) throw new Malformed(`a frame is a multiple of ${ALIGNMENT} bytes; ${buffer.byteLength} came`);
  const sentUs = micros(view.getUint32(20, true), view.getUint32(16, true));
  const late = [view.getUint32(24, true), view.getUint32(28, true)];
  const words = new Int32Array(buffer);
  const updates = [];
  let at = FRAME_HEAD_BYTES;
  for (let index = 0; index < count; index += 1) {
    const left = buffer.byteLength - at;
    if (left < RECORD_HEAD_BYTES) throw new Malformed(`update ${index} begins with ${RECORD_HEAD_BYTES} bytes; ${left} are left`);
    const length = view.getUint32(at, true);
    if (length < RECORD_HEAD_BYTES || length % ALIGNMENT !== 0 || length > left) {
      throw new Malformed(`the length of update ${index} is ${length}; ${left} bytes are left`);
    }
    const update = decodeRecord(view, words, at, length);
    if (update !== undefined) {
      update.sentUs = sentUs;
      update.late = ((late[index >>> 5] >>> (index & 31)) & 1) === 1;
      updates.push(update);
    }
    at += length;
  }
  if (at !== buffer.byteLength) throw new Malformed(`the frame ends with its last update; ${buffer.byteLength - at} bytes follow`);
  return { n: unsigned(view.getUint32(12, true), view.getUint32(8, true)), sentUs, lateUs: 0, updates };
}

function decodeRecord(view, words, at, length) {
  const kind = KINDS[view.getUint8(at + 4)];
  if (kind === undefined) return undefined;
  const update = blank(kind);
  const word = at / 4;
  const body = at + RECORD_HEAD_BYTES;
  const bytes = length - RECORD_HEAD_BYTES;
  if (kind === "stats") return decodeStats(update, view, body, bytes);
  update.state = STATES[view.getUint8(at + 5)];
  if (update.state === undefined) throw new Malformed(`a state is a number below ${STATES.length}; ${view.getUint8(at + 5)} came`);
  const flags = view.getUint16(at + 6, true);
  const priceScale = ((flags >>> 8) & 15) + ((flags & 2) << 3);
  const qtyScale = (flags >>> 12) + ((flags & 4) << 2);
  if (priceScale > SCALE_MAX || qtyScale > SCALE_MAX) {
    throw new Malformed(`a scale is at most ${SCALE_MAX}; ${priceScale} and ${qtyScale} came`);
  }
  update.view = view.getUint32(at + 8, true);
  update.epoch = view.getUint32(at + 12, true);
  update.seq = unsigned(words[word + 5], words[word + 4]);
  update.prev = unsigned(words[word + 7], words[word + 6]);
  update.exchangeUs = micros(view.getUint32(at + 36, true), view.getUint32(at + 32, true));
  update.gatewayUs = micros(view.getUint32(at + 44, true), view.getUint32(at + 40, true));
  update.oldestUs = micros(view.getUint32(at + 52, true), view.getUint32(at + 48, true));
  update.venueSeq = flags & 1 ? unsigned(words[word + 15], words[word + 14]) : undefined;
  if (kind === "state") return decodeState(update, view, body, bytes);
  if (kind === "trades") return decodeTrades(update, view, words, body, bytes, priceScale, qtyScale);
  return decodeLevels(update, view, words, body, bytes, priceScale, qtyScale);
}

function expectBytes(expected, came) {
  if (expected !== came) throw new Malformed(`what an update says it holds takes ${expected} bytes; ${came} came`);
}

function decodeLevels(update, view, words, body, bytes, priceScale, qtyScale) {
  if (bytes < BOOK_HEAD_BYTES) throw new Malformed(`a book update has ${BOOK_HEAD_BYTES} bytes before its levels; ${bytes} came`);
  const bids = view.getUint32(body, true);
  const asks = view.getUint32(body + 4, true);
  expectBytes(BOOK_HEAD_BYTES + (bids + asks) * LEVEL_BYTES, bytes);
  if (update.kind === "bbo" && (bids > 1 || asks > 1)) {
    throw new Malformed(`a side of a best bid and offer has at most one level; ${bids} and ${asks} came`);
  }
  const first = (body + BOOK_HEAD_BYTES) / 4;
  update.bids = new Levels(words, first, bids, priceScale, qtyScale);
  update.asks = new Levels(words, first + bids * LEVEL_WORDS, asks, priceScale, qtyScale);
  if (update.kind !== "bbo") {
    const trusted = [view.getUint32(body + 8, true), view.getUint32(body + 12, true)];
    const isCut = trusted.some((levels) => levels !== ALL_LEVELS);
    update.trusted = isCut ? trusted.map((levels, side) => (levels === ALL_LEVELS ? [bids, asks][side] : levels)) : undefined;
  }
  return update;
}

function decodeTrades(update, view, words, body, bytes, priceScale, qtyScale) {
  if (bytes < TRADES_HEAD_BYTES) throw new Malformed(`trades have ${TRADES_HEAD_BYTES} bytes before them; ${bytes} came`);
  const count = view.getUint32(body, true);
  expectBytes(TRADES_HEAD_BYTES + count * TRADE_BYTES, bytes);
  const lost = view.getUint32(body + 4, true);
  update.lost = lost === LOST_BY_DIFFERENCE ? update.seq - update.prev : lost;
  update.trades = new Array(count);
  // Trades are kept for long where there are few of them, and must not keep all that came with them.
  const first = (body + TRADES_HEAD_BYTES) / 4;
  const own = words.slice(first, first + (count * TRADE_BYTES) / 4);
  for (let index = 0, at = body + TRADES_HEAD_BYTES; index < count; index += 1, at += TRADE_BYTES) {
    const word = at / 4 - first;
    const side = SIDES[view.getUint8(at + 32)];
    if (side === undefined) throw new Malformed(`a side is a number below ${SIDES.length}; ${view.getUint8(at + 32)} came`);
    const id = unsignedText(own[word + 7], own[word + 6]);
    update.trades[index] = new Trade(
      micros(view.getUint32(at + 4, true), view.getUint32(at, true)),
      own.subarray(word + 2, word + 6), priceScale, qtyScale, side, id === "0" ? "" : id,
    );
  }
  return update;
}

function decodeState(update, view, body, bytes) {
  if (bytes < STATE_HEAD_BYTES) throw new Malformed(`a state has ${STATE_HEAD_BYTES} bytes before its reason; ${bytes} came`);
  const length = view.getUint32(body + 8, true);
  expectBytes(Math.ceil((STATE_HEAD_BYTES + length) / ALIGNMENT) * ALIGNMENT, bytes);
  update.sinceUs = micros(view.getUint32(body + 4, true), view.getUint32(body, true));
  try {
    const reason = new Uint8Array(view.buffer, body + STATE_HEAD_BYTES, length);
    update.reason = new TextDecoder("utf-8", { fatal: true }).decode(reason);
  } catch {
    throw new Malformed("the reason of a state is UTF-8; this one is not");
  }
  return update;
}

function decodeStats(update, view, body, bytes) {
  expectBytes(STATS_BYTES, bytes);
  update.report = {};
  STATS_FIELDS.forEach((field, index) => {
    const at = body + index * 8;
    update.report[field] = view.getInt32(at + 4, true) * 4294967296 + view.getUint32(at, true);
  });
  return update;
}

/**
 * A frame of `tickfan.json.v1`, already parsed, as `decodeBinary` gives it; of what an update does not say, its epoch and state are
 * undefined. `scalesOf(view)` gives `{ price, qty }`, the scales at which the numbers of the view are kept;
 * they are raised where a finer number comes.
 */
export function decodeJson(frame, scalesOf) {
  if (!isCount(frame.n) || !isCount(frame.ts) || !Array.isArray(frame.u)) {
    throw new Malformed("a frame has the numbers n and ts, and the list u");
  }
  const late = frame.late ?? [];
  if (!Array.isArray(late)) throw new Malformed("late is a list of indices");
  const updates = [];
  frame.u.forEach((json, index) => {
    const update = decodeUpdate(json, scalesOf);
    if (update === undefined) return;
    update.sentUs = frame.ts;
    update.late = late.includes(index);
    updates.push(update);
  });
  return { n: frame.n, sentUs: frame.ts, lateUs: frame.late_us ?? 0, updates };
}

function isCount(value) {
  return Number.isInteger(value) && value >= 0;
}

function count(json, key, fallback) {
  const value = json[key] ?? fallback;
  if (!isCount(value)) throw new Malformed(`${key} is a whole number; ${JSON.stringify(value)} came`);
  return value;
}

function decodeUpdate(json, scalesOf) {
  const kind = json?.t;
  if (!KINDS.includes(kind) || kind === undefined) return undefined;
  const update = blank(kind);
  if (kind === "stats") {
    update.report = Object.fromEntries(STATS_FIELDS.map((field) => [field, Number(json[field] ?? 0)]));
    return update;
  }
  update.view = count(json, "v", 0);
  update.exchangeUs = count(json, "te", 0);
  update.gatewayUs = count(json, "tr", 0);
  update.oldestUs = count(json, "to", 0);
  update.venueSeq = json.q === undefined ? undefined : count(json, "q");
  if (json.state !== undefined) {
    if (!STATES.includes(json.state)) throw new Malformed(`unknown state ${JSON.stringify(json.state)}`);
    update.state = json.state;
  }
  if (json.e !== undefined) update.epoch = count(json, "e");
  if (kind === "state") {
    if (update.state === undefined || update.epoch === undefined) throw new Malformed("a state has an epoch and a state");
    update.reason = String(json.why ?? "");
    update.sinceUs = count(json, "since", 0);
    return update;
  }
  update.seq = count(json, "s");
  update.prev = count(json, "p", 0);
  const scales = scalesOf(update.view) ?? { price: 0, qty: 0 };
  if (kind === "trades") {
    update.lost = count(json, "lost", 0);
    update.trades = tradesOf(json.x, scales);
    return update;
  }
  if (kind === "image" && (update.state === undefined || update.epoch === undefined)) {
    throw new Malformed("an image has an epoch and a state");
  }
  const sides = kind === "bbo" ? [json.b, json.a].map((best) => (best === null ? [] : [best])) : [json.b, json.a];
  const rows = sides.map(checkedRows);
  raise(scales, [...rows[0], ...rows[1]], 0, 1);
  [update.bids, update.asks] = rows.map((side) => levelsOf(side, scales));
  if (kind !== "bbo") update.trusted = trustedOf(json.trusted);
  return update;
}

function checkedRows(rows) {
  const isRow = (row) => Array.isArray(row) && typeof row[0] === "string" && typeof row[1] === "string";
  if (!Array.isArray(rows) || !rows.every(isRow)) throw new Malformed("a side is a list of prices and quantities");
  return rows;
}

/** Where finer numbers come than are known, the scales grow. */
function raise(scales, rows, price, qty) {
  for (const row of rows) {
    scales.price = Math.max(scales.price, fractionDigits(row[price]));
    scales.qty = Math.max(scales.qty, fractionDigits(row[qty]));
  }
  if (scales.price > SCALE_MAX || scales.qty > SCALE_MAX) throw new Malformed(`a decimal has at most ${SCALE_MAX} digits behind the point`);
}

function wordsOf(price, qty, scales, words, at) {
  try {
    writeMantissa(price, scales.price, words, at);
    writeMantissa(qty, scales.qty, words, at + 2);
  } catch (error) {
    throw new Malformed(error.message);
  }
}

function levelsOf(rows, scales) {
  const words = rows.length === 0 ? NO_WORDS : new Int32Array(rows.length * LEVEL_WORDS);
  rows.forEach(([price, qty], index) => wordsOf(price, qty, scales, words, index * LEVEL_WORDS));
  return new Levels(words, 0, rows.length, scales.price, scales.qty);
}

function trustedOf(trusted) {
  if (trusted === undefined) return undefined;
  if (!Array.isArray(trusted) || trusted.length !== 2 || !trusted.every(isCount)) throw new Malformed("trusted has two numbers");
  return trusted;
}

function tradesOf(rows, scales) {
  const isRow = (row) => Array.isArray(row) && isCount(row[0]) && typeof row[1] === "string" && typeof row[2] === "string";
  if (!Array.isArray(rows) || !rows.every(isRow)) throw new Malformed("x is a list of trades");
  raise(scales, rows, 1, 2);
  return rows.map(([exchangeUs, price, qty, side, id]) => {
    const words = new Int32Array(LEVEL_WORDS);
    wordsOf(price, qty, scales, words, 0);
    return new Trade(exchangeUs, words, scales.price, scales.qty, SIDES.includes(side) ? side : "", String(id ?? ""));
  });
}
