"""The examples run as they stand, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tickfan.testing import PATIENCE_S, FeedSim, Gateway, Simulator

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES = 5


def run(name: str, url: str, arguments: Sequence[str] = (), *, lines: int = LINES) -> list[str]:
    """The first lines that an example prints before it is interrupted."""
    with subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TICKFAN_URL": url},
    ) as process:
        assert process.stdout is not None
        # One that says nothing more fails, and does not wait for ever.
        patience = threading.Timer(2 * PATIENCE_S, process.kill)
        patience.start()
        said = [line.rstrip() for _, line in zip(range(lines), process.stdout, strict=False)]
        process.send_signal(signal.SIGINT)
        process.communicate()
        patience.cancel()
    return said


def test_a_live_book(market: FeedSim) -> None:
    said = run("live_book.py", market.url)
    assert len(said) == LINES
    assert all(line.startswith("sim:BTCUSDT live 6") and " | 6" in line for line in said)
    source = (EXAMPLES / "live_book.py").read_text().split('"""')[-1]
    assert len([line for line in source.splitlines() if line]) <= 5


def test_record(market: FeedSim, tmp_path: Path) -> None:
    path = tmp_path / "bbo.parquet"
    said = run("record.py", market.url, [str(path), "1"], lines=100)
    assert said[0].split() == ["symbol", "seq", "bid_price", "ask_price", "received_ns"]
    rows = int(said[-1].split()[0])
    assert rows > 10
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    assert table.num_rows == rows
    assert set(table["kind"].to_pylist()) == {"bbo"}


def test_a_spread_monitor_over_two_venues(market: FeedSim) -> None:
    with Simulator(seed=8, symbols=2, rate=200) as other:
        feeds = [
            market.exchange.feed(["BTCUSDT"]),
            other.feed(["BTCUSDT"]).replace('"sim"', '"binance-spot"'),
        ]
        with Gateway(feeds) as gateway:
            said = run("spread_monitor.py", gateway.url, ["sim:BTCUSDT", "binance-spot:BTC/USDT"])
    assert len(said) == LINES
    assert all(line.startswith("sim:BTCUSDT - binance-spot:BTCUSDT: ") for line in said[1:])
