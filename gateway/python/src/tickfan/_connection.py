"""The connection to a gateway: dialled, greeted, read, watched, and made anew when it is lost.

The client owns one, on its event loop, and asks over it; what comes goes through a session to the
registry. It never hides a loss: the registry is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from . import _binary, _control, _json, _transport
from ._options import Encoding
from ._queue import Queue
from ._reconnect import LASTED_S, wait_s
from ._registry import Registry
from ._session import Session
from ._transport import Gate, Library, Transport
from .errors import ConnectError, Disconnected, ProtocolError, Refused, TickfanError

_HEARTBEATS_MISSED_MAX = 3
_REQUEST_TIMEOUT_S = 20.0
_REFUSED_AGAIN_S = 1.0
_REQUESTS_AT_ONCE = 50
_REQUESTS_SHARE = 0.75
"""Of the requests that the gateway allows: answers of ours may be under way."""

_ASK_AGAIN = "the connection was lost while something was asked; ask again"

_log = logging.getLogger("tickfan")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Terms:
    """How to connect, and what to ask of every connection."""

    url: str
    token: str | None
    encoding: Encoding
    library: Library
    reconnect: bool
    heartbeat_ms: int
    stats_every_ms: int


class Connection:
    """See the top of this file."""

    def __init__(self, terms: Terms, registry: Registry, on_lost: Callable[[], None]) -> None:
        self.terms = terms
        self.session: Session | None = None
        self.transport: Transport | None = None
        self.connects = 0
        """How often it was greeted."""
        self._registry, self._on_lost = registry, on_lost
        self._gate, self._up = Gate(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: asyncio.Task[None] | None = None
        self._asked: set[asyncio.Future[Any]] = set()
        """What waits for an answer on the present connection."""
        self._ended: BaseException | None = None
        self._is_unread = False
        """A reader has had no room for so long that what is held may be old."""
        self._is_over = False
        """It was closed, or ended for good. Cancelling alone may get lost in a wait with a timeout,
        before Python 3.12."""
        self._is_closed = False
        self._rng = random.Random()

    # What the client calls.

    @property
    def is_up(self) -> bool:
        """It is greeted."""
        return self._up.is_set()

    async def connect(self) -> None:
        """Connects, if that was not begun; raises when the first attempt fails."""
        if isinstance(self._ended, ConnectError) and not self._is_closed:
            # Nobody was there the last time that somebody called. Who calls again tries again.
            self._runner, self._ended, self._is_over = None, None, False
            self._up = asyncio.Event()
        if self._runner is None:
            self._loop = asyncio.get_running_loop()
            self._runner = asyncio.create_task(self._run(), name="tickfan")
        runner = self._runner
        waiting = asyncio.create_task(self._up.wait())
        try:
            await asyncio.wait({waiting, runner}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if runner is not self._runner:
            # It failed, and somebody else tries again already.
            return await self.connect()
        if self._ended is not None:
            raise self._ended
        if runner.done() and not self.is_up:
            raise TickfanError("the client is closed")

    def end(self, error: BaseException | None) -> None:
        """Nothing will come any more."""
        self._ended, self._is_over = self._ended or error, True
        self._registry.end(error)
        if self._runner is not None and self._runner is not asyncio.current_task():
            self._runner.cancel()

    async def close(self) -> None:
        """Says so to the gateway, and waits for the end."""
        self._is_closed = True
        if self.transport is not None:
            with contextlib.suppress(Exception):
                await self.transport.close()
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    def on_line(self) -> Session:
        """The session, to ask something now."""
        if self.session is None:
            raise ConnectError(_ASK_AGAIN)
        return self.session

    async def answer(self, done: asyncio.Future[_T]) -> _T:
        """Waits for what was asked on the present connection."""
        self._asked.add(done)
        try:
            return await asyncio.wait_for(done, _REQUEST_TIMEOUT_S)
        except (TimeoutError, asyncio.TimeoutError):
            raise ConnectError("the gateway did not answer; it may be overloaded") from None
        finally:
            self._asked.discard(done)

    def mind(self, queue: Queue) -> None:
        """While this queue has no room, nothing is read."""
        queue.stop = partial(self._gate.close, queue)
        queue.resume = lambda: self._call(lambda: self._read_on(queue))

    def call(self, function: Callable[[], None]) -> None:
        """Calls on its loop's thread, from any: at once where this is it."""
        if self._loop is None or self._loop is _running_loop():
            function()
        else:
            self._call(function)

    # Its parts.

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def _read_on(self, queue: Queue) -> None:
        """A reader had room again when it said so; since then it may have been filled."""
        if queue.is_blocking:
            return
        self._gate.open(queue)
        if self._is_unread and not self._gate.closers and self.session is not None:
            self._is_unread = False
            # What waited meanwhile comes before the answer.
            self.session.barrier(self._registry.go_on)

    async def _run(self) -> None:
        attempt = 0
        try:
            while not self._is_over:
                code, reason, retry_after_ms = 1006, "no connection", 0
                try:
                    session, transport = await self._dial()
                    if self._is_over:
                        transport.abort()
                        return
                    began_s = time.monotonic()
                    code, reason = await self._serve(session, transport)
                    if session.drain is not None:
                        retry_after_ms = session.drain.retry_after_ms
                    if time.monotonic() - began_s >= LASTED_S and not session.is_broken:
                        attempt = 0
                except ConnectError as error:
                    if self.connects == 0:
                        raise
                    reason = str(error)
                wait = wait_s(code, reason, retry_after_ms, attempt, self._rng)
                if wait is None or not self.terms.reconnect:
                    raise Disconnected(code, reason)
                _log.info("%s: %s %s; again in %.1f s", self.terms.url, code, reason, wait)
                attempt += 1
                await asyncio.sleep(wait)
        except Exception as error:
            # Also what nobody thought of: who reads must not wait for what never comes.
            self.end(error)

    async def _dial(self) -> tuple[Session, Transport]:
        subprotocol = _binary.SUBPROTOCOL if self.terms.encoding == "binary" else _json.SUBPROTOCOL
        try:
            transport = await _transport.connect(self.terms.url, subprotocol, self.terms.library)
        except ConnectError as error:
            raise ConnectError(
                f"cannot connect to {self.terms.url} ({error}); start a gateway with `tickfan`, "
                "or name one by url= or TICKFAN_URL"
            ) from error.__cause__
        return Session(time.monotonic_ns, time.time_ns), transport

    async def _serve(self, session: Session, transport: Transport) -> tuple[int, str]:
        """Reads a connection to its end."""
        self.transport, self.session = transport, session
        session.on_hello = self._greeted
        session.tell("heartbeat", every_ms=self.terms.heartbeat_ms)
        if self.terms.token:
            session.request("auth", self._on_auth, token=self.terms.token)
        if self.terms.stats_every_ms:
            session.tell("stats", every_ms=self.terms.stats_every_ms)
        helpers = [
            asyncio.create_task(self._send(session, transport)),
            asyncio.create_task(self._watch(session, transport)),
            asyncio.create_task(self._ask_refused()),
        ]
        code, reason = 1006, "connection lost"
        try:
            code, reason = await transport.run(session.receive, self._gate)
        except ProtocolError as error:
            _log.error("%s: %s", self.terms.url, error)
            session.is_broken = True
            transport.abort()
            # Not the code 1002, which would say that it is our fault.
            reason = f"protocol error: {error}"
        finally:
            for helper in helpers:
                helper.cancel()
            self._up.clear()
            self.session = None
            self._is_unread = False
            self._on_lost()
            self._registry.lost(code, reason)
            for done in self._asked:
                if not done.done():
                    done.set_exception(ConnectError(_ASK_AGAIN))
        return code, reason

    def _greeted(self) -> None:
        self.connects += 1
        self._registry.session = self.session
        for interest in self._registry.interests:
            self._registry.ask_again(interest)
        self._up.set()

    def _on_auth(self, answer: _control.Control) -> None:
        if isinstance(answer, _control.Error):
            if answer.code == "unknown_op":
                _log.warning("%s asks for no token; it was given one all the same", self.terms.url)
            else:
                self.end(Refused(answer.code, answer.message))

    async def _send(self, session: Session, transport: Transport) -> None:
        """Sends requests, no faster than the gateway takes them."""
        more = asyncio.Event()
        session.on_outbox = more.set
        outbox: deque[str] = session.outbox
        allowance = float(_REQUESTS_AT_ONCE)
        before_s = time.monotonic()
        while True:
            while outbox:
                per_s = session.hello.limits.messages_per_s if session.hello else 20
                now_s = time.monotonic()
                allowance = min(
                    _REQUESTS_AT_ONCE, allowance + (now_s - before_s) * per_s * _REQUESTS_SHARE
                )
                before_s = now_s
                if allowance < 1:
                    await asyncio.sleep((1 - allowance) / (per_s * _REQUESTS_SHARE))
                    continue
                allowance -= 1
                await transport.send(outbox.popleft())
            more.clear()
            await more.wait()

    async def _ask_refused(self) -> None:
        while True:
            await asyncio.sleep(_REFUSED_AGAIN_S)
            self._registry.ask_refused()

    async def _watch(self, session: Session, transport: Transport) -> None:
        """Ends a connection over which not even heartbeats come; where a reader keeps us from
        reading them, says that nothing is known. Counts its own rounds and not the clock, so that a
        loop that was blocked does not count as the gateway's silence."""
        missed = unread = 0
        seen = -1
        while missed < _HEARTBEATS_MISSED_MAX:
            await asyncio.sleep(self.terms.heartbeat_ms / 1_000)
            # On a slow link a long image is no silence.
            heard = session.messages + transport.reads
            is_silent, is_closed = heard == seen, bool(self._gate.closers)
            missed = missed + 1 if is_silent and not is_closed else 0
            unread = unread + 1 if is_silent and is_closed else 0
            if unread == _HEARTBEATS_MISSED_MAX:
                self._is_unread = True
                self._registry.rest()
            seen = heard
            session.ask_missing_images()
        transport.abort()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
