"""Updates of one view → what its readers get, or the first thing that cannot be true.

The decoders call it for each update, in order. It holds the chain: state, epoch and version. What
does not follow from what is held is never handed on: the view is in `gap` from then on, its readers
are told, and an image is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ._book import Book
from ._queue import Queue
from ._updates import (
    EPOCH,
    FIRST,
    STATE,
    STATES,
    Bbo,
    Delta,
    Event,
    Hole,
    Image,
    P,
    S,
    State,
    StateChange,
    Trade,
    Trades,
    ViewName,
)
from .errors import ProtocolError

_FLOWS = tuple(state.flows for state in STATES)
_HAS_WHOLE = tuple(state.has_whole for state in STATES)
_STALE, _GAP, _CLOSED, _DISCONNECTED = map(
    STATES.index, (State.STALE, State.GAP, State.CLOSED, State.DISCONNECTED)
)

_log = logging.getLogger("tickfan")


class Counters:
    """What the views of a client count together."""

    def __init__(self) -> None:
        self.chain_breaks = 0
        self.holes = 0
        self.late = 0
        self.updates = 0


class View:
    """See the top of this file."""

    def __init__(
        self, name: ViewName, counters: Counters, ask_image: Callable[[View], None]
    ) -> None:
        self.name = name
        self.number = 0
        """The gateway's, on the present connection."""
        self.budget_ms = 0
        self.state_code = 0
        self.epoch = 0
        self.held: int | None = None
        """The version that the next update must follow."""
        self.price_scale = self.qty_scale = 0
        self.book: Book | None = None
        self.queues: list[Queue] = []
        self.is_broken = False
        """What is held is not what the gateway thinks; an image will mend it."""
        self._is_resting = False
        """It is shown as stale, whatever its state."""
        self.last: Bbo | None = None
        self._counters = counters
        self._ask_image = ask_image
        self._before: tuple[int, int | None, int] | None = None
        """Epoch, version and time at which the connection was lost."""
        self._loss = (1006, "")
        self._refused_why = ""
        self._told_to = 0
        """Trades up to this number were handed on before the connection was lost."""

    # What the decoders call.

    def image(self, update: Image) -> None:
        """The book, whole."""
        head = update.head
        epoch = head[EPOCH]
        if epoch < self.epoch or not _HAS_WHOLE[head[STATE]]:
            return self._break(f"an image of epoch {epoch} and state {update.state}")
        if epoch == self.epoch and self.held is not None and head[S] < self.held:
            return self._break(f"version {head[S]} after {self.held}")
        self.epoch, self.state_code, self.held = epoch, head[STATE], head[S]
        self.is_broken = False
        if self.book is not None:
            try:
                self.book.image(update)
            except ProtocolError as error:
                return self._break(str(error))
        for queue in self.queues:
            queue.waiting.discard(self.name)
        self._put(update)

    def delta(self, update: Delta) -> None:
        """What changed in the book."""
        head = update.head
        s, p = head[S], head[P]
        if p != self.held or s <= p or head[EPOCH] != self.epoch or not _FLOWS[self.state_code]:
            return self._break(f"a change {p} to {s} of epoch {head[EPOCH]}")
        self.held = s
        if self.book is not None:
            try:
                self.book.delta(update)
            except ProtocolError as error:
                return self._break(str(error))
        if head[STATE] != self.state_code:
            self._turn_quietly(head[STATE])
        self._counters.updates += 1
        if update.late:
            self._counters.late += 1
        for queue in self.queues:
            if queue.waiting and self.name in queue.waiting:
                queue.conflated += 1
            else:
                queue.put(update)

    def bbo(self, update: Bbo) -> None:
        """The best bid and offer, whole."""
        head = update.head
        s, held = head[S], self.held
        if head[EPOCH] != self.epoch or not _HAS_WHOLE[head[STATE]]:
            return self._break(f"a best price of epoch {head[EPOCH]} and state {update.state}")
        if held is not None and s < held:
            return self._break(f"version {s} after {held}")
        if head[STATE] != self.state_code:
            self._turn_quietly(head[STATE])
        self.held, self.last, self.is_broken = s, update, False
        # As `_put`, without its call: of these there are most.
        self._counters.updates += 1
        if update.late:
            self._counters.late += 1
        for queue in self.queues:
            queue.put(update)

    def trades(self, update: Trades) -> None:
        """New trades."""
        head = update.head
        s, p = head[S], head[P]
        # The last trades before a change of state may carry its epoch already; they follow.
        if (head[EPOCH] != self.epoch and p != self.held) or not _FLOWS[self.state_code]:
            return self._break(f"trades of epoch {head[EPOCH]} in state {self.state_code}")
        if self.held is not None and p != self.held:
            self._count_break(f"trades {p} to {s}")
            if s <= self.held:
                return
            # Before it: told again. Behind it: the update says by its numbers what is missing.
            update = _after(update, self.held) if p < self.held else _with_loss(update, self.held)
        self.held = s
        if s <= self._told_to:
            return
        if update.head[P] < self._told_to:
            update = _after(update, self._told_to)
        self._put(update)

    def turn(self, update: StateChange) -> None:
        """The state of the channel changed."""
        epoch, code = update.head[EPOCH], update.head[STATE]
        if epoch < self.epoch:
            return self._break(f"state {update.state} of epoch {epoch}")
        is_trades = self.name.channel == "trades"
        keep = epoch == self.epoch and (_HAS_WHOLE[code] or is_trades)
        if epoch != self.epoch:
            self._told_to = 0
        self._enter(code, update.why, epoch, keep=keep)
        self._put(update)

    # What the registry calls.

    def acknowledge(
        self,
        number: int,
        epoch: int,
        s: int,
        state: int,
        scales: tuple[int, int],
        now_ns: int,
        live_s: int | None,
    ) -> None:
        """The gateway begins to send it, on a new connection; of trades that it sends again, those
        up to `live_s` are no news in a new epoch."""
        self.number = number
        self.price_scale, self.qty_scale = scales
        before, self._before = self._before, None
        self._refused_why = ""
        stands = s if live_s is None else live_s
        # Numbers never fall: where they did, history was lost whatever the epoch says.
        is_same = before is not None and before[0] == epoch and stands >= (before[1] or 0)
        is_trades = self.name.channel == "trades"
        self._told_to = 0
        if is_trades and before is not None:
            self._told_to = before[1] or 0 if is_same else live_s or s
        self.is_broken = False
        self._enter(state, "", epoch, keep=False)
        self.held = s if is_trades else None
        if before is not None:
            missed = None
            if is_same and before[1] is not None:
                missed = max(0, s - before[1])
            code, reason = self._loss
            self._counters.holes += 1
            self._put(
                Hole(
                    *(self.name, reason, code, before[1], max(s, self._told_to), before[0], epoch),
                    *(missed, before[2], now_ns),
                )
            )
        if before is not None or state != STATES.index(State.LIVE):
            self._put(self._state_change("subscribed"))

    def take_book(self, book: Book) -> None:
        """A book is wanted of what goes on already: it begins with the next image."""
        self.book = book
        book.turn(STATES[self.state_code], "", self.epoch, keep=False)
        self.held, self.is_broken = None, True
        self.need_image()

    def lose(self, code: int, reason: str, wall_ns: int) -> None:
        """The connection is lost."""
        if self.state_code in (_DISCONNECTED, _CLOSED):
            return
        if self._before is None:
            held = self.held
            if self.name.channel == "trades" and held is not None:
                held = max(held, self._told_to)
            self._before = (self.epoch, held, wall_ns)
        self._loss = (code, reason)
        self._enter(_DISCONNECTED, reason, self.epoch, keep=True)
        self.held = None
        self._put(self._state_change(reason))

    def rest(self) -> None:
        """Nothing is read for now: what is held follows from what came before, and may be old."""
        if _FLOWS[self.state_code] and not self.is_broken and not self._is_resting:
            self._is_resting = True
            self._show(_STALE, "not_read")

    def go_on(self) -> None:
        """It is read again, and nothing old is on its way any more."""
        if self._is_resting:
            self._is_resting = False
            self._show(self.state_code, "read_again")

    def refuse(self, why: str) -> None:
        """The gateway is back, and does not serve it for now; who asks again may be refused again,
        and that is told once."""
        if self.state_code == _DISCONNECTED and why != self._refused_why:
            self._refused_why = why
            self._enter(_DISCONNECTED, why, self.epoch, keep=True)
            self._put(self._state_change(why))

    def join(self, queue: Queue) -> None:
        """One more reader. What it must know to begin with is put into its queue."""
        self.queues.append(queue)
        queue.attach(self)
        if STATES[self.state_code] is not State.LIVE:
            queue.put(self._state_change("subscribed"))
        if self.name.channel == "book":
            queue.waiting.add(self.name)
        elif self.last is not None and _HAS_WHOLE[self.state_code]:
            queue.put(self.last)

    def leave(self, queue: Queue) -> None:
        """One reader less."""
        if queue in self.queues:
            self.queues.remove(queue)
            queue.detach(self)

    @property
    def is_read(self) -> bool:
        """Somebody wants it."""
        return bool(self.queues) or self.book is not None

    def need_image(self) -> None:
        """A reader has nothing that the next change could follow from."""
        # In the other states an image comes by itself.
        if _HAS_WHOLE[self.state_code] and self.state_code != _DISCONNECTED:
            self._ask_image(self)

    @property
    def needs_image(self) -> bool:
        """It is still worth asking."""
        is_missing = self.is_broken or any(self.name in queue.waiting for queue in self.queues)
        return is_missing and _HAS_WHOLE[self.state_code] and self.state_code != _DISCONNECTED

    def _put(self, event: Event) -> None:
        self._counters.updates += 1
        if not isinstance(event, Hole) and event.late:
            self._counters.late += 1
        for queue in self.queues:
            queue.put(event)

    def _state_change(self, why: str, code: int | None = None) -> StateChange:
        state = self.state_code if code is None else code
        head = (0, 0, state, 0, self.number, self.epoch, 0, 0, 0, 0, 0, 0, 0, 0)
        return StateChange(self.name, head, 0, False, (why, 0))

    def _show(self, code: int, why: str) -> None:
        if self.book is not None:
            self.book.turn(STATES[code], why, self.epoch, keep=True)
        self._put(self._state_change(why, code))

    def _enter(self, code: int, why: str, epoch: int, *, keep: bool) -> None:
        self.state_code, self.epoch = code, epoch
        self._is_resting = False
        if not keep:
            self.held = self.last = None
        if self.book is not None:
            self.book.turn(STATES[code], why, epoch, keep=keep)

    def _turn_quietly(self, code: int) -> None:
        """An update says another state than was told before: the last of a state may know already
        what comes next. It is believed; who only reads the stream is told by what follows."""
        self.state_code = code
        if self.book is not None:
            self.book.turn(STATES[code], "", self.epoch, keep=_HAS_WHOLE[code])

    def _count_break(self, what: str) -> None:
        self._counters.chain_breaks += 1
        _log.warning(
            "%s %s: %s does not follow from version %s of epoch %s",
            self.name.symbol,
            self.name.channel,
            what,
            self.held,
            self.epoch,
        )

    def _break(self, what: str) -> None:
        if self.is_broken:
            return
        self._count_break(what)
        self.is_broken = True
        self._is_resting = False
        self.held = self.last = None
        if self.book is not None:
            self.book.turn(State.GAP, "chain_broken", self.epoch, keep=False)
        for queue in self.queues:
            queue.put(self._state_change("chain_broken", _GAP))
        self.need_image()


def _after(update: Trades, number: int) -> Trades:
    """What of these trades comes after a number."""
    head = update.head
    trades: tuple[Trade, ...] = update.trades
    # Those that are lost come first.
    told = max(0, number - head[P] - update.lost)
    rest = trades[told:]
    head = (*head[:P], number, *head[P + 1 : FIRST], len(rest), 0)
    return Trades(update.name, head, update.sent_ns, update.late, rest)


def _with_loss(update: Trades, held: int) -> Trades:
    """These trades, and that those between `held` and them are lost."""
    head = (*update.head[:P], held, *update.head[P + 1 :])
    return Trades(update.name, head, update.sent_ns, update.late, update.trades)
