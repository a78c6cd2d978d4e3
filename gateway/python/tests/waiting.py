"""Waiting for a condition where the client runs on the same event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tickfan.testing import PATIENCE_S


async def until(
    what: str, condition: Callable[[], object], patience_s: float = 2 * PATIENCE_S
) -> None:
    """Waits, without holding up the client."""
    until_s = time.monotonic() + patience_s
    while True:
        # Looked at before the condition: a machine that stood still has it looked at once more.
        is_over = time.monotonic() > until_s
        if condition():
            return
        assert not is_over, f"waited in vain until {what}"
        await asyncio.sleep(0.01)
