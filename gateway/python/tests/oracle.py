"""What was true: recorded states of books, and texts to compare them by.

It shares no code with the package: decimals are compared as texts that are made here, from
`Decimal`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import zstandard

from tickfan import Book, BookSnapshot, Level

DEPTH = 20
"""Levels that a recorded state has a checksum of."""


@dataclass
class Row:
    """A state in which a book truly was."""

    line: int
    id: int | None
    crc: int


@dataclass
class Follower:
    """Goes through the true states of one symbol in one direction: what it is shown must be one of
    them, and none before the one that it was shown last."""

    rows: list[Row]
    at: int = 0
    shown: int = 0
    differences: list[str] = field(default_factory=list)

    def show(self, book: Book | BookSnapshot) -> None:
        """The book that a client holds."""
        crc = zlib.crc32(text(book.bids, book.asks).encode())
        first = self.rows[0].id
        if first is not None and (book.venue_seq or 0) < first:
            # An image before it was joined with what followed it: true, but not recorded.
            return
        self.shown += 1
        for index in range(self.at, len(self.rows)):
            row = self.rows[index]
            if row.crc == crc and book.venue_seq in (row.id, None):
                self.at = index
                return
        self.differences.append(f"after line {self.rows[self.at].line}: {book!r}")

    @property
    def is_at_end(self) -> bool:
        """It was shown the last state of all."""
        return self.rows[self.at].crc == self.rows[-1].crc

    def begin_again(self) -> None:
        """The recording is played from the beginning."""
        self.at = 0


def followers(recording: Path) -> dict[str, Follower]:
    """By symbol, as the venue spells it."""
    path = recording.with_name(recording.name.replace(".tsv.zst", ".states.tsv.zst"))
    found: dict[str, Follower] = {}
    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file))
        for text_line in lines:
            line, symbol, row_id, *_, crc = text_line.rstrip("\n").split("\t")
            row = Row(int(line), int(row_id) if row_id.isdigit() else None, int(crc))
            found.setdefault(symbol, Follower([])).rows.append(row)
    return found


def text(bids: Iterable[Level], asks: Iterable[Level]) -> str:
    """The levels as the catalogue of the recordings writes them."""
    sides = (bids, asks)
    return "|".join(",".join(_level(level) for level in list(side)[:DEPTH]) for side in sides)


def plain(number: Decimal) -> str:
    """A decimal without exponent and without zeros that say nothing."""
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _level(level: Level) -> str:
    return f"{plain(level.price_decimal)}:{plain(level.qty_decimal)}"
