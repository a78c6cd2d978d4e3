"""One view, several streams that come and go: whoever reads at the end is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from scripted import A, Connection, Message, Scripted, as_ever, scripted
from tickfan import AsyncClient, Event
from tickfan._updates import Channel
from waiting import until

NEWS: dict[Channel, Message] = {
    "bbo": {"t": "bbo", "v": 1, "s": 2, "b": ["1", "2"], "a": None},
    "book": {
        **{"t": "image", "v": 1, "e": 7, "s": 2, "state": "live"},
        **{"b": [["1", "2"]], "a": []},
    },
    "trades": {"t": "trades", "v": 1, "s": 1, "p": 0, "x": [[1, "1", "2", "buy", "id"]]},
}


async def collect(stream: Any, into: list[Event]) -> None:
    async for update in stream:
        into.append(update)


class Holding:
    """Answers as a gateway does, and knows as it does whether the view is held. `on_subscribe` is
    called before the answer to a subscription with how many came before it."""

    def __init__(self, gateway: Scripted, on_subscribe: Callable[[int], None]) -> None:
        self.is_held = False
        self.needless = 0
        """Times that something was left that was not held."""
        self._count, self._on_subscribe = 0, on_subscribe
        gateway.answer = self.answer

    async def answer(self, connection: Connection, request: Message) -> None:
        if request["op"] == "subscribe":
            self._on_subscribe(self._count)
            self._count += 1
            self.is_held = True
            request = {**request, "symbols": [A]}
        if request["op"] == "unsubscribe":
            self.needless += not self.is_held
            self.is_held = False
        await as_ever(connection, request)


@pytest.mark.parametrize("wanted", [A, "sim:*"])
@pytest.mark.parametrize("channel", list(NEWS))
def test_what_is_asked_for_while_its_last_reader_leaves_goes_on(
    channel: Channel, wanted: str
) -> None:
    async def run() -> None:
        async with scripted() as gateway, AsyncClient(gateway.url, encoding="json") as client:
            first, second = client.subscribe(channel, A), client.subscribe(channel, wanted)
            # The second is on its way, and not answered, when the first is closed.
            holding = Holding(gateway, lambda before: first.close() if before == 1 else None)
            await first.open()
            await second.open()
            got: list[Event] = []
            reading = asyncio.create_task(collect(second, got))
            # Whatever was to be left is left before this is answered.
            await client.symbols()
            assert gateway.newest.count("subscribe") == 2
            assert holding.is_held
            await gateway.newest.tell(NEWS[channel])
            await until("it is told", lambda: any(one.kind == NEWS[channel]["t"] for one in got))
            assert client.stats().chain_breaks == 0
            second.close()
            await reading
            await until("it is left in the end", lambda: not holding.is_held)
            assert holding.needless == 0

    asyncio.run(run())


@pytest.mark.parametrize("channel", list(NEWS))
def test_what_is_closed_before_its_answer_takes_nothing_from_who_asked_too(
    channel: Channel,
) -> None:
    async def run() -> None:
        async with scripted() as gateway, AsyncClient(gateway.url, encoding="json") as client:
            first, second = client.subscribe(channel, A), client.subscribe(channel, A)
            holding = Holding(gateway, lambda before: first.close() if before == 0 else None)
            opened = await asyncio.gather(first.open(), second.open(), return_exceptions=True)
            assert list(opened) == [None, None]
            await client.symbols()
            assert holding.is_held
            second.close()
            await until("it is left in the end", lambda: not holding.is_held)
            assert holding.needless == 0

    asyncio.run(run())


def test_a_book_that_is_asked_for_while_another_is_closed_is_live() -> None:
    async def run() -> None:
        async with scripted() as gateway, AsyncClient(gateway.url, encoding="json") as client:
            asked: list[asyncio.Task[Any]] = []

            async def told() -> None:
                await until("an image is asked for", lambda: gateway.newest.count("image"))
                await gateway.newest.tell(NEWS["book"])

            holding = Holding(gateway, lambda before: book.close() if before == 1 else None)
            opening = asyncio.create_task(client.book(A))
            await until("it is asked for", lambda: gateway.newest.count("subscribe"))
            await gateway.newest.tell(NEWS["book"])
            book = await opening
            asked.append(asyncio.create_task(told()))
            again = await client.book(A)
            assert again is not book
            assert again.state.value == "live"
            assert holding.is_held
            await asyncio.gather(*asked)

    asyncio.run(run())
