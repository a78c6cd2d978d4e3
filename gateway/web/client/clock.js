// What time it is here, what time it is at the gateway, and how many there were in the last second.
// `session.js` and `client.js` call it. The only file that reads a clock.

const SAMPLES_MAX = 30;
const BUCKETS = 10;
const BUCKET_US = 100_000;

/** Microseconds since the Unix epoch by this machine's clock; it never steps back. */
export function nowUs() {
  return Math.round((performance.timeOrigin + performance.now()) * 1000);
}

/** How far the gateway's clock is ahead of ours, from pings. */
export class Offset {
  #samples = [];

  /** A ping that was sent and answered by our clock, and received and answered by the gateway's. */
  add(sentUs, receivedThereUs, sentThereUs, receivedUs) {
    const rttUs = Math.max(0, receivedUs - sentUs - (sentThereUs - receivedThereUs));
    const offsetUs = Math.round((receivedThereUs - sentUs + sentThereUs - receivedUs) / 2);
    const newest = { rttUs, offsetUs, offsetErrorUs: Math.ceil(rttUs / 2) };
    // What cannot be true together with the newest was true before a clock drifted or stood still, as ours does while the machine sleeps.
    const agrees = (sample) => Math.abs(sample.offsetUs - offsetUs) <= sample.offsetErrorUs + newest.offsetErrorUs;
    this.#samples = [...this.#samples.filter(agrees), newest].slice(-SAMPLES_MAX);
  }

  /** `{ rttUs, offsetUs, offsetErrorUs }`, or undefined before the first ping. The quickest knows best: it was held up least. */
  estimate() {
    if (this.#samples.length === 0) return undefined;
    const best = this.#samples.reduce((one, other) => (other.rttUs < one.rttUs ? other : one));
    return { ...best, rttUs: this.#samples.at(-1).rttUs };
  }
}

/** How much there was in the last second. */
export class Rate {
  #counts = new Float64Array(BUCKETS);
  #bucket = 0;

  add(amount, us) {
    this.#turn(us);
    this.#counts[this.#bucket % BUCKETS] += amount;
  }

  perS(us) {
    this.#turn(us);
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /** Forgets what is older than a second. */
  #turn(us) {
    const bucket = Math.floor(us / BUCKET_US);
    for (let old = Math.max(this.#bucket + 1, bucket - BUCKETS + 1); old <= bucket; old += 1) this.#counts[old % BUCKETS] = 0;
    this.#bucket = Math.max(this.#bucket, bucket);
  }
}
