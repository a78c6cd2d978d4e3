"""The plain client: the asyncio one on a background thread, for scripts and notebooks.

Users call it from threads of their own, also where an event loop runs already, as in Jupyter. It
adds nothing to the asyncio client but the way over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
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
        self._process = os.getpid()
        self._starting = threading.Lock()
        """Threads may share a client from its first call on."""
        self._callbacks: list[threading.Thread] = []
        self._recorders: list[Recorder] = []
        self._one_ended = threading.Condition()
        """Of the callbacks."""
        self._running = 0
        """Callbacks that have not ended."""
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
        if loop is None or thread is None or self._process != os.getpid():
            return
        self._call(self._client.close())
        self._loop = None
        with contextlib.ExitStack() as ending:
            ending.callback(thread.join)
            ending.callback(loop.call_soon_threadsafe, loop.stop)
            for recorder in self._recorders:
                ending.callback(recorder.close)
            for callback in self._callbacks:
                if callback is not threading.current_thread():
                    callback.join()

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
            ended: BaseException | None = None
            try:
                for update in subscription:
                    try:
                        callback(update)
                    except Exception as error:
                        if on_error is None:
                            raise
                        on_error(error, update)
            except BaseException as error:
                ended = error
            with self._one_ended:
                self._running -= 1
                self._error = self._error or ended
                self._one_ended.notify_all()

        thread = threading.Thread(target=call, name=f"tickfan-{channel}", daemon=True)
        self._callbacks.append(thread)
        with self._one_ended:
            self._running += 1
        thread.start()
        return subscription

    def run(self) -> None:
        """Until all callbacks have ended; raises the first error that no handler took, at once."""
        with self._one_ended:
            self._one_ended.wait_for(lambda: self._error is not None or not self._running)
            error, self._error = self._error, None
        if error is not None:
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
        try:
            loop = self._running_loop()
        except TickfanError:
            coroutine.close()
            raise
        called = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return called.result()
        except BaseException:
            # Who was interrupted (Ctrl-C) wants nothing of it any more.
            called.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._process != os.getpid():
            raise TickfanError(
                "the client was made before this process was forked, and works in its parent only; "
                "make one in each process"
            )
        with self._starting:
            if self._thread is None:
                self._start()
        if self._loop is None:
            raise TickfanError("the client is closed")
        if threading.current_thread() is self._thread:
            raise TickfanError("the plain client cannot be called from its own thread")
        return self._loop

    def _start(self) -> None:
        loop = self._loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

        self._thread = threading.Thread(target=run, name="tickfan", daemon=True)
        self._thread.start()


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
        came = threading.Event()
        try:
            self.open()
            while True:
                while (update := queue.take()) is not None:
                    yield update
                if queue.is_ended and not queue.items:
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
