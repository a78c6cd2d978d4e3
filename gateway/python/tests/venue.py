"""A recording played as its venue, a gateway on it, and what is true of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from oracle import Follower, followers
from tickfan.testing import Gateway, Simulator, wait_until

Truth = dict[str, Follower]
"""By canonical symbol."""

_DEPTHS = {
    # A gateway that is late fetches its image in the midst of it all. That one must have as much
    # as the books that it is held against: cut to 1,000 levels it is wrong where prices fall far.
    "binance-spot": 5_000,
    "binance": 1_000,
    "kraken": 1_000,
    "okx": 400,
    "bybit": 200,
    "bitfinex": 100,
}


@contextmanager
def serve(
    recording: Path, *, speed: str = "max", loop: bool = False, drop_line: int | None = None
) -> Iterator[tuple[Simulator, str, Truth]]:
    """Serves a recording, held until `start`: the exchange, the feed of a gateway, the truth."""
    truth = followers(recording)
    depth = next((n for venue, n in _DEPTHS.items() if recording.name.startswith(venue)), None)
    options = {} if depth is None else {"depth": depth}
    with Simulator(recording, speed=speed, loop=loop, drop_line=drop_line) as exchange:
        spelt = {f"{exchange.venue}:{symbol}": follower for symbol, follower in truth.items()}
        yield exchange, exchange.feed(sorted(truth), **options), spelt


def start(exchange: Simulator, truth: Truth) -> None:
    """Plays the first line, once the gateway listens."""
    needs = (3 if exchange.venue.startswith("binance") else 2) * len(truth)
    wait_until("the gateway listens", lambda: exchange.status()["subscriptions"] >= needs)
    exchange.start()


@dataclass
class Played:
    """See the top of this file."""

    exchange: Simulator
    gateway: Gateway
    truth: Truth

    def start(self) -> None:
        """Plays the first line, once the gateway listens."""
        start(self.exchange, self.truth)

    def has_ended(self) -> bool:
        """The last line was played."""
        ended: bool = self.exchange.status()["state"] == "ended"
        return ended


@contextmanager
def play(recording: Path, *, speed: str = "max", drop_line: int | None = None) -> Iterator[Played]:
    """Serves a recording to a gateway of its own."""
    with (
        serve(recording, speed=speed, drop_line=drop_line) as (exchange, feed, truth),
        Gateway([feed], ready=False) as gateway,
    ):
        yield Played(exchange, gateway, truth)
