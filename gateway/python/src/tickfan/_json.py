"""Data frames of `tickfan.json.v1` → updates, handed to the views that they are about.

The session calls it for every text message that is a data frame. Pure: text in, calls out. Makes of
texts what the binary encoding has to begin with: mantissas, nanoseconds, numbers of states. Kinds
that it does not know are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ._binary import Takes
from ._numbers import SCALE_MAX, digits_after_point, mantissa
from ._updates import (
    STATES,
    Bbo,
    BookBody,
    Delta,
    FlatLevels,
    GatewayStats,
    Head,
    Image,
    State,
    StateChange,
    Trade,
    Trades,
    flags,
)
from .errors import ProtocolError

SUBPROTOCOL = "tickfan.json.v1"

_CODES = {state.value: code for code, state in enumerate(STATES) if state != State.DISCONNECTED}
_NS = 1_000
_SIDES = {"": "", "buy": "buy", "sell": "sell"}

_TextLevel = tuple[str, str]
_TextTrade = tuple[int, str, str, str, str]


class JsonTakes(Takes, Protocol):
    """What a view must know besides, because JSON does not repeat it."""

    epoch: int
    state_code: int
    price_scale: int
    qty_scale: int


class _Kind(msgspec.Struct, tag_field="t", gc=False):
    v: int


class _Image(_Kind, tag="image"):
    e: int
    s: int
    state: str
    b: list[_TextLevel]
    a: list[_TextLevel]
    q: int | None = None
    te: int = 0
    tr: int = 0
    trusted: tuple[int, int] | None = None


class _Delta(_Kind, tag="delta"):
    s: int
    p: int
    b: list[_TextLevel]
    a: list[_TextLevel]
    q: int | None = None
    te: int = 0
    tr: int = 0
    to: int = 0


class _Bbo(_Kind, tag="bbo"):
    s: int
    b: _TextLevel | None
    a: _TextLevel | None
    q: int | None = None
    te: int = 0
    tr: int = 0
    to: int = 0


class _Trades(_Kind, tag="trades"):
    s: int
    p: int
    x: list[_TextTrade]
    lost: int = 0
    tr: int = 0
    to: int = 0


class _State(_Kind, tag="state"):
    e: int
    state: str
    why: str = ""
    since: int = 0


class _Stats(GatewayStats, frozen=True, tag_field="t", tag="stats"):
    pass


_Known = _Image | _Delta | _Bbo | _Trades | _State | _Stats


class Frame(msgspec.Struct, gc=False):
    """The envelope; `u` is what this client knows, or None in the place of what it does not."""

    n: int
    ts: int
    u: list[_Known]
    late: list[int] = []


class _RawFrame(msgspec.Struct):
    n: int
    ts: int
    u: list[msgspec.Raw]
    late: list[int] = []


class _Tag(msgspec.Struct):
    t: str


_frame = msgspec.json.Decoder(Frame)
_raw_frame = msgspec.json.Decoder(_RawFrame)
_update = msgspec.json.Decoder(_Known)
_tag = msgspec.json.Decoder(_Tag)
_KINDS = frozenset({"image", "delta", "bbo", "trades", "state", "stats"})


def frame(text: str | bytes) -> tuple[int, int, list[tuple[int, Any]], list[int]]:
    """Number, send time, the known updates with their index, and which indices are late."""
    try:
        read = _frame.decode(text)
        return read.n, read.ts * _NS, list(enumerate(read.u)), read.late
    except msgspec.ValidationError:
        return _one_by_one(text)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a data frame is JSON: {error}") from None


def _one_by_one(text: str | bytes) -> tuple[int, int, list[tuple[int, Any]], list[int]]:
    try:
        read = _raw_frame.decode(text)
        known = [
            (index, _update.decode(raw))
            for index, raw in enumerate(read.u)
            if _tag.decode(raw).t in _KINDS
        ]
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a data frame is not as the protocol says: {error}") from None
    return read.n, read.ts * _NS, known, read.late


def updates(
    ts_ns: int,
    known: list[tuple[int, Any]],
    late_indices: list[int],
    views: Mapping[int, JsonTakes],
    stats: Callable[[GatewayStats], None],
) -> None:
    """Hands each update of a frame to its view."""
    for index, read in known:
        kind = type(read)
        if kind is _Stats:
            stats(GatewayStats(*msgspec.structs.astuple(read)))
            continue
        view = views.get(read.v)
        if view is None:
            continue
        late = index in late_indices
        if kind is _Delta:
            body = _book(view, read.b, read.a, None)
            head = _head(view, read, view.state_code, view.epoch, read.p)
            view.delta(Delta(view.name, head, ts_ns, late, body))
        elif kind is _Bbo:
            sides = [[] if side is None else [side] for side in (read.b, read.a)]
            body = _book(view, sides[0], sides[1], None)
            head = _head(view, read, view.state_code, view.epoch)
            view.bbo(Bbo(view.name, head, ts_ns, late, body))
        elif kind is _Image:
            body = _book(view, read.b, read.a, read.trusted)
            head = _head(view, read, _code(read.state), read.e)
            view.image(Image(view.name, head, ts_ns, late, body))
        elif kind is _Trades:
            if read.s - read.p != len(read.x) + read.lost:
                raise ProtocolError("trades and losses do not make their step")
            trades = _trades(view, read.x)
            head = (
                *(0, 0, view.state_code, flags(False, view.price_scale, view.qty_scale), read.v),
                *(view.epoch, read.s, read.p, 0, read.tr * _NS, read.to * _NS, 0),
                *(len(read.x), 0),
            )
            view.trades(Trades(view.name, head, ts_ns, late, trades))
        else:
            head = (0, 0, _code(read.state), 0, read.v, read.e, 0, 0, 0, 0, 0, 0, 0, 0)
            why = (read.why, read.since * _NS)
            view.turn(StateChange(view.name, head, ts_ns, late, why))


def _code(state: str) -> int:
    code = _CODES.get(state)
    if code is None:
        raise ProtocolError(f"unknown state {state!r}")
    return code


def _head(view: JsonTakes, read: Any, state: int, epoch: int, p: int = 0) -> Head:
    bits = flags(read.q is not None, view.price_scale, view.qty_scale)
    oldest = 0 if type(read) is _Image else read.to * _NS
    times = (read.te * _NS, read.tr * _NS, oldest)
    return (0, 0, state, bits, read.v, epoch, read.s, p, *times, read.q or 0, 0, 0)


def _book(
    view: JsonTakes,
    bids: list[_TextLevel],
    asks: list[_TextLevel],
    trusted: tuple[int, int] | None,
) -> BookBody:
    _fit(view, bids, asks)
    complete = trusted or (None, None)
    return (_flat(view, bids), _flat(view, asks), *complete)


def _flat(view: JsonTakes, levels: list[_TextLevel]) -> FlatLevels:
    price_scale, qty_scale = view.price_scale, view.qty_scale
    flat: list[int] = []
    for price, qty in levels:
        flat.append(mantissa(price, price_scale))
        flat.append(mantissa(qty, qty_scale))
    return tuple(flat)


def _fit(view: JsonTakes, *sides: list[Any], first: int = 0) -> None:
    """JSON does not say when prices become finer: their digits do."""
    for levels in sides:
        for level in levels:
            price, qty = digits_after_point(level[first]), digits_after_point(level[first + 1])
            if price > view.price_scale or qty > view.qty_scale:
                if max(price, qty) > SCALE_MAX:
                    raise ProtocolError(f"a scale is at most {SCALE_MAX}: {level!r}")
                view.price_scale = max(view.price_scale, price)
                view.qty_scale = max(view.qty_scale, qty)


def _trades(view: JsonTakes, rows: list[_TextTrade]) -> tuple[Trade, ...]:
    _fit(view, rows, first=1)
    price_scale, qty_scale = view.price_scale, view.qty_scale
    return tuple(
        Trade(
            mantissa(price, price_scale),
            mantissa(qty, qty_scale),
            price_scale,
            qty_scale,
            te * _NS,
            _SIDES.get(side, ""),
            trade_id,
        )
        for te, price, qty, side, trade_id in rows
    )
