"""Prices and quantities, exact: a mantissa and how many of its digits stand after the point.

Both encodings end here: the binary one sends mantissas, the JSON one the shortest decimal text.
Integers carry every comparison; floats are made only for who asks for one.
"""

from __future__ import annotations

from decimal import Decimal

from .errors import ProtocolError

SCALE_MAX = 18
"""The finest scale of the protocol."""

POWERS: tuple[int, ...] = tuple(int(10**digits) for digits in range(2 * SCALE_MAX + 1))


def digits_after_point(text: str) -> int:
    """How fine a decimal text is."""
    _, _, fraction = text.partition(".")
    return len(fraction)


def mantissa(text: str, scale: int) -> int:
    """The mantissa of a decimal text at a scale that is fine enough for it."""
    whole, _, fraction = text.partition(".")
    missing = scale - len(fraction)
    try:
        return int(whole + fraction) * POWERS[missing] if missing >= 0 else _too_fine(text, scale)
    except (ValueError, IndexError):
        raise ProtocolError(f"expected an exact decimal, not {text!r}") from None


def _too_fine(text: str, scale: int) -> int:
    raise ProtocolError(f"{text!r} is finer than {scale} digits after the point")


def to_float(mantissa: int, scale: int) -> float:
    """The nearest float: what `float` makes of the decimal text."""
    return mantissa / POWERS[scale]


def to_decimal(mantissa: int, scale: int) -> Decimal:
    """The number itself."""
    return Decimal(mantissa).scaleb(-scale)


def to_text(mantissa: int, scale: int) -> str:
    """The shortest exact decimal, as the protocol writes it."""
    sign = "-" if mantissa < 0 else ""
    digits = str(abs(mantissa)).rjust(scale + 1, "0")
    split = len(digits) - scale
    fraction = digits[split:].rstrip("0")
    return f"{sign}{digits[:split]}.{fraction}" if fraction else f"{sign}{digits[:split]}"
