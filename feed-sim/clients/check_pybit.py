"""pybit's order book stream, which holds the book itself, over TLS."""
import logging
import threading

from pybit import unified_trading

from simulator import Judge

DEPTH = 50
BLIND = "5.17.0 does not look at u, and ends when a level goes that it does not hold (find_index)"


def point(address):
    """It takes no URL, so its module is told."""
    unified_trading.PUBLIC_WSS = f"wss://{address}/v5/public/{{CHANNEL_TYPE}}"


class Deaths(logging.Handler):
    """Its connection ends for good with an error in its own code, which nobody but a log is told."""

    def __init__(self, judge):
        super().__init__()
        self.judge = judge

    def emit(self, record):
        if "error from callback" in record.getMessage():
            self.judge.broken("its connection ended with an error of its own")


def watch(judge):
    point(judge.tls)
    logging.getLogger("websocket").addHandler(Deaths(judge))
    stream = unified_trading.WebSocket(testnet=False, channel_type="spot")

    def on_book(message):
        book = message["data"]
        # Its levels are in the order in which they came.
        bids = sorted(book["b"], key=lambda level: float(level[0]), reverse=True)
        asks = sorted(book["a"], key=lambda level: float(level[0]))
        judge.see(bids, asks, book["u"])

    stream.orderbook_stream(depth=DEPTH, symbol=judge.symbol, callback=on_book)
    threading.Event().wait()


def main():
    judge = Judge("pybit", depth=DEPTH, blind_to_gaps=BLIND)
    judge.run(lambda: watch(judge))


main()
