"""Control messages, which are JSON in both encodings: what the client asks and what is answered.

The session encodes requests and reads answers with it. Pure. Unknown keys are ignored, unknown
types are None.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import ProtocolError


class Instrument(msgspec.Struct, frozen=True):
    """An instrument that can be subscribed to."""

    symbol: str
    """The canonical symbol: venue, colon, the venue's own spelling."""
    venue: str
    native: str
    """The venue's own spelling."""
    base: str | None = None
    quote: str | None = None
    kind: str | None = None
    """`spot`, `perpetual` …"""
    tick: str | None = None
    """The smallest step of a price, an exact decimal."""
    lot: str | None = None
    """The smallest step of a quantity, an exact decimal."""
    price_scale: int = 0
    qty_scale: int = 0
    state: str = ""
    """The state of its book."""


class Limits(msgspec.Struct):
    """What `hello` says a connection may do."""

    subscriptions: int = 2_000
    message_bytes: int = 16_384
    messages_per_s: int = 20


class Hello(msgspec.Struct):
    protocol: int
    gateway: str = ""
    session: str = ""
    limits: Limits = msgspec.field(default_factory=Limits)


class Result(msgspec.Struct):
    """What was made of one symbol of a subscription."""

    symbol: str
    ok: bool
    view: int = 0
    channel: str = ""
    depth: int | str | None = None
    budget_ms: int = 0
    budget: str = ""
    p99_us: int | None = None
    price_scale: int = 0
    qty_scale: int = 0
    epoch: int = 0
    s: int = 0
    state: str = "syncing"
    code: str = ""
    message: str = ""


class Subscribed(msgspec.Struct):
    results: list[Result]
    id: int | str | None = None


class Unsubscribed(msgspec.Struct):
    id: int | str | None = None
    views: list[int] = []


class Instruments(msgspec.Struct):
    instruments: list[Instrument]
    id: int | str | None = None


class Error(msgspec.Struct):
    code: str
    message: str = ""
    id: int | str | None = None


class Drain(msgspec.Struct):
    in_ms: int = 0
    retry_after_ms: int = 0
    reason: str = ""


class Pong(msgspec.Struct):
    id: int | str | None = None


Control = Hello | Subscribed | Unsubscribed | Instruments | Error | Drain | Pong

_TYPES: dict[str, Any] = {
    "hello": Hello,
    "subscribed": Subscribed,
    "unsubscribed": Unsubscribed,
    "instruments": Instruments,
    "error": Error,
    "drain": Drain,
    "pong": Pong,
}
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _TYPES.items()}


class _Type(msgspec.Struct):
    type: str = ""


_type = msgspec.json.Decoder(_Type)
_encoder = msgspec.json.Encoder()


def is_control(text: str | bytes) -> bool:
    """It is not a data frame: those have no type."""
    try:
        return bool(_type.decode(text).type)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a message is a JSON object: {error}") from None


def read(text: str | bytes) -> Control | None:
    """A control message; None for a type that this client does not know."""
    try:
        decoder = _DECODERS.get(_type.decode(text).type)
        return decoder.decode(text) if decoder else None
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a control message is not as the protocol says: {error}") from None


def request(op: str, **fields: object) -> str:
    """The text of a request; fields that are None are left out."""
    given = {key: value for key, value in fields.items() if value is not None}
    return _encoder.encode({"op": op, **given}).decode()
