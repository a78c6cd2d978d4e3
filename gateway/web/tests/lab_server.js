// The lab for pages: `POST /lab` with `{ method, args }`, and the files of the suite.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TYPES = { ".js": "text/javascript", ".html": "text/html" };
/** The page and its Worker are isolated, so that a Worker may be put to sleep. */
const HEADERS = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp", "cross-origin-resource-policy": "same-origin" };

/** Serves on a free port; gives its address and how to end it. */
export async function serve(lab) {
  const server = createServer((request, response) => {
    answer(lab, request).then(
      ({ type, body }) => response.writeHead(200, { ...HEADERS, "content-type": type }).end(body),
      (error) => response.writeHead(500, HEADERS).end(String(error.stack)),
    );
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function answer(lab, request) {
  if (request.method === "POST") {
    const chunks = await Array.fromAsync(request);
    const { method, args } = JSON.parse(Buffer.concat(chunks).toString());
    return { type: "application/json", body: JSON.stringify((await lab[method](...args)) ?? null) };
  }
  const path = normalize(new URL(request.url, "http://lab").pathname);
  return { type: TYPES[extname(path)], body: await readFile(join(HERE, path)) };
}
