"""The asyncio client: what users call → what is asked of the gateway, over a connection.

Everything of it runs on one event loop. The plain client (`_sync.py`) is this one on a thread of
its own. It never hides a loss: who reads is told of the end of a connection at once, and of the
hole before the first data after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from . import _control, _symbols
from ._address import URL_DEFAULT, stream_url
from ._book import Book
from ._connection import Connection, Terms
from ._control import Instrument
from ._options import Encoding, StreamOptions
from ._queue import QUEUE_MAX, OnFull, Queue
from ._registry import Interest, Registry
from ._stream import Subscription
from ._transport import Library
from ._updates import Channel, Depth, Event, GatewayStats
from .errors import Refused, UnknownSymbol

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._record import Recorder

Symbols = str | Iterable[str]
Callback = Callable[[Event], object]
OnError = Callable[[Exception, Event], object]


class ClientStats(msgspec.Struct, frozen=True):
    """What a client has seen and done so far."""

    is_connected: bool
    url: str
    gateway: str
    """Name and version of the gateway."""
    session: str
    encoding: str
    library: str
    """Which WebSocket library carries it."""
    frames: int
    """Data frames of this connection."""
    bytes: int
    """Of the messages of this connection."""
    updates: int
    late: int
    """Updates that were over their latency budget when they were sent."""
    queued: int
    """Updates that wait for their readers now."""
    conflated: int
    """Updates that a reader was too slow for: newer ones took their place."""
    lost_trades: int
    """Trades among them. Their readers are told by `lost`."""
    connects: int
    holes: int
    chain_breaks: int
    """Times something did not follow from what was held: a fault of the gateway."""
    lag_ns: int
    """From the send of the last frame to its receipt: two clocks, of one machine or two."""
    served: GatewayStats | None
    """How the gateway says it serves this connection, when `stats_every_ms` asked for it."""


class AsyncClient:
    """A connection to a gateway, for asyncio. Use it as a context manager, or just use it: it
    connects with the first subscription, and `close()` ends it."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        encoding: Encoding = "binary",
        queue_max: int = QUEUE_MAX,
        on_full: OnFull = "conflate",
        reconnect: bool = True,
        heartbeat_ms: int = 2_000,
        stats_every_ms: int = 0,
        library: Library = "auto",
    ) -> None:
        if not 250 <= heartbeat_ms <= 60_000:
            raise ValueError(f"heartbeat_ms is {heartbeat_ms}; expected 250 to 60000")
        self.url = stream_url(url or os.environ.get("TICKFAN_URL") or URL_DEFAULT)
        """The stream of the gateway; by default what TICKFAN_URL says."""
        self._queue_max, self._on_full = queue_max, on_full
        self._registry = Registry(time.time_ns)
        self._instruments: dict[str, list[Instrument]] = {}
        """Those that were asked for on the present connection, by what was asked."""
        terms = Terms(
            url=self.url,
            token=token or os.environ.get("TICKFAN_TOKEN"),
            encoding=encoding,
            library=library,
            reconnect=reconnect,
            heartbeat_ms=heartbeat_ms,
            stats_every_ms=stats_every_ms,
        )
        self._connection = Connection(terms, self._registry, self._instruments.clear)
        self._callbacks: list[asyncio.Task[None]] = []
        self._is_closed = False
        self._recorders: list[Recorder] = []
        self._conflated = self._lost_trades = 0

    # What users call.

    async def connect(self) -> None:
        """Connects; raises when the first attempt fails. Later ones are made again and again."""
        await self._connection.connect()

    async def close(self) -> None:
        """Ends every subscription and the connection."""
        self._is_closed = True
        for task in self._callbacks:
            # A callback may close its own client.
            if task is not asyncio.current_task():
                task.cancel()
        self._connection.end(None)
        try:
            await self._connection.close()
        finally:
            with contextlib.ExitStack() as ending:
                for recorder in self._recorders:
                    ending.callback(recorder.close)

    async def __aenter__(self) -> AsyncClient:
        try:
            await self.connect()
        except BaseException:
            # What is not entered is not left either.
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def subscribe(
        self,
        channel: Channel,
        symbols: Symbols,
        *,
        depth: Depth = 20,
        budget_ms: int = 100,
        last: int = 0,
        queue_max: int | None = None,
        on_full: OnFull | None = None,
    ) -> Subscription:
        """A stream of updates: `async for update in client.subscribe("bbo", "BTC/USDT")`. It begins
        when it is iterated, and ends when the loop is left."""
        queue = Queue(queue_max or self._queue_max, on_full or self._on_full)
        interest = self._interest(channel, symbols, depth, budget_ms, last, queue)
        return Subscription(self._open, interest, queue)

    async def book(
        self, symbol: str, *, depth: Depth = 20, budget_ms: int = 100, timeout: float = 10.0
    ) -> Book:
        """The order book of one symbol, kept in sync until it is closed. Returns it as soon as it
        holds something; after the timeout also without, and `state` says why. Who asks twice gets
        the same book."""
        interest = self._interest("book", symbol, depth, budget_ms, 0, None)
        await self._open(interest)
        book = interest.book
        assert book is not None, "a book that was not refused is there"
        self._registry.share_book(interest)
        synced = asyncio.Event()
        stop = book.listen(synced.set)
        try:
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                while book.seq is None and not book.has_ended():
                    synced.clear()
                    await asyncio.wait_for(synced.wait(), timeout)
        finally:
            stop()
        return book

    async def symbols(self, match: str = "*") -> list[Instrument]:
        """The instruments that can be subscribed to: all, of a venue (`sim:*`), or one."""
        await self.connect()
        found: list[Instrument] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(answer: _control.Control) -> None:
            if isinstance(answer, _control.Instruments):
                found.extend(answer.instruments)
            elif isinstance(answer, _control.Error) and not done.done():
                done.set_exception(Refused(answer.code, answer.message))

        session = self._connection.on_line()
        number = session.request("instruments", answered, match=match)
        session.barrier(lambda: _settle(done), number)
        await self._connection.answer(done)
        return found

    def on(
        self,
        channel: Channel,
        symbols: Symbols,
        callback: Callback,
        *,
        on_error: OnError | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription:
        """Calls back, or awaits, for each update. What the callback raises goes to `on_error` with
        the update; without one it ends `run()`. Options are those of `subscribe`."""
        subscription = self.subscribe(channel, symbols, **options)

        async def call() -> None:
            try:
                async for update in subscription:
                    try:
                        result = callback(update)
                        if inspect.isawaitable(result):
                            await result
                    except Exception as error:
                        if on_error is None:
                            raise
                        handled = on_error(error, update)
                        if inspect.isawaitable(handled):
                            await handled
            except asyncio.CancelledError:
                # That the client was closed is no error of who waits in `run`.
                if not self._is_closed:
                    raise

        self._callbacks.append(asyncio.get_running_loop().create_task(call()))
        return subscription

    async def run(self) -> None:
        """Until all callbacks have ended; raises the first error that no handler took."""
        await asyncio.gather(*self._callbacks)

    def record(
        self,
        path: str | Path,
        channel: Channel,
        symbols: Symbols,
        **options: Unpack[StreamOptions],
    ) -> Recorder:
        """Writes a stream to a Parquet file in the background, until the recorder is closed."""
        from ._record import begin

        recorder = begin(path, channel, lambda write: self.on(channel, symbols, write, **options))
        self._recorders.append(recorder)
        return recorder

    def stats(self) -> ClientStats:
        """What was seen and done so far."""
        connection, counters = self._connection, self._registry.counters
        session, transport = connection.session, connection.transport
        queues = [one.queue for one in self._registry.interests if one.queue is not None]
        hello = session.hello if session else None
        return ClientStats(
            is_connected=connection.is_up,
            url=self.url,
            gateway=hello.gateway if hello else "",
            session=hello.session if hello else "",
            encoding=connection.terms.encoding,
            library=transport.library if transport else "",
            frames=session.frames if session else 0,
            bytes=session.bytes if session else 0,
            updates=counters.updates,
            late=counters.late,
            queued=sum(len(queue.items) for queue in queues),
            conflated=self._conflated + sum(queue.conflated for queue in queues),
            lost_trades=self._lost_trades + sum(queue.lost_trades for queue in queues),
            connects=connection.connects,
            holes=counters.holes,
            chain_breaks=counters.chain_breaks,
            lag_ns=session.received_ns - session.sent_ns if session else 0,
            served=session.stats if session else None,
        )

    # Subscriptions.

    def _interest(
        self,
        channel: Channel,
        symbols: Symbols,
        depth: Depth,
        budget_ms: int,
        last: int,
        queue: Queue | None,
    ) -> Interest:
        names = [symbols] if isinstance(symbols, str) else list(symbols)
        if not names:
            raise ValueError("name a symbol at least")
        return Interest(
            channel,
            names,
            depth=depth,
            budget_ms=budget_ms,
            last=last,
            queue=queue,
            close=self._close_interest,
        )

    async def _open(self, interest: Interest) -> None:
        """Subscribes, whatever way the symbols are spelt; raises when any is refused."""
        await self.connect()
        interest.symbols = [
            name if _symbols.venue_of(name) else await self._canonical(name)
            for name in interest.symbols
        ]
        if interest.is_closed:
            # Whoever wanted it had enough before it began.
            return
        if interest.queue is not None:
            self._connection.mind(interest.queue)
        if interest not in self._registry.interests:
            self._registry.interests.append(interest)
        try:
            await self._ask(interest, interest.symbols)
            unknown = [
                symbol
                for symbol, refusal in interest.refused.items()
                if isinstance(refusal, UnknownSymbol) and not _symbols.is_pattern(symbol)
            ]
            for symbol in unknown:
                # The venue is right, and its instrument is spelt another way.
                name = await self._canonical(symbol, interest.refused[symbol])
                interest.symbols[interest.symbols.index(symbol)] = name
                del interest.refused[symbol]
                await self._ask(interest, [name])
            for refusal in interest.refused.values():
                raise refusal
            if not interest.views and not interest.is_closed:
                raise UnknownSymbol(
                    f"nothing fits {', '.join(interest.symbols)}; client.symbols() lists what is"
                )
        except BaseException:
            interest.close()
            raise

    async def _ask(self, interest: Interest, symbols: list[str]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._connection.on_line()
        self._registry.ask(interest, symbols, lambda: _settle(done))
        await self._connection.answer(done)

    async def _canonical(self, spelling: str, refusal: Refused | None = None) -> str:
        venue = _symbols.venue_of(spelling)
        match = f"{venue}:*" if venue else "*"
        known = self._instruments.get(match)
        if known is not None:
            # What is not among them may have been listed since.
            with contextlib.suppress(UnknownSymbol):
                return _symbols.canonical(spelling, known)
        known = self._instruments[match] = await self.symbols(match)
        try:
            return _symbols.canonical(spelling, known)
        except UnknownSymbol:
            if refusal is not None:
                raise refusal from None
            raise

    def _close_interest(self, interest: Interest) -> None:
        # Books and streams of the plain client are closed from its user's thread.
        self._connection.call(lambda: self._close_here(interest))

    def _close_here(self, interest: Interest) -> None:
        if interest.queue is not None:
            self._conflated += interest.queue.conflated
            self._lost_trades += interest.queue.lost_trades
        self._registry.close(interest)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
