// A browser's own trace → what each frame of its page cost the page's main thread.
//
// Taken from outside, so that everything counts: messages, script, style, layout, paint and commit. A
// frame is all tasks from one animation frame to the next. CPU time is the thread's own; wall time
// includes that it had to wait for a core.

const CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "__metadata"];

export async function mainThread(browser, forMs) {
  const session = await browser.newBrowserCDPSession();
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  await session.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: CATEGORIES } });
  await new Promise((measured) => setTimeout(measured, forMs));
  const complete = new Promise((done) => session.once("Tracing.tracingComplete", done));
  await session.send("Tracing.end");
  await complete;
  await session.detach();
  return perFrame(events);
}

function perFrame(events) {
  const threadOf = ({ pid, tid }) => `${pid}:${tid}`;
  const mains = new Set(events.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain").map(threadOf));
  const frames = events.filter((event) => event.name === "FireAnimationFrame" && mains.has(threadOf(event)));
  // Of the pages that are open, the one that draws.
  const counts = new Map();
  for (const frame of frames) counts.set(threadOf(frame), (counts.get(threadOf(frame)) ?? 0) + 1);
  const [thread] = [...counts].sort(([, one], [, other]) => other - one)[0] ?? [];
  const own = (name) => events.filter((event) => event.name === name && event.ph === "X" && threadOf(event) === thread).sort((one, other) => one.ts - other.ts);
  const [begins, tasks] = [own("FireAnimationFrame"), own("RunTask")];
  const costs = begins.map(() => ({ wall: 0, cpu: 0 }));
  let frame = -1;
  for (const task of tasks) {
    while (frame + 1 < begins.length && task.ts + task.dur > begins[frame + 1].ts) frame += 1;
    if (frame < 0) continue;
    costs[frame].wall += task.dur / 1000;
    costs[frame].cpu += (task.tdur ?? 0) / 1000;
  }
  return { frames: begins.length, wallMs: quantiles(costs.map(({ wall }) => wall)), cpuMs: quantiles(costs.map(({ cpu }) => cpu)) };
}

function quantiles(values) {
  values.sort((one, other) => one - other);
  const at = (share) => Number((values[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0).toFixed(2));
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}
