"""When a client comes back: the table of close codes of the protocol, §6."""

from __future__ import annotations

import asyncio
import random

import pytest

from scripted import scripted
from tickfan import AsyncClient, _connection
from tickfan._reconnect import FIRST_S, MOST_S, wait_s
from waiting import until


def wait(code: int, reason: str = "", retry_after_ms: int = 0, attempt: int = 0) -> float | None:
    return wait_s(code, reason, retry_after_ms, attempt, random.Random(1))


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4001, 4003, 4005])
def test_who_is_not_wanted_stays_away(code: int) -> None:
    assert wait(code) is None


def test_the_gateway_may_name_the_wait() -> None:
    assert wait(1012, "restart", 3_400) == wait(1001, "", 3_400) == 3.4
    assert wait(4101, "gateway_full: 3400", attempt=5) == 3.4
    assert wait(4102, "overloaded: 250") == 0.25


@pytest.mark.parametrize("code", [4201, 4202])
def test_who_was_stalled_comes_at_once_and_then_with_patience(code: int) -> None:
    assert wait(code) == 0.0
    assert wait(code, attempt=1) != 0.0


@pytest.mark.parametrize("code", [1006, 1011, 4102, 1012])
def test_waits_are_drawn_from_a_growing_span(code: int) -> None:
    rng = random.Random(7)
    for attempt in (0, 1, 2, 10, 1_000):
        span = min(MOST_S, FIRST_S * 2 ** min(attempt, 16))
        waits = [wait_s(code, "", 0, attempt, rng) or 0.0 for _ in range(1_000)]
        assert 0 <= min(waits) < span * 0.05
        assert span * 0.95 < max(waits) <= span


@pytest.mark.parametrize(("lasted_s", "attempts"), [(10.0, [0, 1, 2, 3]), (0.0, [0, 0, 0, 0])])
def test_only_a_connection_that_lasted_makes_the_wait_short_again(
    lasted_s: float, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def wait_nothing(
        code: int, reason: str, retry_after_ms: int, attempt: int, rng: random.Random
    ) -> float:
        assert code == 1011
        seen.append(attempt)
        return 0.0

    async def run() -> None:
        async with scripted(lambda one, _: one.socket.close(1011)) as gateway:
            client = AsyncClient(gateway.url, encoding="json")
            await client.connect()
            await until("it came back often", lambda: len(seen) >= 4)
            assert client.stats().connects >= 4
            await client.close()

    monkeypatch.setattr(_connection, "wait_s", wait_nothing)
    monkeypatch.setattr(_connection, "LASTED_S", lasted_s)
    asyncio.run(run())
    assert seen[:4] == attempts
