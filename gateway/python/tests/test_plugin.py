"""The pytest plugin, as a project of its own would use it."""

from __future__ import annotations

import pytest

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
