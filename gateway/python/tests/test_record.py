"""Recordings: every update is in the file, exactly, with the holes."""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal
from pathlib import Path

import pytest

from test_view import IMAGE, Scene, delta, state, trades
from tickfan import AsyncClient, Client, Recorder, TickfanError
from tickfan.testing import FeedSim, wait_until
from waiting import until

BTC = "sim:BTCUSDT"


def recorded(*updates: str, channel: str, path: Path | None) -> Recorder:
    scene = Scene().tell(*updates)
    recorder = Recorder(path)
    for update in scene.got():
        if update.channel == channel:
            recorder.write(update)
    recorder.close()
    return recorder


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_book_level_by_level(tmp_path: Path, in_memory: bool) -> None:
    path = None if in_memory else tmp_path / "book.parquet"
    recorder = recorded(
        *(IMAGE, delta(1040, 1041, '["99.5","0"]'), state(17, "gap")), channel="book", path=path
    )
    rows = recorder.to_arrow().to_pylist()
    assert [(row["kind"], row["side"], row["price"], row["qty"]) for row in rows] == [
        ("image", "bid", Decimal(100), Decimal(1)),
        ("image", "bid", Decimal("99.5"), Decimal(2)),
        ("image", "ask", Decimal(101), Decimal(1)),
        ("image", "ask", Decimal(102), Decimal("0.5")),
        ("delta", "bid", Decimal("99.5"), Decimal(0)),
        ("state", None, None, None),
    ]
    assert [row["prev_seq"] for row in rows] == [None] * 4 + [1040, None]
    assert rows[-1]["state"] == "gap"
    assert rows[-1]["why"] == "w"


def test_trades_one_by_one_and_those_that_are_lost() -> None:
    recorder = recorded(trades(100, 102), trades(105, 106), channel="trades", path=None)
    rows = recorder.to_arrow().to_pylist()
    told = [(row["kind"], row["seq"], row["trade_id"], row["missed"]) for row in rows]
    assert told == [
        ("trade", 101, "101", None),
        ("trade", 102, "102", None),
        ("lost", 106, None, 3),
        ("trade", 106, "106", None),
    ]


def test_a_recorder_holds_one_channel() -> None:
    scene = Scene().tell(IMAGE, trades(100, 102))
    recorder = Recorder()
    book, new = scene.got()
    recorder.write(book)
    with pytest.raises(TickfanError, match="one of its own"):
        recorder.write(new)


def test_pandas_and_polars_have_floats_or_exact_decimals(market: FeedSim) -> None:
    recorder = Recorder()
    with Client(market.url) as client:
        for update in itertools.islice(client.subscribe("bbo", "sim:*", budget_ms=0), 50):
            recorder.write(update)
    frame, table = recorder.to_pandas(), recorder.to_polars()
    assert len(frame) == len(table) == 50
    assert str(frame["bid_price"].dtype) == "float64"
    # Nanoseconds are more than a float can hold.
    assert frame["received_ns"].tolist() == recorder.to_arrow()["received_ns"].to_pylist()
    assert frame["prev_seq"].isna().all()
    assert str(frame["prev_seq"].dtype) == str(frame["received_ns"].dtype) == "Int64"
    exact = recorder.to_polars(exact=True)["bid_price"].to_list()
    assert all(isinstance(price, Decimal) for price in exact)
    assert [float(price) for price in exact] == table["bid_price"].to_list()


def test_a_stream_is_recorded_in_the_background(market: FeedSim, tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    with Client(market.url) as client:
        with client.record(path, "trades", "sim:*", last=100) as recorder:
            book = client.book("sim:BTCUSDT", budget_ms=0)
            for _ in book.changes():
                if recorder.rows > 100:
                    break
        rows = recorder.rows
        assert recorder.to_arrow().num_rows == rows
        # Closing ended the stream as well.
        assert client.stats().queued == 0
    assert {row["kind"] for row in recorder.to_arrow().to_pylist()} == {"trade"}


@pytest.mark.parametrize("plain", [True, False])
def test_a_recording_that_could_not_go_on_says_so_when_it_is_closed(
    market: FeedSim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    monkeypatch.setattr("tickfan._record.GROUP_ROWS", 10)
    full = "no space left on device"

    def write_table(writer: object, table: object, *rest: object) -> None:
        raise OSError(full)

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", write_table)
    path = tmp_path / "bbo.parquet"
    failure = f"after 10 rows: {full}"
    if plain:
        with Client(market.url) as client:
            with (
                pytest.raises(TickfanError, match=failure),
                client.record(path, "bbo", BTC, budget_ms=0) as recorder,
            ):
                wait_until("it has failed", lambda: recorder.rows >= 10 and not recorder._pending)
            wait_until("nothing is subscribed", lambda: not client._client._registry.views)
        return

    async def run() -> None:
        async with AsyncClient(market.url) as client:
            recorder = client.record(path, "bbo", BTC, budget_ms=0)
            await until("it has failed", lambda: recorder.rows >= 10 and not recorder._pending)

    with pytest.raises(TickfanError, match=failure):
        asyncio.run(run())
