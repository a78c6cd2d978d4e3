"""The plain client: the asyncio one on a background thread, for scripts and notebooks.

Users call it from threads of their own, also where an event loop runs already, as in Jupyter. It
adds nothing to the asyncio client but the way over.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ._book import Book
from ._client import AsyncClient, Callback, ClientStats, OnError, Symbols
from ._closing import Closing
from ._control import Instrument
from ._options import ClientOptions, StreamOptions
from ._queue import Queue
from ._stream import Subscription
from ._updates import Channel, Depth, Event
from .errors import TickfanError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._record import Recorder

_T = TypeVar("_T")


class Client(Closing):
    """A connection to a gateway. Use it as a context manager, or just use it: it connects with the
    first subscription, and `close()` ends it. Its options are those of `AsyncClient`."""

    def __init__(self, url: str | None = None, **options: Unpack[ClientOptions]) -> None:
        self._client = AsyncClient(url, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._callbacks: list[threading.Thread] = []
        self._recorders: list[Recorder] = []
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """The stream of the gateway."""
        return self._client.url

    def connect(self) -> None:
        """Connects; raises when the first attempt fails. Later ones are made again and again."""
        self._call(self._client.connect())

    def close(self) -> None:
        """Ends every subscription and the connection."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._call(self._client.close())
        self._loop = None
        for callback in self._callbacks:
            if callback is not threading.current_thread():
                callback.join()
        for recorder in self._recorders:
            recorder.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            # What is not entered is not left either.
            self.close()
            raise
        return self

    def subscribe(
        self, channel: Channel, symbols: Symbols, **options: Unpack[StreamOptions]
    ) -> SyncSubscription:
        """A stream of updates: `for update in client.subscribe("bbo", "BTC/USDT")`. It begins when
        it is iterated, and ends when the loop is left. Options are those of
        `AsyncClient.subscribe`."""
        return SyncSubscription(self, self._client.subscribe(channel, symbols, **options))

    def book(
        self, symbol: str, *, depth: Depth = 20, budget_ms: int = 100, timeout: float = 10.0
    ) -> Book:
        """The order book of one symbol, kept in sync until it is closed. Returns it as soon as it
        holds something; after the timeout also without, and `state` says why."""
        return self._call(
            self._client.book(symbol, depth=depth, budget_ms=budget_ms, timeout=timeout)
        )

    def symbols(self, match: str = "*") -> list[Instrument]:
        """The instruments that can be subscribed to: all, of a venue (`sim:*`), or one."""
        return self._call(self._client.symbols(match))

    def on(
        self,
        channel: Channel,
        symbols: Symbols,
        callback: Callback,
        *,
        on_error: OnError | None = None,
        **options: Unpack[StreamOptions],
    ) -> SyncSubscription:
        """Calls back for each update, on a thread for this subscription. What the callback raises
        goes to `on_error` with the update; without one it ends `run()`. Options are those of
        `subscribe`."""
        subscription = self.subscribe(channel, symbols, **options)
        # A refused symbol is the caller's to know.
        subscription.open()

        def call() -> None:
            try:
                for update in subscription:
                    try:
                        callback(update)
                    except Exception as error:
                        if on_error is None:
                            raise
                        on_error(error, update)
            except BaseException as error:
                self._error = self._error or error

        thread = threading.Thread(target=call, name=f"tickfan-{channel}", daemon=True)
        self._callbacks.append(thread)
        thread.start()
        return subscription

    def run(self) -> None:
        """Until all callbacks have ended; raises the first error that no handler took."""
        for thread in self._callbacks:
            thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

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
        if self._loop is None:
            return self._client.stats()

        async def stats() -> ClientStats:
            return self._client.stats()

        return self._call(stats())

    def _call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None and self._thread is not None:
            coroutine.close()
            raise TickfanError("the client is closed")
        loop = self._loop or self._start()
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise TickfanError("the plain client cannot be called from its own thread")
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

        self._thread = threading.Thread(target=run, name="tickfan", daemon=True)
        self._thread.start()
        return loop


class SyncSubscription:
    """A stream of updates. Iterate it; leaving the loop unsubscribes."""

    def __init__(self, client: Client, subscription: Subscription) -> None:
        self._client, self._subscription = client, subscription

    @property
    def symbols(self) -> tuple[str, ...]:
        """The canonical symbols, once it has begun."""
        return self._subscription.symbols

    def open(self) -> None:
        """Subscribes already before it is iterated; raises when a symbol is refused."""
        self._client._call(self._subscription.open())

    def close(self) -> None:
        """Unsubscribes; a loop over it ends."""
        self._subscription.close()

    def __iter__(self) -> Iterator[Event]:
        queue = self._subscription.queue
        items = queue.items
        came = threading.Event()
        try:
            self.open()
            while True:
                while items:
                    yield items.popleft()
                    if queue.is_blocking:
                        queue.taken()
                if queue.is_ended and not items:
                    break
                _wait(queue, came)
        finally:
            self.close()
        if queue.error is not None:
            raise queue.error

    def batches(self) -> Iterator[list[Event]]:
        """All that waits, at once: less to do for each update."""
        queue = self._subscription.queue
        came = threading.Event()
        try:
            self.open()
            while True:
                if queue.items:
                    yield queue.take_all()
                elif queue.is_ended:
                    break
                else:
                    _wait(queue, came)
        finally:
            self.close()
        if queue.error is not None:
            raise queue.error


def _wait(queue: Queue, came: threading.Event) -> None:
    came.clear()
    queue.wake = came.set
    # What came before the line above has woken nobody.
    if not queue.items and not queue.is_ended:
        came.wait()
    queue.wake = None
