"""Images and deltas of one symbol → an order book that is in sync, or says that it is not.

The view feeds it on the client's thread; users read it from theirs. Every reading is of one version
as a whole. It must never hold a level while the channel is known to be wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec

from ._numbers import POWERS, to_decimal, to_float
from ._updates import (
    EPOCH,
    STATE,
    STATES,
    TE,
    TR,
    Delta,
    Depth,
    FlatLevels,
    Image,
    Level,
    S,
    State,
    numpy,
)
from .errors import ProtocolError, TickfanError

_log = logging.getLogger("tickfan")


class BookSnapshot(msgspec.Struct, frozen=True):
    """A book at one version."""

    symbol: str
    state: State
    why: str
    seq: int | None
    epoch: int
    venue_seq: int | None
    exchange_ns: int
    received_ns: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class _Side:
    """One side: keys ascend from the best on, so those of bids are negated."""

    __slots__ = ("keys", "qtys", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.qtys: dict[int, int] = {}

    def clear(self) -> None:
        self.keys.clear()
        self.qtys.clear()

    def replace(self, flat: FlatLevels) -> None:
        keys = [self.sign * price for price in flat[::2]]
        self.qtys = dict(zip(keys, flat[1::2], strict=True))
        self.keys = keys
        if any(a >= b for a, b in pairwise(keys)):
            raise ProtocolError("the levels of a whole book are not best first")
        if not all(self.qtys.values()):
            raise ProtocolError("a whole book has an empty level")

    def change(self, flat: FlatLevels) -> None:
        keys, qtys, sign = self.keys, self.qtys, self.sign
        for index in range(0, len(flat), 2):
            key, qty = sign * flat[index], flat[index + 1]
            if qty:
                if key not in qtys:
                    insort(keys, key)
                qtys[key] = qty
            elif qtys.pop(key, None) is None:
                raise ProtocolError(f"the level at {sign * key} is removed and is not held")
            else:
                del keys[bisect_left(keys, key)]

    def rescale(self, price: int, qty: int) -> None:
        self.qtys = {key * price: held * qty for key, held in self.qtys.items()}
        self.keys = [key * price for key in self.keys]


class Book:
    """The order book of one symbol, kept in sync by the client. Made by `client.book()`."""

    def __init__(self, symbol: str, depth: Depth, close: Callable[[], None]) -> None:
        self.symbol = symbol
        """The canonical symbol."""
        self.depth: Depth = depth
        """How many levels a side has at most."""
        self._close = close
        self._lock = threading.Lock()
        self._bids, self._asks = _Side(-1), _Side(1)
        self._price_scale = self._qty_scale = 0
        self._state, self._why = State.SYNCING, ""
        self._seq: int | None = None
        self._epoch = self._exchange_ns = self._received_ns = 0
        self._venue_seq: int | None = None
        self._changed_ns = time.monotonic_ns()
        self._listeners: list[Callable[[], None]] = []
        self._ended: BaseException | None = None
        self._is_closed = False
        self._process = os.getpid()

    # What users read.

    @property
    def state(self) -> State:
        """How far it may be trusted; `live` only while it is proved to be in sync."""
        with self._lock:
            return self._shown_state()

    @property
    def why(self) -> str:
        """The reason of the state, in a word; may be empty."""
        return "forked" if self._is_of_another_process() else self._why

    @property
    def is_live(self) -> bool:
        """It is in sync now."""
        return self.state is State.LIVE

    @property
    def seq(self) -> int | None:
        """The version held; None when nothing is."""
        return self._seq

    @property
    def epoch(self) -> int:
        """Versions compare only within one."""
        return self._epoch

    @property
    def venue_seq(self) -> int | None:
        """The venue's own sequence number of the version held."""
        return self._venue_seq

    @property
    def exchange_ns(self) -> int:
        """The venue's time of the newest event in it."""
        return self._exchange_ns

    @property
    def received_ns(self) -> int:
        """When the gateway received that event."""
        return self._received_ns

    @property
    def age_ns(self) -> int:
        """Nanoseconds since the last change of the book or its state reached this process. In a
        quiet market a live book grows old and is still right."""
        return time.monotonic_ns() - self._changed_ns

    @property
    def bids(self) -> tuple[Level, ...]:
        """All bids, best first."""
        with self._lock:
            return self._levels(self._bids, None)

    @property
    def asks(self) -> tuple[Level, ...]:
        """All asks, best first."""
        with self._lock:
            return self._levels(self._asks, None)

    def top(self, levels: int) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """The best bids and asks, so many of each."""
        with self._lock:
            return self._levels(self._bids, levels), self._levels(self._asks, levels)

    @property
    def best_bid(self) -> Level | None:
        """The highest bid."""
        with self._lock:
            return self._best(self._bids)

    @property
    def best_ask(self) -> Level | None:
        """The lowest ask."""
        with self._lock:
            return self._best(self._asks)

    @property
    def mid(self) -> float | None:
        """Half way between the best prices; None where a side is empty."""
        both = self._both()
        if both is None:
            return None
        bid, ask = both
        return to_float(5 * (bid.price_mantissa + ask.price_mantissa), bid.price_scale + 1)

    @property
    def mid_decimal(self) -> Decimal | None:
        """The same, exactly."""
        both = self._both()
        if both is None:
            return None
        bid, ask = both
        return to_decimal(5 * (bid.price_mantissa + ask.price_mantissa), bid.price_scale + 1)

    @property
    def spread(self) -> float | None:
        """The distance between the best prices."""
        both = self._both()
        if both is None:
            return None
        bid, ask = both
        return to_float(ask.price_mantissa - bid.price_mantissa, bid.price_scale)

    @property
    def microprice(self) -> float | None:
        """The mid, weighted by the quantity of the other side: where the price leans."""
        both = self._both()
        if both is None:
            return None
        bid, ask = both
        weighted = bid.price_mantissa * ask.qty_mantissa + ask.price_mantissa * bid.qty_mantissa
        return weighted / ((bid.qty_mantissa + ask.qty_mantissa) * POWERS[bid.price_scale])

    def as_numpy(self, *, mantissas: bool = False) -> tuple[Any, Any]:
        """Bids and asks as two arrays of price and quantity, best first: float64, or the exact
        int64 mantissas."""
        np = numpy()
        with self._lock:
            scales = 10.0**self._price_scale, 10.0**self._qty_scale
            sides = [
                (side.sign, list(side.keys), [side.qtys[key] for key in side.keys])
                for side in (self._bids, self._asks)
            ]
        made = [
            np.column_stack([sign * np.array(keys, np.int64), np.array(qtys, np.int64)])
            for sign, keys, qtys in sides
        ]
        if not mantissas:
            made = [array / np.array(scales) for array in made]
        return made[0], made[1]

    def snapshot(self) -> BookSnapshot:
        """All of it, of one version."""
        with self._lock:
            return BookSnapshot(
                self.symbol,
                self._shown_state(),
                self.why,
                self._seq,
                self._epoch,
                self._venue_seq,
                self._exchange_ns,
                self._received_ns,
                self._levels(self._bids, None),
                self._levels(self._asks, None),
            )

    def changes(self) -> Changes:
        """The book, each time that it changed since one looked: `for book in book.changes()`, or
        `async for`. A slow reader sees fewer, newer states; nothing queues."""
        return Changes(self)

    def close(self) -> None:
        """Ends the subscription. What is held stays readable, as `disconnected`."""
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def __repr__(self) -> str:
        return f"<Book {self.symbol} {self.state} {self.best_bid} | {self.best_ask}>"

    # What the view and the client call.

    def image(self, update: Image) -> None:
        """It is told whole."""
        head = update.head
        with self._lock:
            flat = update.flat()
            self._price_scale, self._qty_scale = update.scales
            self._bids.replace(flat[0])
            self._asks.replace(flat[1])
            self._epoch, self._state, self._why = head[EPOCH], STATES[head[STATE]], ""
            self._moved(update)
        self.notify()

    def delta(self, update: Delta) -> None:
        """Some of it changed. That it follows from what is held, the view has checked."""
        with self._lock:
            flat = update.flat()
            scales = update.scales
            if scales != (self._price_scale, self._qty_scale):
                flat = self._rescaled(flat[0], flat[1], *scales)
            self._bids.change(flat[0])
            self._asks.change(flat[1])
            self._moved(update)
        self.notify()

    def turn(self, state: State, why: str, epoch: int, *, keep: bool) -> None:
        """The state changed; what is held is kept or worth nothing."""
        with self._lock:
            self._state, self._why, self._epoch = state, why, epoch
            self._changed_ns = time.monotonic_ns()
            if not keep:
                self._bids.clear()
                self._asks.clear()
                self._seq = self._venue_seq = None
        self.notify()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls a listener at each change; returns how to stop it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def notify(self) -> None:
        """Tells the listeners."""
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception:
                # Not the connection's fault, nor of anybody else who reads it.
                _log.exception("a listener of %s raised", self.symbol)

    def end(self, error: BaseException | None) -> None:
        """Nothing will come any more."""
        self._ended, self._is_closed = error, True
        self.notify()

    def has_ended(self) -> bool:
        """Nothing will come any more; raises when that is an error."""
        if self._is_of_another_process():
            raise TickfanError(
                f"{self.symbol} is kept in sync in the parent of this process; make a client here"
            )
        if self._ended is not None:
            raise self._ended
        return self._is_closed

    def _moved(self, update: Image | Delta) -> None:
        head = update.head
        self._seq, self._venue_seq = head[S], update.venue_seq
        self._exchange_ns, self._received_ns = head[TE], head[TR]
        self._changed_ns = time.monotonic_ns()

    def _rescaled(
        self, bids: FlatLevels, asks: FlatLevels, price: int, qty: int
    ) -> tuple[FlatLevels, FlatLevels, None, None]:
        """Brings book and change to the finer of their scales each."""
        finest = max(price, self._price_scale), max(qty, self._qty_scale)
        grown = [
            POWERS[fine - held]
            for fine, held in zip(finest, (self._price_scale, self._qty_scale), strict=True)
        ]
        for side in (self._bids, self._asks):
            side.rescale(*grown)
        self._price_scale, self._qty_scale = finest
        factors = POWERS[finest[0] - price], POWERS[finest[1] - qty]
        told = [
            tuple(number * factors[index & 1] for index, number in enumerate(flat))
            for flat in (bids, asks)
        ]
        return told[0], told[1], None, None

    def _is_of_another_process(self) -> bool:
        """This process was forked, and what keeps it in sync stayed behind."""
        return self._process != os.getpid()

    def _shown_state(self) -> State:
        if self._is_of_another_process():
            return State.DISCONNECTED
        # A channel that is said to be live while nothing is held is waiting for its image.
        if self._seq is None and self._state.has_whole and self._state is not State.DISCONNECTED:
            return State.SYNCING
        return self._state

    def _level(self, side: _Side, key: int) -> Level:
        return Level(side.sign * key, side.qtys[key], self._price_scale, self._qty_scale)

    def _levels(self, side: _Side, levels: int | None) -> tuple[Level, ...]:
        return tuple(self._level(side, key) for key in side.keys[:levels])

    def _best(self, side: _Side) -> Level | None:
        return self._level(side, side.keys[0]) if side.keys else None

    def _both(self) -> tuple[Level, Level] | None:
        with self._lock:
            bid, ask = self._best(self._bids), self._best(self._asks)
        return None if bid is None or ask is None else (bid, ask)


class Changes:
    """The changes of a book, for both kinds of loop."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def __iter__(self) -> Iterator[Book]:
        book, changed = self._book, threading.Event()
        stop = book.listen(changed.set)
        changed.set()
        try:
            while not book.has_ended():
                changed.wait()
                changed.clear()
                if not book.has_ended():
                    yield book
        finally:
            stop()

    async def __aiter__(self) -> AsyncIterator[Book]:
        book, changed = self._book, asyncio.Event()
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def wake() -> None:
            if threading.get_ident() == thread:
                changed.set()
            elif not changed.is_set():
                loop.call_soon_threadsafe(changed.set)

        stop = book.listen(wake)
        changed.set()
        try:
            while not book.has_ended():
                await changed.wait()
                changed.clear()
                if not book.has_ended():
                    yield book
        finally:
            stop()
