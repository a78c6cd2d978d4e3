"""Data frames of `tickfan.bin.v1` → updates, handed to the views that they are about.

The session calls it for every binary message. Pure: bytes in, calls out. It believes nothing: of
each record it checks kind, state and length before anybody sees it, and leaves the levels and
trades as bytes for who asks for them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from ._numbers import SCALE_MAX
from ._updates import (
    BOOK_BODY_AT,
    TRADES_BODY_AT,
    Bbo,
    Delta,
    GatewayStats,
    Image,
    StateChange,
    Trades,
    ViewName,
    scales,
)
from .errors import ProtocolError

SUBPROTOCOL = "tickfan.bin.v1"

_FRAME = struct.Struct("<HBBHHQQQ")
_RECORD = struct.Struct("<IBBHIIQQQQQQII")
_STATE_BODY = struct.Struct("<QI")
_STATS_BODY = struct.Struct("<12q")
_MAGIC = 0x4654
_VERSION = 1
_RECORDS_MAX = 64
_HEAD_BYTES = 64
_STATES = 7
_LOST_UNSAID = 0xFFFF_FFFF
_IMAGE, _DELTA, _BBO, _TRADES, _STATE, _STATS = range(1, 7)
_STATE_AT = 64
"""Where in a record the content of a state begins, as that of every kind."""


class Takes(Protocol):
    """What takes the updates of one view."""

    name: ViewName

    def image(self, update: Image) -> None: ...
    def delta(self, update: Delta) -> None: ...
    def bbo(self, update: Bbo) -> None: ...
    def trades(self, update: Trades) -> None: ...
    def turn(self, update: StateChange) -> None: ...


def frame_head(data: bytes) -> tuple[int, int, int, int]:
    """Number, send time, late bits and count of records."""
    if len(data) < _FRAME.size:
        raise ProtocolError(f"a frame begins with {_FRAME.size} bytes; {len(data)} came")
    magic, version, _, count, _, n, ts_ns, late = _FRAME.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise ProtocolError(f"expected a frame of version {_VERSION}; {data[:4].hex()} came")
    if count > _RECORDS_MAX:
        raise ProtocolError(f"a frame has at most {_RECORDS_MAX} updates; this one says {count}")
    return n, ts_ns, late, count


def records(
    data: bytes,
    head: tuple[int, int, int, int],
    views: Mapping[int, Takes],
    stats: Callable[[GatewayStats], None],
) -> None:
    """Hands each record of a frame to its view."""
    _, ts_ns, late_bits, count = head
    at, end = _FRAME.size, len(data)
    unpack = _RECORD.unpack_from
    for index in range(count):
        if end - at < _RECORD.size:
            # Not even a head and a word; what is shorter than that and whole, is of the future.
            at = _skip(data, at, end)
            continue
        record = unpack(data, at)
        length, kind, state, bits, number, _, _, _, _, _, _, _, first, second = record
        if length < _HEAD_BYTES or length & 7 or at + length > end:
            raise ProtocolError(f"update {index} says it is {length} bytes; {end - at} are left")
        if kind <= _BBO and kind:
            if length != BOOK_BODY_AT + 16 * (first + second):
                raise _content(index, length)
            if kind == _BBO and (first > 1 or second > 1):
                raise ProtocolError(f"update {index}: a best bid and offer has one level a side")
        elif kind == _TRADES:
            if length != TRADES_BODY_AT + 40 * first:
                raise _content(index, length)
        elif kind == _STATS:
            stats(_stats(data, at, length, index))
            at += length
            continue
        elif kind != _STATE:
            at += length
            continue
        if state >= _STATES:
            raise ProtocolError(f"update {index}: a state is below {_STATES}; {state} came")
        # Scales above 15 are rare, and only they can be too large.
        if bits & 6 and max(scales(bits)) > SCALE_MAX:
            raise ProtocolError(f"update {index}: a scale is at most {SCALE_MAX}")
        late = late_bits >> index & 1 == 1
        view = views.get(number)
        if view is None:
            # Between an unsubscription and its answer there may be some.
            pass
        elif kind == _DELTA:
            view.delta(Delta(view.name, record, ts_ns, late, data, at))
        elif kind == _BBO:
            view.bbo(Bbo(view.name, record, ts_ns, late, data, at))
        elif kind == _IMAGE:
            view.image(Image(view.name, record, ts_ns, late, data, at))
        elif kind == _TRADES:
            if second not in (record[6] - record[7] - first, _LOST_UNSAID):
                raise ProtocolError(f"update {index}: trades and losses do not make its step")
            view.trades(Trades(view.name, record, ts_ns, late, data, at))
        else:
            body = _reason(data, at, length, index)
            view.turn(StateChange(view.name, record, ts_ns, late, body))
        at += length
    if at != end:
        raise ProtocolError(f"the frame ends with its last update; {end - at} bytes follow")


def _content(index: int, length: int) -> ProtocolError:
    return ProtocolError(f"update {index} does not hold what its {length} bytes should")


def _skip(data: bytes, at: int, end: int) -> int:
    if end - at >= _HEAD_BYTES:
        length, kind = struct.unpack_from("<IB", data, at)
        if length == _HEAD_BYTES and (kind > _STATS or kind == 0):
            return at + _HEAD_BYTES
    raise ProtocolError(f"an update begins with {_HEAD_BYTES} bytes; {end - at} are left")


def _reason(data: bytes, at: int, length: int, index: int) -> tuple[str, int]:
    begin = at + _STATE_AT + _STATE_BODY.size
    if length < _STATE_AT + 16:
        raise _content(index, length)
    since_ns, size = _STATE_BODY.unpack_from(data, at + _STATE_AT)
    if _STATE_AT + (_STATE_BODY.size + size + 7) // 8 * 8 != length:
        raise _content(index, length)
    try:
        return data[begin : begin + size].decode(), since_ns
    except UnicodeDecodeError:
        raise ProtocolError(f"update {index}: the reason of a state is no UTF-8") from None


def _stats(data: bytes, at: int, length: int, index: int) -> GatewayStats:
    if length != _HEAD_BYTES + _STATS_BODY.size:
        raise _content(index, length)
    return GatewayStats(*_STATS_BODY.unpack_from(data, at + _HEAD_BYTES)[:11])
