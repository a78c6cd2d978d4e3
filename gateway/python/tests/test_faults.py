"""What goes wrong between gateway and client. Each test first proves that the fault happened, then
that its reader was told before it got anything else, and that the book is the true one again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from relay import Relay
from scripted import scripted
from tickfan import (
    AsyncClient,
    Bbo,
    Book,
    ConnectError,
    Delta,
    Disconnected,
    Event,
    Hole,
    Image,
    State,
    StateChange,
    Trades,
    UnknownSymbol,
)
from tickfan._options import Encoding
from tickfan.testing import FeedSim, Gateway, Simulator
from waiting import until

Wire = Callable[[str], Relay]
BTC = "sim:BTCUSDT"

EPOCHS_BEGIN_S = 1_577_836_800
"""The beginning of 2020."""


def is_true(served: FeedSim, book: Book) -> bool:
    """The book is what the exchange says that it was at this version."""
    held = book.snapshot()
    truth: Any = served.truth(held.symbol, held.venue_seq)
    assert truth is not None, "the exchange remembers this version"
    for side, levels in (("bids", held.bids), ("asks", held.asks)):
        told = [(Decimal(price), Decimal(qty)) for price, qty in truth[side]][: len(levels)]
        assert [(one.price_decimal, one.qty_decimal) for one in levels] == told, held
    assert held.state is State.LIVE
    assert len(held.bids) == len(held.asks) == 20
    return True


async def collect(stream: Any, into: list[Event]) -> None:
    async for update in stream:
        into.append(update)


def chain_holds(updates: list[Event]) -> None:
    """What a reader of trades may rely on: each update follows the one before, or says a hole."""
    held: int | None = None
    for update in updates:
        if isinstance(update, Hole):
            held = None
        elif isinstance(update, Trades):
            assert held in (None, update.prev_seq)
            assert update.seq - update.prev_seq == len(update.trades) + update.lost
            held = update.seq


@pytest.mark.parametrize("library", ["picows", "websockets"])
def test_a_cut_is_told_and_mended(
    feed_sim: FeedSim, relay: Wire, encoding: Encoding, library: Any
) -> None:
    async def run() -> None:
        wire = relay(feed_sim.gateway.address)
        async with AsyncClient(wire.address, encoding=encoding, library=library) as client:
            book = await client.book(BTC, budget_ms=0)
            stream = client.subscribe("trades", BTC, budget_ms=0)
            got: list[Event] = []
            states: list[State] = []
            book.listen(lambda: states.append(book.state))
            reading = asyncio.create_task(collect(stream, got))
            await until("trades came", lambda: any(isinstance(one, Trades) for one in got))

            wire.cut(stay_down=True)
            await until("the cut is noticed", lambda: book.state is State.DISCONNECTED)
            assert client.stats().is_connected is False
            held, last = book.seq, got[-1]
            assert isinstance(last, StateChange)
            assert last.state is State.DISCONNECTED
            # The last that is known is kept, and says that it is only that.
            assert book.best_bid is not None
            before = len(got)
            wire.mend()
            await until("the book is live again", lambda: book.state is State.LIVE)
            await until("trades come again", lambda: isinstance(got[-1], Trades))

            assert wire.accepted >= 2
            assert is_true(feed_sim, book)
            assert book.seq is not None
            assert held is not None
            assert book.seq > held
            assert states[states.index(State.DISCONNECTED) :].count(State.LIVE) > 0
            hole, state, trades = got[before : before + 3]
            assert isinstance(hole, Hole)
            assert isinstance(state, StateChange)
            assert isinstance(trades, Trades)
            # Trades are numbered: of those that were missed all were sent again.
            assert hole.missed == 0
            assert trades.prev_seq == hole.seq_before
            assert hole.epoch == hole.epoch_before
            assert 0 < hole.began_ns < hole.ended_ns
            assert client.stats().holes == 2
            numbers = [one.seq for one in got if isinstance(one, Trades)]
            assert numbers == sorted(set(numbers))
            chain_holds(got)
            stream.close()
            await reading

    asyncio.run(run())


def test_a_gateway_that_was_killed_comes_back_with_another_epoch(
    feed_sim: FeedSim, encoding: Encoding
) -> None:
    async def run() -> None:
        async with AsyncClient(feed_sim.url, encoding=encoding) as client:
            book = await client.book(BTC, budget_ms=0)
            stream = client.subscribe("bbo", BTC, budget_ms=0)
            got: list[Event] = []
            reading = asyncio.create_task(collect(stream, got))
            await until("prices come", lambda: len(got) > 3)
            epoch = book.epoch
            # Epochs are the second in which a gateway starts.
            await until("another second", lambda: time.time() - EPOCHS_BEGIN_S > epoch + 1)
            feed_sim.gateway.process.kill()
            await until("it is noticed", lambda: book.state is State.DISCONNECTED)
            before = len(got)
            feed_sim.gateway.start()
            await until("the book is live again", lambda: book.state is State.LIVE)
            await until("prices come again", lambda: isinstance(got[-1], Bbo))
            assert is_true(feed_sim, book)
            assert book.epoch > epoch
            hole = next(one for one in got[before - 1 :] if isinstance(one, Hole))
            assert not any(isinstance(one, Bbo) for one in got[before : got.index(hole)])
            assert (hole.epoch_before, hole.missed) == (epoch, None)
            stream.close()
            await reading

    asyncio.run(run())


def test_a_drain_is_followed(feed_sim: FeedSim, encoding: Encoding) -> None:
    async def run() -> None:
        async with AsyncClient(feed_sim.url, encoding=encoding) as client:
            book = await client.book(BTC)
            stream = client.subscribe("book", BTC)
            got: list[Event] = []
            reading = asyncio.create_task(collect(stream, got))
            await until("the stream has begun", lambda: got)
            feed_sim.gateway.process.terminate()
            await until("the connection is ended", lambda: book.state is State.DISCONNECTED)
            # It came to its end in good order, and said so.
            assert await asyncio.to_thread(feed_sim.gateway.process.wait) == 0
            change = next(one for one in got if isinstance(one, StateChange))
            assert change.state is State.DISCONNECTED
            assert change.why.startswith("restart")
            feed_sim.gateway.start()
            await until("the book is live again", lambda: book.state is State.LIVE)
            assert is_true(feed_sim, book)
            hole = next(one for one in got if isinstance(one, Hole))
            assert hole.code == 1012
            stream.close()
            await reading

    asyncio.run(run())


def test_a_wire_that_is_silent_is_given_up(feed_sim: FeedSim, relay: Wire) -> None:
    async def run() -> None:
        wire = relay(feed_sim.gateway.address)
        async with AsyncClient(wire.address, heartbeat_ms=250) as client:
            book = await client.book(BTC)
            wire.freeze()
            # Nobody says that anything ended: no reset, no close.
            await until("it is given up", lambda: client.stats().connects == 2)
            await until("the book is live again", lambda: book.state is State.LIVE)
            assert wire.accepted >= 2
            assert is_true(feed_sim, book)

    asyncio.run(run())


@pytest.mark.parametrize("library", ["picows", "websockets"])
def test_a_reader_that_stops_gets_the_newest_and_no_backlog(
    encoding: Encoding, library: Any
) -> None:
    async def run() -> None:
        served = FeedSim(seed=3, symbols=20, rate=8_000)
        try:
            client = AsyncClient(served.url, encoding=encoding, library=library)
            async with client:
                stream = client.subscribe(
                    "book", "sim:*", depth=200, budget_ms=0, queue_max=200, on_full="block"
                )
                got: list[Event] = []
                updates = stream.__aiter__()
                got.append(await updates.__anext__())

                def btc_now() -> int:
                    truth: Any = served.truth(BTC)
                    number: int = truth["u"]
                    return number

                await until(
                    "the gateway cannot send",
                    lambda: served.gateway.metric("tickfan_shard_blocked_total") > 0,
                )
                blocked_at = btc_now()
                await until("much happens meanwhile", lambda: btc_now() > blocked_at + 500)
                stats = client.stats()
                # What waits here is bounded, and nothing was thrown away here.
                assert stats.queued < 2_000
                assert stats.conflated == 0
                newest, seen, at = btc_now(), 0, 0
                while at < newest:
                    update = await asyncio.wait_for(updates.__anext__(), 30)
                    if isinstance(update, Image | Delta) and update.symbol == BTC:
                        at = update.venue_seq or 0
                        seen += at > blocked_at
                # Of what happened meanwhile a few updates, and not one for each.
                assert 0 < seen < 100
                await updates.aclose()  # type: ignore[attr-defined]
                assert client.stats().chain_breaks == 0
        finally:
            served.close()

    asyncio.run(run())


@pytest.mark.parametrize("library", ["picows", "websockets"])
def test_a_book_says_when_a_reader_beside_it_has_stopped_all_reading(library: Any) -> None:
    async def run() -> None:
        served = FeedSim(seed=3, symbols=20, rate=4_000)
        try:
            async with AsyncClient(served.url, library=library, heartbeat_ms=250) as client:
                book = await client.book(BTC, budget_ms=0)
                beside: list[Event] = []
                other = client.subscribe("bbo", BTC, budget_ms=0)
                reading = asyncio.create_task(collect(other, beside))
                await until("prices come", lambda: beside)
                stream = client.subscribe("book", "sim:*", queue_max=200, on_full="block")
                updates = stream.__aiter__()
                await updates.__anext__()
                # It takes nothing more, and everything stands.
                await until("the book says so", lambda: book.state is State.STALE)
                assert book.why == "not_read"
                assert book.best_bid is not None
                truth: Any = served.truth(BTC)
                assert book.venue_seq is not None
                assert truth["u"] > book.venue_seq, "it was old indeed"
                await until("its reader knows", lambda: isinstance(beside[-1], StateChange))
                # Nothing is wrong with the connection.
                assert client.stats().is_connected

                rest: list[Event] = []
                draining = asyncio.create_task(collect(updates, rest))
                await until("the book goes on", lambda: book.state is State.LIVE)
                assert (client.stats().connects, client.stats().chain_breaks) == (1, 0)
                assert is_true(served, book)
                await until("prices come again", lambda: isinstance(beside[-1], Bbo))
                told = [(one.state, one.why) for one in beside if isinstance(one, StateChange)]
                assert told == [(State.STALE, "not_read"), (State.LIVE, "read_again")]
                stream.close()
                other.close()
                await asyncio.gather(draining, reading)
        finally:
            served.close()

    asyncio.run(run())


def test_a_reader_that_has_room_opens_for_itself_only() -> None:
    async def run() -> None:
        served = FeedSim(seed=3, symbols=4, rate=4_000)
        try:
            async with AsyncClient(served.url, heartbeat_ms=250) as client:
                book = await client.book(BTC)
                first, second = (
                    client.subscribe("book", "sim:*", queue_max=limit, on_full="block")
                    for limit in (32, 1_000)
                )
                for stream in (first, second):
                    await stream.open()
                # The first that is full keeps the other from being filled.
                await until("one is full", lambda: first.queue.is_blocking)
                second.queue.is_blocking = True
                second.queue.stop()
                # Its reader's thread and the end of its stream may find at once that it has room.
                first.queue.is_blocking = False
                first.queue.resume()
                first.queue.resume()
                first.close()
                await until("nothing is read", lambda: book.why == "not_read")
                waiting = client.stats().queued
                # The other is not filled further, and opens when it has room itself.
                await until("much happens", lambda: book.age_ns > 500_000_000)
                assert client.stats().queued == waiting
                second.close()
                await until("the book goes on", lambda: book.state is State.LIVE)
                assert client.stats().connects == 1
        finally:
            served.close()

    asyncio.run(run())


def test_a_slow_reader_is_told_less_and_it_is_counted(encoding: Encoding) -> None:
    async def run() -> None:
        served = FeedSim(seed=5, symbols=4, rate=4_000)
        try:
            async with AsyncClient(served.url, encoding=encoding) as client:
                streams = {
                    channel: client.subscribe(channel, "sim:*", budget_ms=0, queue_max=64)
                    for channel in ("book", "bbo", "trades")
                }
                for stream in streams.values():
                    await stream.open()
                # Nobody takes anything: what waits stays bounded, and is counted.
                await until("much was conflated", lambda: client.stats().conflated > 500)
                await until("trades were lost here", lambda: client.stats().lost_trades > 0)
                assert client.stats().queued <= 3 * 64
                assert client.stats().chain_breaks == 0
                # Then everybody reads: what comes is a chain, and leads to the truth.
                got: dict[str, list[Event]] = {channel: [] for channel in streams}
                readers = [
                    asyncio.create_task(collect(stream, got[channel]))
                    for channel, stream in streams.items()
                ]
                await until("all is read", lambda: all(len(one) > 150 for one in got.values()))
                held: dict[str, int | None] = {}
                for update in got["book"]:
                    if update.kind == "image":
                        held[update.symbol] = update.seq
                    elif update.kind == "delta":
                        assert held[update.symbol] == update.prev_seq  # type: ignore[union-attr]
                        held[update.symbol] = update.seq
                assert any(update.kind == "image" for update in got["book"])
                of_btc = [one for one in got["trades"] if one.symbol == BTC]
                chain_holds(of_btc)
                lost = [one.lost for one in got["trades"] if isinstance(one, Trades)]
                assert sum(lost) == client.stats().lost_trades > 0
                book = await client.book(BTC)
                assert is_true(served, book)
                for stream in streams.values():
                    stream.close()
                await asyncio.gather(*readers)
        finally:
            served.close()

    asyncio.run(run())


def test_an_unknown_symbol_is_refused_and_touches_no_other(
    market: FeedSim, encoding: Encoding
) -> None:
    async def run() -> None:
        async with AsyncClient(market.url, encoding=encoding) as client:
            book = await client.book(BTC)
            with pytest.raises(UnknownSymbol, match="sim:NOPE"):
                async for _ in client.subscribe("bbo", ["sim:ETHUSDT", "sim:NOPE"]):
                    pass
            for spelling in ("NOPE/USDT", "nope:*"):
                with pytest.raises(UnknownSymbol):
                    await client.book(spelling)
            seq = book.seq
            await until("the other book goes on", lambda: book.seq != seq)
            assert is_true(market, book)

    asyncio.run(run())


def test_who_is_not_there_is_an_error_with_a_way_out() -> None:
    async def run() -> None:
        with pytest.raises(ConnectError, match="TICKFAN_URL"):
            await AsyncClient("127.0.0.1:1").connect()

    asyncio.run(run())


@pytest.mark.parametrize("library", ["picows", "websockets"])
def test_who_takes_a_connection_and_says_nothing_is_tried_again(
    feed_sim: FeedSim,
    relay: Wire,
    library: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tickfan")
    # Not so short that a gateway that answers would be given up.
    monkeypatch.setattr("tickfan._transport.CONNECT_TIMEOUT_S", 1.0)

    async def run() -> None:
        wire = relay(feed_sim.gateway.address)
        async with AsyncClient(wire.address, library=library) as client:
            book = await client.book(BTC)
            wire.cut(stay_down=True)
            await until(
                "it tries again and again", lambda: caplog.text.count("cannot connect") >= 2
            )
            assert book.state is State.DISCONNECTED
            wire.mend()
            await until("the book is live again", lambda: book.state is State.LIVE)

    asyncio.run(run())


@pytest.mark.parametrize("library", ["picows", "websockets"])
def test_who_closes_says_that_it_is_done(library: Any) -> None:
    async def run() -> None:
        async with scripted() as gateway:
            client = AsyncClient(gateway.url, encoding="json", library=library)
            await client.connect()
            await client.close()
            (connection,) = gateway.connections
            await until("the gateway hears it", lambda: connection.socket.close_code is not None)
            assert connection.socket.close_code == 1000

    asyncio.run(run())


def test_without_reconnect_the_end_is_an_error_of_the_loop(feed_sim: FeedSim) -> None:
    async def run() -> None:
        client = AsyncClient(feed_sim.url, reconnect=False)
        got: list[Event] = []
        reading = asyncio.create_task(collect(client.subscribe("bbo", BTC), got))
        await until("prices come", lambda: got)
        feed_sim.gateway.process.kill()
        with pytest.raises(Disconnected):
            await reading
        assert isinstance(got[-1], StateChange)
        assert got[-1].state is State.DISCONNECTED
        await client.close()

    asyncio.run(run())


@pytest.mark.parametrize("library", ["picows", "websockets"])
def test_who_is_one_too_many_comes_when_it_was_told_to(
    library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        exchange = Simulator(symbols=1, rate=100)
        gateway = Gateway([exchange.feed()], options="connections_max = 1")
        try:
            first, second = (AsyncClient(gateway.url, library=library) for _ in range(2))
            await first.connect()
            waiting = asyncio.create_task(second.connect())
            await until("it is refused", lambda: "4101 gateway_full" in caplog.text)
            assert not waiting.done()
            await first.close()
            await waiting
            assert second.stats().is_connected
            await second.close()
        finally:
            gateway.close()
            exchange.close()

    caplog.set_level("INFO", "tickfan")
    asyncio.run(run())
    told = re.search(r"gateway_full: (\d+); again in ([\d.]+) s", caplog.text)
    assert told is not None
    assert float(told[2]) == pytest.approx(int(told[1]) / 1_000, abs=0.06)
