// Delays of single updates → what the latency plot shows: a ring of short bins, each with a histogram.
//
// Pure: the time is an argument. Kept by the worker, which notes thousands of delays a second; the
// page is handed a column a bin. Bounded: whatever comes, the ring does not grow.

/** The stages of an update's way, in their order. */
export const STAGES = ["venue", "inside", "wire"];

/** How long a bin is, and how many there are: 30 s. */
export const BIN_MS = 250;
export const BINS = 120;

/** What the page gets of a bin: median and worst of each stage, and how many updates were late. */
export const COLUMN = STAGES.length * 2 + 1;

/** Buckets of a histogram: eight an octave from 1 µs to 2^25 µs; the first also takes what is below. */
const PER_OCTAVE = 8;
const BUCKETS = 25 * PER_OCTAVE;

function bucketOf(us) {
  if (!(us > 1)) return 0;
  return Math.min(BUCKETS - 1, 1 + Math.floor(Math.log2(us) * PER_OCTAVE));
}

/** The middle of a bucket, in µs; 0 of the first. */
function valueOf(bucket) {
  return bucket === 0 ? 0 : 2 ** ((bucket - 0.5) / PER_OCTAVE);
}

/** The middle of a bucket may be beyond the worst that fell into it: who calls knows that. */
function quantile(counts, offset, total, share) {
  let left = Math.ceil(total * share);
  for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
    left -= counts[offset + bucket];
    if (left <= 0) return valueOf(bucket);
  }
  return valueOf(BUCKETS - 1);
}

export class Delays {
  #counts = new Uint32Array(BINS * STAGES.length * BUCKETS);
  #totals = new Uint32Array(BINS * STAGES.length);
  #worst = new Float64Array(BINS * STAGES.length);
  #late = new Uint32Array(BINS);
  /** The running number of the newest bin. */
  #newest = -1;

  /** Makes the bin of this time the newest, and empties those that come round again. */
  #turn(nowMs) {
    const number = Math.floor(nowMs / BIN_MS);
    if (number <= this.#newest) return this.#newest % BINS;
    const from = Math.max(this.#newest + 1, number - BINS + 1);
    for (let bin = from; bin <= number; bin += 1) {
      const at = bin % BINS;
      const of = at * STAGES.length;
      this.#counts.fill(0, of * BUCKETS, (of + STAGES.length) * BUCKETS);
      this.#totals.fill(0, of, of + STAGES.length);
      this.#worst.fill(0, of, of + STAGES.length);
      this.#late[at] = 0;
    }
    this.#newest = number;
    return number % BINS;
  }

  note(nowMs, stage, us) {
    const of = this.#turn(nowMs) * STAGES.length + stage;
    this.#counts[of * BUCKETS + bucketOf(us)] += 1;
    this.#totals[of] += 1;
    if (us > this.#worst[of]) this.#worst[of] = us;
  }

  noteLate(nowMs) {
    this.#late[this.#turn(nowMs)] += 1;
  }

  /** One column a bin, oldest first, µs; NaN where nothing was noted. */
  columns(nowMs) {
    this.#turn(nowMs);
    const out = new Float32Array(BINS * COLUMN).fill(NaN);
    for (let age = 0; age < BINS; age += 1) {
      const at = (this.#newest - age + BINS * 2) % BINS;
      const to = (BINS - 1 - age) * COLUMN;
      for (let stage = 0; stage < STAGES.length; stage += 1) {
        const of = at * STAGES.length + stage;
        if (this.#totals[of] === 0) continue;
        out[to + stage * 2] = Math.min(this.#worst[of], quantile(this.#counts, of * BUCKETS, this.#totals[of], 0.5));
        out[to + stage * 2 + 1] = this.#worst[of];
      }
      out[to + COLUMN - 1] = this.#late[at];
    }
    return out;
  }

  /** p50, p99 and the worst of each stage over the whole ring, µs; undefined where nothing was noted. */
  summary(nowMs) {
    this.#turn(nowMs);
    return STAGES.map((_, stage) => {
      const counts = new Uint32Array(BUCKETS);
      let [total, worst] = [0, 0];
      for (let at = 0; at < BINS; at += 1) {
        const of = at * STAGES.length + stage;
        if (this.#totals[of] === 0) continue;
        total += this.#totals[of];
        worst = Math.max(worst, this.#worst[of]);
        for (let bucket = 0; bucket < BUCKETS; bucket += 1) counts[bucket] += this.#counts[of * BUCKETS + bucket];
      }
      if (total === 0) return undefined;
      const at = (share) => Math.min(worst, quantile(counts, 0, total, share));
      return { p50: at(0.5), p99: at(0.99), max: worst };
    });
  }

  /** How many updates of the ring were late. */
  late() {
    return this.#late.reduce((sum, count) => sum + count, 0);
  }
}
