"""What the tests share: encodings, recordings, and a wire that can be cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay import Relay
from tickfan._options import Encoding
from tickfan.testing import FeedSim, MissingBinary

RECORDINGS = "TICKFAN_RECORDINGS"


@pytest.fixture(params=["binary", "json"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    """Each of the encodings."""
    encoding: Encoding = request.param
    return encoding


@pytest.fixture(scope="module")
def market() -> Iterator[FeedSim]:
    """A gateway that the tests of a file share, because none of them does it any harm."""
    try:
        served = FeedSim(seed=7, symbols=4, rate=400)
    except MissingBinary as missing:
        pytest.fail(str(missing), pytrace=False)
    yield served
    served.close()


@pytest.fixture
def relay() -> Iterator[Callable[[str], Relay]]:
    """Makes wires to an address that a test can cut or freeze."""
    made: list[Relay] = []

    def make(address: str) -> Relay:
        made.append(Relay(address))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def recordings() -> Path:
    """The folder of recorded exchange data. Without it a test cannot say anything, and says that;
    where everything must be tested, that is a failure."""
    told = os.environ.get(RECORDINGS)
    folder = Path(told) if told else Path()
    if not told or not folder.is_dir():
        words = f"{RECORDINGS} names no folder of recordings"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return folder
