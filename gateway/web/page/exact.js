// Decimals as whole numbers: texts ↔ mantissas at a scale, price groups, and the rows of a ladder.
//
// Pure. Called by the worker for what is drawn, and by the page for the choice of groups. Prices and
// quantities are never floats here: what is shown is what was sent, or an exact sum of it.

/** The factors of a tick by which prices are grouped. */
const FACTORS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

/** A decimal text as a whole number of units of 10^-scale; digits beyond the scale must be zeros. */
export function parse(text, scale) {
  const [whole, fraction = ""] = text.split(".");
  return BigInt(whole + fraction.slice(0, scale).padEnd(scale, "0"));
}

/** The exact decimal of a mantissa, with at least `decimals` digits behind the point. */
export function format(mantissa, scale, decimals = 0) {
  const negative = mantissa < 0n;
  const digits = (negative ? -mantissa : mantissa).toString().padStart(scale + 1, "0");
  const point = digits.length - scale;
  let end = digits.length;
  while (end > point + decimals && digits[end - 1] === "0") end -= 1;
  const fraction = digits.slice(point, end).padEnd(decimals, "0");
  return (negative ? "-" : "") + digits.slice(0, point) + (fraction ? "." + fraction : "");
}

/** The digits behind the point of a decimal text. */
export function decimalsOf(text) {
  const point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

/** The finest step that prices of so many digits can have, as a text: the tick of a book whose venue lists none. */
export function tickOf(priceScale) {
  return format(1n, priceScale);
}

/** The price groups that a tick allows, finest first, as texts; none where it is not known. */
export function groupsOf(tick) {
  if (tick === undefined) return [];
  const scale = decimalsOf(tick);
  const unit = parse(tick, scale);
  return unit > 0n ? FACTORS.map((factor) => format(unit * BigInt(factor), scale)) : [];
}

/** Of a reader of levels (`Levels` of the client): the price of one, as a whole number. */
function priceOf(levels, index) {
  const scaled = levels.priceScaled(index);
  return Number.isSafeInteger(scaled) ? BigInt(scaled) : parse(levels.priceText(index), levels.priceScale);
}

function qtyOf(levels, index) {
  const scaled = levels.qtyScaled(index);
  return Number.isSafeInteger(scaled) ? BigInt(scaled) : parse(levels.qtyText(index), levels.qtyScale);
}

/**
 * The best `count` rows of a side in groups of `step` (at the scale of the levels): bids fall to the
 * lower end of their group, asks rise to the upper, so that no group promises a better price than is
 * there. Each row has its price, its size, and the sum of all sizes up to it.
 */
export function ladder(levels, isBids, step, count) {
  const rows = [];
  let sum = 0n;
  for (let index = 0; index < levels.length; index += 1) {
    const price = priceOf(levels, index);
    let rest = price % step;
    if (rest < 0n) rest += step;
    const group = isBids || rest === 0n ? price - rest : price - rest + step;
    const last = rows[rows.length - 1];
    const size = qtyOf(levels, index);
    if (last?.price === group) {
      sum += size;
      last.size += size;
      last.sum = sum;
      continue;
    }
    if (rows.length === count) break;
    sum += size;
    rows.push({ price: group, size, sum });
  }
  return rows;
}

/**
 * The middle of the two best prices and the distance between them, exact, with at least `decimals`
 * digits behind the point; undefined while a side is empty.
 */
export function middle(bids, asks, decimals) {
  if (bids.length === 0 || asks.length === 0) return undefined;
  const [bid, ask, scale] = [priceOf(bids, 0), priceOf(asks, 0), bids.priceScale];
  // Half of an odd number needs one digit more.
  return { mid: format((bid + ask) * 5n, scale + 1, decimals), spread: format(ask - bid, scale, decimals) };
}
