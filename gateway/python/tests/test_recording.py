"""Recorded exchanges through the whole gateway: every book that a client holds was a true one, in
order; and when the venue loses a line, nobody is shown a wrong one.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tickfan import AsyncClient, Book, State, StateChange
from tickfan._options import Encoding
from venue import Played, play
from waiting import until

RECORDINGS = (
    "binance-spot-4sym-20211012",
    "kraken-v2-derived-10sym-20210417",
    "bybit-linear-4sym-20260809",
)


async def follow(client: AsyncClient, played: Played) -> list[Book]:
    """Holds every change of every book against the truth."""
    books = []
    for symbol, follower in played.truth.items():
        book = await client.book(symbol, budget_ms=0, timeout=0.01)

        def changed(book: Book = book, follower: object = follower) -> None:
            if book.state is State.LIVE:
                follower.show(book)  # type: ignore[attr-defined]

        book.listen(changed)
        books.append(book)
    return books


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_book_was_true_in_order(name: str, recordings: Path, encoding: Encoding) -> None:
    async def run() -> None:
        with play(recordings / f"{name}.tsv.zst") as played:
            async with AsyncClient(played.gateway.url, encoding=encoding) as client:
                books = await follow(client, played)
                assert all(book.state is not State.LIVE and not book.bids for book in books)
                played.start()
                truth = played.truth.values()
                await until(
                    "every book is the last one",
                    lambda: all(one.is_at_end or one.differences for one in truth),
                )
                assert [one.differences[:1] for one in truth if one.differences] == []
                assert all(one.shown > 0 for one in truth)
                assert client.stats().chain_breaks == 0

    asyncio.run(run())


def test_a_gap_is_shown_as_one_until_it_is_mended(recordings: Path, encoding: Encoding) -> None:
    faults = json.loads((recordings / "faults.json").read_text())
    lost = next(
        fault
        for fault in faults
        if fault["recording"] == "binance-spot-4sym-20211012" and fault["how"] == "gap"
    )
    told: list[tuple[State, bool]] = []

    async def run() -> None:
        recording = recordings / f"{lost['recording']}.tsv.zst"
        with play(recording, speed="10", drop_line=lost["drop_line"]) as played:
            symbol = f"{played.exchange.venue}:{lost['symbol']}"
            async with AsyncClient(played.gateway.url, encoding=encoding) as client:
                books = await follow(client, played)
                book = next(book for book in books if book.symbol == symbol)
                book.listen(lambda: told.append((book.state, bool(book.bids or book.asks))))
                stream = client.subscribe("book", symbol, budget_ms=0)
                states: list[State] = []

                async def read() -> None:
                    async for update in stream:
                        if isinstance(update, StateChange):
                            states.append(update.state)

                reading = asyncio.create_task(read())
                await until("the stream has begun", lambda: stream.symbols)
                played.start()
                await until("the recording is over", played.has_ended)
                # The fault did happen, and was told.
                assert played.gateway.metric("tickfan_feed_gaps_total") == 1
                assert states.count(State.GAP) == 1
                gap = told.index((State.GAP, False))
                await until("the book is live again", lambda: book.state is State.LIVE)
                assert (State.LIVE, True) in told[:gap]
                assert all(has_levels == (state is State.LIVE) for state, has_levels in told[gap:])
                assert [
                    one.differences[:1] for one in played.truth.values() if one.differences
                ] == []
                stream.close()
                await reading

    asyncio.run(run())
