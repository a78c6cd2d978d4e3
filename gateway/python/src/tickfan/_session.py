"""One connection, without its socket: messages → updates handed to views, answers handed to who
asked; requests → texts to send.

The client feeds it and sends its outbox. Pure but for the clock that it is given. Lives as long as
one WebSocket.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable

from . import _binary, _control, _json
from ._control import Control
from ._updates import GatewayStats
from ._view import View
from .errors import ProtocolError

Handler = Callable[[Control], None]

IMAGE_EVERY_NS = 1_100_000_000
"""A view is sent whole on request once a second at most; asking sooner is only refused."""

_log = logging.getLogger("tickfan")


class Session:
    """See the top of this file."""

    def __init__(self, now_ns: Callable[[], int], wall_ns: Callable[[], int]) -> None:
        self.hello: _control.Hello | None = None
        self.on_hello: Callable[[], None] = lambda: None
        self.drain: _control.Drain | None = None
        self.is_broken = False
        """It ended because the gateway sent what the protocol does not allow."""
        self.views: dict[int, View] = {}
        self.outbox: deque[str] = deque()
        self.on_outbox: Callable[[], None] = lambda: None
        self.stats: GatewayStats | None = None
        self.frames = 0
        self.bytes = 0
        self.messages = 0
        self.sent_ns = 0
        """The send time of the last frame, by the gateway's clock."""
        self.received_ns = 0
        """When it was received, by the wall clock here."""
        self._now_ns, self._wall_ns = now_ns, wall_ns
        self._ids = itertools.count(1)
        self._handlers: dict[int | str, Handler] = {}
        self._images: dict[View, int] = {}
        """Views to ask an image for, and when that is allowed."""
        self._asked: dict[View, int] = {}

    def receive(self, message: str | bytes) -> None:
        """Takes one message of the connection."""
        self.messages += 1
        self.bytes += len(message)
        if isinstance(message, bytes):
            head = _binary.frame_head(message)
            self._count(head[0], head[1])
            _binary.records(message, head, self.views, self._on_stats)
        elif message.startswith('{"n":') or not _control.is_control(message):
            n, ts_ns, known, late = _json.frame(message)
            self._count(n, ts_ns)
            _json.updates(ts_ns, known, late, self.views, self._on_stats)
        else:
            self._on_control(message)
        if self._images:
            self.ask_due_images()

    def request(self, op: str, handler: Handler | None = None, **fields: object) -> int:
        """Asks something; the handler gets each answer until `forget`."""
        number = next(self._ids)
        if handler is not None:
            self._handlers[number] = handler
        self.outbox.append(_control.request(op, id=number, **fields))
        self.on_outbox()
        return number

    def tell(self, op: str, **fields: object) -> None:
        """Says something that has no answer."""
        self.outbox.append(_control.request(op, **fields))
        self.on_outbox()

    def forget(self, number: int) -> None:
        """Of this request all answers are there."""
        self._handlers.pop(number, None)

    def barrier(self, then: Callable[[], None], *forget: int) -> None:
        """Calls back when everything that was asked before is answered: answers come in order."""

        def answered(_: Control) -> None:
            for number in (*forget, barrier):
                self.forget(number)
            then()

        barrier = self.request("ping", answered)

    def want_image(self, view: View) -> None:
        """Asks for a view whole, as soon as that is allowed."""
        self._images.setdefault(view, self._asked.get(view, 0))

    def ask_due_images(self) -> None:
        """Sends what is due of that."""
        now_ns = self._now_ns()
        due = [view for view, at_ns in self._images.items() if at_ns <= now_ns]
        if not due:
            return
        for view in due:
            del self._images[view]
        due = [view for view in due if view.needs_image and self.views.get(view.number) is view]
        if due:
            self._asked.update((view, now_ns + IMAGE_EVERY_NS) for view in due)
            self.request("image", None, views=[view.number for view in due])

    def forget_view(self, view: View) -> None:
        """The view is not subscribed to any more."""
        self.views.pop(view.number, None)
        self._images.pop(view, None)
        self._asked.pop(view, None)

    def ask_missing_images(self) -> None:
        """An answer may have been refused: who still needs an image asks again."""
        for view in self._asked:
            if view.needs_image:
                self.want_image(view)
        self.ask_due_images()

    def _count(self, n: int, ts_ns: int) -> None:
        if n != self.frames + 1:
            raise ProtocolError(f"frame {n} came where {self.frames + 1} was due")
        self.frames = n
        self.sent_ns = ts_ns
        self.received_ns = self._wall_ns()

    def _on_stats(self, stats: GatewayStats) -> None:
        self.stats = stats

    def _on_control(self, text: str) -> None:
        control = _control.read(text)
        if isinstance(control, _control.Hello):
            if control.protocol != 1:
                raise ProtocolError(f"this client speaks protocol 1; {control.protocol} came")
            # After a token it comes again, with the rights; the connection is the same.
            is_first, self.hello = self.hello is None, control
            if is_first:
                self.on_hello()
        elif isinstance(control, _control.Drain):
            self.drain = control
        elif control is not None:
            handler = self._handlers.get(control.id) if control.id is not None else None
            if handler is not None:
                handler(control)
            elif isinstance(control, _control.Error) and control.code != "rate_limited":
                _log.warning("the gateway answers: %s %s", control.code, control.message)
