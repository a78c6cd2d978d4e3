// Serves this folder to a browser on this machine: nothing but what stands in it.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
const PORT = Number(process.env.PORT ?? 8090);

createServer(async (request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://here").pathname));
  try {
    const body = await readFile(join(HERE, path === "/" ? "index.html" : path));
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/html" }).end(body);
  } catch {
    response.writeHead(404).end("nothing is here");
  }
}).listen(PORT, "127.0.0.1", () => console.log(`open http://127.0.0.1:${PORT}`));
