// A canvas that keeps the size of its place in the page, and the colours and fonts that all share.
//
// Used by everything that draws. Sizes are CSS pixels; the canvas behind has the device's.

const COLOURS = ["surface", "line", "text", "muted", "bid", "ask", "bid-bar", "ask-bar", "accent", "warn", "late", "venue", "inside", "wire", "flash"];

/** Digits must be of one width, or a column of prices dances. */
const MONO = "ui-monospace, 'SF Mono', 'Cascadia Mono', 'Roboto Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace";

export const FONT = { row: `12px ${MONO}`, small: `10.5px ${MONO}`, large: `600 15px ${MONO}`, label: "10.5px system-ui, sans-serif" };

/** The colours of the present theme, by their names in page.css. */
export const colours = {};

export function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of COLOURS) colours[name] = style.getPropertyValue(`--${name}`).trim();
}

const surfaces = new WeakMap();

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect, devicePixelContentBoxSize: box } of entries) {
    const wide = exact(contentRect.width * devicePixelRatio, box?.[0].inlineSize);
    const high = exact(contentRect.height * devicePixelRatio, box?.[0].blockSize);
    surfaces.get(target)?.resize(wide, high);
  }
});

/** What the browser says, if it can be true: some tell emulated screens by the pixels of the real one. */
function exact(computed, told) {
  return Math.abs(told - computed) <= 1 ? told : Math.round(computed);
}

/** In pixels of the device where the browser tells them, so that no text is blurred by a fraction of one. */
function watch(canvas) {
  try {
    sizes.observe(canvas, { box: "device-pixel-content-box" });
  } catch {
    sizes.observe(canvas);
  }
}

export class Surface {
  width = 0;
  height = 0;

  /** `onResize` is called whenever what was drawn is gone. */
  constructor(canvas, onResize) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { alpha: false });
    this.onResize = onResize;
    surfaces.set(canvas, this);
    watch(canvas);
  }

  resize(wide, high) {
    const ratio = devicePixelRatio;
    this.width = wide / ratio;
    this.height = high / ratio;
    this.canvas.width = wide;
    this.canvas.height = high;
    this.pen.scale(ratio, ratio);
    // Until it is drawn on it would be black.
    this.begin();
    this.onResize();
  }

  /** Empties it; returns the pen, or undefined where there is no room to draw on. */
  begin() {
    if (this.width < 8 || this.height < 8) return undefined;
    this.pen.globalAlpha = 1;
    this.pen.fillStyle = colours.surface;
    this.pen.fillRect(0, 0, this.width, this.height);
    this.pen.textBaseline = "middle";
    return this.pen;
  }

  /** Says in the middle why there is nothing to see. */
  say(words) {
    const pen = this.begin();
    if (!pen) return;
    pen.font = FONT.label;
    pen.textAlign = "center";
    pen.fillStyle = colours.muted;
    pen.fillText(words, this.width / 2, this.height / 2, this.width - 8);
  }
}

/** A number of few digits for axes: 0.0016, 1.2, 30. */
export function brief(value) {
  const size = Math.abs(value);
  return String(Number(size < 1 ? value.toPrecision(2) : value.toFixed(size < 100 ? 1 : 0)));
}

/** A span of microseconds in the unit that suits it. */
export function span(us) {
  if (us >= 1e6) return `${brief(us / 1e6)} s`;
  if (us >= 1e3) return `${brief(us / 1e3)} ms`;
  return `${Math.round(us)} µs`;
}
