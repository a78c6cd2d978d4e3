"""picows → messages. The one place that knows it; `_transport.py` imports it where it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import picows

from ._transport import CLOSE_TIMEOUT_S, LOST, MESSAGE_BYTES_MAX, Gate, Inbox, Message, Transport

_KINDS = picows.WSMsgType
_TEXT, _BINARY, _CLOSE = _KINDS.TEXT, _KINDS.BINARY, _KINDS.CLOSE
_CONTINUATION = _KINDS.CONTINUATION

REFUSALS: tuple[type[Exception], ...] = (picows.WSError,)


async def connect(url: str, subprotocol: str) -> Transport:
    """Connects and upgrades."""
    transport, listener = await picows.ws_connect(
        _Listener,
        url,
        extra_headers={"Sec-WebSocket-Protocol": subprotocol},
        max_frame_size=MESSAGE_BYTES_MAX,
        enable_auto_pong=True,
        disconnect_on_exception=True,
    )
    assert isinstance(listener, _Listener), "it is what was asked for"
    return _Picows(transport, listener)


class _Listener(picows.WSListener):
    """Frames → messages."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.closed = LOST
        self._parts: list[bytes] = []
        self._is_text = False

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        kind = frame.msg_type
        if kind == _TEXT and frame.fin:
            self._take(transport, frame.get_payload_as_utf8_text())
        elif kind == _BINARY and frame.fin:
            self._take(transport, frame.get_payload_as_bytes())
        elif kind in (_TEXT, _BINARY, _CONTINUATION):
            if kind != _CONTINUATION:
                self._parts, self._is_text = [], kind == _TEXT
            self._parts.append(frame.get_payload_as_bytes())
            if frame.fin:
                whole, self._parts = b"".join(self._parts), []
                self._take(transport, whole.decode() if self._is_text else whole)
        elif kind == _CLOSE:
            code = frame.get_close_code()
            self.closed = (int(getattr(code, "value", code)), frame.get_close_reason() or "")
            transport.send_close(code)
            transport.disconnect()

    def _take(self, transport: Any, message: Message) -> None:
        try:
            self.inbox.receive(message)
        except Exception as error:
            self.inbox.fail(error)
            transport.disconnect(False)


class _Picows:
    library = "picows"
    reads = 0
    """It shows whole frames only."""

    def __init__(self, transport: Any, listener: _Listener) -> None:
        self._transport, self._listener = transport, listener

    async def run(self, receive: Callable[[Message], None], gate: Gate) -> tuple[int, str]:
        listener = self._listener
        listener.inbox.open(receive)
        gate.guard(self._transport.underlying_transport)
        try:
            await self._transport.wait_disconnected()
        finally:
            gate.forget()
        if listener.inbox.error is not None:
            raise listener.inbox.error
        return listener.closed

    async def send(self, text: str) -> None:
        if not self._transport.is_disconnected:
            self._transport.send(_TEXT, text.encode())

    async def close(self) -> None:
        if self._transport.is_disconnected:
            return
        self._transport.send_close(picows.WSCloseCode.OK)
        try:
            await asyncio.wait_for(self._transport.wait_disconnected(), CLOSE_TIMEOUT_S)
        except (TimeoutError, asyncio.TimeoutError):
            self._transport.disconnect(False)

    def abort(self) -> None:
        self._transport.disconnect(False)
