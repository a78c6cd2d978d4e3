// A gateway that is a script, for what the real one never does, or not when a test needs it.

import { once } from "node:events";
import { WebSocketServer } from "ws";

const HELLO = {
  type: "hello", protocol: 1, gateway: "script/1", session: "a", time: 1, news: "ignored",
  limits: { subscriptions: 10, message_bytes: 16384, messages_per_s: 1000 }, budgets_ms: [0], depths: [20],
};

/** To a subscription to the book of `sim:A`. */
export const ACK = {
  symbol: "sim:A", ok: true, view: 3, channel: "book", depth: 20, budget_ms: 100, budget: "accepted",
  price_scale: 1, qty_scale: 1, epoch: 7, s: 10, state: "live",
};
/** What follows it. */
export const IMAGE = { t: "image", v: 3, e: 7, s: 10, state: "live", b: [["1.5", "2"]], a: [["1.6", "3"]] };

/**
 * Answers as told: `asked(message, connection, how many connections there were)` for each message, after a subscription was
 * answered with `answer(connection, message)`, one result or several, or undefined for no answer; `connection.frame(...updates)` sends a
 * frame. `greeting` comes first. Gives its address and its connections.
 */
export async function scripted(t, asked, answer = () => ACK, greeting = HELLO) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: (offered) => [...offered][0] });
  await once(server, "listening");
  const connections = [];
  server.on("connection", (socket) => {
    const connection = {
      socket, n: 0, asked: [],
      send: (message) => socket.send(JSON.stringify(message)),
      frame(...u) {
        connection.n += 1;
        connection.send({ n: connection.n, ts: 1000, u });
      },
    };
    connections.push(connection);
    connection.send(greeting);
    socket.on("message", (data) => {
      const message = JSON.parse(data);
      connection.asked.push(message);
      const results = message.op === "subscribe" ? answer(connection, message) : undefined;
      if (results !== undefined) connection.send({ type: "subscribed", id: message.id, results: [results].flat() });
      asked(message, connection, connections.length);
    });
  });
  t.after(() => {
    server.close();
    for (const { socket } of connections) socket.terminate();
  });
  return { address: `127.0.0.1:${server.address().port}`, connections };
}
