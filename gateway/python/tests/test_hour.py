"""An hour of books, faster: three recordings of 345 seconds at once, again and again, as fast as
they are read, until the clocks of their books have gone on by an hour together. Every book that is
held must be a true one, at every change, over all the connections that the exchanges make anew.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from oracle import Follower
from tickfan import AsyncClient, Book, State
from tickfan._options import Encoding
from tickfan.testing import Gateway
from venue import serve, start
from waiting import until

RECORDINGS = (
    "binance-spot-btcusdt-20240808",
    "binance-usdm-btcusdt-20240808",
    "binance-coinm-btcusdperp-20240808",
)
HOUR_NS = 3_600 * 10**9
PATIENCE_S = 600.0


class Clock:
    """How much of the venue's time a book has gone through."""

    def __init__(self, book: Book, follower: Follower) -> None:
        self.passed_ns = self.passes = 0
        self.follower = follower
        self._book = book
        self._at_ns = self._epoch = 0

    def changed(self) -> None:
        """The book changed."""
        book = self._book
        if book.state is not State.LIVE:
            return
        if book.epoch != self._epoch:
            # The exchange began again, and the gateway fetched the book anew.
            self.follower.begin_again()
            self._epoch, self._at_ns = book.epoch, 0
            self.passes += 1
        if self._at_ns and book.exchange_ns:
            self.passed_ns += max(0, book.exchange_ns - self._at_ns)
        self._at_ns = max(self._at_ns, book.exchange_ns)
        self.follower.show(book)


def test_an_hour_without_a_difference(recordings: Path, encoding: Encoding) -> None:
    async def run() -> None:
        with ExitStack() as stack:
            played = [
                stack.enter_context(serve(recordings / f"{name}.tsv.zst", loop=True))
                for name in RECORDINGS
            ]
            feeds = [feed for _, feed, _ in played]
            gateway = stack.enter_context(Gateway(feeds, ready=False))
            async with AsyncClient(gateway.url, encoding=encoding) as client:
                clocks: list[Clock] = []
                for _, _, truth in played:
                    for symbol, follower in truth.items():
                        book = await client.book(symbol, budget_ms=0, timeout=0.01)
                        clocks.append(Clock(book, follower))
                        book.listen(clocks[-1].changed)
                for exchange, _, truth in played:
                    start(exchange, truth)
                await until(
                    "an hour has passed",
                    lambda: (
                        sum(clock.passed_ns for clock in clocks) >= HOUR_NS
                        or any(clock.follower.differences for clock in clocks)
                    ),
                    PATIENCE_S,
                )
                assert [clock.follower.differences[:1] for clock in clocks] == [[], [], []]
                assert all(clock.passes >= 2 for clock in clocks)
                assert client.stats().chain_breaks == 0
                passed = [f"{clock.passed_ns / 1e9:.0f} s" for clock in clocks]
                shown = [clock.follower.shown for clock in clocks]
                print(f"{encoding}: {passed} of three books, compared {shown} times")

    asyncio.run(run())
