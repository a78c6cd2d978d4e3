"""The connection is back: what was subscribed is subscribed again, whatever is answered."""

from __future__ import annotations

import asyncio

import pytest

from scripted import HELLO, A, Connection, Message, as_ever, scripted
from test_faults import BTC, Wire, chain_holds, collect, is_true
from tickfan import AsyncClient, Bbo, Event, Hole, State, StateChange, Trades
from tickfan._updates import Channel, ViewName
from tickfan.testing import FeedSim
from waiting import until


def states_of(got: list[Event]) -> list[tuple[State, str]]:
    return [(one.state, one.why) for one in got if isinstance(one, StateChange)]


def test_a_gateway_that_does_not_know_its_instruments_yet_is_asked_again(feed_sim: FeedSim) -> None:
    async def run() -> None:
        async with AsyncClient(feed_sim.url) as client:
            book = await client.book(BTC, budget_ms=0)
            got: dict[Channel, list[Event]] = {"bbo": [], "trades": []}
            streams = [client.subscribe(channel, "sim:*", budget_ms=0) for channel in got]
            reading = [
                asyncio.create_task(collect(stream, into))
                for stream, into in zip(streams, got.values(), strict=True)
            ]
            await until("everything comes", lambda: all(len(one) > 10 for one in got.values()))
            # The exchange tells a gateway that starts now of no instrument.
            feed_sim.exchange._process.pause()
            feed_sim.gateway.process.kill()
            await until("it is noticed", lambda: book.state is State.DISCONNECTED)
            feed_sim.gateway.start()
            await until("it knows nothing", lambda: book.why == "unknown_symbol")
            assert client.stats().is_connected
            assert book.state is State.DISCONNECTED
            await until(
                "readers know",
                lambda: all(states_of(one)[-1][1] == "unknown_symbol" for one in got.values()),
            )
            before = {channel: len(one) for channel, one in got.items()}
            feed_sim.exchange._process.resume()
            await until("the book is live again", lambda: book.state is State.LIVE)
            assert is_true(feed_sim, book)
            await until("prices come again", lambda: isinstance(got["bbo"][-1], Bbo))
            await until("trades come again", lambda: isinstance(got["trades"][-1], Trades))
            for channel, updates in got.items():
                assert isinstance(updates[before[channel]], Hole)
            chain_holds([one for one in got["trades"] if one.symbol == BTC])
            for stream in streams:
                stream.close()
            await asyncio.gather(*reading)

    asyncio.run(run())


@pytest.mark.parametrize("channel", ["bbo", "trades"])
def test_a_refusal_after_a_reconnect_is_not_final(channel: Channel) -> None:
    refusals = 0

    async def all_is_one(connection: Connection, request: Message) -> None:
        await as_ever(connection, {**request, "symbols": [A]})

    async def refuse_twice(connection: Connection, request: Message) -> None:
        nonlocal refusals
        if request["op"] != "subscribe" or refusals == 2:
            return await all_is_one(connection, request)
        refusals += 1
        refusal = {"type": "error", "id": request["id"], "code": "rate_limited"}
        await connection.say(**refusal, message="slow")

    async def run() -> None:
        async with (
            scripted(all_is_one) as gateway,
            AsyncClient(gateway.url, encoding="json", heartbeat_ms=60_000) as client,
        ):
            got: list[Event] = []
            stream = client.subscribe(channel, "sim:*")
            await stream.open()
            reading = asyncio.create_task(collect(stream, got))
            gateway.answer = refuse_twice
            gateway.newest.cut()
            await until("it is served again", lambda: any(isinstance(one, Hole) for one in got))
            assert refusals == 2
            assert [why for _, why in states_of(got)][-2:] == ["rate_limited", "subscribed"]
            assert states_of(got)[-1][0] is State.LIVE
            stream.close()
            await reading

    asyncio.run(run())


def test_streams_of_the_same_trades_recover_them_once(feed_sim: FeedSim, relay: Wire) -> None:
    async def run() -> None:
        wire = relay(feed_sim.gateway.address)
        async with AsyncClient(wire.address) as client:
            got: list[list[Event]] = [[], [], []]
            wanted: list[str] = [BTC, "sim:*", BTC]
            streams = [
                client.subscribe("trades", symbol, budget_ms=budget_ms)
                for symbol, budget_ms in zip(wanted, (100, 0, 50), strict=True)
            ]
            reading = [
                asyncio.create_task(collect(stream, into))
                for stream, into in zip(streams, got, strict=True)
            ]
            await until("trades come", lambda: all(len(one) > 5 for one in got))
            wire.cut(stay_down=True)
            await until("it is noticed", lambda: not client.stats().is_connected)
            wire.mend()
            await until(
                "trades come again",
                lambda: all(
                    isinstance(one[-1], Trades) and any(isinstance(each, Hole) for each in one)
                    for one in got
                ),
            )
            # Whoever asked first, the shortest budget that is wanted holds.
            view = client._registry.views[ViewName(BTC, "trades", None)]
            await until("the budget is in force", lambda: view.budget_ms == 0)
            assert client.stats().chain_breaks == 0
            for updates in got:
                of_btc = [one for one in updates if one.symbol == BTC]
                chain_holds(of_btc)
                numbers = [one.seq for one in of_btc if isinstance(one, Trades)]
                assert numbers == sorted(set(numbers))
                assert [one.missed for one in of_btc if isinstance(one, Hole)] == [0]
            for stream in streams:
                stream.close()
            await asyncio.gather(*reading)

    asyncio.run(run())


@pytest.mark.parametrize("asked_before", [0, 1])
def test_trades_that_are_closed_while_they_are_recovered_are_left(asked_before: int) -> None:
    async def run() -> None:
        async with scripted() as gateway, AsyncClient(gateway.url, encoding="json") as client:
            stream = client.subscribe("trades", A)
            await stream.open()
            again: list[Message] = []

            async def close_meanwhile(connection: Connection, request: Message) -> None:
                again.append(request)
                if request["op"] == "subscribe" and len(subscribed(again)) == asked_before + 1:
                    stream.close()
                await as_ever(connection, request)

            def subscribed(requests: list[Message]) -> list[Message]:
                return [one for one in requests if one["op"] == "subscribe"]

            def held() -> int:
                left = [one for one in again if one["op"] == "unsubscribe"]
                return len(subscribed(again)) - len(left)

            gateway.answer = close_meanwhile
            gateway.newest.cut()
            await until("it is left", lambda: len(subscribed(again)) > asked_before and held() == 0)
            # Everything that was to be asked is asked before this.
            await client.symbols()
            assert held() == 0
            assert len(subscribed(again)) == asked_before + 1

    asyncio.run(run())


def test_a_second_greeting_subscribes_to_nothing_again() -> None:
    async def run() -> None:
        async with (
            scripted() as gateway,
            AsyncClient(gateway.url, encoding="json", token="secret") as client,
        ):
            stream = client.subscribe("bbo", A)
            await stream.open()
            await until("the token is sent", lambda: gateway.newest.count("auth"))
            await gateway.newest.say(**{**HELLO, "session": "with rights"})
            # It is answered after the greeting.
            await client.symbols()
            assert client.stats().session == "with rights"
            assert client.stats().connects == 1
            assert gateway.newest.count("subscribe") == 1

    asyncio.run(run())
