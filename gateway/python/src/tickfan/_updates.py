"""What a subscriber receives: one class per kind of update, the same for both encodings.

The decoders make them, users read them. An update of the binary encoding keeps its bytes and reads
a body when it is first asked for, so that who looks at nothing but heads pays for nothing else.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Literal

import msgspec

from ._numbers import to_decimal, to_float, to_text
from .errors import MissingExtra

Channel = Literal["book", "bbo", "trades"]
"""What of an instrument can be subscribed to."""

Depth = int | Literal["full"]
"""How many levels a side has at most."""


class State(str, Enum):
    """How far what a channel says may be trusted."""

    SYNCING = "syncing"
    """Nothing has come yet."""
    LIVE = "live"
    """Right, as far as can be proved."""
    SUSPECT = "suspect"
    """Served, but its proof is missing."""
    STALE = "stale"
    """The venue is silent: the last that is known."""
    GAP = "gap"
    """Known to be wrong, being repaired: nothing is shown."""
    HALTED = "halted"
    """Trading is halted by the venue."""
    CLOSED = "closed"
    """Delisted, or no longer served."""
    DISCONNECTED = "disconnected"
    """This client has no connection: the last that is known. The protocol has no such state."""

    def __str__(self) -> str:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    @property
    def flows(self) -> bool:
        """Updates come in this state."""
        return self in _FLOWING

    @property
    def has_whole(self) -> bool:
        """There is a last known whole in this state."""
        return self in _WHOLE


STATES = tuple(State)
"""By their number in the binary encoding."""

_FLOWING = frozenset({State.LIVE, State.SUSPECT, State.HALTED})
_WHOLE = _FLOWING | {State.STALE, State.DISCONNECTED}


class Priced(msgspec.Struct, frozen=True, gc=False):
    """A price and a quantity, kept as the integers that they are made of."""

    price_mantissa: int
    qty_mantissa: int
    price_scale: int
    qty_scale: int

    @property
    def price(self) -> float:
        """The price, as the nearest float."""
        return to_float(self.price_mantissa, self.price_scale)

    @property
    def qty(self) -> float:
        """The quantity, as the nearest float."""
        return to_float(self.qty_mantissa, self.qty_scale)

    @property
    def price_decimal(self) -> Decimal:
        """The price, exactly."""
        return to_decimal(self.price_mantissa, self.price_scale)

    @property
    def qty_decimal(self) -> Decimal:
        """The quantity, exactly."""
        return to_decimal(self.qty_mantissa, self.qty_scale)


class Level(Priced, frozen=True, gc=False):
    """One price of a side and how much is there."""

    def __str__(self) -> str:
        price = to_text(self.price_mantissa, self.price_scale)
        return f"{price} x {to_text(self.qty_mantissa, self.qty_scale)}"


class Trade(Priced, frozen=True, gc=False):
    """One trade."""

    exchange_ns: int
    """The venue's time, nanoseconds since the Unix epoch; 0 = unknown."""
    side: str
    """The aggressor's: `buy`, `sell`, or empty where the venue does not say."""
    id: str | None
    """The venue's id; the binary encoding has only those that are numbers."""


class ViewName(msgspec.Struct, frozen=True, gc=False):
    """What a view shows."""

    symbol: str
    channel: Channel
    depth: Depth | None = None
    """Of books only."""


class _OfView:
    """Whatever is about a view."""

    __slots__ = ()

    name: ViewName

    @property
    def symbol(self) -> str:
        """The canonical symbol: venue, colon, the venue's own spelling."""
        return self.name.symbol

    @property
    def channel(self) -> Channel:
        """Which channel of it."""
        return self.name.channel


Head = tuple[int, ...]
"""The fields of a binary record's head in their order, and the first two words behind it. The JSON
decoder fills the same places."""

KIND, STATE, FLAGS, VIEW, EPOCH, S, P, TE, TR, TO, Q, FIRST, SECOND = range(1, 14)
"""Places in a `Head`; the length is before them."""

FLAG_SEQUENCE = 1
_FLAG_PRICE_16 = 2
_FLAG_QTY_16 = 4

FlatLevels = tuple[int, ...]
"""Price, quantity, price, quantity … as mantissas."""

BookBody = tuple[FlatLevels, FlatLevels, "int | None", "int | None"]
"""Bids, asks, and how many of each may be relied on where the venue's image was cut."""

BOOK_BODY_AT = 80
"""Where the levels of a record begin."""
TRADES_BODY_AT = 72
TRADE = struct.Struct("<QqqQB7x")
_ALL_LEVELS = 0xFFFF_FFFF
_SIDES = ("", "buy", "sell")
_TRUSTED = struct.Struct("<II")
_FLAT = tuple(struct.Struct(f"<{2 * levels}q") for levels in range(129))


def scales(flags: int) -> tuple[int, int]:
    """The digits after the point of prices and of quantities."""
    price, qty = flags >> 8 & 15, flags >> 12
    return (price + 16 if flags & _FLAG_PRICE_16 else price), (
        qty + 16 if flags & _FLAG_QTY_16 else qty
    )


def flags(has_sequence: bool, price_scale: int, qty_scale: int) -> int:
    """The reverse of `scales`."""
    bits = (price_scale & 15) << 8 | (qty_scale & 15) << 12
    if has_sequence:
        bits |= FLAG_SEQUENCE
    if price_scale > 15:
        bits |= _FLAG_PRICE_16
    if qty_scale > 15:
        bits |= _FLAG_QTY_16
    return bits


def _flat(data: bytes, at: int, levels: int) -> FlatLevels:
    if levels < len(_FLAT):
        return _FLAT[levels].unpack_from(data, at)
    return struct.unpack_from(f"<{2 * levels}q", data, at)


class Update(_OfView, msgspec.Struct, eq=False, gc=False, repr_omit_defaults=True):
    """What all updates of a view share. Times are nanoseconds since the Unix epoch by the gateway's
    clock; 0 is unknown."""

    name: ViewName
    """What the update is about."""
    head: Head
    """The fields as the wire has them; use the properties."""
    sent_ns: int
    """Taken by the gateway just before the send call."""
    late: bool
    """It was over its latency budget."""
    body: Any = None
    """The bytes of the frame, or what was read of them; use the properties."""
    at: int = 0
    """Where in the bytes its record begins."""

    kind: ClassVar[str]

    @property
    def seq(self) -> int:
        """The version after this update; for trades, the running number of the last trade."""
        return self.head[S]

    @property
    def epoch(self) -> int:
        """Versions compare only within one."""
        return self.head[EPOCH]

    @property
    def state(self) -> State:
        """The state of the channel."""
        return STATES[self.head[STATE]]

    @property
    def venue_seq(self) -> int | None:
        """The venue's own sequence number, where it has one."""
        return self.head[Q] if self.head[FLAGS] & FLAG_SEQUENCE else None

    @property
    def exchange_ns(self) -> int:
        """The venue's time of the newest event in it, by the venue's clock."""
        return self.head[TE]

    @property
    def received_ns(self) -> int:
        """When the gateway received the newest event in it."""
        return self.head[TR]

    @property
    def oldest_ns(self) -> int:
        """When the gateway received the oldest event that was merged in it."""
        return self.head[TO]

    @property
    def scales(self) -> tuple[int, int]:
        """Digits after the point of its prices and quantities."""
        return scales(self.head[FLAGS])

    def __repr__(self) -> str:
        return f"<{self.kind} {self.symbol} {self.state} seq={self.seq}>"


class _Levels(Update):
    """An update that has prices of two sides."""

    def flat(self) -> BookBody:
        """All levels as mantissas, for who counts microseconds."""
        body = self.body
        if type(body) is bytes:
            head, at = self.head, self.at + BOOK_BODY_AT
            bids, asks = head[FIRST], head[SECOND]
            trusted = _TRUSTED.unpack_from(body, at - 8)
            body = self.body = (
                _flat(body, at, bids),
                _flat(body, at + 16 * bids, asks),
                *(None if levels == _ALL_LEVELS else levels for levels in trusted),
            )
        return body  # type: ignore[no-any-return]

    def _side(self, side: int) -> list[Level]:
        flat = self.flat()[side]
        px, qty = self.scales
        levels = iter(flat)  # type: ignore[arg-type]
        return [Level(price, amount, px, qty) for price, amount in zip(levels, levels, strict=True)]

    @property
    def bids(self) -> list[Level]:
        """The bids in it, best first."""
        return self._side(0)

    @property
    def asks(self) -> list[Level]:
        """The asks in it, best first."""
        return self._side(1)


class Image(_Levels):
    """A whole book."""

    kind: ClassVar[str] = "image"

    @property
    def trusted(self) -> tuple[int, int] | None:
        """How many levels of each side are complete, where the venue's own image was cut."""
        bids, asks, trusted_bids, trusted_asks = self.flat()
        if trusted_bids is None and trusted_asks is None:
            return None
        return (
            len(bids) // 2 if trusted_bids is None else trusted_bids,
            len(asks) // 2 if trusted_asks is None else trusted_asks,
        )


class Delta(_Levels):
    """A change of a book: quantities are absolute, 0 removes the level."""

    kind: ClassVar[str] = "delta"

    @property
    def prev_seq(self) -> int:
        """The version that it follows."""
        return self.head[P]

    @property
    def merged(self) -> int:
        """Venue events between the two versions that are merged in it."""
        return self.head[S] - self.head[P] - 1


class Bbo(_Levels):
    """The best bid and offer, whole."""

    kind: ClassVar[str] = "bbo"

    def _best(self, side: int) -> Level | None:
        flat: Any = self.flat()[side]
        return Level(flat[0], flat[1], *self.scales) if flat else None

    @property
    def bid(self) -> Level | None:
        """The best bid; None when there is none."""
        return self._best(0)

    @property
    def ask(self) -> Level | None:
        """The best offer; None when there is none."""
        return self._best(1)

    @property
    def mid(self) -> float | None:
        """Half way between them."""
        bid, ask = self.bid, self.ask
        if bid is None or ask is None:
            return None
        return to_float(5 * (bid.price_mantissa + ask.price_mantissa), bid.price_scale + 1)


class Trades(Update):
    """Trades, oldest first; `lost` before them."""

    kind: ClassVar[str] = "trades"

    @property
    def prev_seq(self) -> int:
        """The number of the last trade before these."""
        return self.head[P]

    @property
    def lost(self) -> int:
        """How many trades are missing before these: nobody can tell them any more."""
        return self.head[S] - self.head[P] - self.head[FIRST]

    @property
    def trades(self) -> tuple[Trade, ...]:
        """The trades."""
        body = self.body
        if type(body) is bytes:
            begin = self.at + TRADES_BODY_AT
            rows = TRADE.iter_unpack(memoryview(body)[begin : begin + 40 * self.head[FIRST]])
            px, qty = self.scales
            body = self.body = tuple(
                Trade(
                    price,
                    amount,
                    px,
                    qty,
                    te,
                    _SIDES[side] if side < 3 else "",
                    str(id) if id else None,
                )
                for te, price, amount, id, side in rows
            )
        return body  # type: ignore[no-any-return]


class StateChange(Update):
    """The channel's state changed. It comes before anything that follows from it."""

    kind: ClassVar[str] = "state"

    @property
    def why(self) -> str:
        """The reason, in a word."""
        why: str = self.body[0]
        return why

    @property
    def since_ns(self) -> int:
        """Since when it holds."""
        since_ns: int = self.body[1]
        return since_ns

    def __repr__(self) -> str:
        return f"<state {self.symbol} {self.channel} {self.state}: {self.why}>"


class Hole(_OfView, msgspec.Struct, frozen=True, gc=False):
    """The connection was lost and is back. It comes before the first data after it."""

    name: ViewName
    reason: str
    """Why the connection ended."""
    code: int
    """Its close code; 1006 when it ended without one."""
    seq_before: int | None
    """The last version that was held; None when nothing was."""
    seq: int
    """The version at which the stream goes on."""
    epoch_before: int
    epoch: int
    missed: int | None
    """Venue events (trades: trades) between them that nobody will tell; None when history was lost
    as well (`epoch` differs), so that nobody can count them. Books and best prices are whole again
    all the same."""
    began_ns: int
    """When the last frame before it came, by this machine's clock."""
    ended_ns: int
    """When the subscription was in force again, by this machine's clock."""

    kind: ClassVar[str] = "hole"


class GatewayStats(msgspec.Struct, frozen=True, gc=False):
    """How the gateway serves this connection, in its own words."""

    every_ms: int = 0
    p50_us: int = 0
    p99_us: int = 0
    max_us: int = 0
    sent: int = 0
    merged: int = 0
    late: int = 0
    late_gateway: int = 0
    late_client: int = 0
    feed_age_p50_us: int = 0
    unsent_bytes: int = 0


Event = Image | Delta | Bbo | Trades | StateChange | Hole
"""What a subscription yields."""


def numpy() -> Any:
    """The module, or words about how to get it."""
    try:
        import numpy
    except ImportError:
        raise MissingExtra("numpy") from None
    return numpy
