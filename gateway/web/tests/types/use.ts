// How the client is used, for the compiler to hold against `client.d.ts`; nobody runs it.

import { type Book, type Client, type Update, TickfanError, connect } from "../../client.js";

const client: Client = connect("127.0.0.1:8080", { encoding: "json", reconnect: { firstMs: 100 } });

export async function use(): Promise<number> {
  for await (const update of client.subscribe({ channel: "book", symbols: ["sim:BTCUSDT"], depth: "full", budgetMs: 0 })) {
    if (update.kind === "image" || update.kind === "delta") return update.bids.priceScaled(0) + update.merged;
    if (update.kind === "trades") return update.trades[0]?.price ?? update.lost;
    if (update.kind === "hole") return update.missed ?? update.downMs;
  }
  const book: Book = await client.book("sim:BTCUSDT").ready;
  for await (const same of book) if (same.state === "live") return same.mid ?? 0;
  const [result] = await book.modify({ budgetMs: 10 });
  if (result?.ok === false) throw new Error(result.message);
  return result?.budgetMs ?? 0;
}

client.on("error", (error) => (error instanceof TickfanError ? error.code : error.message));
client.on("frame", ({ updates }) => updates.map(({ receivedUs, sentUs, gatewayUs, exchangeUs, late }) => [receivedUs, sentUs, gatewayUs, exchangeUs, late]));
client.subscribe({ channel: "trades", symbols: "sim:*" }, (update: Update) => update.symbol);

// @ts-expect-error: a channel is one of three
client.subscribe({ channel: "boook", symbols: "sim:BTCUSDT" });
// @ts-expect-error: a book is changed by the gateway only
client.book("sim:BTCUSDT").seq = 1;
