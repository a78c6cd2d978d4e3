"""python-okx's public stream, over TLS because it takes no other address. It hands out messages, so
the book is held here, by the rule that the venue documents: each change names the one before it."""
import asyncio
import json

from okx.websocket.WsPublicAsync import WsPublicAsync
from websockets.exceptions import ConnectionClosed

from simulator import HeldBook, Judge


class Stream:
    """One connection and the book that it keeps."""

    def __init__(self, judge):
        self.judge = judge
        self.book, self.number = HeldBook(), None
        self.topic = [{"channel": "books", "instId": judge.symbol}]

    async def run(self):
        self.client = WsPublicAsync(url=f"wss://{self.judge.tls}/ws/v5/public")
        consumed = await self.client.start()
        await self.client.subscribe(self.topic, self.on_message)
        await consumed

    async def again(self):
        await self.client.unsubscribe(self.topic, self.on_message)
        await self.client.subscribe(self.topic, self.on_message)

    def on_message(self, text):
        message = json.loads(text)
        if "data" not in message:
            return self.judge.note(text)
        (data,) = message["data"]
        if message["action"] == "snapshot":
            self.book.clear()
        elif self.number is None:
            return None
        elif data["prevSeqId"] != self.number:
            self.judge.note(f"a hole between {self.number} and {data['seqId']}")
            self.number = None
            asyncio.get_running_loop().create_task(self.again())
            return None
        self.book.set(self.book.bids, data["bids"])
        self.book.set(self.book.asks, data["asks"])
        self.number = data["seqId"]
        return self.judge.see(*self.book.sides(), self.number)


async def watch(judge):
    while True:
        try:
            # It never connects again by itself.
            await Stream(judge).run()
        except ConnectionClosed as error:
            judge.note(repr(error))


def main():
    judge = Judge("python-okx", depth=1000)
    judge.run(lambda: asyncio.run(watch(judge)))


main()
