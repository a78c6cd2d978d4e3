"""A live book: what it holds, and whether it may be trusted. Ctrl-C ends it."""

import tickfan

with tickfan.Client() as client:
    for book in client.book("BTC/USDT", depth=5).changes():
        print(book.symbol, book.state, book.best_bid, "|", book.best_ask)
