"""A gateway that is a script: it says what a real one never does, or only at a bad moment."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Message = dict[str, Any]

HELLO: Message = {"type": "hello", "protocol": 1, "gateway": "scripted/1", "session": "s"}
A = "sim:A1"
IMAGE: Message = {
    **{"t": "image", "v": 1, "e": 7, "s": 10, "state": "live"},
    **{"b": [["1.5", "2"]], "a": []},
}
"""Of the book of A."""


class Connection:
    """One client."""

    def __init__(self, socket: ServerConnection, number: int) -> None:
        self.socket = socket
        self.number = number
        """From 1."""
        self.asked: list[Message] = []
        self._frames = 0

    async def say(self, **message: object) -> None:
        """A control message."""
        await self.socket.send(json.dumps(message, separators=(",", ":")))

    async def tell(self, *updates: Message) -> None:
        """A data frame."""
        self._frames += 1
        await self.say(n=self._frames, ts=1_000, u=updates)

    def cut(self) -> None:
        """Ends it without a close frame."""
        self.socket.transport.abort()

    def count(self, op: str) -> int:
        """How often it was asked."""
        return sum(message["op"] == op for message in self.asked)


Answer = Callable[[Connection, Message], Awaitable[None]]


def result(request: Message, symbol: str, **fields: object) -> Message:
    """A symbol is served; its view is the number that the symbol ends with."""
    told = {"symbol": symbol, "ok": True, "view": int(symbol[-1]), "state": "live", "epoch": 7}
    told |= {"channel": request["channel"], "depth": request.get("depth"), "budget_ms": 100}
    return {**told, "price_scale": 1, "qty_scale": 1, "s": 0, **fields}


def refused(symbol: str) -> Message:
    """A symbol is not."""
    message = f"no instrument {symbol}"
    return {"symbol": symbol, "ok": False, "code": "unknown_symbol", "message": message}


async def as_ever(connection: Connection, request: Message, *results: Message) -> None:
    """What a gateway answers to a request; to a subscription, that all of it is served, or these
    results."""
    number = request.get("id")
    match request["op"]:
        case "ping":
            await connection.say(type="pong", id=number)
        case "subscribe":
            told = results or [result(request, symbol) for symbol in request["symbols"]]
            await connection.say(type="subscribed", id=number, results=told)
        case "unsubscribe":
            await connection.say(type="unsubscribed", id=number, views=request["views"])


class Scripted:
    """Greets, and leaves the rest to `answer`."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Answer = as_ever
        self.connections: list[Connection] = []

    @property
    def newest(self) -> Connection:
        """The newest connection."""
        return self.connections[-1]

    async def _serve(self, socket: ServerConnection) -> None:
        connection = Connection(socket, len(self.connections) + 1)
        self.connections.append(connection)
        try:
            await connection.say(**HELLO)
            async for text in socket:
                request = json.loads(text)
                connection.asked.append(request)
                await self.answer(connection, request)
        except ConnectionClosed:
            return


@asynccontextmanager
async def scripted(answer: Answer = as_ever) -> AsyncIterator[Scripted]:
    """Serves on a free port; clients ask it for JSON."""
    gateway = Scripted()
    gateway.answer = answer
    subprotocols = [Subprotocol("tickfan.json.v1")]
    async with serve(gateway._serve, "127.0.0.1", 0, subprotocols=subprotocols) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway.url = f"ws://127.0.0.1:{port}"
        yield gateway
