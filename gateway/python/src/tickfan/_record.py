"""A stream of updates → a Parquet file, or a table of pandas or polars.

Users call it with each update, on one thread at a time. Rows are kept until there are enough of
them for a group, so that a recording of a day takes no more memory than one of a minute. Prices are
exact in the file; holes and changes of state are rows too: who replays it must know of them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._closing import Closing
from ._numbers import POWERS, SCALE_MAX
from ._updates import Bbo, Channel, Delta, Event, Hole, Image, StateChange, Trades
from .errors import MissingExtra, TickfanError

if TYPE_CHECKING:
    import pandas
    import polars

GROUP_ROWS = 50_000
"""Rows that are written at once."""

ROWS_MAX = 5_000_000
"""Rows that are kept where there is no file."""

_COMMON = ("kind", "symbol", "state", "epoch", "seq", "prev_seq", "venue_seq")
_TIMES = ("exchange_ns", "received_ns", "sent_ns")
_PRICES: dict[Channel, tuple[str, ...]] = {
    "bbo": ("bid_price", "bid_qty", "ask_price", "ask_qty"),
    "book": ("price", "qty"),
    "trades": ("price", "qty"),
}
_REST: dict[Channel, tuple[str, ...]] = {
    "bbo": (),
    "book": ("side",),
    "trades": ("side", "trade_id"),
}
_LAST = ("missed", "why")

_Row = tuple[Any, ...]


class Recorder(Closing):
    """Give it updates by `write`; use it as a context manager, or close it. Without a path the rows
    stay in memory, for `to_pandas()` and `to_polars()`."""

    def __init__(self, path: str | Path | None = None, *, channel: Channel | None = None) -> None:
        self._arrow = _pyarrow()
        self.path = None if path is None else Path(path)
        self.channel = channel
        """What it records; the first update says, when nobody did."""
        self.rows = 0
        """Rows so far."""
        self._pending: list[_Row] = []
        self._tables: list[Any] = []
        self._writer: Any = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._failure: Exception | None = None
        """What ended it in the background, where nobody else would hear of it."""
        self._on_close: list[Callable[[], None]] = []

    def write(self, update: Event) -> None:
        """Records an update."""
        with self._lock:
            if self._is_closed:
                return
            channel = update.channel
            if self.channel is None:
                self.channel = channel
            if channel != self.channel:
                raise TickfanError(
                    f"this recorder holds {self.channel}; give {channel} one of its own"
                )
            rows = _rows(update)
            if self.path is None and self.rows + len(rows) > ROWS_MAX:
                raise TickfanError(f"{ROWS_MAX} rows are in memory; give the recorder a path")
            self.rows += len(rows)
            self._pending.extend(rows)
            if len(self._pending) >= GROUP_ROWS:
                self._flush()

    def write_in_background(self, update: Event) -> None:
        """The same; what it raises is raised again by `close`."""
        try:
            self.write(update)
        except Exception as error:
            self._failure = error
            raise

    def close(self) -> None:
        """Writes what is left. The file is whole only then. Raises when updates that came could not
        be recorded."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        with contextlib.ExitStack() as ending:
            for call in self._on_close:
                ending.callback(call)
            with self._lock, contextlib.ExitStack() as whole:
                whole.callback(self._end_file)
                self._flush()
        if self._failure is not None:
            raise TickfanError(
                f"the recording ended before it was closed, after {self.rows} rows: {self._failure}"
            ) from self._failure

    def on_close(self, call: Callable[[], None]) -> None:
        """Calls when it was closed."""
        self._on_close.append(call)

    def to_arrow(self) -> Any:
        """The rows as a `pyarrow.Table`, with exact prices. A file must be closed before."""
        with self._lock:
            if self.path is not None:
                if not self._is_closed:
                    raise TickfanError("close the recorder first: its file is not whole")
                return _parquet().read_table(self.path)
            self._flush()
            return self._arrow.concat_tables([self._empty(), *self._tables])

    def to_pandas(self, *, exact: bool = False) -> pandas.DataFrame:
        """The rows as a DataFrame; prices are floats, or `Decimal` when they must be exact."""
        try:
            import pandas
        except ImportError:
            raise MissingExtra("pandas") from None
        # Where one is missing, numbers and nanoseconds must not become floats.
        whole = {self._arrow.int64(): pandas.Int64Dtype()}
        frame: pandas.DataFrame = self._table(exact).to_pandas(types_mapper=whole.get)
        return frame

    def to_polars(self, *, exact: bool = False) -> polars.DataFrame:
        """The rows as a DataFrame; prices are floats, or decimals when they must be exact."""
        try:
            import polars
        except ImportError:
            raise MissingExtra("polars") from None
        frame = polars.from_arrow(self._table(exact))
        assert isinstance(frame, polars.DataFrame)
        return frame

    def _table(self, exact: bool) -> Any:
        table = self.to_arrow()
        if exact:
            return table
        arrow = self._arrow
        for index, field in enumerate(table.schema):
            if arrow.types.is_decimal(field.type):
                # By way of a text, because arrow's own way does not end at the nearest float.
                floats = table.column(index).cast(arrow.string()).cast(arrow.float64())
                table = table.set_column(index, field.name, floats)
        return table

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._pending and (self.path is None or self._writer is not None):
            return
        if self.channel is None:
            return
        table = self._made(self._pending)
        self._pending = []
        if self.path is None:
            self._tables.append(table)
            return
        if self._writer is None:
            self._writer = _parquet().ParquetWriter(self.path, table.schema, compression="zstd")
        if table.num_rows:
            self._writer.write_table(table)

    def _empty(self) -> Any:
        if self.channel is None:
            raise TickfanError("nothing was recorded")
        return self._made([])

    def _made(self, rows: list[_Row]) -> Any:
        arrow = self._arrow
        channel = self.channel
        assert channel is not None
        columns = list(zip(*rows, strict=True)) if rows else []
        arrays: list[Any] = []
        names = (*_COMMON, *_TIMES, *_PRICES[channel], *_REST[channel], *_LAST)
        for index, name in enumerate(names):
            values = list(columns[index]) if columns else []
            if name in _PRICES[channel]:
                arrays.append(_decimals(arrow, values))
            elif name in ("kind", "symbol", "state", "side", "why"):
                arrays.append(arrow.array(values, arrow.string()).dictionary_encode())
            elif name == "trade_id":
                arrays.append(arrow.array(values, arrow.string()))
            else:
                arrays.append(arrow.array(values, arrow.int64()))
        return arrow.Table.from_arrays(arrays, names=list(names))


class _Stream(Protocol):
    def close(self) -> None: ...


def begin(
    path: str | Path, channel: Channel, on: Callable[[Callable[[Event], object]], _Stream]
) -> Recorder:
    """A recorder of the stream that calls it back; closing it ends the stream."""
    recorder = Recorder(path, channel=channel)
    recorder.on_close(on(recorder.write_in_background).close)
    return recorder


def _rows(update: Event) -> list[_Row]:
    """The rows of an update, in the order of the columns."""
    blanks = len(_PRICES[update.channel]) + len(_REST[update.channel])
    if isinstance(update, Hole):
        gap: _Row = ("hole", update.symbol, None, update.epoch, update.seq, update.seq_before, None)
        ended = (None, None, update.ended_ns)
        return [(*gap, *ended, *(None,) * blanks, update.missed, update.reason)]
    previous = update.prev_seq if isinstance(update, (Delta, Trades)) else None
    common: _Row = (update.kind, update.symbol, update.state.value, update.epoch, update.seq)
    common = (*common, previous, update.venue_seq)
    times = tuple(ns or None for ns in (update.exchange_ns, update.received_ns, update.sent_ns))
    head = (*common, *times)
    if isinstance(update, StateChange):
        return [(*head, *(None,) * blanks, None, update.why)]
    px, qty = (POWERS[SCALE_MAX - scale] for scale in update.scales)
    if isinstance(update, Trades):
        return _trade_rows(update, common, px, qty)
    bids, asks, *_ = update.flat()
    if isinstance(update, Bbo):
        best = [
            number * (qty if index & 1 else px) if side else None
            for side in (bids, asks)
            for index, number in enumerate(side or (0, 0))
        ]
        return [(*head, *best, None, None)]
    rows = [
        (*head, price * px, amount * qty, side, None, None)
        for side, flat in (("bid", bids), ("ask", asks))
        for price, amount in zip(flat[::2], flat[1::2], strict=True)
    ]
    # A book may be empty, and that it is, is news.
    return rows or ([(*head, None, None, None, None, None)] if isinstance(update, Image) else [])


def _trade_rows(update: Trades, common: _Row, px: int, qty: int) -> list[_Row]:
    rows: list[_Row] = []
    times = (update.received_ns or None, update.sent_ns or None)
    if update.lost:
        lost = ("lost", *common[1:])
        rows.append((*lost, None, *times, None, None, None, None, update.lost, None))
    number = update.seq - len(update.trades)
    for trade in update.trades:
        number += 1
        rows.append(
            (
                *("trade", *common[1:4], number, number - 1, None),
                *(trade.exchange_ns or None, *times),
                *(trade.price_mantissa * px, trade.qty_mantissa * qty),
                *(trade.side or None, trade.id, None, None),
            )
        )
    return rows


def _decimals(arrow: Any, values: list[int | None]) -> Any:
    """Mantissas at the finest scale → an array of exact decimals, without a Decimal for each."""
    kind = arrow.decimal128(38, SCALE_MAX)
    valid = arrow.array([value is not None for value in values], arrow.bool_()).buffers()[1]
    data = b"".join((value or 0).to_bytes(16, "little", signed=True) for value in values)
    return arrow.Array.from_buffers(kind, len(values), [valid, arrow.py_buffer(data)])


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra("parquet") from None
    return pyarrow


def _parquet() -> Any:
    import pyarrow.parquet

    return pyarrow.parquet
