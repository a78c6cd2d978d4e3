"""coinbase-advanced-py's `WSClient`, over TLS. It hands out messages, so the book is held here, by the
rule that the venue documents: every message of a connection has the next number."""
import asyncio
import json
import threading

from coinbase.websocket import WSClient

from simulator import HeldBook, Judge


class Stream:
    """The client and the book that it keeps. Messages come on the client's own thread and loop."""

    def __init__(self, judge):
        self.judge = judge
        self.book, self.is_held, self.next = HeldBook(), False, 0
        self.client = WSClient(
            api_key=None, api_secret=None, base_url=f"wss://{judge.tls}", on_message=self.on_message
        )
        self.client.open()
        # Without heartbeats the venue closes what is quiet.
        self.client.subscribe([judge.symbol], ["level2", "heartbeats"])

    async def again(self):
        await self.client.unsubscribe_async([self.judge.symbol], ["level2"])
        await self.client.subscribe_async([self.judge.symbol], ["level2"])

    def on_message(self, text):
        message = json.loads(text)
        number = message["sequence_num"]
        # A new connection begins anew.
        if number not in (0, self.next):
            self.judge.note(f"a hole between {self.next} and {number}")
            self.is_held = False
            asyncio.get_running_loop().create_task(self.again())
        self.next = number + 1
        if message["channel"] != "l2_data":
            return
        for event in message["events"]:
            if event["type"] == "snapshot":
                self.book.clear()
                self.is_held = True
            for update in event["updates"]:
                side = self.book.bids if update["side"] == "bid" else self.book.asks
                self.book.set(side, [(update["price_level"], update["new_quantity"])])
        if self.is_held:
            self.judge.see(*self.book.sides())


def watch(judge):
    Stream(judge)
    threading.Event().wait()


def main():
    judge = Judge("coinbase-advanced-py", depth=1000)
    judge.run(lambda: watch(judge))


main()
