"""What may be asked of a client and of a subscription, by name: the types of `**options`.

`AsyncClient` says in its signatures what each defaults to; whatever hands options on to it names
these.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from ._queue import OnFull
from ._transport import Library
from ._updates import Depth

Encoding = Literal["binary", "json"]


class ClientOptions(TypedDict, total=False):
    """Of `AsyncClient` and `Client`."""

    token: str | None
    encoding: Encoding
    queue_max: int
    on_full: OnFull
    reconnect: bool
    heartbeat_ms: int
    stats_every_ms: int
    library: Library


class StreamOptions(TypedDict, total=False):
    """Of `subscribe`, `on` and `record`."""

    depth: Depth
    budget_ms: int
    last: int
    queue_max: int | None
    on_full: OnFull | None
