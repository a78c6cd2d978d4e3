"""A queue of updates → an asyncio loop over them.

The client makes one for each subscription; users iterate it on the client's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from ._queue import Queue
from ._registry import Interest
from ._updates import Event


class Subscription:
    """A stream of updates. Iterate it; leaving the loop unsubscribes."""

    def __init__(
        self, begin: Callable[[Interest], Awaitable[None]], interest: Interest, queue: Queue
    ) -> None:
        self._begin, self._interest, self.queue = begin, interest, queue

    @property
    def symbols(self) -> tuple[str, ...]:
        """The canonical symbols, once it has begun."""
        return tuple(view.name.symbol for view in self._interest.views)

    async def open(self) -> None:
        """Subscribes already before it is iterated; raises when a symbol is refused."""
        if not self._interest.views and not self._interest.is_closed:
            await self._begin(self._interest)

    def close(self) -> None:
        """Unsubscribes; a loop over it ends."""
        self._interest.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        queue = self.queue
        items = queue.items
        try:
            await self.open()
            while True:
                while items:
                    yield items.popleft()
                    if queue.is_blocking:
                        queue.taken()
                if queue.is_ended:
                    break
                await self._more()
        finally:
            self.close()
        if queue.error is not None:
            raise queue.error

    async def batches(self) -> AsyncIterator[list[Event]]:
        """All that waits, at once: less to do for each update."""
        queue = self.queue
        try:
            await self.open()
            while True:
                if queue.items:
                    yield queue.take_all()
                elif queue.is_ended:
                    break
                else:
                    await self._more()
        finally:
            self.close()
        if queue.error is not None:
            raise queue.error

    async def _more(self) -> None:
        queue = self.queue
        came = asyncio.get_running_loop().create_future()

        def wake() -> None:
            queue.wake = None
            if not came.done():
                came.set_result(None)

        queue.wake = wake
        await came
