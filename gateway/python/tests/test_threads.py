"""Threads that share what is the client's: readers that come between, first calls at once,
callbacks that fail or close, and processes that are forked away.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from scripted import IMAGE, A, Connection, Message, as_ever, scripted
from test_view import Scene, trades
from tickfan import (
    AsyncClient,
    Book,
    Client,
    ConnectError,
    Event,
    State,
    TickfanError,
    Trades,
)
from tickfan._queue import Queue
from tickfan._updates import P, S
from tickfan.testing import FeedSim, Gateway, Simulator, wait_until
from waiting import until

BTC = "sim:BTCUSDT"


@pytest.mark.parametrize("batches", [False, True])
def test_a_reader_never_comes_between_while_its_queue_is_conflated(
    batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(limit=256).tell(trades(100, 101))
    (first,) = scene.got()
    assert isinstance(first, Trades)
    queue, last = scene.queue, 101 + scene.queue.limit
    got: list[Event] = []

    def read() -> None:
        taken = queue.take_all() if batches else [queue.take()]
        got.extend(update for update in taken if update is not None)

    reader = threading.Thread(target=read)
    newest = queue._newest

    def meanwhile(events: list[Event]) -> list[Event]:
        reader.start()
        # Whoever may come between has every chance to.
        reader.join(0.1)
        return newest(events)

    monkeypatch.setattr(queue, "_newest", meanwhile)
    for n in range(101, last):
        head = (*first.head[:S], n + 1, n, *first.head[P + 1 :])
        queue.put(Trades(first.name, head, 0, False, ()))
    reader.join()
    assert queue.conflated > 0
    assert len(got) > 0
    held = 101
    for update in [*got, *queue.take_all()]:
        assert isinstance(update, Trades)
        assert update.prev_seq == held, "it follows"
        held = update.seq
    assert held == last


def test_who_wakes_looks_once_at_whom() -> None:
    woken: list[None] = []

    class Waiting(Queue):
        """Its reader has stopped waiting whenever one looks a second time."""

        _wakes: Any = None

        @property
        def wake(self) -> Any:
            wakes, self._wakes = self._wakes, None
            return wakes

        @wake.setter
        def wake(self, wakes: Any) -> None:
            self._wakes = wakes

    queue = Waiting(10, "conflate")
    queue.wake = lambda: woken.append(None)
    queue.end()
    assert len(woken) == 1


def test_the_first_calls_of_many_threads_make_one_connection(
    market: FeedSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, at_once = asyncio.new_event_loop, threading.Barrier(8)
    made: list[asyncio.AbstractEventLoop] = []

    def new_event_loop() -> asyncio.AbstractEventLoop:
        made.append(make())
        # Whoever may make one besides has every chance to.
        for _ in range(1_000):
            threading.Event().wait(0)
        return made[-1]

    monkeypatch.setattr("tickfan._sync.asyncio.new_event_loop", new_event_loop)
    client = Client(market.url)
    states: list[State] = []

    def first() -> None:
        at_once.wait()
        states.append(client.book(BTC).state)

    threads = [threading.Thread(target=first, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until("all have their book", lambda: len(states) == 8 or len(made) > 1)
    assert len(made) == 1
    assert states == [State.LIVE] * 8
    assert client.stats().connects == 1
    client.close()


def test_one_callback_that_fails_ends_the_run_though_another_goes_on(market: FeedSim) -> None:
    seen: list[Event] = []

    def fail(update: Event) -> None:
        raise ValueError("not swallowed")

    ended: list[BaseException | None] = []

    def run(client: Client) -> None:
        try:
            client.run()
            ended.append(None)
        except ValueError as error:
            ended.append(error)

    with Client(market.url) as client:
        client.on("bbo", BTC, seen.append, budget_ms=0)
        client.on("bbo", "sim:ETHUSDT", fail, budget_ms=0)
        runner = threading.Thread(target=run, args=(client,))
        runner.start()
        wait_until("it is told", lambda: ended)
        assert isinstance(ended[0], ValueError)
        count = len(seen)
        wait_until("the other goes on", lambda: len(seen) > count)
    runner.join()
    # What is over is over, and was told.
    client.run()


def test_a_callback_may_close_its_client(market: FeedSim) -> None:
    async def run() -> None:
        client = AsyncClient(market.url)
        await client.connect()

        async def close(update: Event) -> None:
            await client.close()

        client.on("bbo", BTC, close, budget_ms=0)
        await client.run()
        assert client._connection.transport is not None
        assert client._connection._runner is not None
        assert client._connection._runner.done()

    open_before = market.gateway.metric("tickfan_connections")
    asyncio.run(run())
    wait_until(
        "the gateway is left",
        lambda: market.gateway.metric("tickfan_connections") <= open_before,
    )
    with Client(market.url) as client:
        client.on("bbo", BTC, lambda update: client.close(), budget_ms=0)
        client.run()


def test_a_run_ends_when_the_client_is_closed(market: FeedSim) -> None:
    async def run() -> None:
        client = AsyncClient(market.url)
        never = asyncio.Event()
        called = asyncio.Event()

        async def wait(update: Event) -> None:
            called.set()
            await never.wait()

        client.on("bbo", BTC, wait, budget_ms=0)
        running = asyncio.create_task(client.run())
        await called.wait()
        await client.close()
        await running

    asyncio.run(run())


def test_a_listener_that_raises_is_its_own_affair(
    market: FeedSim, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(market.url) as client:
        book = client.book(BTC, budget_ms=0)

        def fail() -> None:
            raise ValueError("in a listener")

        book.listen(fail)
        wait_until("it was called often", lambda: caplog.text.count("in a listener") > 5)
        assert book.state is State.LIVE
        assert (client.stats().connects, client.stats().chain_breaks) == (1, 0)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert told[0].getMessage() == f"a listener of {BTC} raised"


def test_what_was_forked_away_says_so_and_its_parent_goes_on(market: FeedSim) -> None:
    forked = multiprocessing.get_context("fork")
    said: Any = forked.SimpleQueue()

    def child(client: Client, book: Book) -> None:
        errors = []
        uses: list[Callable[[], object]] = [
            lambda: client.book(BTC),
            lambda: next(iter(book.changes())),
        ]
        for use in uses:
            try:
                use()
                errors.append("nothing")
            except TickfanError as error:
                errors.append(str(error))
        client.close()
        said.put((str(book.state), book.why, errors))

    with Client(market.url) as client:
        book = client.book(BTC, budget_ms=0)
        process = forked.Process(target=child, args=(client, book), daemon=True)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        state, why, errors = said.get()
        assert (state, why) == ("disconnected", "forked")
        assert [("process" in error) for error in errors] == [True, True]
        seq = book.seq
        wait_until("the book goes on", lambda: book.seq != seq)
        assert book.state is State.LIVE


def test_what_is_interrupted_while_it_is_asked_for_is_not_held() -> None:
    serving = threading.Event()
    gateways: list[Any] = []
    stop: list[Any] = []

    async def answer(connection: Connection, request: Message) -> None:
        if connection.count("subscribe") == 1:
            # Nothing is answered, and somebody presses Ctrl-C.
            if request["op"] == "subscribe":
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return
        await as_ever(connection, request)
        if request["op"] == "subscribe":
            await connection.tell(IMAGE)

    def serve() -> None:
        async def run() -> None:
            async with scripted(answer) as gateway:
                done = asyncio.Event()
                stop.append((asyncio.get_running_loop(), done))
                gateways.append(gateway)
                serving.set()
                await done.wait()

        asyncio.run(run())

    thread = threading.Thread(target=serve)
    thread.start()
    serving.wait()
    try:
        with Client(gateways[0].url, encoding="json") as client:
            with pytest.raises(KeyboardInterrupt):
                client.book(A)
            # Long before an answer would be given up.
            registry = client._client._registry
            wait_until("nothing is wanted", lambda: not registry.interests, 10.0)
            assert client.book(A).state is State.LIVE
    finally:
        loop, done = stop[0]
        loop.call_soon_threadsafe(done.set)
        thread.join()


@pytest.mark.parametrize("plain", [True, False])
def test_who_found_nobody_finds_the_gateway_that_came_later(market: FeedSim, plain: bool) -> None:
    with Simulator(symbols=1, rate=100) as exchange, Gateway([exchange.feed()]) as gateway:
        gateway.process.kill()
        if plain:
            client = Client(gateway.url)
            for _ in range(2):
                with pytest.raises(ConnectError):
                    client.book(BTC)
            gateway.start()
            gateway.wait_ready()
            assert client.book(BTC).state is State.LIVE
            client.close()
            with pytest.raises(TickfanError, match="closed"):
                client.book(BTC)
        else:

            async def run() -> None:
                client = AsyncClient(gateway.url)
                tries = (client.book(BTC), client.book(BTC), client.symbols())
                failed = await asyncio.gather(*tries, return_exceptions=True)
                assert [type(error) for error in failed] == [ConnectError] * 3
                gateway.start()
                gateway.wait_ready()
                assert (await client.book(BTC)).state is State.LIVE
                await client.close()
                with pytest.raises(TickfanError, match="closed"):
                    await client.connect()
                await until("nothing is left", lambda: not client.stats().is_connected)

            asyncio.run(run())


def test_what_is_closed_before_it_begins_is_never_asked_for() -> None:
    async def run() -> None:
        async with scripted() as gateway, AsyncClient(gateway.url, encoding="json") as client:
            stream = client.subscribe("bbo", A)
            opening = asyncio.create_task(stream.open())
            await asyncio.sleep(0)
            stream.close()
            await opening
            assert [update async for update in stream] == []
            # Whatever is asked is asked before this.
            await client.symbols()
            assert gateway.newest.count("subscribe") == 0
            assert client._registry.interests == []

    asyncio.run(run())
