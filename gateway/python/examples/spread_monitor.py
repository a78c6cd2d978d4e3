"""How far two venues are apart: `spread_monitor.py SYMBOL SYMBOL`, in any spelling.

Says nothing while one of the books is not live: an old price beside a new one is no spread.
"""

import asyncio
import contextlib
import sys

import tickfan


async def main(here: str, there: str) -> None:
    """Prints a line whenever a book changed and both are live."""
    async with tickfan.AsyncClient() as client:
        books = [await client.book(symbol, depth=1, budget_ms=20) for symbol in (here, there)]
        changed = asyncio.Event()
        for book in books:
            book.listen(changed.set)
        while True:
            await changed.wait()
            changed.clear()
            a, b = books
            if not (a.is_live and b.is_live):
                print("waiting:", *(f"{book.symbol} {book.state} {book.why}" for book in books))
            elif a.mid_decimal is not None and b.mid_decimal is not None:
                apart = a.mid_decimal - b.mid_decimal
                basis_points = apart / b.mid_decimal * 10_000
                print(f"{a.symbol} - {b.symbol}: {apart:+f} ({basis_points:+.2f} bp)")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:3]))
