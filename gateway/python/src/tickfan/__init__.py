"""Client of the Tickfan market data gateway.

    import tickfan

    with tickfan.Client() as client:
        book = client.book("sim:BTCUSDT")
        for _ in book.changes():
            print(book.state, book.best_bid, book.best_ask)

`Client` is for scripts and notebooks, `AsyncClient` for asyncio. Both find the gateway by
TICKFAN_URL where no address is given.
"""

from ._book import Book, BookSnapshot
from ._client import AsyncClient, ClientStats
from ._control import Instrument
from ._record import Recorder
from ._stream import Subscription
from ._sync import Client, SyncSubscription
from ._updates import (
    Bbo,
    Channel,
    Delta,
    Depth,
    Event,
    GatewayStats,
    Hole,
    Image,
    Level,
    State,
    StateChange,
    Trade,
    Trades,
)
from .errors import (
    AmbiguousSymbol,
    ConnectError,
    Disconnected,
    MissingExtra,
    ProtocolError,
    Refused,
    TickfanError,
    UnknownSymbol,
)

__version__ = "0.1.0"

__all__ = [
    "AmbiguousSymbol",
    "AsyncClient",
    "Bbo",
    "Book",
    "BookSnapshot",
    "Channel",
    "Client",
    "ClientStats",
    "ConnectError",
    "Delta",
    "Depth",
    "Disconnected",
    "Event",
    "GatewayStats",
    "Hole",
    "Image",
    "Instrument",
    "Level",
    "MissingExtra",
    "ProtocolError",
    "Recorder",
    "Refused",
    "State",
    "StateChange",
    "Subscription",
    "SyncSubscription",
    "TickfanError",
    "Trade",
    "Trades",
    "UnknownSymbol",
]
