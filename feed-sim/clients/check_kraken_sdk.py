"""python-kraken-sdk's `SpotOrderBookClient`: a book that it checks against the venue's CRC-32 itself."""
import asyncio

from kraken.base_api import SpotAsyncClient, SpotClient
from kraken.spot import SpotOrderBookClient, SpotWSClient

from simulator import Judge

DEPTH = 10


def point(address):
    """It takes no URLs, so its classes are told."""
    SpotClient.URL = SpotAsyncClient.URL = f"http://{address}"
    SpotOrderBookClient.WS_URL = f"ws://{address}"


class Books(SpotOrderBookClient):
    def __init__(self, judge):
        super().__init__(depth=DEPTH)
        self.judge = judge

    async def on_book_update(self, pair, message):
        book = self.get(pair=pair)
        if "error" in message or not book["valid"]:
            # It says so itself, and asks for the book anew.
            return self.judge.note(message.get("error", "not valid"))
        sides = [[(px, qty) for px, (qty, _) in book[side].items()] for side in ("bid", "ask")]
        self.judge.see(*sides)


async def watch(judge):
    point(judge.plain)
    client = Books(judge)
    await client.start()
    await client.add_book(pairs=[judge.symbol])
    while not client.exception_occur:
        await asyncio.sleep(1)


def main():
    judge = Judge("python-kraken-sdk", depth=DEPTH)
    judge.run(lambda: asyncio.run(watch(judge)))


main()
