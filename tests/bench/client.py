"""A request over a connection of its own; many may run at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

_MOST_SECONDS = 300.0


@dataclass(frozen=True)
class Answer:
    status: int
    seconds: float  # from the request to the end of the response
    ended: float  # on the clock of time.perf_counter
    content: bytes  # as received, head and framing included


async def ask(port: int, body: bytes, *, path: str = "/v1/chat/completions") -> Answer:
    """Send the request. Raises OSError if the connection breaks, and TimeoutError after five minutes."""
    began = time.perf_counter()
    async with asyncio.timeout(_MOST_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            content = await reader.read()
        finally:
            writer.close()
    ended = time.perf_counter()
    return Answer(int(content[9:12] or 0), ended - began, ended, content)
