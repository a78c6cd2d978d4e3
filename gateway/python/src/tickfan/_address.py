"""The address of a gateway: as people write it → that of its stream. The client calls it. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

URL_DEFAULT = "ws://127.0.0.1:8080/v1/stream"
STREAM_PATH = "/v1/stream"


def stream_url(text: str) -> str:
    """An address as people write it → that of the stream."""
    if "://" not in text:
        text = f"ws://{text}"
    scheme = {"http": "ws", "https": "wss"}.get(urlsplit(text).scheme, urlsplit(text).scheme)
    parts = urlsplit(text)._replace(scheme=scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"{text!r} is no address of a gateway; write one like {URL_DEFAULT}")
    return parts._replace(path=STREAM_PATH if parts.path in ("", "/") else parts.path).geturl()
