// The suite in Node, in both encodings, against the real gateway.

import { after, test } from "node:test";
import { connect } from "../client.js";
import { Lab, hasRecordings } from "./lab.js";
import { cases } from "./suite/all.js";
import { runCase } from "./suite/run.js";

const lab = new Lab();
after(() => lab.stopAll());
const withRecordings = hasRecordings();
const module = (path) => import(`../${path}`);

for (const one of cases) {
  for (const encoding of one.encodings ?? ["binary", "json"]) {
    test(`node: ${one.name} (${encoding})`, { timeout: 240_000 }, async (t) => {
      if (one.needsRecordings && !withRecordings) return t.diagnostic("passed without having been tested: there are no recordings");
      await runCase(one, { lab, connect, module, encoding, isPage: false, report: (text) => t.diagnostic(text) });
    });
  }
}
