// One case, wherever it runs: whatever becomes of it, its clients are closed.

/** `tools`: `{ lab, connect, module(path), encoding, isPage, report(text) }`. */
export async function runCase({ run }, tools) {
  const clients = [];
  const connect = (url, options) => {
    const client = tools.connect(url, options);
    clients.push(client);
    return client;
  };
  try {
    await run({ ...tools, connect });
  } finally {
    for (const client of clients) client.close();
  }
}
