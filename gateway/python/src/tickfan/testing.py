"""Gateways and exchanges for tests: real processes on free ports of this machine.

    with testing.Simulator() as exchange, testing.Gateway([exchange.feed()]) as gateway:
        client = tickfan.Client(gateway.url)

The pytest plugin makes fixtures of them. The binaries are looked for in the folder that TICKFAN_BIN
names; where it names none, in PATH.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ._closing import Closing
from .errors import TickfanError

PATIENCE_S = 30.0
"""Nothing that a test waits for takes longer, even on a machine with much else to do."""

_LINES_KEPT = 200
_ADDRESS = r"(\d+\.\d+\.\d+\.\d+:\d+)"
_T = TypeVar("_T")


class MissingBinary(TickfanError):
    """There is no gateway to test with."""


def binary(name: str) -> Path:
    """Where `tickfan` or `feed-sim` is."""
    told = os.environ.get("TICKFAN_BIN")
    if told:
        if (Path(told) / name).is_file():
            return Path(told) / name
    elif found := shutil.which(name):
        return Path(found)
    raise MissingBinary(
        f"there is no {name} in {told or 'PATH'}; build it with `cargo build --release`, and set "
        "TICKFAN_BIN to the folder that has tickfan and feed-sim, as in TICKFAN_BIN=target/release"
    )


def wait_until(what: str, condition: Callable[[], _T], patience_s: float = PATIENCE_S) -> _T:
    """Waits for a condition, and returns it."""
    until_s = time.monotonic() + patience_s
    while True:
        # Looked at before the condition: a machine that stood still has it looked at once more.
        is_over = time.monotonic() > until_s
        result = condition()
        if result:
            return result
        if is_over:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(0.005)


@contextlib.contextmanager
def _or_else(end: Callable[[], None]) -> Iterator[None]:
    """Ends what did not begin as it should: nothing outlives who started it."""
    try:
        yield
    except BaseException:
        end()
        raise


class Process:
    """A binary that serves until it is ended."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_KEPT)
        """What it said last."""
        environment = {**os.environ, "TICKFAN_LOG": "info"}
        self._process = subprocess.Popen(
            [str(binary(name)), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def expect(self, pattern: str) -> re.Match[str]:
        """Waits until it says so."""

        def said() -> re.Match[str] | None:
            text = "\n".join(tuple(self.lines))
            if (found := re.search(pattern, text)) is None and self._process.poll() is not None:
                raise TickfanError(f"{self._process.args!r} ended: {text}")
            return found

        found = wait_until(f"{pattern} is said", said)
        assert found is not None
        return found

    def terminate(self) -> None:
        """Asks it to end in good order: SIGTERM."""
        self._process.terminate()

    def pause(self) -> None:
        """Stops it in the middle of what it does: SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it without a word."""
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        """Until it has ended; its exit code."""
        code = self._process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip())


class Simulator(Closing):
    """`feed-sim`: an exchange that knows its true books. Without a recording, a seeded market in
    the words of Binance spot; with one, that recording as its venue sent it."""

    def __init__(
        self,
        recording: str | Path | None = None,
        *,
        seed: int = 1,
        symbols: int = 10,
        rate: int = 1_000,
        speed: str = "max",
        hold: bool = True,
        loop: bool = False,
        drop_line: int | None = None,
    ) -> None:
        listen = ["--listen", "127.0.0.1:0"]
        if recording is None:
            rest = ["--seed", str(seed), "--symbols", str(symbols), "--rate", str(rate)]
            self._process = Process("feed-sim", ["serve", *listen, *rest])
            self.venue = "sim"
        else:
            rest = ["--speed", speed]
            rest += ["--hold"] if hold else []
            rest += ["--loop"] if loop else []
            rest += [] if drop_line is None else ["--drop-line", str(drop_line)]
            self._process = Process("feed-sim", ["replay", str(recording), *listen, *rest])
            self.venue = ""
        self.address = ""
        """Where it listens, for HTTP and WebSocket."""
        with _or_else(self.close):
            self.address = self._process.expect(rf"on ws://{_ADDRESS}")[1]
            if recording is not None:
                self.venue = self._process.expect(r"\(\d+ lines, ([a-z0-9-]+)\)")[1]

    def feed(self, symbols: Sequence[str] = ("*",), **options: object) -> str:
        """The `[[feed]]` of a gateway that takes it."""
        more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
        return (
            f"[[feed]]\nvenue = {json.dumps(self.venue)}\nsymbols = {json.dumps(list(symbols))}\n"
            f'url = "ws://{self.address}"\nrest_url = "http://{self.address}"\n{more}'
        )

    def truth(self, symbol: str, u: int | None = None) -> dict[str, Any] | None:
        """The true book of a symbol (spelt as the venue does) at its update number `u`, or now:
        `u`, `bids` and `asks`. None when it is not kept any more."""
        query = f"symbol={symbol}" + ("" if u is None else f"&u={u}")
        return http_json(f"http://{self.address}/truth?{query}")

    def start(self) -> None:
        """Begins a replay that is held."""
        http_json(f"http://{self.address}/replay/start", method="POST")

    def status(self) -> dict[str, Any]:
        """Where a replay is: `state`, `line` and `subscriptions`."""
        return http_json(f"http://{self.address}/replay") or {}

    def close(self) -> None:
        """Ends it."""
        self._process.kill()


class Gateway(Closing):
    """`tickfan` on feeds."""

    def __init__(self, feeds: Sequence[str], *, options: str = "", ready: bool = True) -> None:
        self._feeds, self._options = feeds, options
        self._folder = tempfile.TemporaryDirectory(prefix="tickfan-")
        self.process: Process
        self.address = self.admin = "127.0.0.1:0"
        """Where it serves clients, and operators."""
        with _or_else(self._folder.cleanup):
            self.start()
        if ready:
            with _or_else(self.close):
                self.wait_ready()

    @property
    def url(self) -> str:
        """Its stream."""
        return f"ws://{self.address}/v1/stream"

    def start(self) -> None:
        """Starts it; again on the same port, when it was ended."""
        path = Path(self._folder.name) / "tickfan.toml"
        head = f'listen = "{self.address}"\nadmin = "{self.admin}"\nshards = 1\n{self._options}\n'
        path.write_text(head + "\n".join(self._feeds))
        self.process = Process("tickfan", ["--config", str(path)])
        with _or_else(self.process.kill):
            said = self.process.expect(rf"clients={_ADDRESS} operators={_ADDRESS}")
        self.address, self.admin = said[1], said[2]

    def wait_ready(self) -> None:
        """Until every book is there."""
        url = f"http://{self.admin}/readyz"
        wait_until("the gateway is ready", lambda: http_status(url) == 200)

    def metric(self, name: str) -> int:
        """The sum of a counter over its labels."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
        values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\d+)$", text, re.MULTILINE)
        return sum(map(int, values))

    def close(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self._folder.cleanup()


class FeedSim(Closing):
    """A simulated exchange and a gateway on it."""

    def __init__(self, *, seed: int = 1, symbols: int = 10, rate: int = 1_000) -> None:
        self.exchange = Simulator(seed=seed, symbols=symbols, rate=rate)
        try:
            self.gateway = Gateway([self.exchange.feed()])
        except BaseException:
            self.exchange.close()
            raise

    @property
    def url(self) -> str:
        """The stream of the gateway."""
        return self.gateway.url

    def truth(self, symbol: str, u: int | None = None) -> dict[str, Any] | None:
        """The true book of a canonical symbol at its `venue_seq`; see `Simulator.truth`."""
        return self.exchange.truth(symbol.partition(":")[2] or symbol, u)

    def close(self) -> None:
        """Ends both."""
        self.gateway.close()
        self.exchange.close()


def http_status(url: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def http_json(url: str, method: str = "GET") -> dict[str, Any] | None:
    """The JSON object that a request is answered with; None for an error."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            read: dict[str, Any] = json.load(answer)
            return read
    except urllib.error.HTTPError:
        return None
