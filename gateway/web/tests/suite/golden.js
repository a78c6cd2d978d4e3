// The golden frames, which every client reads: both encodings say the same, and what is no frame is refused.

import { equal, ok } from "./check.js";

function blocks(text) {
  return text.trim().split(/\n\n+/).map((block) => {
    const lines = block.split("\n");
    const of = (word) => lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));
    const hex = of("bin").join("").replaceAll(" ", "");
    return { name: of("frame")[0], json: of("json")[0], bytes: Uint8Array.from(hex.match(/../g), (byte) => parseInt(byte, 16)) };
  });
}

/** What the JSON of a frame says, from its text alone, in the shape of `shown`. */
function said({ n, ts, late = [], u }) {
  return {
    n, ts,
    updates: u.map((update, index) => {
      const { t, v = 0, e, s = 0, p = 0, q, te = 0, tr = 0, to = 0, state, b, a, trusted, x, lost = 0, why, since } = update;
      const common = { t, late: late.includes(index) };
      if (t === "stats") return { ...common, report: Object.fromEntries(Object.entries(update).filter(([key]) => key !== "t")) };
      if (t === "state") return { ...common, v, e, state, why, since };
      if (t === "trades") return { ...common, v, s, p, tr, to, lost, x };
      const sides = t === "bbo" ? [b, a].map((best) => (best === null ? [] : [best])) : [b, a];
      const rest = t === "image" ? { e, state, trusted } : {};
      return { ...common, v, s, p, q, te, tr, to, sides, ...rest };
    }),
  };
}

/** What the client shows of a frame. */
function shown({ n, sentUs, updates }) {
  return {
    n, ts: sentUs,
    updates: updates.map((u) => {
      const common = { t: u.kind, late: u.late };
      if (u.kind === "stats") return { ...common, report: u.report };
      if (u.kind === "state") return { ...common, v: u.view, e: u.epoch, state: u.state, why: u.reason, since: u.sinceUs };
      const times = { tr: u.gatewayUs, to: u.oldestUs };
      if (u.kind === "trades") {
        const x = u.trades.map((trade) => [trade.exchangeUs, trade.priceText, trade.qtyText, trade.side, trade.id]);
        return { ...common, v: u.view, s: u.seq, p: u.prev, ...times, lost: u.lost, x };
      }
      const rest = u.kind === "image" ? { e: u.epoch, state: u.state, trusted: u.trusted } : {};
      return { ...common, v: u.view, s: u.seq, p: u.prev, q: u.venueSeq, te: u.exchangeUs, ...times, sides: [u.bids.toJSON(), u.asks.toJSON()], ...rest };
    }),
  };
}

export const cases = [
  {
    name: "golden frames say the same in both encodings",
    encodings: ["both"],
    async run({ lab, module }) {
      const { decodeBinary, decodeJson } = await module("client/wire.js");
      const all = blocks(await lab.golden());
      ok(all.length >= 13, "the file has the frames that it is known to have");
      for (const { name, json, bytes } of all) {
        const expected = said(JSON.parse(json));
        equal(shown(decodeJson(JSON.parse(json), () => undefined)), expected, `${name}, JSON`);
        for (const update of expected.updates) {
          // The one thing that binary cannot say: an id that is no number.
          update.x?.forEach((trade) => {
            if (!/^\d+$/.test(trade[4])) trade[4] = "";
          });
        }
        equal(shown(decodeBinary(bytes.buffer)), expected, `${name}, binary`);
      }
    },
  },
  {
    name: "a frame that is cut or has a byte changed is an error or a frame",
    encodings: ["both"],
    async run({ lab, module }) {
      const { Malformed, decodeBinary } = await module("client/wire.js");
      let refused = 0;
      const survive = (bytes) => {
        try {
          shown(decodeBinary(bytes.buffer));
        } catch (error) {
          if (!(error instanceof Malformed)) throw error;
          refused += 1;
        }
      };
      for (const { name, bytes } of blocks(await lab.golden())) {
        const before = refused;
        for (let length = 0; length < bytes.length; length += 1) survive(bytes.slice(0, length));
        equal(refused - before, bytes.length, `${name}: every cut is refused`);
        for (let at = 0; at < bytes.length; at += 1) {
          for (const flip of [0x01, 0x80, 0xff]) {
            const changed = bytes.slice();
            changed[at] ^= flip;
            survive(changed);
          }
        }
      }
    },
  },
];
