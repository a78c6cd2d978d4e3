// A connection that ended → whether and when to come back (docs/PROTOCOL.md §6). `client.js` calls it. Pure.

/** To come back with the same would end the same. */
const FATAL = new Set([1002, 1003, 1007, 1008, 1009, 4001, 4003, 4005]);
/** The reason names the milliseconds. */
const NAMES_WAIT = new Set([4101, 4102]);
const AT_ONCE = new Set([4201, 4202]);
const DRAINS = new Set([1001, 1012]);

/**
 * Milliseconds to wait; undefined: never come back.
 *
 * `ended`: `{ code, reason, retryAfterMs }`, the last from a `drain`. `attempts`: connections in a row that did not
 * last. `random`: from 0 to 1, spreads those that lost their connections at the same moment.
 */
export function waitMs(ended, attempts, { firstMs, maxMs }, random) {
  if (FATAL.has(ended.code)) return undefined;
  if (DRAINS.has(ended.code) && ended.retryAfterMs !== undefined) return ended.retryAfterMs;
  if (NAMES_WAIT.has(ended.code)) {
    const named = /: *(\d+)/.exec(ended.reason);
    if (named) return Number(named[1]);
  }
  if (AT_ONCE.has(ended.code) && attempts === 0) return 0;
  return Math.round(random * Math.min(maxMs, firstMs * 2 ** Math.min(attempts, 30)));
}
