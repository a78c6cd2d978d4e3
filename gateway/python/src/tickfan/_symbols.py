"""Spellings of instruments → canonical symbols. Pure.

Understood are the canonical symbol (`kraken:BTC/USD`), base and quote with a slash or a dash
(`BTC/USDT`, `BTC-USDT`) and the venue's own spelling (`BTCUSDT`), the latter three with or without
the venue before them. What may be several is refused with the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._control import Instrument
from .errors import AmbiguousSymbol, UnknownSymbol


def is_pattern(symbol: str) -> bool:
    """`venue:*`: all of a venue."""
    return symbol.endswith("*")


def venue_of(symbol: str) -> str | None:
    """What stands before the colon."""
    venue, colon, _ = symbol.partition(":")
    return venue if colon else None


def pattern_of(symbol: str) -> str:
    """The pattern that a canonical symbol fits."""
    return f"{venue_of(symbol)}:*"


def canonical(spelling: str, instruments: Iterable[Instrument]) -> str:
    """The one instrument that is called so."""
    venue = venue_of(spelling)
    bare = spelling if venue is None else spelling[len(venue) + 1 :]
    of_venue = [one for one in instruments if venue is None or one.venue == venue]
    wanted = bare.upper()
    if venue is not None and (exact := [one for one in of_venue if one.native == bare]):
        return exact[0].symbol
    named = [one for one in of_venue if one.native.upper() == wanted]
    pairs = [one for one in of_venue if wanted in _pairs(one)]
    # A pair without more words is what is traded for immediate delivery.
    pairs = [one for one in pairs if one.kind == "spot"] or pairs
    found = list({one.symbol: one for one in (*named, *pairs)}.values())
    if not found:
        raise UnknownSymbol(
            f"no instrument is called {spelling!r}; client.symbols() lists what there is"
        )
    if len(found) > 1:
        raise AmbiguousSymbol(spelling, sorted(one.symbol for one in found))
    return found[0].symbol


def _pairs(instrument: Instrument) -> set[str]:
    if instrument.base is None or instrument.quote is None:
        return set()
    base, quote = instrument.base.upper(), instrument.quote.upper()
    return {f"{base}/{quote}", f"{base}-{quote}"}
