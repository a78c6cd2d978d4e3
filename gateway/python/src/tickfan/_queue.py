"""The bounded queue between the connection and one reader.

Views put updates in on the client's thread, one reader takes them out on its own. A reader that is
too slow gets fewer, newer updates: of a best price the newest, of a book an image in the place of
the changes, of trades the newest and how many were lost. What was left out is counted. It never
drops a hole, or the last state of a channel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

from ._updates import FIRST, Bbo, Event, Hole, P, StateChange, Trades, ViewName

if TYPE_CHECKING:
    from ._view import View

OnFull = Literal["conflate", "block"]
"""What happens when a reader is too slow: `conflate`, or stop reading from the socket, upon which
the gateway conflates."""

QUEUE_MAX = 8_192
"""Updates that wait for a reader: a second or so of a busy day, some megabytes."""

_PER_VIEW = 8
"""So many fit for each view at least, or conflating would never make room."""


class Queue:
    """See the top of this file."""

    def __init__(self, limit: int, on_full: OnFull) -> None:
        self.items: deque[Event] = deque()
        self.limit = limit
        self.on_full = on_full
        self.waiting: set[ViewName] = set()
        """Books of which the next thing that may be put in is an image."""
        self.conflated = 0
        self.lost_trades = 0
        self.is_ended = False
        self.error: BaseException | None = None
        self.wake: Callable[[], None] | None = None
        """Called when something came; set by a reader that waits."""
        self._taking = threading.Lock()
        """Conflating takes everything out and puts back what is left. A reader on a thread of its
        own would find nothing in between, or the rest before what is put back."""
        self.stop: Callable[[], None] = _nothing
        self.resume: Callable[[], None] = _nothing
        """Called when there is no room, and when there is again; set by the client."""
        self.is_blocking = False
        self._views: dict[ViewName, View] = {}

    def attach(self, view: View) -> None:
        """Updates of this view will come."""
        self._views[view.name] = view
        self.limit = max(self.limit, _PER_VIEW * len(self._views))

    def detach(self, view: View) -> None:
        """No more of them."""
        self._views.pop(view.name, None)
        self.waiting.discard(view.name)

    def put(self, event: Event) -> None:
        """Adds an update; conflates when there is no room."""
        if self.is_ended:
            return
        items = self.items
        items.append(event)
        if len(items) >= self.limit:
            self._fill()
        self._wake()

    def take(self) -> Event | None:
        """The first that waits; for a reader on a thread of its own."""
        with self._taking:
            taken = self.items.popleft() if self.items else None
        if self.is_blocking:
            self.taken()
        return taken

    def take_all(self) -> list[Event]:
        """Everything that waits; for the reader."""
        with self._taking:
            taken = [self.items.popleft() for _ in range(len(self.items))]
        if self.is_blocking:
            self.taken()
        return taken

    def taken(self) -> None:
        """The reader took some: when half is free, the connection is read again."""
        if self.is_blocking and len(self.items) <= self.limit // 2:
            self.is_blocking = False
            self.resume()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing will come any more."""
        if not self.is_ended:
            self.is_ended, self.error = True, error
        self._wake()
        if self.is_blocking:
            self.is_blocking = False
            self.resume()

    def _wake(self) -> None:
        # Looked at once: its reader's thread may take it away meanwhile.
        wake = self.wake
        if wake is not None:
            wake()

    def _fill(self) -> None:
        if self.on_full == "conflate":
            self._conflate()
        elif not self.is_blocking:
            self.is_blocking = True
            self.stop()
            # A reader on another thread may have taken all before it could see that.
            self.taken()

    def _conflate(self) -> None:
        with self._taking:
            kept = self._newest(list(self.items))
            kept = self._fewer_trades(kept, self.limit // 4)
            self.items.clear()
            self.items.extend(kept)

    def _newest(self, events: list[Event]) -> list[Event]:
        """Of each view the last state, the last best price, one hole, and no change of a book of
        which several wait."""
        books: dict[ViewName, int] = {}
        for event in events:
            if event.kind in ("image", "delta"):
                books[event.name] = books.get(event.name, 0) + 1
        for name, count in books.items():
            if count > 1:
                self._begin_anew(name)
        kept: list[Event] = []
        told: set[tuple[ViewName, str]] = set()
        holes: dict[ViewName, int] = {}
        for event in reversed(events):
            name, kind = event.name, event.kind
            if isinstance(event, Hole):
                at = holes.setdefault(name, len(kept))
                if at < len(kept):
                    kept[at] = _joined(event, cast(Hole, kept[at]))
                    continue
            elif isinstance(event, (Bbo, StateChange)):
                if (name, kind) in told:
                    self.conflated += 1
                    continue
                told.add((name, kind))
            elif kind != "trades" and books[name] > 1:
                self.conflated += 1
                continue
            kept.append(event)
        kept.reverse()
        return kept

    def _begin_anew(self, name: ViewName) -> None:
        view = self._views.get(name)
        if view is not None:
            self.waiting.add(name)
            view.need_image()

    def _fewer_trades(self, events: list[Event], most: int) -> list[Event]:
        """The newest updates of trades, and in the place of the older ones how many are lost."""
        excess = sum(event.kind == "trades" for event in events) - most
        if excess <= 0:
            return events
        kept: list[Event] = []
        lost: dict[ViewName, int] = {}
        for event in events:
            if not isinstance(event, Trades) or excess <= 0:
                kept.append(event)
                continue
            excess -= 1
            self.conflated += 1
            self.lost_trades += event.head[FIRST]
            at = lost.get(event.name)
            before = kept[at] if at is not None else None
            # Numbers of another epoch do not count on.
            if isinstance(before, Trades) and before.epoch == event.epoch:
                kept[cast(int, at)] = _lost(event, before.head[P])
            else:
                lost[event.name] = len(kept)
                kept.append(_lost(event, event.head[P]))
        return kept


def _lost(last: Trades, p: int) -> Trades:
    head = (*last.head[:P], p, *last.head[P + 1 : FIRST], 0, 0)
    return Trades(last.name, head, last.sent_ns, last.late, ())


def _joined(first: Hole, last: Hole) -> Hole:
    missed = None
    if first.missed is not None and last.missed is not None:
        missed = first.missed + last.missed
    return Hole(
        last.name,
        last.reason,
        last.code,
        first.seq_before,
        last.seq,
        first.epoch_before,
        last.epoch,
        missed,
        first.began_ns,
        last.ended_ns,
    )


def _nothing() -> None:
    """Before a client is there."""
