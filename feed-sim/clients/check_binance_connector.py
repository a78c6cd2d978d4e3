"""binance-connector's streams and REST calls. It hands out messages, so the book is held here, by the
rule that the venue documents: an image over REST, then every change whose first number follows."""
import json
import threading

from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

from simulator import HeldBook, Judge


class Stream:
    """One connection and the book that it keeps. Messages come on the connector's own thread, which
    may well wait for the image: what comes meanwhile waits in the socket."""

    def __init__(self, judge):
        self.judge = judge
        self.rest = Spot(base_url=f"http://{judge.plain}")
        self.book, self.number = HeldBook(), None
        self.ended = threading.Event()
        self.client = SpotWebsocketStreamClient(
            stream_url=f"ws://{judge.plain}",
            on_message=self.on_message,
            on_error=self.on_end,
            on_close=self.on_end,
        )
        self.client.diff_book_depth(symbol=judge.symbol, speed=100)

    def on_end(self, _client, error=None):
        self.judge.note(f"the connection ended: {error!r}")
        self.ended.set()

    def on_message(self, _client, text):
        event = json.loads(text)
        if event.get("e") != "depthUpdate":
            return
        if self.number is not None and event["U"] > self.number + 1:
            self.judge.note(f"a hole between {self.number} and {event['U']}")
            self.number = None
        while self.number is None or self.number < event["U"] - 1:
            self.fetch()
        if event["u"] <= self.number:
            return
        self.book.set(self.book.bids, event["b"])
        self.book.set(self.book.asks, event["a"])
        self.number = event["u"]
        self.judge.see(*self.book.sides(), self.number)

    def fetch(self):
        image = self.rest.depth(self.judge.symbol, limit=5000)
        self.book.clear()
        self.book.set(self.book.bids, image["bids"])
        self.book.set(self.book.asks, image["asks"])
        self.number = image["lastUpdateId"]


def watch(judge):
    while True:
        # It never connects again by itself.
        Stream(judge).ended.wait()


def main():
    judge = Judge("binance-connector", depth=1000)
    judge.run(lambda: watch(judge))


main()
