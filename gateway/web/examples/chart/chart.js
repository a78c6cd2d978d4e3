// The client → a chart: keeps a minute of what came, and draws the newest once per animation frame.

import { connect } from "tickfan";
import uPlot from "uplot";

const parameters = new URLSearchParams(location.search);
const symbol = parameters.get("symbol") ?? "sim:BTCUSDT";
const SPAN_S = 60;

const client = connect(parameters.get("gateway") ?? "127.0.0.1:8080");
const best = client.bbo(symbol, { budgetMs: 50 });

/** Seconds, best bid, best offer, price of a trade: what uPlot draws. */
const columns = [[], [], [], []];
let isNew = false;

function add(atUs, bid, ask, trade) {
  // Times of two channels may cross by a little; a chart wants them in order.
  const at = Math.max(atUs / 1e6, columns[0].at(-1) ?? 0);
  [at, bid, ask, trade].forEach((value, index) => columns[index].push(value));
  const old = columns[0].findIndex((time) => time >= at - SPAN_S);
  if (old > 0) for (const column of columns) column.splice(0, old);
  isNew = true;
}

best.onChange(() => {
  // While it is not right there is a hole in the lines, not a straight one across it.
  if (best.state !== "live") add(client.nowUs(), null, null, undefined);
  else if (best.mid !== undefined) add(best.last.sentUs, best.bids.price(0), best.asks.price(0), undefined);
});
client.subscribe({ channel: "trades", symbols: symbol, budgetMs: 50 }, (update) => {
  if (update.kind === "trades") for (const trade of update.trades) add(update.sentUs, undefined, undefined, trade.price);
});

const element = (id) => document.getElementById(id);
const size = () => ({ width: element("chart").clientWidth, height: Math.max(240, innerHeight - 220) });
const line = (label, stroke) => ({ label, stroke, width: 1.5, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } });
const chart = new uPlot({
  ...size(),
  series: [
    {},
    line("best bid", "#1a7f37"),
    line("best offer", "#cf222e"),
    { label: "trades", stroke: "#0969da", paths: () => null, points: { show: true, size: 3, fill: "#0969da" } },
  ],
  axes: [{}, { size: 80 }],
}, columns, element("chart"));
addEventListener("resize", () => chart.setSize(size()));
element("symbol").textContent = symbol;

let frames = 0;
function draw() {
  requestAnimationFrame(draw);
  document.body.classList.toggle("is-wrong", best.state !== "live");
  if (isNew) {
    isNew = false;
    frames += 1;
    chart.setData(columns);
    element("price").textContent = best.mid === undefined ? "" : `${best.bids.priceText(0)} / ${best.asks.priceText(0)}`;
  }
  element("state").textContent = [best.state, best.reason, best.age && `${Math.round(best.age)} ms old`].filter(Boolean).join(", ");
  const { updatesPerS, mergedPerS, rttUs } = client.stats();
  element("numbers").textContent = `${updatesPerS} updates/s, ${mergedPerS} venue events/s merged in them, ${frames} frames drawn, round trip ${rttUs ?? "?"} µs`;
}
requestAnimationFrame(draw);
