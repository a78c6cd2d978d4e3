// What the address asks for after its `#` ↔ what is on the screen: symbols, and a budget.
//
// page.js reads it at the beginning and keeps it afterwards. Pure.

/** As long as a symbol of the client may be. */
const SYMBOL_CHARS_MAX = 128;

/** What could be listed one day: a venue and a name of its own, and no pattern. */
function isSymbol(text) {
  return /^[^:]+:./.test(text) && !text.endsWith(":*") && text.length <= SYMBOL_CHARS_MAX;
}

/** `{ symbols, budget }`: of the budget its text, or null; undefined where the address asks for neither. */
export function readAddress(hash) {
  const asked = new URLSearchParams(hash.slice(1));
  if (!asked.has("show") && !asked.has("budget")) return undefined;
  // A comma within a symbol is written as `%2C`, and that once more as everything is.
  const texts = (asked.get("show") ?? "").split(",").map((text) => text.replaceAll("%2C", ",").replaceAll("%25", "%"));
  return { symbols: [...new Set(texts.filter(isSymbol))], budget: asked.get("budget") };
}

/** The other way round; without a budget where that is undefined. */
export function writeAddress(symbols, budgetMs) {
  const texts = symbols.map((symbol) => {
    const text = symbol.replaceAll("%", "%25").replaceAll(",", "%2C");
    return encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("%2F", "/");
  });
  return `#show=${texts.join(",")}${budgetMs === undefined ? "" : `&budget=${budgetMs}`}`;
}
