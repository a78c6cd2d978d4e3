// What came first after a stall or a cut → a few sentences' worth of facts.
//
// Pure: updates and times are arguments. The worker feeds it from the moment of the experiment; the
// page words it. It watches one symbol's book, since that is what the user looks at, and ends when
// the book is as new as ever.

/** An update that is older than this on arrival has waited somewhere. */
const FRESH_MS = 250;
/** Runs of updates that are told. */
const RUNS_MAX = 6;
/** When nothing becomes fresh for so long, the story ends anyway. */
const WATCH_MS = 20_000;

export class Story {
  /** `what` is `stall` or `cut`; `atMs` when it ended (stall) or began (cut). */
  constructor(what, symbol, atMs, forMs = 0) {
    this.facts = { what, symbol, forMs, runs: [], closed: undefined, openMs: undefined, hole: undefined, freshMs: undefined, over: false };
    this.atMs = atMs;
  }

  closed(reason) {
    this.facts.closed ??= reason;
  }

  opened(nowMs) {
    this.facts.openMs ??= nowMs - this.atMs;
  }

  hole(missed, downMs) {
    this.facts.hole ??= { missed, downMs };
  }

  /** One update of the book, in the order of arrival; `ageMs` since it was sent. */
  update(kind, ageMs, merged, late, nowMs) {
    const { facts } = this;
    if (facts.over) return;
    const fresh = ageMs < FRESH_MS;
    const last = facts.runs[facts.runs.length - 1];
    if (last && last.kind === kind && last.fresh === fresh) {
      last.count += 1;
      last.merged += merged;
      last.late += late ? 1 : 0;
      last.newestMs = ageMs;
    } else if (facts.runs.length < RUNS_MAX) {
      facts.runs.push({ kind, fresh, count: 1, merged, late: late ? 1 : 0, oldestMs: ageMs, newestMs: ageMs });
    }
    if (fresh) {
      facts.freshMs ??= nowMs - this.atMs;
      facts.over = true;
    }
  }

  /** Whether there is something more to wait for. */
  isOver(nowMs) {
    if (nowMs - this.atMs > WATCH_MS) this.facts.over = true;
    return this.facts.over;
  }
}
