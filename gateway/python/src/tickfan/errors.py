"""What can go wrong, by whose fault it is.

Everything that this package raises on purpose is a `TickfanError`. What it can mend by itself (a
lost connection, a broken chain) is reported in the stream instead.
"""

from __future__ import annotations

from collections.abc import Sequence


class TickfanError(Exception):
    """The base of all of them."""


class ConnectError(TickfanError):
    """No connection could be made to begin with."""


class Disconnected(TickfanError):
    """The connection ended for good: the gateway said not to come back, or reconnect is off."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the gateway ended the connection: {code} {reason}".rstrip())
        self.code = code
        """The close code of the WebSocket."""
        self.reason = reason
        """What stood beside it."""


class Refused(TickfanError):
    """The gateway answered a request with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message or code)
        self.code = code
        """The error code of the protocol, such as `unknown_symbol`."""


class UnknownSymbol(Refused):
    """No instrument is called so, in any spelling."""

    def __init__(self, message: str) -> None:
        super().__init__("unknown_symbol", message)


class AmbiguousSymbol(TickfanError):
    """A spelling fits several instruments."""

    def __init__(self, spelling: str, candidates: Sequence[str]) -> None:
        some = ", ".join(candidates[:5]) + (", …" if len(candidates) > 5 else "")
        super().__init__(f"{spelling!r} may be any of {some}; name the one that is meant")
        self.candidates = tuple(candidates)
        """Their canonical symbols."""


class ProtocolError(TickfanError):
    """The gateway sent what the protocol does not allow: a fault of the gateway."""


class MissingExtra(TickfanError):
    """Something optional is asked for and not installed."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"this needs an extra: pip install 'tickfan[{extra}]'")
