"""The simulator's side channel -> the truth about its books, and faults on purpose; and the judge of
the book that a client holds.

Every check_*.py points one client that nobody here wrote, unmodified, at the simulator and shows the
judge the client's book after each change (`Judge.see`). The judge looks the truth up, cuts all
connections once, loses changes once, and ends the process: with 0 when the book was the true one
throughout, with 1 and the reason otherwise. It knows nothing of a venue's words. Standard library only.
"""
import argparse
import http.client
import json
import os
import queue
import sys
import threading
import time
import traceback
import urllib.parse
from decimal import Decimal

# States that must be seen and found true before anything goes wrong, and after each fault.
STATES = 30
# Changes that one gap loses.
GAP = 3
# A client of a book without numbers, checksums or the will to look at them is asked this often.
GAPS_MAX = 5
# How many states back the first that a client shows is looked for, where it names none.
STATES_BACK = 500
# What has not happened by then does not happen.
PATIENCE_S = 120
# States that wait for the judge; a client that is faster has only some of its states judged.
WAITING_MAX = 4


class Simulator:
    """What the simulator tells about itself at `http://HOST:PORT`."""

    def __init__(self, address):
        self._connection = http.client.HTTPConnection(address, timeout=30)

    def _ask(self, path, body=None, **query):
        """The answer; `None` when there is no such thing."""
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
        self._connection.request(method, f"{path}?{urllib.parse.urlencode(query)}", data)
        with self._connection.getresponse() as answer:
            said = answer.read()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {said}")
        return json.loads(said)

    def truth(self, symbol, number=None):
        """The true book as it is, or at the venue's number of it; where its books have none, at the
        simulator's count of their states. `None` when there was none, or it is not kept any more."""
        which = {} if number is None else {"id": number}
        return self._ask("/truth", symbol=symbol, **which)

    def gap(self, symbol):
        """The next changes of a book never come. Returns why that cannot be, where it cannot."""
        faults = self._ask("/faults", {"kind": "gap", "symbol": symbol, "count": GAP})["faults"]
        return faults[-1]["not_applicable"]

    def cut(self):
        """All connections end without a word."""
        self._ask("/faults", {"kind": "cut-all"})

    def happened(self, kind):
        """How often a fault has happened."""
        faults = self._ask("/faults")["faults"]
        return sum(fault["happened"] for fault in faults if fault["kind"] == kind)


class HeldBook:
    """A book by the rule that every venue shares: a level is set, or gone when its quantity is zero.
    For clients that hand out messages and hold no book."""

    def __init__(self):
        self.bids, self.asks = {}, {}

    def clear(self):
        self.bids.clear()
        self.asks.clear()

    def set(self, side, levels):
        """Sets levels (price, quantity, …) of one of its sides."""
        for price, quantity, *_ in levels:
            price, quantity = Decimal(price), Decimal(quantity)
            if quantity:
                side[price] = quantity
            else:
                side.pop(price, None)

    def sides(self):
        """The bids and the asks, best first."""
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())


class Failure(Exception):
    """The client did not hold the truth."""


class FalseBook(Failure):
    """The client shows a book that never was, or never after the last one."""


class Judge:
    """Holds the books that a client shows against the truth.

    `blind_to_gaps` says why the client does not notice that changes were lost, where that is its own
    fault or its venue's. It must then show a false book after a gap, and nothing else.
    """

    def __init__(self, client, depth, blind_to_gaps=None):
        arguments = argparse.ArgumentParser(description=client)
        arguments.add_argument("dialect", help="what the simulator speaks")
        arguments.add_argument("plain", help="HOST:PORT of ws:// and http://")
        arguments.add_argument("tls", help="HOST:PORT of wss:// and https://")
        arguments.add_argument("symbol", help="as the venue spells it")
        arguments = arguments.parse_args()
        self.dialect, self.plain, self.tls = arguments.dialect, arguments.plain, arguments.tls
        self.symbol = arguments.symbol
        self.client, self.depth, self.blind_to_gaps = client, depth, blind_to_gaps
        self.simulator = Simulator(self.plain)
        self._shown = queue.Queue(WAITING_MAX)
        # True states by their number, none older than that.
        self._truths = {}
        # What ended the client, or broke it.
        self._end = None
        # The number of the last state that a shown book was found to be.
        self._number = 0
        self.judged = 0
        self.notes = []

    def see(self, bids, asks, number=None):
        """The client's book has changed: levels (price, quantity, …) best first, and the number under
        which the client holds it, where it has one. Called from one thread; the levels are copied."""
        if self._shown.full():
            return
        sides = [
            [(Decimal(str(price)), Decimal(str(quantity))) for price, quantity, *_ in side[: self.depth]]
            for side in (list(bids), list(asks))
        ]
        self._shown.put_nowait((number, sides))

    def note(self, what):
        """The client said something that is worth a line."""
        self.notes.append(str(what))
        if os.environ.get("VERBOSE"):
            print(f"{self.client}: {what}", file=sys.stderr)

    def broken(self, why):
        """The client is broken for good, as its gaps may break it (`blind_to_gaps`)."""
        self._end = FalseBook(why)

    def run(self, client):
        """Runs the client (a function) in a thread of its own and judges what it shows. Never
        returns."""

        def guarded():
            try:
                client()
                raise Failure("the client ended")
            except BaseException as error:  # noqa: BLE001 - whatever ended it is the verdict
                if not isinstance(error, Failure):
                    traceback.print_exc()
                self._end = error

        threading.Thread(target=guarded, daemon=True).start()
        code = 1
        try:
            print(f"passed: {self._conduct()}")
            code = 0
        except Failure as failure:
            print(f"failed: {failure}")
            for note in self.notes[-5:]:
                print(f"  the client said: {note[:300]}")
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        # Clients leave threads and loops behind, which nobody here can end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _conduct(self):
        self._true_states("at first")
        fresh = self.judged

        self.simulator.cut()
        self._await("cut-all", 1, "nothing was cut: the client has no connection")
        self._newer("after the cut")
        self._true_states("after the cut")

        if self.blind_to_gaps:
            return f"{self.judged} states; as expected, {self._false_after_a_gap()}"
        if why_not := self._lose():
            return f"{self.judged} states were true, {fresh} of them before the cut; no gap: {why_not}"
        self._newer("after the gap")
        self._true_states("after the gap")
        return f"{self.judged} states were true, {fresh} of them before the cut and the gap"

    def _lose(self):
        """Lets changes of the book be lost; returns why none can be, where that is so."""
        lost = self.simulator.happened("gap") + GAP
        if why_not := self.simulator.gap(self.symbol):
            return why_not
        self._await("gap", lost, "nothing was lost: the client has no connection")
        return None

    def _await(self, kind, times, or_else):
        """Waits until a fault has happened so often."""
        deadline = time.monotonic() + PATIENCE_S
        while self.simulator.happened(kind) < times:
            if time.monotonic() > deadline:
                raise Failure(or_else)
            self._drain()

    def _drain(self):
        """Judges what was shown until now, or is within a moment."""
        shown = self._next(0.05)
        while shown:
            self._judge(*shown)
            shown = self._next(0)

    def _newer(self, when):
        """Waits until a state is shown that is newer than the truth is now."""
        now = self._newest()
        deadline = time.monotonic() + PATIENCE_S
        while self._number <= now:
            shown = self._next(max(deadline - time.monotonic(), 0))
            if shown is None:
                raise Failure(f"{when} nothing newer came within {PATIENCE_S} s")
            self._judge(*shown)

    def _true_states(self, when):
        enough = self.judged + STATES
        deadline = time.monotonic() + PATIENCE_S
        while self.judged < enough:
            shown = self._next(max(deadline - time.monotonic(), 0))
            if shown is None:
                missing = enough - self.judged
                raise Failure(f"{when} {missing} of {STATES} states did not come within {PATIENCE_S} s")
            self._judge(*shown)

    def _false_after_a_gap(self):
        for attempt in range(1, GAPS_MAX + 1):
            try:
                self._lose()
                self._newer("after the gap")
            except FalseBook as false:
                return f"the book is false after gap {attempt} ({false}): {self.blind_to_gaps}"
        raise Failure(f"it held the truth after {GAPS_MAX} gaps, but: {self.blind_to_gaps}")

    def _next(self, wait_s):
        deadline = time.monotonic() + wait_s
        while True:
            try:
                # Not for long: the client may end without a word to this queue.
                return self._shown.get(timeout=max(min(deadline - time.monotonic(), 0.2), 0.001))
            except queue.Empty:
                if isinstance(self._end, Failure):
                    raise self._end
                if self._end:
                    raise Failure(f"the client ended: {self._end!r}") from self._end
                if time.monotonic() >= deadline:
                    return None

    def _newest(self):
        """The number of the newest true state."""
        return self.simulator.truth(self.symbol)["u"]

    def _truth(self, number):
        """The sides of the true book at a number, as `see` takes them down."""
        if number not in self._truths:
            truth = self.simulator.truth(self.symbol, number)
            self._truths[number] = truth and [
                [(Decimal(px), Decimal(qty)) for px, qty in truth[side][: self.depth]]
                for side in ("bids", "asks")
            ]
        return self._truths[number]

    def _judge(self, number, sides):
        if number is None:
            self._number = self._number_of(sides)
        else:
            truth = self._truth(number)
            if truth is None:
                raise FalseBook(f"the book was never at {number}")
            difference = self._difference(truth, sides)
            if difference:
                raise FalseBook(f"at {number} {difference}")
            if number < self._number:
                raise FalseBook(f"{number} is older than what was shown before")
            self._number = number
        self._truths = {known: truth for known, truth in self._truths.items() if known >= self._number}
        self.judged += 1

    def _number_of(self, sides):
        """Which state a book is that the client holds under no number: one not older than the last.
        At every venue of such a client states are counted by one."""
        now = self._newest()
        first = self._number or max(now - STATES_BACK, 0)
        numbers = range(first, now + 1)
        nearest = None
        # The first that is shown may be found anywhere, the others soon after the last.
        for number in numbers if self._number else reversed(numbers):
            truth = self._truth(number)
            if truth is None:
                continue
            difference = self._difference(truth, sides)
            if not difference:
                return number
            nearest = difference
        raise FalseBook(f"it is none of the states {first} to {now}; of the last, {nearest}")

    def _difference(self, truth, sides):
        for name, shown, true in zip(("bids", "asks"), sides, truth):
            if shown != true:
                wrong = sorted({price for price, _ in set(shown) ^ set(true)})
                return f"the {name} differ at {len(wrong)} prices, first {wrong[0]}"
        return None
