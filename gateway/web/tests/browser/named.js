// A case by its name, with the client that a gateway serves and the lab behind HTTP: → `{ error, reports }`.

import { cases } from "../suite/all.js";
import { runCase } from "../suite/run.js";

const lab = new Proxy({}, {
  get: (_, method) => async (...args) => {
    const answer = await fetch("/lab", { method: "POST", body: JSON.stringify({ method, args }) });
    if (!answer.ok) throw new Error(`the lab: ${await answer.text()}`);
    return answer.json();
  },
});

export async function runNamed(name, encoding, gateway, isPage) {
  const reports = [];
  const module = (path) => import(`${gateway}/${path}`);
  try {
    const { connect } = await module("client.js");
    const one = cases.find((candidate) => candidate.name === name);
    await runCase(one, { lab, connect, module, encoding, isPage, report: (text) => reports.push(text) });
    return { reports };
  } catch (error) {
    return { error: error.stack, reports };
  }
}
