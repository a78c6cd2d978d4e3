// The truth about a recording, from the states that come with it; and whether what a client showed
// agrees with it. It knows nothing of the client but texts of prices and quantities.

const LEVELS = 20;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(text) {
  let crc = 0xffffffff;
  for (let index = 0; index < text.length; index += 1) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ text.charCodeAt(index)) & 255];
  return (crc ^ 0xffffffff) >>> 0;
}

function sideText(levels) {
  return levels.slice(0, LEVELS).map(([price, qty]) => `${price}:${qty}`).join(",");
}

/** Of the best 20 levels a side, as `[[price, quantity], …]` in text. */
export function checksum(bids, asks) {
  return crc32(`${sideText(bids)}|${sideText(asks)}`);
}

/** The rows of `NAME.states.tsv` by symbol. */
export function parseStates(text) {
  const rows = new Map();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const [number, symbol, id, , , , , crc] = line.split("\t");
    if (!rows.has(symbol)) rows.set(symbol, []);
    rows.get(symbol).push({ line: Number(number), id: id === "" ? undefined : Number(id), crc: Number(crc) });
  }
  return rows;
}

/** Follows one book: each state that is shown must be a row, and none before the one shown last. */
export class Follower {
  shown = 0;
  differences = [];
  /** States between the venue's image and the first row, which the file does not have. */
  early = 0;
  #rows;
  #byId;
  #at = -1;

  constructor(rows) {
    this.#rows = rows;
    this.#byId = new Map(rows.map((row, index) => [row.id, index]));
  }

  /** History begins anew. */
  restart() {
    this.#at = -1;
  }

  show(venueSeq, bids, asks) {
    const crc = checksum(bids, asks);
    const index = venueSeq === undefined ? this.#search(crc) : this.#byId.get(venueSeq);
    if (index === undefined && venueSeq < this.#rows[0].id) {
      this.early += 1;
      return;
    }
    this.shown += 1;
    if (index === undefined || index < this.#at || this.#rows[index].crc !== crc) {
      if (this.differences.length < 10) this.differences.push({ venueSeq, crc, index, after: this.#at, best: [bids[0], asks[0]] });
      return;
    }
    this.#at = index;
  }

  #search(crc) {
    for (let index = Math.max(this.#at, 0); index < this.#rows.length; index += 1) {
      if (this.#rows[index].crc === crc) return index;
    }
    return undefined;
  }

  /** The last row is shown, or one that looks like it. */
  get isAtEnd() {
    return this.#at >= 0 && this.#rows[this.#at].crc === this.#rows.at(-1).crc && this.#at >= this.#rows.findLastIndex((row) => row.crc !== this.#rows.at(-1).crc);
  }
}
