"""What a connection is to the client, whichever WebSocket library carries it.

The client asks for one by `connect`. `_websockets.py` and `_picows.py` know the libraries; the
second is taken where it is installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

from .errors import ConnectError, MissingExtra

MESSAGE_BYTES_MAX = 128 * 1024 * 1024
"""An image of a deep book is one message."""

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
LOST = (1006, "connection lost")
"""The code and reason of a connection that ended without a word."""

Library = Literal["auto", "websockets", "picows"]
Message = str | bytes


class Gate:
    """Whether the connection may be read; closed while a reader has no room."""

    def __init__(self) -> None:
        self.closers: set[object] = set()
        """Who has no room. They are told apart, because one may say twice that it has again."""
        self.on_change: Callable[[], None] = _nothing

    def close(self, reader: object) -> None:
        """This reader has no room."""
        self.closers.add(reader)
        self.on_change()

    def open(self, reader: object) -> None:
        """This reader has room again."""
        self.closers.discard(reader)
        self.on_change()

    def guard(self, transport: asyncio.Transport) -> None:
        """From now on it says whether this is read: what waits then waits in the kernel, and with
        the gateway."""

        def turn() -> None:
            if transport.is_closing():
                return
            if self.closers:
                transport.pause_reading()
            else:
                transport.resume_reading()

        self.on_change = turn
        turn()

    def forget(self) -> None:
        """There is no connection."""
        self.on_change = _nothing


class Inbox:
    """Messages of a library → `receive` of a `run`; what comes before that waits."""

    def __init__(self) -> None:
        self._early: list[Message] = []
        self.receive: Callable[[Message], None] = self._early.append
        self.error: Exception | None = None
        """What `receive` raised: the connection is to be ended."""

    def open(self, receive: Callable[[Message], None]) -> None:
        """Hands on what waits, and then everything at once."""
        for message in self._early:
            receive(message)
        self.receive = receive

    def fail(self, error: Exception) -> None:
        """Takes nothing more."""
        self.error = self.error or error
        self.receive = _ignore


class Transport(Protocol):
    """One connection."""

    library: str

    @property
    def reads(self) -> int:
        """Grows whenever something came, be it a part of a message, where the library shows it."""

    async def run(self, receive: Callable[[Message], None], gate: Gate) -> tuple[int, str]:
        """Hands on every message; returns close code and reason. What `receive` raises ends it."""

    async def send(self, text: str) -> None:
        """Sends a text; a connection that has ended is told by `run`."""

    async def close(self) -> None:
        """Ends it in good order."""

    def abort(self) -> None:
        """Ends it at once."""


class _Carrier(Protocol):
    """A module that knows a library."""

    REFUSALS: tuple[type[Exception], ...]
    """What the library raises when it gets no connection, beside errors of the system."""

    async def connect(self, url: str, subprotocol: str) -> Transport:
        """Connects and upgrades, however long that takes."""


async def connect(url: str, subprotocol: str, library: Library) -> Transport:
    """Connects and upgrades."""
    carrier = _carrier(library)
    refusals: tuple[type[Exception], ...]
    refusals = (OSError, TimeoutError, asyncio.TimeoutError, *carrier.REFUSALS)
    try:
        # Timeouts of the libraries may begin only when a connection stands, which may take the
        # kernel minutes.
        return await asyncio.wait_for(carrier.connect(url, subprotocol), CONNECT_TIMEOUT_S)
    except refusals as error:
        raise ConnectError(f"{error}" or f"no answer in {CONNECT_TIMEOUT_S:g} s") from error


def _carrier(library: Library) -> _Carrier:
    if library != "websockets":
        try:
            from . import _picows
        except ImportError:
            if library == "picows":
                raise MissingExtra("fast") from None
        else:
            return _picows
    from . import _websockets

    return _websockets


def _nothing() -> None:
    """No connection is there to be told."""


def _ignore(_: Message) -> None:
    """The connection is being ended."""
