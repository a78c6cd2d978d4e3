"""websockets → messages. The one place that knows it; `_transport.py` calls it.

The library shakes hands, answers pings, closes, and judges whatever is unusual. A whole message in
one frame, which is nearly all that a gateway sends, is read here as soon as it is there: the
library's own way wakes a task for each, and takes twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol

from ._transport import CLOSE_TIMEOUT_S, LOST, MESSAGE_BYTES_MAX, Gate, Inbox, Message, Transport
from .errors import ProtocolError

REFUSALS: tuple[type[Exception], ...] = (WebSocketException,)

_TEXT, _BINARY = 0x81, 0x82
"""The first byte of a frame that is a whole message."""

_HEAD_BYTES = {126: 4, 127: 10}
"""Of a frame, by what stands in the place of its length where that is longer than 125 bytes."""

_MESSAGE = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES_MAX = 65_536


async def connect(url: str, subprotocol: str) -> Transport:
    """Connects and upgrades."""
    socket = await connect_websocket(
        url,
        subprotocols=[Subprotocol(subprotocol)],
        compression=None,
        max_size=MESSAGE_BYTES_MAX,
        # Whether the gateway is there is told by its heartbeats.
        ping_interval=None,
        open_timeout=None,
        close_timeout=CLOSE_TIMEOUT_S,
        create_connection=_Connection,
    )
    assert isinstance(socket, _Connection), "it is what was asked for"
    return _Websockets(socket)


class _Connection(ClientConnection):
    """Reads frames that are whole messages, and gives every other byte to the library."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.inbox = Inbox()
        self.reads = 0
        self._is_answered = False
        """The head of the answer to the handshake has come."""
        self._begun = bytearray()
        """Of it, or of a frame, what has come so far …"""
        self._needed = 0
        """… and how much there must be before that is looked at again."""
        self._parts: list[Frame] = []
        """Of a message in several frames."""

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                return
            data = bytes(self._begun)
            self._begun.clear()
        try:
            self._read(data if self._is_answered else self._shake_hands(data))
        except Exception as error:
            self.inbox.fail(error)
            self.transport.abort()

    def process_event(self, event: Any) -> None:
        if not isinstance(event, Frame) or event.opcode not in _MESSAGE:
            super().process_event(event)
            return
        self._parts.append(event)
        if event.fin:
            is_text = self._parts[0].opcode is Opcode.TEXT
            whole = b"".join(part.data for part in self._parts)
            self._parts.clear()
            self.inbox.receive(_text(whole) if is_text else whole)

    def _shake_hands(self, data: bytes) -> bytes:
        """Gives the library the head of the answer; returns what came behind it."""
        head, end, rest = data.partition(_HEAD_END)
        if not end and len(head) < _HEAD_BYTES_MAX:
            self._begun += data
            return b""
        self._is_answered = True
        super().data_received(head + end)
        return rest

    def _read(self, data: bytes) -> None:
        if self.protocol.state is not State.OPEN:
            super().data_received(data)
            return
        receive, parts = self.inbox.receive, self._parts
        at, end = 0, len(data)
        while True:
            begin = at + 2
            if begin > end:
                break
            size = data[at + 1]
            if size > 125:
                # Longer than a byte can say; or masked, as what comes from a gateway never is.
                begin = at + _HEAD_BYTES.get(size, 2)
                if begin > end:
                    break
                size = int.from_bytes(data[at + 2 : begin], "big")
                if begin == at + 2 or size > MESSAGE_BYTES_MAX:
                    self._hand_over(data[at:])
                    return
            stop = begin + size
            if stop > end:
                begin = stop
                break
            if data[at] == _BINARY and not parts:
                receive(data[begin:stop])
            elif data[at] == _TEXT and not parts:
                receive(_text(data[begin:stop]))
            else:
                self._hand_over(data[at:stop])
                if self.protocol.state is not State.OPEN:
                    return
            at = stop
        self._begun += data[at:]
        self._needed = begin - at

    def _hand_over(self, data: bytes) -> None:
        """Lets the library judge. Where that is the end, what it has to say to it is said, and
        nobody waits for an answer."""
        super().data_received(data)
        if self.protocol.state is not State.OPEN:
            self.transport.close()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a text message is no UTF-8") from None


class _Websockets:
    library = "websockets"

    def __init__(self, socket: _Connection) -> None:
        self._socket = socket

    @property
    def reads(self) -> int:
        return self._socket.reads

    async def run(self, receive: Callable[[Message], None], gate: Gate) -> tuple[int, str]:
        socket = self._socket
        socket.inbox.open(receive)
        gate.guard(socket.transport)
        try:
            await socket.wait_closed()
        finally:
            gate.forget()
        if socket.inbox.error is not None:
            raise socket.inbox.error
        closed = socket.protocol.close_rcvd
        return LOST if closed is None else (closed.code, closed.reason)

    async def send(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except ConnectionClosed:
            return

    async def close(self) -> None:
        await self._socket.close()

    def abort(self) -> None:
        self._socket.transport.abort()
