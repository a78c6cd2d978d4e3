// What a panel shows, as drawings: ladder, trade tape, depth curve, mid-price line.
//
// Each is a function of a surface and what the worker sent; none keeps anything but the ladder, which
// remembers the sizes that it drew last in order to flash those that changed.

import { FONT, brief, colours } from "./surface.js";

export const ROW = 18;
const ROW_TILE = 16;
const HEAD = 18;
const MIDDLE = 30;
const MIDDLE_TILE = 24;
/** How long a change of size stays marked. */
const FLASH_MS = 360;
/** A mark fades in so many steps; in a small ladder it is there or not, so that it is not drawn for nothing. */
const FLASH_STEPS = 4;
/** Ticks from the lowest to the highest mid price that is drawn: a step of one tick is no cliff. */
const MID_TICKS_MIN = 10;
/** How strong prices are that are not good any more. */
const DIM = 0.45;

/** How many rows a side there is room for. */
export function rowsFor(height, isTile) {
  const room = isTile ? height - MIDDLE_TILE : height - HEAD - MIDDLE;
  return Math.max(1, Math.floor(room / 2 / (isTile ? ROW_TILE : ROW)));
}

const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * A ladder, drawn row by row: a row that looks as it did is left alone, since most of a book stands
 * still from one frame to the next.
 */
export class LadderDrawing {
  /** Per side: the size that was drawn at each price, and when it changed. */
  #seen = [new Map(), new Map()];
  /** What each place on the canvas looks like, by its y. */
  #places = new Map();
  #look = "";

  /** Forgets what is on the canvas, because it is gone. */
  clear() {
    this.#look = "";
  }

  /** Draws; returns when it must be drawn again though nothing comes (`performance.now()`), or Infinity. */
  draw(surface, data, units, isTile, isDim, now) {
    const { width, height } = surface;
    const look = `${width} ${height} ${isTile} ${isDim} ${colours.surface}`;
    const isNew = look !== this.#look;
    const pen = isNew ? surface.begin() : surface.pen;
    if (!pen) return Infinity;
    const row = isTile ? ROW_TILE : ROW;
    const middle = isTile ? MIDDLE_TILE : MIDDLE;
    const top = isTile ? 0 : HEAD;
    const count = rowsFor(height, isTile);
    const middleY = top + Math.round(Math.max(0, (height - top - middle - 2 * count * row) / 2)) + count * row;
    // Price left, size in the middle, sum at the right edge; a narrow ladder goes without the sum.
    const hasSum = !isTile && width >= 250;
    const columns = { price: 10, size: hasSum ? Math.round(width * 0.66) : width - 10, sum: hasSum ? width - 10 : undefined };
    if (isNew) {
      this.#look = look;
      this.#places.clear();
      pen.globalAlpha = isDim ? DIM : 1;
      if (!isTile) this.#head(pen, columns, units);
      pen.globalAlpha = 1;
    }
    let again = Infinity;
    for (const [index, side] of [data.bids, data.asks].entries()) {
      const seen = this.#seen[index];
      const next = new Map();
      for (let place = 0; place < count; place += 1) {
        const y = index === 0 ? middleY + middle + place * row : middleY - (place + 1) * row;
        const [price, size] = [side.price[place], side.size[place]];
        if (price === undefined) {
          this.#place(y, "", () => this.#wipe(pen, y, width, row));
          continue;
        }
        const was = seen.get(price);
        // A price that only came into sight is no change.
        const at = was ? (was.size === size ? was.at : now) : -Infinity;
        next.set(price, { size, at });
        const steps = isCalm.matches || isDim ? 0 : isTile ? 1 : FLASH_STEPS;
        const mark = Math.max(0, Math.ceil((1 - (now - at) / FLASH_MS) * steps));
        if (mark > 0) again = Math.min(again, at + (FLASH_MS * (steps - mark + 1)) / steps);
        const bar = Math.max(1, Math.round(side.part[place] * width));
        const sum = hasSum ? side.sum[place] : "";
        this.#place(y, `${index} ${price} ${size} ${sum} ${bar} ${mark}`, () => {
          this.#wipe(pen, y, width, row);
          pen.globalAlpha = isDim ? DIM : 1;
          this.#row(pen, { index, price, size, sum, bar, mark: mark / steps }, columns, y, row, width);
          pen.globalAlpha = 1;
        });
      }
      this.#seen[index] = next;
    }
    const words = [data.middle?.mid ?? "no mid price", data.middle?.spread ?? ""];
    this.#place(middleY, words.join(" "), () => {
      this.#wipe(pen, middleY, width, middle);
      pen.globalAlpha = isDim ? DIM : 1;
      this.#middle(pen, words, width, middleY + middle / 2, isTile);
      pen.globalAlpha = 1;
    });
    return again;
  }

  #place(y, looks, draw) {
    if (this.#places.get(y) === looks) return;
    this.#places.set(y, looks);
    draw();
  }

  #wipe(pen, y, width, height) {
    pen.fillStyle = colours.surface;
    pen.fillRect(0, y, width, height);
  }

  #row(pen, { index, price, size, sum, bar, mark }, columns, y, row, width) {
    pen.fillStyle = index === 0 ? colours["bid-bar"] : colours["ask-bar"];
    pen.fillRect(width - bar, y, bar, row - 1);
    if (mark > 0) {
      const alpha = pen.globalAlpha;
      pen.fillStyle = colours.flash;
      pen.globalAlpha = alpha * mark * 0.85;
      pen.fillRect(0, y, 3, row - 1);
      pen.globalAlpha = alpha * mark * 0.09;
      pen.fillRect(3, y, width - 3, row - 1);
      pen.globalAlpha = alpha;
    }
    pen.font = FONT.row;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.fillStyle = index === 0 ? colours.bid : colours.ask;
    pen.fillText(price, columns.price, y + row / 2);
    pen.textAlign = "right";
    pen.fillStyle = colours.text;
    pen.fillText(size, columns.size, y + row / 2);
    if (!sum) return;
    pen.fillStyle = colours.muted;
    pen.fillText(sum, columns.sum, y + row / 2);
  }

  #head(pen, columns, units) {
    pen.font = FONT.label;
    pen.fillStyle = colours.muted;
    pen.textAlign = "left";
    pen.fillText(`Price ${units.quote}`, columns.price, HEAD / 2);
    pen.textAlign = "right";
    pen.fillText(`Size ${units.base}`, columns.size, HEAD / 2);
    if (columns.sum) pen.fillText("Sum", columns.sum, HEAD / 2);
  }

  #middle(pen, [mid, spread], width, y, isTile) {
    pen.font = isTile ? FONT.row : FONT.large;
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.fillStyle = colours.text;
    pen.fillText(mid, 10, y + 1);
    if (!spread) return;
    pen.font = isTile ? FONT.small : FONT.label;
    pen.textAlign = "right";
    pen.fillStyle = colours.muted;
    pen.fillText(isTile ? spread : `spread ${spread}`, width - 10, y + 1);
  }
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function drawTape(surface, trades, isDim) {
  if (trades.length === 0) {
    surface.say("no trade yet");
    return;
  }
  const pen = surface.begin();
  if (!pen) return;
  const { width } = surface;
  const hasTime = width >= 244;
  pen.globalAlpha = isDim ? DIM : 1;
  pen.font = FONT.label;
  pen.fillStyle = colours.muted;
  pen.textAlign = "left";
  pen.fillText("Trades", 10, HEAD / 2);
  pen.textAlign = "right";
  pen.fillText("Size", hasTime ? width - 78 : width - 10, HEAD / 2);
  if (hasTime) pen.fillText("Time", width - 10, HEAD / 2);
  const shown = trades.slice(0, Math.floor((surface.height - HEAD) / ROW));
  const decimals = Math.max(...shown.map(([, price]) => fraction(price)));
  const sizes = Math.max(...shown.map(([, , size]) => fraction(size)));
  pen.font = FONT.row;
  for (const [place, [ms, price, size, side]] of shown.entries()) {
    const y = HEAD + place * ROW + ROW / 2;
    pen.textAlign = "left";
    pen.fillStyle = side === "buy" ? colours.bid : side === "sell" ? colours.ask : colours.text;
    pen.fillText(`${side === "buy" ? "▲" : side === "sell" ? "▼" : " "} ${pad(price, decimals)}`, 10, y);
    pen.textAlign = "right";
    pen.fillStyle = colours.text;
    pen.fillText(pad(size, sizes), hasTime ? width - 78 : width - 10, y);
    if (!hasTime) continue;
    pen.fillStyle = colours.muted;
    pen.fillText(clock.format(ms), width - 10, y);
  }
}

function fraction(text) {
  const point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

/** The same decimal with zeros behind it. */
function pad(text, decimals) {
  const has = fraction(text);
  if (has >= decimals) return text;
  return (has === 0 ? text + "." : text) + "0".repeat(decimals - has);
}

/** Sums of both sides over the price, best prices in the middle. */
export function drawDepth(surface, { bids, asks }, units, isDim) {
  if (bids.price.length === 0 || asks.price.length === 0) {
    surface.say("no depth");
    return;
  }
  const pen = surface.begin();
  if (!pen) return;
  const { width, height } = surface;
  const mid = (bids.price[0] + asks.price[0]) / 2;
  // As far as both sides are known.
  const reach = Math.min(mid - bids.price.at(-1), asks.price.at(-1) - mid) || 1;
  const within = (side) => side.qty.reduce((total, qty, index) => (Math.abs(side.price[index] - mid) <= reach ? total + qty : total), 0);
  const most = Math.max(within(bids), within(asks)) || 1;
  const x = (price) => width / 2 + ((price - mid) / reach) * (width / 2);
  const floor = height - 16;
  const y = (total) => floor - (total / most) * (floor - 18);
  pen.globalAlpha = isDim ? DIM : 1;
  for (const [side, line, fill] of [[bids, colours.bid, colours["bid-bar"]], [asks, colours.ask, colours["ask-bar"]]]) {
    let total = 0;
    pen.beginPath();
    pen.moveTo(x(side.price[0]), floor);
    for (let index = 0; index < side.price.length; index += 1) {
      pen.lineTo(x(side.price[index]), y(total));
      total += side.qty[index];
      pen.lineTo(x(side.price[index]), y(total));
    }
    pen.strokeStyle = line;
    pen.lineWidth = 1.25;
    pen.stroke();
    pen.lineTo(x(side.price.at(-1)), floor);
    pen.closePath();
    pen.fillStyle = fill;
    pen.fill();
  }
  pen.fillStyle = colours.line;
  pen.fillRect(0, floor, width, 1);
  pen.font = FONT.label;
  pen.fillStyle = colours.muted;
  pen.textAlign = "left";
  pen.fillText("Depth", 10, HEAD / 2);
  pen.fillText(`−${brief((reach / mid) * 1e4)} bp`, 10, height - 7);
  pen.textAlign = "right";
  pen.fillText(`${brief(most)} ${units.base}`, width - 10, HEAD / 2);
  pen.fillText(`+${brief((reach / mid) * 1e4)} bp`, width - 10, height - 7);
}

/** The middle of the best prices over the last minute. */
export function drawMid(surface, mids, tick, isTile, isDim) {
  let [low, high, last] = [Infinity, -Infinity, -1];
  for (const [index, mid] of mids.entries()) {
    if (Number.isNaN(mid)) continue;
    low = Math.min(low, mid);
    high = Math.max(high, mid);
    last = index;
  }
  if (last < 0) {
    if (!isTile) surface.say("no mid price yet");
    else surface.begin();
    return;
  }
  const pen = surface.begin();
  if (!pen) return;
  const { width, height } = surface;
  const [top, floor] = isTile ? [3, height - 3] : [22, height - 8];
  const range = Math.max(high - low, MID_TICKS_MIN * Number(tick ?? 0)) || 1;
  const right = isTile ? width - 10 : width - 14;
  const x = (index) => 10 + (index / (mids.length - 1)) * (right - 10);
  const y = (mid) => (top + floor) / 2 - ((mid - (low + high) / 2) / range) * (floor - top);
  pen.globalAlpha = isDim ? DIM : 1;
  pen.strokeStyle = colours.accent;
  pen.lineWidth = isTile ? 1 : 1.5;
  pen.lineJoin = "round";
  pen.beginPath();
  // A quiet market keeps its price; only before the first is there no line.
  let begun = false;
  for (let index = 0; index <= last; index += 1) {
    if (Number.isNaN(mids[index])) continue;
    if (begun) pen.lineTo(x(index), y(mids[index]));
    else pen.moveTo(x(index), y(mids[index]));
    begun = true;
  }
  pen.stroke();
  pen.fillStyle = colours.accent;
  pen.beginPath();
  pen.arc(x(last), y(mids[last]), isTile ? 1.5 : 2.5, 0, 7);
  pen.fill();
  if (isTile) return;
  pen.font = FONT.label;
  pen.fillStyle = colours.muted;
  pen.textAlign = "left";
  pen.fillText("Mid price, 60 s", 10, HEAD / 2);
  pen.textAlign = "right";
  pen.fillText(`range ${brief(((high - low) / high) * 1e4)} bp`, width - 10, HEAD / 2);
}
