"""Gateways that are wrong, or have just begun: the client says so, asks again, and comes back no
faster than it should.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from scripted import IMAGE, A, Connection, Message, as_ever, refused, result, scripted
from tickfan import AsyncClient, Event, Hole, State, StateChange, Trades, UnknownSymbol
from waiting import until


async def collect(stream: Any, into: list[Event]) -> None:
    async for update in stream:
        into.append(update)


def test_what_was_served_is_asked_for_again_when_a_gateway_has_just_begun() -> None:
    async def answer(connection: Connection, message: Message) -> None:
        if message["op"] != "subscribe":
            return await as_ever(connection, message)
        is_begun = connection.number == 1 or connection.count("subscribe") > 2
        served = result(message, A, epoch=6 + connection.number)
        await as_ever(connection, message, served if is_begun else refused(A))
        if is_begun:
            await connection.tell({**IMAGE, "e": 6 + connection.number})

    async def run() -> None:
        async with (
            scripted(answer) as gateway,
            AsyncClient(gateway.url, encoding="json", heartbeat_ms=250) as client,
        ):
            book = await client.book(A)
            got: list[Event] = []
            reading = asyncio.create_task(collect(client.subscribe("book", A), got))
            await until("the stream has begun", lambda: got)
            await gateway.connections[0].socket.close(1012, "restart")
            await until("it is refused", lambda: book.why == "unknown_symbol")
            # The last that is known is kept, and says that it is only that.
            assert book.state is State.DISCONNECTED
            assert book.best_bid is not None
            await until("it is served again", lambda: book.state is State.LIVE)
            assert gateway.connections[1].count("subscribe") > 2
            await until("the reader is told", lambda: got[-1].kind == "image")
            told = [one.why for one in got if isinstance(one, StateChange)]
            assert told[:2] == ["restart", "unknown_symbol"]
            assert [one.missed for one in got if isinstance(one, Hole)] == [None]
            reading.cancel()

    asyncio.run(run())


def test_trades_are_asked_for_again_too_and_none_is_missing() -> None:
    async def answer(connection: Connection, message: Message) -> None:
        if message["op"] != "subscribe":
            return await as_ever(connection, message)
        is_begun = connection.number == 1 or connection.count("subscribe") > 2
        stands = 10 if connection.number == 1 else 11 if message.get("last") else 12
        served = result(message, A, s=stands)
        await as_ever(connection, message, served if is_begun else refused(A))
        if connection.number == 1 or stands == 11:
            trade = [1, "1.5", "2", "buy", "id"]
            await connection.tell(
                {"t": "trades", "v": 1, "s": stands + 1, "p": stands, "x": [trade]}
            )

    async def run() -> None:
        async with (
            scripted(answer) as gateway,
            AsyncClient(gateway.url, encoding="json") as client,
        ):
            got: list[Event] = []
            reading = asyncio.create_task(collect(client.subscribe("trades", A), got))
            await until("a trade has come", lambda: got)
            await gateway.connections[0].socket.close(1012, "restart")
            await until("the next has come", lambda: isinstance(got[-1], Trades) and got[1:])
            assert gateway.connections[1].count("subscribe") > 2
            told = [one.why for one in got if isinstance(one, StateChange)]
            assert told[:2] == ["restart", "unknown_symbol"]
            assert [one.seq for one in got if isinstance(one, Trades)] == [11, 12]
            assert [one.missed for one in got if isinstance(one, Hole)] == [0]
            reading.cancel()

    asyncio.run(run())


def test_an_image_that_takes_longer_than_the_heartbeats_is_waited_for() -> None:
    parts = 8

    async def answer(connection: Connection, message: Message) -> None:
        await as_ever(connection, message)
        if message["op"] == "subscribe":
            text = json.dumps({"n": 1, "ts": 1_000, "u": [IMAGE]}).ljust(1_000).encode()
            frame = b"\x81\x7e" + len(text).to_bytes(2, "big") + text
            size = -(-len(frame) // parts)
            for at in range(0, len(frame), size):
                connection.socket.transport.write(frame[at : at + size])
                # Each part in time, and all of them more than three heartbeats.
                await asyncio.sleep(0.2)

    async def run() -> None:
        async with (
            scripted(answer) as gateway,
            AsyncClient(
                gateway.url, encoding="json", heartbeat_ms=250, library="websockets"
            ) as client,
        ):
            book = await client.book(A)
            assert book.state is State.LIVE
            assert client.stats().connects == len(gateway.connections) == 1

    asyncio.run(run())


def test_who_is_greeted_and_dropped_again_and_again_comes_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []

    def at_once(code: int, reason: str, retry_after_ms: int, attempt: int, rng: object) -> float:
        # Where the close frame is overtaken by the end of the connection, the code is 1006.
        assert code in (1006, 1011)
        attempts.append(attempt)
        return 0.0

    monkeypatch.setattr("tickfan._connection.wait_s", at_once)

    async def answer(connection: Connection, message: Message) -> None:
        await connection.socket.close(1011)

    async def run() -> None:
        async with scripted(answer) as gateway:
            client = AsyncClient(gateway.url, encoding="json")
            await client.connect()
            await until("it came some times", lambda: len(attempts) >= 4)
            await client.close()

    asyncio.run(run())
    assert attempts[:4] == [0, 1, 2, 3]


def test_what_is_listed_while_one_is_connected_is_found() -> None:
    listed: list[Message] = []

    async def answer(connection: Connection, message: Message) -> None:
        number = message.get("id")
        if message["op"] == "instruments":
            await connection.say(type="instruments", id=number, instruments=listed)
            return
        await as_ever(connection, message)
        if message["op"] == "subscribe":
            await connection.tell(IMAGE)

    def instrument(base: str) -> Message:
        names = {"symbol": f"sim:{base}1", "native": f"{base}1", "base": base}
        return {**names, "venue": "sim", "quote": "USDT", "kind": "spot"}

    async def run() -> None:
        listed.append(instrument("A"))
        async with scripted(answer) as gateway, AsyncClient(gateway.url, encoding="json") as client:
            with pytest.raises(UnknownSymbol):
                await client.book("B/USDT")
            listed.append(instrument("B"))
            assert (await client.book("B/USDT")).symbol == "sim:B1"

    asyncio.run(run())
