"""How many updates a second one core receives: this client beside `websockets` and `json.loads`.

    python gateway/python/benches/receive.py

A server on the other core sends the same updates to each reader in turn, as fast as it takes them:
best prices of 50 symbols, each with its own numbers, in frames of 1, 8 and 64 updates; then changes
of books. Every reader looks at the symbol and the number of every update. What is told is the
median over the runs: updates per second of processor time of the reading process, and of wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

SYMBOLS = 50
LEVELS = 4
T_NS = 1_790_000_000_000_000_000
_CHUNK = 1 << 16

# The server.


def update(kind: str, index: int, is_binary: bool) -> bytes:
    """Update number `index`, of one symbol after the other."""
    view, s = index % SYMBOLS + 1, index // SYMBOLS + 2
    bid, ask = 4_528_300 + index % 97, 4_528_600 + index % 89
    levels = (
        [(bid - i, 10_000_000 + index + i) for i in range(LEVELS)]
        if kind == "book"
        else [(bid, 10_000_000 + index)]
    )
    asks = [] if kind == "book" else [(ask, 100_000 + index)]
    if is_binary:
        body = struct.pack("<4I", len(levels), len(asks), 0xFFFFFFFF, 0xFFFFFFFF)
        body += b"".join(struct.pack("<2q", *level) for level in levels + asks)
        number, p = (2, s - 1) if kind == "book" else (3, 0)
        return (
            struct.pack(
                *("<IBBHIIQQQQQQ", 64 + len(body), number, 1, 1 | 2 << 8 | 8 << 12, view, 17, s, p),
                *(T_NS, T_NS, T_NS, s),
            )
            + body
        )
    us = T_NS // 1_000
    said: dict[str, object] = {"t": "delta" if kind == "book" else "bbo", "v": view, "s": s}
    if kind == "book":
        said["p"] = s - 1
    said |= {"q": s, "te": us, "tr": us, "to": us}
    texts = [[f"{p // 100}.{p % 100:02}", f"0.{q}"] for p, q in levels + asks]
    said |= {"b": texts, "a": []} if kind == "book" else {"b": texts[0], "a": texts[1]}
    return json.dumps(said, separators=(",", ":")).encode()


def frame(n: int, updates: list[bytes], is_binary: bool) -> bytes:
    """A WebSocket frame around a data frame around updates."""
    if is_binary:
        head = struct.pack("<HBBHHQQQ", 0x4654, 1, 0, len(updates), 0, n, T_NS, 0)
        payload = head + b"".join(updates)
    else:
        payload = b'{"n":%d,"ts":%d,"u":[%s]}' % (n, T_NS // 1_000, b",".join(updates))
    opcode = 0x82 if is_binary else 0x81
    if len(payload) < 126:
        return bytes([opcode, len(payload)]) + payload
    if len(payload) < 65_536:
        return struct.pack(">BBH", opcode, 126, len(payload)) + payload
    return struct.pack(">BBQ", opcode, 127, len(payload)) + payload


def images(is_binary: bool) -> list[bytes]:
    """The books that the changes follow."""
    made = []
    for view in range(1, SYMBOLS + 1):
        if is_binary:
            body = struct.pack("<4I", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
            scales = 2 << 8 | 8 << 12
            head = (64 + len(body), 1, 1, scales, view, 17, 1, 0, T_NS, T_NS, 0, 0)
            made.append(struct.pack("<IBBHIIQQQQQQ", *head) + body)
        else:
            made.append(b'{"t":"image","v":%d,"e":17,"s":1,"state":"live","b":[],"a":[]}' % view)
    return made


async def serve(kind: str, per_frame: int, count: int) -> None:
    """Serves one reader after the other on a free port, which it prints."""
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
    from websockets.typing import Subprotocol

    streams: dict[bool, list[bytes]] = {}
    for is_binary in (True, False):
        frames = []
        whole = images(is_binary) if kind == "book" else []
        if whole:
            frames.append(frame(1, whole, is_binary))
        for begin in range(0, count, per_frame):
            part = [update(kind, i, is_binary) for i in range(begin, begin + per_frame)]
            frames.append(frame(len(frames) + 1, part, is_binary))
        stream = b"".join(frames)
        streams[is_binary] = [stream[at : at + _CHUNK] for at in range(0, len(stream), _CHUNK)]

    def results() -> list[dict[str, object]]:
        common = {"ok": True, "budget_ms": 0, "budget": "accepted", "price_scale": 2}
        common |= {"qty_scale": 8, "epoch": 17, "s": 1, "state": "live", "channel": kind}
        depth = {"depth": 20} if kind == "book" else {}
        return [
            {"symbol": f"sim:S{i}", "view": i, **common, **depth} for i in range(1, SYMBOLS + 1)
        ]

    async def answer(socket: ServerConnection) -> None:
        # A reader that has seen enough ends without a word.
        with contextlib.suppress(ConnectionClosed):
            await answer_until_closed(socket)

    async def answer_until_closed(socket: ServerConnection) -> None:
        await socket.send('{"type":"hello","protocol":1}')
        async for text in socket:
            request = json.loads(text)
            if request["op"] == "subscribe":
                told = {"type": "subscribed", "id": request.get("id"), "results": results()}
                await socket.send(json.dumps(told))
                continue
            if request["op"] != "ping":
                continue
            await socket.send(json.dumps({"type": "pong", "id": request.get("id")}))
            # What comes now is written past the library, which would be the slowest of all.
            for chunk in streams[socket.subprotocol == "tickfan.bin.v1"]:
                socket.transport.write(chunk)
                # Returns when the socket took enough of it.
                await socket.drain()

    subprotocols = [Subprotocol("tickfan.bin.v1"), Subprotocol("tickfan.json.v1")]
    async with listen(
        answer, "127.0.0.1", 0, subprotocols=subprotocols, compression=None
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


# The readers: each yields numbers of updates that it looked at.


async def naive(url: str, kind: str) -> AsyncIterator[int]:
    """What a script does that has no client."""
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    json_only = [Subprotocol("tickfan.json.v1")]
    async with connect(url, subprotocols=json_only, compression=None) as socket:
        await socket.send(json.dumps({"op": "subscribe", "channel": kind, "symbols": ["sim:*"]}))
        await socket.send('{"op":"ping","id":1}')
        symbols: dict[int, str] = {}
        while True:
            message = json.loads(await socket.recv())
            if "n" not in message:
                for result in message.get("results", ()):
                    symbols[result["view"]] = result["symbol"]
                continue
            count = 0
            for one in message["u"]:
                if symbols[one["v"]] and one["s"] > 1:
                    count += 1
            yield count


async def ours(url: str, kind: str, library: str, form: str) -> AsyncIterator[int]:
    """This client."""
    from tickfan import AsyncClient, Client

    options: Any = {"library": library, "on_full": "block"}
    arguments: Any = (kind, "sim:*")
    if form == "for":
        with Client(url, **options) as plain:
            for one in plain.subscribe(*arguments, budget_ms=0):
                if one.symbol and one.seq > 1:
                    yield 1
    async with AsyncClient(url, **options) as client:
        stream = client.subscribe(*arguments, budget_ms=0)
        if form == "async for":
            async for one in stream:
                if one.symbol and one.seq > 1:
                    yield 1
        elif form == "batches":
            async for batch in stream.batches():
                count = 0
                for one in batch:
                    if one.symbol and one.seq > 1:
                        count += 1
                yield count


async def books(url: str, library: str) -> AsyncIterator[int]:
    """This client, which keeps a book of each symbol."""
    from tickfan import AsyncClient

    async with AsyncClient(url, library=library) as client:  # type: ignore[arg-type]
        interest = client._interest("book", "sim:*", 20, 0, 0, None)
        before = 0
        await client._open(interest)
        while True:
            await asyncio.sleep(0)
            count = client._registry.counters.updates - SYMBOLS
            yield max(0, count - before)
            before = max(before, count)


READERS: dict[str, Callable[[str, str], AsyncIterator[int]]] = {
    "websockets + json.loads": naive,
    "async for": lambda url, kind: ours(url, kind, "websockets", "async for"),
    "plain for": lambda url, kind: ours(url, kind, "websockets", "for"),
    "batches": lambda url, kind: ours(url, kind, "websockets", "batches"),
    "batches over picows": lambda url, kind: ours(url, kind, "picows", "batches"),
    "books kept": lambda url, kind: books(url, "websockets"),
}
NAIVE = "websockets + json.loads"


async def measure(reader: str, url: str, kind: str, count: int) -> tuple[float, float]:
    """Updates per second of processor time and of wall time, from the first to the last."""
    seen, first = 0, 0
    cpu_s = wall_s = 0.0
    numbers = READERS[reader](url, kind)
    async for more in numbers:
        if not seen and more:
            cpu_s, wall_s, first = time.process_time(), time.perf_counter(), more
        seen += more
        if seen >= count:
            break
    taken = seen - first
    rates = taken / (time.process_time() - cpu_s), taken / (time.perf_counter() - wall_s)
    # Nobody waits for what the readers do at their end.
    print(*rates, flush=True)
    os._exit(0)


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    )


def compare(kind: str, per_frame: int, count: int, runs: int) -> None:
    """One table."""
    cores = sorted(os.sched_getaffinity(0))
    names = [name for name in READERS if kind == "book" or "books" not in name]
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    server = run("--serve", kind, str(per_frame), str(count), str(cores[0]))
    try:
        assert server.stdout is not None
        url = f"ws://127.0.0.1:{int(server.stdout.readline())}/v1/stream"
        for _ in range(runs):
            for name in names:
                with run("--read", name, url, kind, str(count), str(cores[-1])) as reading:
                    said, _ = reading.communicate(timeout=600)
                cpu, wall = said.split()
                rates[name].append((float(cpu), float(wall)))
    finally:
        server.kill()
    print(f"\n{kind}, {per_frame} updates a frame, {count} updates, median of {runs}")
    print(f"{'reader':28}{'updates / CPU s':>18}{'updates / s':>14}{'ratio':>9}")
    base = statistics.median(cpu for cpu, _ in rates[NAIVE])
    for name, measured in rates.items():
        cpu, wall = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:28}{cpu:18,.0f}{wall:14,.0f}{cpu / base:9.1f}")


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        kind, per_frame, count, core = sys.argv[2:]
        os.sched_setaffinity(0, {int(core)})
        asyncio.run(serve(kind, int(per_frame), int(count)))
        return
    if sys.argv[1:2] == ["--read"]:
        reader, url, kind, count_text, core = sys.argv[2:]
        os.sched_setaffinity(0, {int(core)})
        asyncio.run(measure(reader, url, kind, int(count_text)))
        return
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--updates", type=int, default=192_000)
    words.add_argument("--runs", type=int, default=5)
    asked = words.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    for channel, size in (("bbo", 1), ("bbo", 8), ("bbo", 64), ("book", 8)):
        compare(channel, size, asked.updates // 64 * 64, asked.runs)


if __name__ == "__main__":
    main()
