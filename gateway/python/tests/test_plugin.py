"""The pytest plugin, as a project of its own would use it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tickfan import testing

pytest_plugins = ["pytester"]


def test_a_project_gets_a_market_by_naming_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import tickfan

        def test_my_strategy(feed_sim):
            with tickfan.Client() as client:
                book = client.book("BTC/USDT")
                assert book.is_live
                truth = feed_sim.truth(book.symbol)
                assert truth["u"] >= book.venue_seq
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_without_binaries_it_says_what_to_do(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKFAN_BIN", str(pytester.path / "nowhere"))
    pytester.makepyfile("def test_it(feed_sim): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cargo build --release*TICKFAN_BIN*"])


def test_what_does_not_begin_as_it_should_leaves_no_process_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start = subprocess.Popen
    started: list[Any] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        started.append(start(*arguments, **options))
        return started[-1]

    def never(gateway: testing.Gateway) -> None:
        raise AssertionError("waited in vain")

    monkeypatch.setattr("tickfan.testing.subprocess.Popen", noted)
    monkeypatch.setattr("tickfan.testing.Gateway.wait_ready", never)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(AssertionError, match="in vain"):
        testing.FeedSim()
    assert [process.poll() is not None for process in started] == [True, True]
    assert list(tmp_path.iterdir()) == []


def test_what_is_waited_for_is_looked_at_once_more_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0

    def look() -> bool:
        # Meanwhile the machine stands still for an hour.
        nonlocal now_s
        is_so, now_s = now_s > 0, 3_600.0
        return is_so

    clock = SimpleNamespace(monotonic=lambda: now_s, sleep=lambda _: None)
    monkeypatch.setattr(testing, "time", clock)
    assert testing.wait_until("it is so", look)
