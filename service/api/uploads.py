"""Bodies of any length: a worker thread reads them as a stream, in bounded memory, while they come."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

Result = TypeVar("Result")
_LIMITER_SIZE = 32
"""Uploads that are worked on at the same time; others wait."""
_limiter: anyio.CapacityLimiter | None = None


class _Body(io.RawIOBase):
    """The body of a request as a stream that a worker thread reads; the event loop fetches as it is read."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._left = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and not self._ended:
            chunk = anyio.from_thread.run(self._next)
            if chunk is None:
                self._ended = True
            else:
                self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


async def taken(request: Request, work: Callable[[BinaryIO], Result]) -> Result | Response:
    """What ``work`` makes of the body; the empty answer 400 for a sender that is gone."""
    global _limiter  # noqa: PLW0603 - it belongs to the event loop, which is not there when we are imported
    if _limiter is None:
        _limiter = anyio.CapacityLimiter(_LIMITER_SIZE)
    chunks = request.stream()
    stream: Any = io.BufferedReader(_Body(chunks), 1 << 20)
    try:
        return await anyio.to_thread.run_sync(work, stream, limiter=_limiter)
    except ClientDisconnect:
        return Response(status_code=400)  # what it had sent is thrown away
    finally:
        # A refusal comes before the end of the body: read on, so that the client can read our answer.
        with contextlib.suppress(ClientDisconnect):
            async for _ in chunks:
                pass
