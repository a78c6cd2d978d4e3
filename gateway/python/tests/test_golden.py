"""The golden frames, which the Rust tests have too: both encodings say the same to a Python user,
and what is no frame is an error and nothing worse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from oracle import plain
from tickfan import Level
from tickfan._binary import frame_head, records
from tickfan._json import frame, updates
from tickfan._updates import (
    Bbo,
    Delta,
    GatewayStats,
    Image,
    StateChange,
    Trades,
    Update,
    ViewName,
)
from tickfan.errors import ProtocolError

FRAMES = Path(__file__).parents[2] / "core/tests/golden/frames.txt"


class Taker:
    """Takes the updates of a view, and keeps them."""

    def __init__(self, symbol: str) -> None:
        self.name = ViewName(symbol, "book", 20)
        self.taken: list[Any] = []
        self.epoch, self.state_code = 17, 1
        self.price_scale, self.qty_scale = 2, 8

    def image(self, update: Image) -> None:
        self.taken.append(update)

    delta = bbo = trades = turn = image


class Takers(Mapping[int, Taker]):
    """Every view that is named; all of them write into one list."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def __getitem__(self, number: int) -> Taker:
        taker = Taker(str(number))
        taker.taken = self.taken
        return taker

    def get(self, number: int, default: Any = None) -> Taker:
        return self[number]

    def __iter__(self) -> Iterator[int]:
        raise NotImplementedError

    def __len__(self) -> int:
        return 1


def blocks() -> list[tuple[str, str, bytes]]:
    """Name, JSON and bytes of each frame."""
    found = []
    for block in FRAMES.read_text().rstrip().split("\n\n"):
        name, text, *rest = block.splitlines()
        data = bytes.fromhex("".join(line.removeprefix("bin ") for line in rest))
        found.append((name.removeprefix("frame "), text.removeprefix("json "), data))
    return found


GOLDEN = blocks()


def read_binary(data: bytes) -> tuple[int, int, list[int], list[Any]]:
    takers = Takers()
    head = frame_head(data)
    records(data, head, takers, takers.taken.append)  # type: ignore[arg-type]
    return head[0], head[1], [i for i in range(64) if head[2] >> i & 1], takers.taken


def read_json(text: str) -> tuple[int, int, list[int], list[Any]]:
    takers = Takers()
    n, ts_ns, known, late = frame(text)
    updates(ts_ns, known, late, takers, takers.taken.append)  # type: ignore[arg-type]
    return n, ts_ns, late, takers.taken


def level(one: Level | None) -> list[str] | None:
    return None if one is None else [plain(one.price_decimal), plain(one.qty_decimal)]


def as_the_json_says(update: Update | GatewayStats) -> dict[str, Any]:
    """What a user reads of an update, in the words of its JSON."""
    if isinstance(update, GatewayStats):
        names = GatewayStats.__struct_fields__
        return {"t": "stats", **{name: getattr(update, name) for name in names}}
    said: dict[str, Any] = {"t": update.kind, "v": int(update.symbol)}
    times = {"te": update.exchange_ns, "tr": update.received_ns, "to": update.oldest_ns}
    if isinstance(update, StateChange):
        since = update.since_ns // 1_000
        return {
            **said,
            **{"e": update.epoch, "state": update.state.value, "why": update.why, "since": since},
        }
    said |= {key: time // 1_000 for key, time in times.items() if time}
    said["s"] = update.seq
    if update.venue_seq is not None:
        said["q"] = update.venue_seq
    if isinstance(update, Image):
        said |= {"e": update.epoch, "state": update.state.value}
        if update.trusted:
            said["trusted"] = list(update.trusted)
    if isinstance(update, Image | Delta):
        said |= {"b": [level(one) for one in update.bids], "a": [level(one) for one in update.asks]}
    if isinstance(update, Bbo):
        said |= {"b": level(update.bid), "a": level(update.ask)}
    if isinstance(update, Delta | Trades):
        said["p"] = update.prev_seq
    if isinstance(update, Trades):
        said["x"] = [
            [
                *(trade.exchange_ns // 1_000, plain(trade.price_decimal)),
                *(plain(trade.qty_decimal), trade.side, trade.id),
            ]
            for trade in update.trades
        ]
        if update.lost:
            said["lost"] = update.lost
    return said


@pytest.mark.parametrize(("name", "text", "data"), GOLDEN, ids=[name for name, *_ in GOLDEN])
def test_both_encodings_say_the_same(name: str, text: str, data: bytes) -> None:
    golden = json.loads(text)
    n, ts_ns, late, read = read_json(text)
    assert (n, ts_ns // 1_000, late) == (golden["n"], golden["ts"], golden.get("late", []))
    assert [as_the_json_says(update) for update in read] == golden["u"], name

    for update in golden["u"]:
        for trade in update.get("x", []):
            # The binary encoding has only ids that are numbers.
            trade[4] = trade[4] if trade[4].isdigit() else None
    n, ts_ns, late, read = read_binary(data)
    assert (n, ts_ns // 1_000, late) == (golden["n"], golden["ts"], golden.get("late", []))
    assert [as_the_json_says(update) for update in read] == golden["u"], name
    # Every record of a channel says its state and epoch, also where the JSON does not.
    assert all(
        update.late == (index in late)
        for index, update in enumerate(read)
        if isinstance(update, Update)
    )


def test_there_are_golden_frames_of_every_kind() -> None:
    kinds = {update["t"] for _, text, _ in GOLDEN for update in json.loads(text)["u"]}
    assert kinds == {"image", "delta", "bbo", "trades", "state", "stats"}


def test_a_frame_that_is_cut_is_an_error() -> None:
    for _, text, data in GOLDEN:
        for length in range(len(data)):
            with pytest.raises(ProtocolError):
                read_binary(data[:length])
        for length in range(len(text)):
            with pytest.raises(ProtocolError):
                read_json(text[:length])


def test_a_changed_byte_is_an_error_or_another_frame() -> None:
    for _, _, data in GOLDEN:
        # The frame of 64 updates repeats itself.
        for at in range(min(len(data), 600)):
            for flip in (0x01, 0x08, 0x80, 0xFF):
                changed = bytearray(data)
                changed[at] ^= flip
                try:
                    *_, read = read_binary(bytes(changed))
                    for update in read:
                        as_the_json_says(update)
                except ProtocolError:
                    continue


def test_what_is_of_the_future_is_passed_over() -> None:
    text = (
        '{"n":1,"ts":5,"new":1,"u":[{"t":"weather","v":3,"b":"rain"},'
        '{"t":"bbo","v":3,"s":4,"b":null,"a":["1.5","2"],"new":[]}],"late":[1]}'
    )
    _, _, _, read = read_json(text)
    assert [(update.seq, update.late, level(update.ask)) for update in read] == [
        (4, True, ["1.5", "2"])
    ]
    for name, text, data in GOLDEN:
        if json.loads(text)["u"] and json.loads(text)["u"][0]["t"] == "delta":
            strange = bytearray(data)
            strange[32 + 4] = 77
            *_, read = read_binary(bytes(strange))
            assert len(read) == len(json.loads(text)["u"]) - 1, name
