// Runs cases for the test that drives this page: `window.runCase(name, encoding, where)`, in a Worker or on the page itself.

import { runNamed } from "./named.js";

const worker = new Worker("worker.js", { type: "module" });
const running = new Map();
worker.onmessage = ({ data: { id, outcome } }) => running.get(id)(outcome);
let next = 0;

window.runCase = (name, encoding, gateway, isPage) => {
  if (isPage) return runNamed(name, encoding, gateway, true);
  next += 1;
  return new Promise((resolve) => {
    running.set(next, resolve);
    worker.postMessage({ id: next, name, encoding, gateway });
  });
};
