"""For pytest: a gateway on a simulated exchange, for a test that names `feed_sim`.

Found by pytest where the package is installed. TICKFAN_BIN says which binaries it starts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import FeedSim, MissingBinary


@pytest.fixture
def feed_sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[FeedSim]:
    """A simulated exchange and a gateway on it, on free ports. `tickfan.Client()` without an
    address connects to it; `feed_sim.truth(symbol, u)` is the true book."""
    try:
        served = FeedSim()
    except MissingBinary as missing:
        pytest.fail(str(missing), pytrace=False)
    monkeypatch.setenv("TICKFAN_URL", served.url)
    try:
        yield served
    finally:
        served.close()
