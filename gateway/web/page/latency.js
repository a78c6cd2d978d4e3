// The latency plot: columns of delays → lines over time on a logarithmic scale.
//
// Called by the page whenever the worker sent new figures. A line is the median of each quarter of a
// second, the band above it reaches to the worst; the budget is a dashed line, late updates are marked
// at the top.

import { FONT, colours, span } from "./surface.js";
import { BINS, BIN_MS, COLUMN, STAGES } from "./delays.js";

const DECADES = [10, 100, 1e3, 1e4, 1e5, 1e6, 1e7];
const [LOW_US, HIGH_US] = [10, 1e7];
const LEFT = 46;

export function drawLatency(surface, columns, budgetMs) {
  const pen = surface.begin();
  if (!pen) return;
  const { width, height } = surface;
  const [top, floor, right] = [12, height - 18, width - 8];
  const x = (bin) => LEFT + ((bin + 0.5) / BINS) * (right - LEFT);
  const y = (us) => floor - (Math.log10(Math.min(HIGH_US, Math.max(LOW_US, us)) / LOW_US) / Math.log10(HIGH_US / LOW_US)) * (floor - top);

  pen.font = FONT.label;
  pen.textAlign = "right";
  for (const decade of DECADES) {
    const at = Math.round(y(decade));
    pen.fillStyle = colours.line;
    pen.fillRect(LEFT, at, right - LEFT, 1);
    pen.fillStyle = colours.muted;
    pen.fillText(span(decade), LEFT - 6, at);
  }
  pen.textAlign = "left";
  pen.fillText(`−${(BINS * BIN_MS) / 1000} s`, LEFT, height - 7);
  pen.textAlign = "right";
  pen.fillText("now", right, height - 7);

  for (const [stage, name] of STAGES.entries()) {
    pen.fillStyle = pen.strokeStyle = colours[name];
    const width = Math.max(1, (right - LEFT) / BINS - 0.5);
    pen.globalAlpha = 0.22;
    for (let bin = 0; bin < BINS; bin += 1) {
      const [median, worst] = [columns[bin * COLUMN + stage * 2], columns[bin * COLUMN + stage * 2 + 1]];
      if (Number.isNaN(median)) continue;
      pen.fillRect(x(bin) - width / 2, y(worst), width, Math.max(1, y(median) - y(worst)));
    }
    pen.globalAlpha = 1;
    pen.lineWidth = 1.5;
    pen.beginPath();
    let begun = false;
    for (let bin = 0; bin < BINS; bin += 1) {
      const median = columns[bin * COLUMN + stage * 2];
      if (Number.isNaN(median)) {
        begun = false;
        continue;
      }
      if (begun) pen.lineTo(x(bin), y(median));
      else pen.moveTo(x(bin), y(median));
      begun = true;
    }
    pen.stroke();
  }

  if (budgetMs > 0) {
    const at = Math.round(y(budgetMs * 1000)) + 0.5;
    pen.strokeStyle = colours.text;
    pen.lineWidth = 1;
    pen.setLineDash([4, 3]);
    pen.beginPath();
    pen.moveTo(LEFT, at);
    pen.lineTo(right, at);
    pen.stroke();
    pen.setLineDash([]);
    pen.fillStyle = colours.text;
    pen.textAlign = "left";
    // Readable on whatever line runs through it.
    pen.strokeStyle = colours.surface;
    pen.lineWidth = 4;
    pen.strokeText(`budget ${budgetMs} ms`, LEFT + 6, at - 8);
    pen.fillText(`budget ${budgetMs} ms`, LEFT + 6, at - 8);
  }

  pen.fillStyle = colours.late;
  for (let bin = 0; bin < BINS; bin += 1) {
    if (!(columns[bin * COLUMN + COLUMN - 1] > 0)) continue;
    pen.beginPath();
    pen.moveTo(x(bin), top);
    pen.lineTo(x(bin) - 4, top - 7);
    pen.lineTo(x(bin) + 4, top - 7);
    pen.fill();
  }
}
