"""ccxt.pro's order books (`watch_order_book`), at every venue that it shares with the simulator."""
import asyncio
import re

import ccxt.pro as ccxt

from simulator import Judge

EXCHANGES = {
    "binance-spot": ccxt.binance,
    "binance-usdm": ccxt.binanceusdm,
    "coinbase": ccxt.coinbaseexchange,
    "coinbase-advanced": ccxt.coinbase,
    "kraken": ccxt.kraken,
    "okx": ccxt.okx,
    "bybit-spot": ccxt.bybit,
    "bybit-linear": ccxt.bybit,
}
# All of 4.5.90.
BLIND_TO_GAPS = {
    "coinbase-advanced": "handle_order_book does not look at sequence_num",
    "kraken": "the checksum is off unless options['watchOrderBook']['checksum'] is set, and then "
    "its format_number fails in Python",
    "bybit-spot": "handle_order_book does not look at u",
    "bybit-linear": "handle_order_book does not look at u",
}


def point(exchange, address):
    """Points an exchange of ccxt at `ws://` and `http://` of an address."""

    def pointed(urls):
        if isinstance(urls, dict):
            return {key: pointed(value) for key, value in urls.items()}
        if isinstance(urls, str):
            return re.sub(r"^(ws|http)s?://[^/]+", rf"\1://{address}", urls)
        return urls

    exchange.urls["api"] = pointed(exchange.urls["api"])
    if exchange.id == "binance":
        # By this word in its URL it tells spot from futures.
        exchange.urls["api"]["ws"]["spot"] = f"ws://{address}/stream/ws"


async def watch(judge):
    exchange = EXCHANGES[judge.dialect]()
    point(exchange, judge.plain)
    if judge.dialect == "coinbase":
        # It insists on keys for public books too.
        exchange.apiKey, exchange.secret, exchange.password = "key", "c2VjcmV0", "password"
    markets = (await exchange.load_markets()).values()
    symbol = next(
        market["symbol"]
        for market in markets
        if judge.symbol in (market["id"], market["info"].get("wsname"))
    )
    judge.note(f"{exchange.id} {ccxt.__version__} watches {symbol}")
    while True:
        try:
            book = await exchange.watch_order_book(symbol)
        except (ccxt.NetworkError, ccxt.InvalidNonce) as error:
            # What its manual says to do: call again.
            judge.note(repr(error))
            await asyncio.sleep(0.1)
            continue
        judge.see(book["bids"], book["asks"], book["nonce"])


def main():
    judge = Judge("ccxt.pro", depth=1000)
    judge.blind_to_gaps = BLIND_TO_GAPS.get(judge.dialect)
    judge.run(lambda: asyncio.run(watch(judge)))


main()
