"""What the user wants, over any number of connections: subscriptions → views, and back to
subscriptions when the connection is made anew.

The client calls it on its thread. It owns the views; a session only knows which of them it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from . import _symbols
from ._book import Book
from ._control import Control, Error, Result, Subscribed
from ._queue import Queue
from ._session import Session
from ._updates import STATES, Channel, Depth, State, ViewName
from ._view import Counters, View
from .errors import Refused, UnknownSymbol

RECOVERED_TRADES_MAX = 1_000
"""So many of the newest trades can be had when the connection is back."""

_REQUEST_BYTES = 12_000
"""Of symbols in one request; the gateway takes 16 KiB in all."""

_CODES = {state.value: code for code, state in enumerate(STATES)}


class Interest:
    """One subscription of the user: a stream of updates, or a book."""

    def __init__(
        self,
        channel: Channel,
        symbols: Iterable[str],
        *,
        depth: Depth,
        budget_ms: int,
        last: int,
        queue: Queue | None,
        close: Callable[[Interest], None],
    ) -> None:
        self.channel: Channel = channel
        self.symbols = list(symbols)
        """As they are asked for: canonical, or patterns."""
        self.depth: Depth = depth
        self.budget_ms = budget_ms
        self.last = last
        self.queue = queue
        """Where updates go; None = into a book."""
        self.views: list[View] = []
        self.refused: dict[str, Refused] = {}
        self.is_closed = False
        self._close = close

    @property
    def book(self) -> Book | None:
        """The book that was asked for; None of a stream."""
        return self.views[0].book if self.views and self.queue is None else None

    def close(self) -> None:
        """The user has had enough."""
        if not self.is_closed:
            self.is_closed = True
            self._close(self)

    def end(self, error: BaseException | None) -> None:
        """Nothing will come any more."""
        self.is_closed = True
        if self.queue is not None:
            self.queue.end(error)
        elif self.book is not None:
            self.book.end(error)


class Registry:
    """See the top of this file."""

    def __init__(self, monotonic_wall_ns: Callable[[], int]) -> None:
        self.counters = Counters()
        self.interests: list[Interest] = []
        self.views: dict[ViewName, View] = {}
        self.session: Session | None = None
        self._wall_ns = monotonic_wall_ns
        self._refused: dict[Interest, list[str]] = {}
        """What was served before and is refused on this connection."""
        self._recovering: set[int] = set()
        """Views of trades that are subscribed to twice just now."""
        self._asking: dict[int, tuple[Channel, frozenset[str]]] = {}
        """Subscriptions whose answers are under way, by the number of their request."""
        self._unread: list[View] = []
        """Views without a reader, to which one of these may bring one."""

    def ask(self, interest: Interest, symbols: list[str], then: Callable[[], None]) -> None:
        """Subscribes to these symbols of an interest; calls back when all is answered."""
        session = self.session
        if session is None:
            return
        asked: list[int] = []
        for part in _parts(symbols):
            number = session.request(
                "subscribe",
                partial(self._on_answer, interest, session, part),
                **self._fields(interest, part, interest.last),
            )
            asked.append(number)
            self._asking[number] = (interest.channel, frozenset(part))

        def answered() -> None:
            for number in asked:
                self._asking.pop(number, None)
            self._leave()
            then()

        session.barrier(answered, *asked)

    def ask_again(self, interest: Interest) -> None:
        """Subscribes to an interest on a new connection."""
        self._ask_anew(interest, interest.symbols)

    def ask_refused(self) -> None:
        """Asks once more for what was served before and is refused: a gateway that has just begun
        may not know its instruments yet, or have no time."""
        refused, self._refused = self._refused, {}
        for interest, symbols in refused.items():
            self._ask_anew(interest, symbols)

    def rest(self) -> None:
        """Nothing is read of the connection for now."""
        for view in self.views.values():
            view.rest()

    def go_on(self) -> None:
        """It is read again, and what waited has been read."""
        for view in self.views.values():
            view.go_on()

    def lost(self, code: int, reason: str) -> None:
        """The connection is gone."""
        session, self.session = self.session, None
        self._refused.clear()
        self._recovering.clear()
        self._asking.clear()
        self._leave()
        if session is not None:
            # What still comes of it follows from nothing that is held.
            session.views.clear()
        at_ns = session.received_ns if session else 0
        for view in self.views.values():
            view.lose(code, reason, at_ns or self._wall_ns())

    def close(self, interest: Interest) -> None:
        """Ends an interest, and the views that nobody else wants."""
        book = interest.book
        self.interests = [
            other
            for other in self.interests
            if other is not interest and (book is None or other.book is not book)
        ]
        self._refused.pop(interest, None)
        for view in interest.views:
            if interest.queue is not None:
                view.leave(interest.queue)
            elif view.book is not None:
                view.book.turn(State.DISCONNECTED, "closed", view.epoch, keep=True)
                view.book.end(None)
                view.book = None
        interest.end(None)
        self._leave(*interest.views)

    def _leave(self, *views: View) -> None:
        """Lets go of what nobody reads any more. The gateway holds a view once, however often it is
        asked for: what somebody asked for meanwhile is left, if at all, after the answer."""
        unread = [view for view in {*self._unread, *views} if not view.is_read]
        self._unread, session = [], self.session
        served: list[int] = []
        for view in unread:
            if self._is_asked_for(view.name):
                self._unread.append(view)
                continue
            if self.views.get(view.name) is view:
                del self.views[view.name]
            if session is not None and session.views.get(view.number) is view:
                session.forget_view(view)
                served.append(view.number)
        if session is not None and served:
            session.request("unsubscribe", None, views=sorted(served))

    def _is_asked_for(self, name: ViewName) -> bool:
        # At any depth: which one is served, the answer says.
        names = {name.symbol, _symbols.pattern_of(name.symbol)}
        return any(
            channel == name.channel and not names.isdisjoint(symbols)
            for channel, symbols in self._asking.values()
        )

    def share_book(self, interest: Interest) -> None:
        """A book that is kept already is asked for again: one interest in it is enough."""
        for other in self.interests:
            if other is not interest and other.queue is None and other.book is interest.book:
                other.budget_ms = min(other.budget_ms, interest.budget_ms)
                self.interests.remove(interest)
                return

    def end(self, error: BaseException | None) -> None:
        """Nothing will come any more."""
        for interest in self.interests:
            interest.end(error)
        self.interests.clear()

    @staticmethod
    def _fields(interest: Interest, symbols: list[str], last: int) -> dict[str, object]:
        is_book, is_trades = interest.channel == "book", interest.channel == "trades"
        return {
            "channel": interest.channel,
            "symbols": symbols,
            "depth": interest.depth if is_book else None,
            "last": last if is_trades else None,
            "budget_ms": interest.budget_ms,
        }

    def _on_answer(
        self, interest: Interest, session: Session, asked: list[str], answer: Control
    ) -> None:
        for result in _served(interest, asked, answer):
            self._hold(interest, session, result, None)

    def _hold(
        self, interest: Interest, session: Session, result: Result, live_s: int | None
    ) -> None:
        """A symbol is served. Who asked may have had enough meanwhile."""
        interest.refused.pop(result.symbol, None)
        depth: Depth | None = None
        if interest.channel == "book":
            depth = result.depth if isinstance(result.depth, int) else "full"
        name = ViewName(result.symbol, interest.channel, depth)
        view = self.views.get(name)
        if view is None:
            view = self.views[name] = View(name, self.counters, self._ask_image)
        is_new_here = session.views.get(result.view) is not view
        is_for_book = interest.queue is None and not interest.is_closed
        if is_new_here:
            session.views[result.view] = view
            if is_for_book and view.book is None:
                view.book = Book(result.symbol, depth or interest.depth, interest.close)
            view.acknowledge(
                result.view,
                result.epoch,
                result.s,
                _CODES.get(result.state, 0),
                (result.price_scale, result.qty_scale),
                self._wall_ns(),
                live_s,
            )
        view.budget_ms = result.budget_ms
        self._keep_budget(session, view, interest)
        if interest.is_closed:
            self._leave(view)
            return
        if view in interest.views:
            return
        interest.views.append(view)
        if interest.queue is not None:
            view.join(interest.queue)
            if not is_new_here and interest.channel == "book":
                view.need_image()
        elif view.book is None:
            view.take_book(Book(result.symbol, depth or interest.depth, interest.close))

    def _keep_budget(self, session: Session, view: View, interest: Interest) -> None:
        """The shortest budget that anybody asked for holds for all."""
        others = [
            other for other in self.interests if other is not interest and view in other.views
        ]
        shortest = min((other.budget_ms for other in others), default=interest.budget_ms)
        if shortest < interest.budget_ms:

            def answered(answer: Control) -> None:
                session.forget(number)
                if isinstance(answer, Subscribed):
                    view.budget_ms = answer.results[0].budget_ms

            number = session.request("modify", answered, views=[view.number], budget_ms=shortest)

    def _ask_image(self, view: View) -> None:
        if self.session is not None:
            self.session.want_image(view)

    def _ask_anew(self, interest: Interest, symbols: list[str]) -> None:
        interest.refused.clear()
        if interest.channel == "trades" and interest.views:
            self._recover_trades(interest, symbols)
        else:
            self.ask(interest, symbols, lambda: self._keep_refused(interest))

    def _keep_refused(self, interest: Interest) -> None:
        """Everything is answered: what is not served is told so, and will be asked for again."""
        session = self.session
        if session is None or interest.is_closed:
            return
        missing = [view for view in interest.views if session.views.get(view.number) is not view]
        # A pattern is refused by its own name.
        of_all = next(iter(interest.refused.values()), None)
        for view in missing:
            refusal = interest.refused.get(view.name.symbol, of_all)
            view.refuse(refusal.code if refusal else "unknown_symbol")
        if missing:
            self._refused[interest] = [view.name.symbol for view in missing]

    def _reader_of(self, symbol: str) -> Interest | None:
        """Somebody who reads these trades."""
        view = self.views.get(ViewName(symbol, "trades", None))
        return next((one for one in self.interests if view in one.views), None)

    def _recover_trades(self, interest: Interest, symbols: list[str]) -> None:
        """Subscribes twice: the first answer says where the trades stand now, so that in a new
        epoch, whose numbers say nothing about those that were held, history is not told as news."""
        session = self.session
        if session is None:
            return
        stands: dict[str, Result] = {}
        asked: list[int] = []

        def on_standing(part: list[str], answer: Control) -> None:
            stands.update((one.symbol, one) for one in _served(interest, part, answer))

        def on_history(part: list[str], answer: Control) -> None:
            for result in _served(interest, part, answer):
                reader = self._reader_of(result.symbol) if interest.is_closed else None
                self._hold(reader or interest, session, result, stands[result.symbol].s)

        def stands_known() -> None:
            if not stands:
                self._keep_refused(interest)
                return
            # What others read already, or will in a moment, needs no second time.
            fresh = [
                result
                for result in stands.values()
                if result.view not in session.views
                and result.view not in self._recovering
                and not self._is_asked_for(ViewName(result.symbol, "trades", None))
            ]
            if interest.is_closed:
                # Who else reads them has asked as well.
                fresh = [one for one in fresh if self._reader_of(one.symbol) is None]
            if fresh:
                session.request("unsubscribe", None, views=[result.view for result in fresh])
            if interest.is_closed:
                return
            self._recovering.update(result.view for result in fresh)
            again: list[int] = []
            for part in _parts([result.symbol for result in fresh]):
                fields = self._fields(interest, part, RECOVERED_TRADES_MAX)
                again.append(session.request("subscribe", partial(on_history, part), **fields))
            session.barrier(lambda: joined(fresh), *again)

        def joined(fresh: list[Result]) -> None:
            self._recovering.difference_update(result.view for result in fresh)
            for result in stands.values():
                if result not in fresh and result.view in session.views and not interest.is_closed:
                    self._hold(interest, session, result, None)
            self._keep_refused(interest)

        for part in _parts(symbols):
            fields = self._fields(interest, part, 0)
            asked.append(session.request("subscribe", partial(on_standing, part), **fields))
        session.barrier(stands_known, *asked)


def _served(interest: Interest, asked: list[str], answer: Control) -> list[Result]:
    """What of an answer is served; what is refused is noted."""
    if isinstance(answer, Error):
        for symbol in asked:
            interest.refused[symbol] = Refused(answer.code, answer.message)
    if not isinstance(answer, Subscribed):
        return []
    for result in answer.results:
        if not result.ok:
            interest.refused[result.symbol] = (
                UnknownSymbol(result.message)
                if result.code == "unknown_symbol"
                else Refused(result.code, result.message)
            )
    return [result for result in answer.results if result.ok]


def _parts(symbols: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    size = 0
    for symbol in symbols:
        size += len(symbol.encode()) + 3
        if size > _REQUEST_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(symbol)
    return parts
