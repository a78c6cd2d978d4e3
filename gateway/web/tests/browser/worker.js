// Runs cases for the page, where a thread may be put to sleep.

import { runNamed } from "./named.js";

onmessage = async ({ data: { id, name, encoding, gateway } }) => {
  postMessage({ id, outcome: await runNamed(name, encoding, gateway, false) });
};
