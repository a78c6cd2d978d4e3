// When the gateway is asked again, while somebody waits for an instrument that it does not list: soon, and
// then less and less often; each time at random, so that pages that were opened together do not ask together.
//
// page.js asks for the list while somebody searches, worker.js for what is on the screen all the same. Pure.

/** The first span of which a wait is drawn, and the longest; a list may have thousands of instruments. */
const FIRST_MS = 2000;
const MOST_MS = 15_000;

export class Listing {
  #askedMs = -Infinity;
  #waitMs = 0;
  #spanMs = FIRST_MS;
  #random;

  constructor(random = Math.random) {
    this.#random = random;
  }

  /** Somebody begins to wait: what was asked a while ago is of no use. */
  begin() {
    this.#spanMs = FIRST_MS;
    this.#waitMs = Math.min(this.#waitMs, FIRST_MS);
  }

  /** They were asked for. */
  asked(nowMs) {
    this.#askedMs = nowMs;
    this.#waitMs = this.#spanMs * (1 - this.#random() / 2);
    this.#spanMs = Math.min(2 * this.#spanMs, MOST_MS);
  }

  isDue(nowMs) {
    return nowMs - this.#askedMs >= this.#waitMs;
  }
}
