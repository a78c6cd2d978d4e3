"""The chain of a view, without a gateway: what cannot be true is never handed on, and what may be
true is.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oracle import text
from tickfan import Bbo, Event, Hole, Image, State, StateChange, Trades
from tickfan._book import Book
from tickfan._queue import Queue
from tickfan._session import Session
from tickfan._updates import STATES, Channel, ViewName
from tickfan._view import Counters, View
from tickfan.errors import ProtocolError

IMAGE = (
    '{"t":"image","v":3,"e":17,"s":1040,"state":"live",'
    '"b":[["100","1"],["99.5","2"]],"a":[["101","1"],["102","0.5"]]}'
)
WHOLE = "100:1,99.5:2|101:1,102:0.5"
LIVE = STATES.index(State.LIVE)


class Scene:
    """A session with one view of each channel, a book and a reader."""

    def __init__(self, limit: int = 1_000) -> None:
        self.counters = Counters()
        self.session = Session(lambda: 0, lambda: 7)
        self.queue = Queue(limit, "conflate")
        self.views: dict[Channel, View] = {}
        channels: list[tuple[int, Channel]] = [(3, "book"), (4, "bbo"), (5, "trades")]
        for number, channel in channels:
            name = ViewName("sim:A", channel, 2 if channel == "book" else None)
            view = View(name, self.counters, self.session.want_image)
            self.views[channel] = view
            self.connect(number, view, 17, 100)
            if channel != "book":
                view.join(self.queue)
        self.book = Book("sim:A", 2, lambda: None)
        self.views["book"].book = self.book
        self.views["book"].join(self.queue)

    def connect(
        self, number: int, view: View, epoch: int, s: int, live_s: int | None = None
    ) -> None:
        self.session.views[number] = view
        view.acknowledge(number, epoch, s, LIVE, (2, 8), 9, live_s)

    def tell(self, *updates: str) -> Scene:
        for update in updates:
            n = self.session.frames + 1
            self.session.receive(f'{{"n":{n},"ts":1,"u":[{update}]}}')
        return self

    def got(self) -> list[Event]:
        return self.queue.take_all()

    def held(self) -> str:
        return text(self.book.bids, self.book.asks)


def delta(p: int, s: int, bids: str, asks: str = "") -> str:
    return f'{{"t":"delta","v":3,"s":{s},"p":{p},"b":[{bids}],"a":[{asks}]}}'


def state(e: int, name: str, v: int = 3) -> str:
    return f'{{"t":"state","v":{v},"e":{e},"state":"{name}","why":"w","since":1}}'


def image(e: int, s: int, bids: str, asks: str) -> str:
    return f'{{"t":"image","v":3,"e":{e},"s":{s},"state":"live","b":[{bids}],"a":[{asks}]}}'


def trades(p: int, s: int, v: int = 5) -> str:
    rows = ",".join(f'[1,"1{n}","1","buy","{n}"]' for n in range(p + 1, s + 1))
    return f'{{"t":"trades","v":{v},"s":{s},"p":{p},"x":[{rows}]}}'


def test_a_chain_is_followed() -> None:
    scene = Scene().tell(
        IMAGE,
        delta(1040, 1047, '["100","0"],["99","3"]', '["101","7"]'),
        delta(1047, 1048, '["99.75","1"],["99","0"]'),
    )
    assert scene.held() == "99.75:1,99.5:2|101:7,102:0.5"
    assert [update.kind for update in scene.got()] == ["image", "delta", "delta"]
    assert (scene.book.seq, scene.book.state) == (1048, State.LIVE)
    assert scene.counters.chain_breaks == 0


def test_finer_prices_are_kept_exactly() -> None:
    scene = Scene().tell(IMAGE, delta(1040, 1041, '["100.12345","0.123456789"]'))
    assert scene.held() == "100.12345:0.123456789,100:1,99.5:2|101:1,102:0.5"
    assert scene.book.mid_decimal is not None
    assert f"{scene.book.mid_decimal:f}" == "100.561725"


LEVEL = '["100","2"]'
BROKEN: list[tuple[str, Callable[[Scene], Scene]]] = [
    ("nothing is held", lambda scene: scene.tell(delta(1, 2, LEVEL))),
    ("a change was lost", lambda scene: scene.tell(IMAGE, delta(1041, 1042, LEVEL))),
    ("a change comes twice", lambda scene: scene.tell(IMAGE, delta(1040, 1040, LEVEL))),
    ("an older image", lambda scene: scene.tell(IMAGE, image(17, 1039, "", ""))),
    ("an older epoch", lambda scene: scene.tell(IMAGE, image(16, 1050, "", ""))),
    ("an older state", lambda scene: scene.tell(IMAGE, state(16, "gap"))),
    ("prices in a gap", lambda scene: scene.tell(IMAGE, state(17, "gap"), delta(1040, 1, LEVEL))),
    (
        "live again without an image",
        lambda scene: scene.tell(
            IMAGE, state(17, "gap"), state(17, "live"), delta(1040, 1041, LEVEL)
        ),
    ),
    (
        "an unheld level is removed",
        lambda scene: scene.tell(IMAGE, delta(1040, 1041, '["98","0"]')),
    ),
    ("a whole book unsorted", lambda scene: scene.tell(image(17, 9, '["9","1"],["10","1"]', ""))),
    ("a whole book with nothing", lambda scene: scene.tell(image(17, 9, '["9","0"]', ""))),
]


@pytest.mark.parametrize(("what", "tell"), BROKEN, ids=[what for what, _ in BROKEN])
def test_what_cannot_be_true_is_a_gap_until_an_image(
    what: str, tell: Callable[[Scene], Scene]
) -> None:
    scene = tell(Scene())
    assert scene.counters.chain_breaks == 1, what
    assert scene.held() == "|"
    assert scene.book.state is State.GAP
    assert scene.book.seq is None
    last = scene.got()[-1]
    assert isinstance(last, StateChange)
    assert (last.state, last.why) == (State.GAP, "chain_broken")
    # What follows from nothing is kept from the reader, and the mending image is not.
    scene.tell(delta(1041, 1042, LEVEL))
    assert scene.got() == []
    scene.tell(IMAGE.replace("1040", "1050").replace('"e":17', '"e":18'))
    assert [type(update) for update in scene.got()] == [Image]
    assert (scene.held(), scene.book.state) == (WHOLE, State.LIVE)


def test_an_image_is_asked_for_when_a_chain_is_broken() -> None:
    scene = Scene().tell(IMAGE, delta(1041, 1042, LEVEL))
    assert [request for request in scene.session.outbox if '"image"' in request]
    assert '"views":[3]' in scene.session.outbox[-1]
    # Not a second time before the gateway would grant it.
    asked = len(scene.session.outbox)
    scene.tell(delta(1, 2, LEVEL), delta(2, 3, LEVEL))
    scene.session.ask_missing_images()
    assert len(scene.session.outbox) == asked


def test_a_state_is_told_before_what_follows_and_hides_what_is_wrong() -> None:
    scene = Scene().tell(IMAGE, state(17, "stale"))
    assert (scene.book.state, scene.held()) == (State.STALE, WHOLE)
    scene.tell(state(17, "live"), delta(1040, 1041, LEVEL))
    assert scene.book.is_live
    scene.tell(state(17, "gap"))
    assert (scene.book.state, scene.held()) == (State.GAP, "|")
    # Said to be live, it is still waiting for its image.
    scene.tell(state(18, "live"))
    assert scene.book.state is State.SYNCING
    scene.tell(image(18, 3, '["7","1"]', '["8","1"]'))
    assert (scene.book.state, scene.held()) == (State.LIVE, "7:1|8:1")
    assert scene.counters.chain_breaks == 0


def test_a_frame_that_is_missing_ends_the_connection() -> None:
    scene = Scene().tell(IMAGE)
    with pytest.raises(ProtocolError, match="frame 3 came where 2 was due"):
        scene.session.receive('{"n":3,"ts":1,"u":[]}')


def test_a_best_price_that_goes_back_is_not_shown() -> None:
    def bbo(s: int) -> str:
        return f'{{"t":"bbo","v":4,"s":{s},"b":["1","1"],"a":null}}'

    scene = Scene().tell(bbo(5), bbo(4))
    assert [type(update) for update in scene.got()] == [Bbo, StateChange]
    scene.tell(bbo(6))
    assert [update.seq for update in scene.got() if isinstance(update, Bbo)] == [6]


def test_trades_that_are_missing_are_said_to_be_lost() -> None:
    scene = Scene().tell(trades(100, 102), trades(105, 106))
    first, second = scene.got()
    assert isinstance(first, Trades)
    assert isinstance(second, Trades)
    assert (first.lost, second.lost, second.prev_seq) == (0, 3, 102)
    assert scene.counters.chain_breaks == 1
    # Told again is told once.
    scene.tell(trades(104, 107), trades(104, 107))
    (third,) = scene.got()
    assert isinstance(third, Trades)
    assert [trade.id for trade in third.trades] == ["107"]


def back(scene: Scene, epoch: int, s: int, live_s: int) -> list[Event]:
    """The connection is lost, and made again."""
    view = scene.views["trades"]
    view.lose(1006, "lost", 8)
    scene.connect(5, view, epoch, s, live_s)
    return scene.got()


def test_after_a_reconnect_trades_go_on_where_they_were() -> None:
    scene = Scene().tell(trades(100, 103))
    scene.got()
    lost, hole, change = back(scene, 17, 101, 108)
    assert isinstance(lost, StateChange)
    assert lost.state is State.DISCONNECTED
    assert isinstance(hole, Hole)
    assert (hole.seq_before, hole.missed, hole.began_ns, hole.ended_ns) == (103, 0, 8, 9)
    assert isinstance(change, StateChange)
    assert change.state is State.LIVE
    scene.tell(trades(101, 108))
    (recovered,) = scene.got()
    assert isinstance(recovered, Trades)
    assert [trade.id for trade in recovered.trades] == ["104", "105", "106", "107", "108"]
    assert (recovered.prev_seq, recovered.lost) == (103, 0)


def test_after_a_longer_hole_it_is_said_how_many_trades_are_gone() -> None:
    scene = Scene().tell(trades(100, 103))
    scene.got()
    _, hole, _ = back(scene, 17, 110, 120)
    assert isinstance(hole, Hole)
    assert (hole.seq_before, hole.seq, hole.missed) == (103, 110, 7)
    scene.tell(trades(110, 120))
    (recovered,) = scene.got()
    assert isinstance(recovered, Trades)
    assert len(recovered.trades) == 10


@pytest.mark.parametrize(("epoch", "live_s"), [(18, 6), (17, 6)])
def test_in_a_new_history_old_trades_are_no_news(epoch: int, live_s: int) -> None:
    scene = Scene().tell(trades(100, 103))
    scene.got()
    # The second: as if a gateway began twice within the second that an epoch is.
    _, hole, _ = back(scene, epoch, 2, live_s)
    assert isinstance(hole, Hole)
    assert hole.missed is None
    scene.tell(trades(2, 6), trades(6, 8))
    (new,) = scene.got()
    assert isinstance(new, Trades)
    assert [trade.id for trade in new.trades] == ["7", "8"]


def test_a_full_queue_keeps_holes_states_and_the_newest() -> None:
    scene = Scene(limit=60)
    scene.tell(IMAGE)
    scene.got()
    scene.views["bbo"].lose(1006, "lost", 1)
    scene.connect(4, scene.views["bbo"], 17, 100)
    for n in range(1, 100):
        scene.tell(
            f'{{"t":"bbo","v":4,"s":{200 + n},"b":["{n}","1"],"a":null}}',
            delta(1039 + n, 1040 + n, f'["100","{n + 1}"]'),
            trades(99 + n, 100 + n),
        )
        assert len(scene.queue.items) < 60
    got = scene.got()
    holes = [update for update in got if isinstance(update, Hole)]
    assert len(holes) == 1
    assert got.index(holes[0]) < min(got.index(one) for one in got if isinstance(one, Bbo))
    prices = [update.seq for update in got if isinstance(update, Bbo)]
    assert prices == sorted(prices)
    assert prices[-1] == 299
    # Every trade is told or counted, in order.
    held = 100
    for update in got:
        if isinstance(update, Trades):
            assert update.prev_seq == held
            held = update.seq
    assert held == 199
    lost = sum(update.lost for update in got if isinstance(update, Trades))
    assert lost == scene.queue.lost_trades > 0
    assert scene.queue.conflated > 100
    # Of the book, nothing more before the image that was asked for.
    assert not [update for update in got if update.kind == "delta"]
    assert '"op":"image"' in scene.session.outbox[-1]
    scene.tell(IMAGE.replace("1040", "1139"), delta(1139, 1140, LEVEL))
    assert [update.kind for update in scene.got()] == ["image", "delta"]
