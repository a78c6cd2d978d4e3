"""cryptofeed's books (`L2_BOOK`), over TLS because it takes no other address."""
import asyncio

from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, WebsocketEndpoint
from cryptofeed.defines import L2_BOOK
from cryptofeed.exchanges import OKX, Binance

from simulator import Judge

EXCHANGES = {"binance-spot": Binance, "okx": OKX}


def point(exchange, address):
    """Points an exchange of cryptofeed at `wss://` and `https://` of an address."""
    exchange.rest_endpoints = [
        RestEndpoint(f"https://{address}", routes=endpoint.routes)
        for endpoint in exchange.rest_endpoints
    ]
    # The first endpoint is the public one. Where it is the only one, it has no filter.
    first = exchange.websocket_endpoints[0]
    path = "/ws/v5/public" if exchange is OKX else ""
    exchange.websocket_endpoints = [
        WebsocketEndpoint(
            f"wss://{address}{path}", channel_filter=first.channel_filter, options=first.options
        )
    ]


def number(book):
    """The number under which a book is held. That of OKX is in the message only."""
    if book.sequence_number is not None:
        return book.sequence_number
    return book.raw["data"][-1]["seqId"]


def watch(judge):
    asyncio.set_event_loop(asyncio.new_event_loop())
    exchange = EXCHANGES[judge.dialect]
    point(exchange, judge.tls)

    async def on_book(book, _received):
        sides = book.book.to_dict()
        judge.see(sides["bid"].items(), sides["ask"].items(), number(book))

    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
    symbol = next(name for name, raw in exchange.symbol_mapping().items() if raw == judge.symbol)
    feed = exchange(
        symbols=[symbol], channels=[L2_BOOK], callbacks={L2_BOOK: on_book},
        # The only thing by which it notices a gap at OKX: it does not look at prevSeqId.
        checksum_validation=exchange is OKX,
    )
    handler.add_feed(feed)
    handler.run(install_signal_handlers=False)


def main():
    judge = Judge("cryptofeed", depth=1000)
    judge.run(lambda: watch(judge))


main()
