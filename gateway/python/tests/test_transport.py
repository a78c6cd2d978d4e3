"""Both WebSocket libraries, fed with bytes that are written by hand: however they are cut, the same
messages come out, and what is no message ends the connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tickfan import ConnectError, ProtocolError, _transport
from tickfan._transport import LOST, Gate, Library, Message, connect

libraries = pytest.mark.parametrize("library", ["picows", "websockets"])


def frame(first: int, payload: bytes) -> bytes:
    """RFC 6455 §5.2, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65_536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


TEXT, BINARY, PING = 0x81, 0x82, 0x89
CLOSE = frame(0x88, (1012).to_bytes(2, "big") + b"restart")
STREAM = b"".join(
    (
        frame(TEXT, "née".encode()),
        frame(BINARY, b""),
        frame(BINARY, b"b" * 125),
        # In three frames, with a ping between.
        *(frame(0x01, "é".encode()[:1]), frame(PING, b"?"), frame(0x00, "é".encode()[1:])),
        frame(0x80, b"!"),
        frame(BINARY, b"c" * 126),
        *(frame(0x02, b"d"), frame(0x80, b"d" * 200)),
        frame(BINARY, b"e" * 65_536),
        frame(TEXT, b"last"),
        CLOSE,
    )
)
MESSAGES = ["née", b"", b"b" * 125, "é!", b"c" * 126, b"d" * 201, b"e" * 65_536, "last"]


@asynccontextmanager
async def serving(pieces: list[bytes]) -> AsyncIterator[str]:
    """A server that shakes hands and writes these, the first together with its answer."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        names = {name.lower(): value for name, value in fields.items()}
        key = names["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept}", "Sec-WebSocket-Protocol: p", "", ""]
        before = "\r\n".join(lines).encode()
        for piece in pieces:
            writer.write(before + piece)
            await writer.drain()
            before = b""
            # The client reads it before the next one is written.
            await asyncio.sleep(0)
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


async def read(library: Library, pieces: list[bytes]) -> tuple[list[Message], tuple[int, str]]:
    came: list[Message] = []
    async with serving(pieces) as url:
        transport = await connect(url, "p", library)
        return came, await transport.run(came.append, Gate())


@libraries
def test_all_at_once(library: Library) -> None:
    assert asyncio.run(read(library, [STREAM])) == (MESSAGES, (1012, "restart"))


@libraries
@pytest.mark.parametrize("size", [1, 2, 3, 7, 130, 4_096])
def test_in_pieces_of_any_size(library: Library, size: int) -> None:
    # Of the long message the middle comes at once: byte by byte it would only take time.
    middle = STREAM.index(b"e" * 65_000)
    cut = [STREAM[at : min(at + size, middle)] for at in range(0, middle, size)]
    rest = STREAM[middle + 65_000 :]
    pieces = [*cut, b"e" * 65_000, *(rest[at : at + size] for at in range(0, len(rest), size))]
    assert b"".join(pieces) == STREAM
    assert asyncio.run(read(library, pieces)) == (MESSAGES, (1012, "restart"))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(frame(TEXT | 0x40, b"compressed"), id="a bit that means nothing"),
        pytest.param(b"\x82\x81\x00\x00\x00\x00x", id="a mask"),
        pytest.param(frame(0x01, b"a") + frame(TEXT, b"b"), id="a message within another"),
        pytest.param(frame(0x83, b"a"), id="a kind that there is not"),
        pytest.param(b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), id="longer than anything"),
    ],
)
def test_what_is_no_frame_ends_the_connection(wrong: bytes) -> None:
    good = frame(BINARY, b"good")
    came, closed = asyncio.run(read("websockets", [good + wrong + good]))
    assert (came, closed) == ([b"good"], LOST)


def test_a_text_that_is_no_utf_8_is_a_fault_of_the_gateway() -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        asyncio.run(read("websockets", [frame(TEXT, b"\xff")]))


@libraries
def test_a_host_that_does_not_answer_is_not_waited_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as held:
        # Who comes when its queue is full gets no answer, not even a refusal.
        address = full.getsockname()
        with contextlib.suppress(TimeoutError):
            while True:
                held.enter_context(socket.create_connection(address, timeout=0.1))
        with pytest.raises(ConnectError, match=r"no answer in 0\.2 s"):
            asyncio.run(connect(f"ws://127.0.0.1:{address[1]}/", "p", library))


@libraries
def test_what_the_reader_raises_ends_the_connection(library: Library) -> None:
    came: list[Message] = []

    def receive(message: Message) -> None:
        came.append(message)
        raise ProtocolError("mine")

    async def run() -> None:
        async with serving([STREAM]) as url:
            transport = await connect(url, "p", library)
            await transport.run(receive, Gate())

    with pytest.raises(ProtocolError, match="mine"):
        asyncio.run(run())
    assert came == ["née"]
