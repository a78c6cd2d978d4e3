"""What a user calls: three forms of loop, spellings, books, counters."""

from __future__ import annotations

import asyncio
import itertools
import threading
from decimal import Decimal
from typing import Any

import pytest

from tickfan import (
    AmbiguousSymbol,
    AsyncClient,
    Bbo,
    Client,
    ConnectError,
    Event,
    Image,
    State,
    TickfanError,
    Trades,
)
from tickfan._address import stream_url
from tickfan._control import Instrument
from tickfan._options import Encoding
from tickfan._symbols import canonical
from tickfan.errors import UnknownSymbol
from tickfan.testing import FeedSim, wait_until
from waiting import until

BTC = "sim:BTCUSDT"


def test_the_plain_loop(market: FeedSim, encoding: Encoding) -> None:
    with Client(market.url, encoding=encoding) as client:
        updates = list(itertools.islice(client.subscribe("bbo", "BTC/USDT", budget_ms=0), 5))
        assert [type(update) for update in updates] == [Bbo] * 5
        assert all(update.symbol == BTC for update in updates)
        numbers = [update.seq for update in updates if isinstance(update, Bbo)]
        assert numbers == sorted(numbers)
        # Leaving the loop has unsubscribed.
        wait_until("nothing is subscribed", lambda: not client._client._registry.views)


def test_the_plain_loop_runs_where_an_event_loop_runs(market: FeedSim) -> None:
    async def notebook() -> str:
        with Client(market.url) as client:
            return next(iter(client.subscribe("bbo", BTC))).symbol

    assert asyncio.run(notebook()) == BTC


def test_the_asyncio_loop_without_a_context(market: FeedSim, encoding: Encoding) -> None:
    async def run() -> None:
        client = AsyncClient(market.url, encoding=encoding)
        got = []
        async for update in client.subscribe("book", [BTC, "ETH-USDT"], depth=5, budget_ms=0):
            got.append(update)
            if len(got) == 20:
                break
        first = [
            next(one for one in got if one.symbol == symbol) for symbol in (BTC, "sim:ETHUSDT")
        ]
        assert all(isinstance(one, Image) and len(one.bids) == 5 for one in first)
        await until("nothing is subscribed", lambda: not client._registry.views)
        await client.close()

    asyncio.run(run())


def test_batches(market: FeedSim) -> None:
    async def run() -> None:
        async with AsyncClient(market.url) as client:
            count = 0
            async for batch in client.subscribe("bbo", "sim:*", budget_ms=0).batches():
                count += len(batch)
                if count > 50:
                    break

    asyncio.run(run())
    with Client(market.url) as client:
        for batch in client.subscribe("bbo", "sim:*", budget_ms=0).batches():
            assert batch
            break


@pytest.mark.parametrize("plain", [True, False])
def test_callbacks_and_the_handler_of_their_errors(market: FeedSim, plain: bool) -> None:
    seen: list[Event] = []
    failed: list[tuple[Exception, Event]] = []

    def callback(update: Event) -> None:
        seen.append(update)
        if len(seen) == 3:
            raise ValueError("the third")

    def on_error(error: Exception, update: Event) -> None:
        failed.append((error, update))

    def enough() -> bool:
        return len(seen) > 5

    if plain:
        with Client(market.url) as client:
            client.on("bbo", BTC, callback, on_error=on_error, budget_ms=0)
            wait_until("more came after the error", enough)
    else:

        async def run() -> None:
            async with AsyncClient(market.url) as client:
                client.on("bbo", BTC, callback, on_error=on_error, budget_ms=0)
                await until("more came after the error", enough)

        asyncio.run(run())
    assert [(str(error), update) for error, update in failed] == [("the third", seen[2])]


@pytest.mark.parametrize("plain", [True, False])
def test_an_error_without_a_handler_ends_the_run(market: FeedSim, plain: bool) -> None:
    def callback(update: Event) -> None:
        raise ValueError("not swallowed")

    if plain:
        with Client(market.url) as client:
            client.on("bbo", BTC, callback)
            with pytest.raises(ValueError, match="not swallowed"):
                client.run()
    else:

        async def run() -> None:
            async with AsyncClient(market.url) as client:
                client.on("bbo", BTC, callback)
                await client.run()

        with pytest.raises(ValueError, match="not swallowed"):
            asyncio.run(run())


def test_trades_begin_with_the_newest_that_were_asked_for(
    market: FeedSim, encoding: Encoding
) -> None:
    with Client(market.url, encoding=encoding) as client:
        stream = client.subscribe("trades", BTC, last=5, budget_ms=0)
        wait_until("there were trades", lambda: _stands(client) > 10)
        first = next(iter(stream))
        assert isinstance(first, Trades)
        assert len(first.trades) >= 5
        assert first.lost == 0
        trade = first.trades[0]
        assert trade.side in ("buy", "sell")
        assert trade.price == float(trade.price_decimal) > 1_000
        assert trade.id is not None
        assert trade.exchange_ns > 0


def _stands(client: Client) -> int:
    for update in client.subscribe("trades", BTC, last=1):
        if isinstance(update, Trades):
            return update.seq
    return 0


def test_a_book_is_exact_and_says_what_it_is(market: FeedSim, encoding: Encoding) -> None:
    with Client(market.url, encoding=encoding) as client:
        book = client.book("BTC-USDT", depth=10)
        assert (book.symbol, book.depth, book.state) == (BTC, 10, State.LIVE)
        changes = list(itertools.islice(book.changes(), 3))
        assert changes == [book] * 3
        held = book.snapshot()
        assert len(held.bids) == len(held.asks) == 10
        prices = [level.price_decimal for level in held.bids]
        assert prices == sorted(prices, reverse=True)
        assert held.bids[0].price_decimal < held.asks[0].price_decimal
        assert isinstance(prices[0], Decimal)
        assert book.age_ns < 30_000_000_000
        same = client.book(BTC, depth=8)
        assert same is book
        book.close()
        wait_until("it is closed", lambda: book.state is State.DISCONNECTED)


def test_the_arithmetic_of_a_book(market: FeedSim) -> None:
    import numpy as np

    with Client(market.url) as client:
        book = client.book(BTC, depth=20)
        book.close()
        wait_until("nothing moves any more", lambda: book.state is State.DISCONNECTED)
        bid, ask = book.best_bid, book.best_ask
        assert bid is not None
        assert ask is not None
        assert book.mid_decimal == (bid.price_decimal + ask.price_decimal) / 2
        assert book.mid == float(book.mid_decimal)
        assert book.spread == float(ask.price_decimal - bid.price_decimal)
        leaning = (bid.price * ask.qty + ask.price * bid.qty) / (bid.qty + ask.qty)
        assert book.microprice == pytest.approx(leaning)
        bids, asks = book.as_numpy()
        assert bids.shape == asks.shape == (20, 2)
        assert bids.tolist() == [[level.price, level.qty] for level in book.bids]
        exact, _ = book.as_numpy(mantissas=True)
        assert exact.dtype == np.int64
        assert exact.tolist() == [[one.price_mantissa, one.qty_mantissa] for one in book.bids]
        assert book.top(3)[1] == book.asks[:3]


def test_two_readers_of_one_view_are_both_right(market: FeedSim, encoding: Encoding) -> None:
    async def run() -> None:
        async with AsyncClient(market.url, encoding=encoding) as client:
            first = client.subscribe("book", BTC, depth=10, budget_ms=0)
            updates = first.__aiter__()
            held = (await updates.__anext__()).seq
            second = client.subscribe("book", BTC, depth=10, budget_ms=100)
            seconds = second.__aiter__()
            late = await seconds.__anext__()
            assert isinstance(late, Image)
            # Who came first loses nothing by it, and keeps its budget.
            view = next(iter(client._registry.views.values()))
            await until("the shorter budget holds", lambda: view.budget_ms == 0)
            for _ in range(20):
                update: Any = await updates.__anext__()
                assert update.kind == "image" or update.prev_seq == held
                held = update.seq
            await seconds.aclose()  # type: ignore[attr-defined]
            book = await client.book(BTC, depth=10)
            assert book.state is State.LIVE
            assert client.stats().chain_breaks == 0

    asyncio.run(run())


def test_symbols_and_stats(market: FeedSim, encoding: Encoding) -> None:
    with Client(market.url, encoding=encoding, stats_every_ms=100) as client:
        names = [one.symbol for one in client.symbols("sim:*")]
        assert BTC in names
        assert len(names) == 4
        client.book(BTC)
        wait_until("the gateway reports", lambda: client.stats().served is not None)
        stats = client.stats()
        assert stats.is_connected
        assert stats.gateway.startswith("tickfan/")
        assert stats.encoding == encoding
        assert stats.updates > 0
        assert stats.frames > 0
        assert stats.connects == 1


def test_the_environment_names_the_gateway(
    market: FeedSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKFAN_URL", market.url)
    # This gateway knows no tokens: it says so, and serves.
    monkeypatch.setenv("TICKFAN_TOKEN", "secret")
    with Client() as client:
        assert client.url == market.url
        assert client.book(BTC).state is State.LIVE


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8080", "ws://localhost:8080/v1/stream"),
        ("https://example.com/", "wss://example.com/v1/stream"),
        ("ws://h:1/elsewhere", "ws://h:1/elsewhere"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert stream_url(text) == url


def test_what_is_no_address_says_what_is_one() -> None:
    with pytest.raises(ValueError, match="ws://"):
        stream_url("ftp://x")


def instruments() -> list[Instrument]:
    return [
        Instrument("binance-spot:BTCUSDT", "binance-spot", "BTCUSDT", "BTC", "USDT", "spot"),
        Instrument("binance-usdm:BTCUSDT", "binance-usdm", "BTCUSDT", "BTC", "USDT", "perpetual"),
        Instrument("binance-usdm:ETHUSDT", "binance-usdm", "ETHUSDT", "ETH", "USDT", "perpetual"),
        Instrument("kraken:BTC/USD", "kraken", "BTC/USD", "BTC", "USD", "spot"),
        Instrument("coinbase:BTC-USD", "coinbase", "BTC-USD", "BTC", "USD", "spot"),
    ]


@pytest.mark.parametrize(
    ("spelling", "symbol"),
    [
        ("kraken:BTC/USD", "kraken:BTC/USD"),
        ("kraken:BTC-USD", "kraken:BTC/USD"),
        ("coinbase:btc/usd", "coinbase:BTC-USD"),
        ("BTC/USDT", "binance-spot:BTCUSDT"),
        ("BTC-USDT", "binance-spot:BTCUSDT"),
        ("ETH/USDT", "binance-usdm:ETHUSDT"),
        ("ethusdt", "binance-usdm:ETHUSDT"),
        ("binance-usdm:BTC/USDT", "binance-usdm:BTCUSDT"),
    ],
)
def test_spellings(spelling: str, symbol: str) -> None:
    assert canonical(spelling, instruments()) == symbol


@pytest.mark.parametrize("spelling", ["BTCUSDT", "BTC/USD", "BTC-USD"])
def test_what_may_be_several_is_refused_with_the_candidates(spelling: str) -> None:
    with pytest.raises(AmbiguousSymbol) as refused:
        canonical(spelling, instruments())
    assert len(refused.value.candidates) == 2


def test_what_is_nothing_is_refused() -> None:
    for spelling in ("XRP/USD", "nasdaq:BTC/USD"):
        with pytest.raises(UnknownSymbol):
            canonical(spelling, instruments())


def test_a_client_that_is_closed_says_so(market: FeedSim) -> None:
    async def run() -> None:
        client = AsyncClient(market.url)
        await client.connect()
        await client.close()
        with pytest.raises(TickfanError, match="closed"):
            await client.book(BTC)

    asyncio.run(run())


def test_threads_may_share_a_plain_client(market: FeedSim) -> None:
    with Client(market.url) as client:
        books: list[object] = []

        def read(symbol: str) -> None:
            books.append(client.book(symbol).state)

        threads = [
            threading.Thread(target=read, args=(symbol,)) for symbol in (BTC, "sim:ETHUSDT") * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert books == [State.LIVE] * 4


def test_a_gateway_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectError, match="cannot connect"), Client("127.0.0.1:1"):
        pass


def test_a_plain_client_leaves_no_thread_behind(market: FeedSim) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConnectError), Client("127.0.0.1:1"):
        pass
    assert set(threading.enumerate()) <= before
    with Client(market.url) as client:
        assert not set(threading.enumerate()) <= before
    assert client.stats().connects == 1
    with pytest.raises(TickfanError, match="closed"):
        client.book(BTC)
    assert set(threading.enumerate()) <= before
