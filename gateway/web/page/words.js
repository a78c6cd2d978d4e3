// Facts → sentences: what a budget means, what came first after an experiment, and the lines that show
// the same without this page.
//
// Pure. The page puts the texts where they belong.

/** `"` and `\` escaped for a string of JSON, Python and JavaScript alike. */
const quoted = (text) => JSON.stringify(text);

/** A text as one word of a POSIX shell, whatever is in it: symbols are of the venue's making, and come with a link. */
const word = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The lines that reproduce what is on the screen, by language. */
export function lines(url, symbols, depth, budgetMs) {
  const list = `[${symbols.map(quoted).join(", ")}]`;
  const host = new URL(url);
  const page = `${host.protocol === "wss:" ? "https:" : "http:"}//${host.host}`;
  const subscribe = (channel, more) =>
    `{"op":"subscribe","channel":"${channel}","symbols":${JSON.stringify(symbols)},${more}"budget_ms":${budgetMs}}`;
  return {
    websocat:
      `(printf '%s\\n' ${word(subscribe("book", `"depth":${depth},`))}; cat) \\\n  | websocat ${word(url)}`,
    python: [
      "import tickfan",
      "",
      `with tickfan.Client(${quoted(url)}) as client:`,
      `    for update in client.subscribe("book", ${list}, depth=${depth}, budget_ms=${budgetMs}):`,
      "        print(update)",
    ].join("\n"),
    javascript: [
      "// For the console of a browser. In a program: import { connect } from \"tickfan\"",
      `const { connect } = await import(${quoted(`${page}/client.js`)});`,
      "",
      `const client = connect(${quoted(url)});`,
      "for await (const update of client.subscribe({",
      `  channel: "book", symbols: ${list}, depth: ${depth}, budgetMs: ${budgetMs},`,
      "})) console.log(update.symbol, update.kind, update.bids?.toJSON(), update.asks?.toJSON());",
    ].join("\n"),
  };
}

/** What a budget means for the reader. */
export function budgetSays(ms, infeasible) {
  if (infeasible) return "The gateway cannot keep this budget at present; it serves as fast as it can, and marks what is late.";
  if (ms === 0) return "Every change is sent at once. Nothing is held to be merged, and no number is promised.";
  return `A change may wait ${ms} ms to be merged with later ones: at most one send in ${Number((ms * 0.75).toPrecision(3))} ms.`;
}

const KINDS = { image: "whole book", delta: "delta", bbo: "best bid and offer", state: "change of state", hole: "report of a hole" };

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

function time(ms) {
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.max(0, Math.round(ms))} ms`;
}

/** What came first after a stall or a cut, as a list of sentences. */
export function storySays(facts) {
  // The venue's own name may have a colon, too.
  const name = facts.symbol?.slice(facts.symbol.indexOf(":") + 1) ?? "the book";
  const out = [facts.what === "stall" ? `Nothing was read for ${time(facts.forMs)}.` : "The connection was cut."];
  if (facts.openMs !== undefined) out.push(`Connected again after ${time(facts.openMs)}.`);
  for (const [index, run] of facts.runs.entries()) {
    const what = `${plural(run.count, KINDS[run.kind] ?? run.kind)} of ${name}`;
    const merged = run.merged > 0 ? `, ${plural(run.merged, "venue event")} merged in` : "";
    const late = run.late > 0 ? `, ${run.late} marked late` : "";
    const begin = index === 0 ? "First" : "Then";
    const sent = run.fresh
      ? `sent ${time(run.newestMs)} ago: the market as it is`
      : run.count === 1
        ? `sent ${time(run.oldestMs)} ago, which had waited on the way`
        : `sent ${time(run.oldestMs)} to ${time(run.newestMs)} ago, which had waited on the way`;
    out.push(`${begin} ${what}, ${sent}${merged}${late}.`);
  }
  if (facts.hole) {
    const missed = facts.hole.missed === undefined ? "the gateway began a new epoch" : `${plural(facts.hole.missed, "version")} were never seen`;
    out.push(`Hole: ${time(facts.hole.downMs)} without a connection; ${missed}. Nothing is replayed: the book is the newest.`);
  }
  if (facts.freshMs !== undefined) out.push(`In step again ${time(facts.freshMs)} after ${facts.what === "stall" ? "reading went on" : "the cut"}.`);
  else if (facts.over) out.push(`${name} has not become current again; its badge says why.`);
  return out;
}
