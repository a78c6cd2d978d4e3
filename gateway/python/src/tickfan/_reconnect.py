"""How a connection ended → when to make it anew. Pure but for the dice.

Who comes back at once with ten thousand others finds nobody at home: waits are drawn from the whole
of a span that doubles (full jitter), unless the gateway names one.
"""

from __future__ import annotations

import random
import re

FIRST_S = 0.5
MOST_S = 30.0
LASTED_S = 10.0
"""Who was served for so long begins with a short wait again. To be greeted is not enough: what ends
every connection at once would be asked for new ones without an end."""

_FOR_GOOD = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 4001, 4003, 4005})
"""Done; or it would end the same way again."""
_AT_ONCE = frozenset({4201, 4202})
_TOLD_WHEN = frozenset({4101, 4102})
_GOING_AWAY = frozenset({1001, 1012})


def wait_s(
    code: int, reason: str, retry_after_ms: int, attempt: int, rng: random.Random
) -> float | None:
    """Seconds to wait before attempt number `attempt` (from 0); None = do not come back."""
    if code in _FOR_GOOD:
        return None
    backed_off = rng.uniform(0, min(MOST_S, FIRST_S * 2 ** min(attempt, 16)))
    if code in _GOING_AWAY and retry_after_ms > 0:
        return retry_after_ms / 1_000
    if code in _TOLD_WHEN and (told := re.search(r"(\d+)\s*$", reason)):
        return int(told[1]) / 1_000
    return 0.0 if code in _AT_ONCE and attempt == 0 else backed_off
