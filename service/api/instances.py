"""Route: taking in a file as ``burnish import`` streams it; any length, in bounded memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.from_thread
import anyio.to_thread
from fastapi import Query, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from service.api import answers
from service.api.access import Ops

router = answers.router()
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


@router.post(
    "/instances", summary="Take in one instance: the body is a Part 10 file, or a bare data set", response_model=None
)
async def ingest(
    ops: Ops,
    request: Request,
    reconcile: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="Digest of a rule set")] = "",
) -> dict[str, Any] | Response:
    """``{"outcome": "stored" | "duplicate" | "conflict", "sop_instance_uid", "instance"}``; a refused file is a
    problem. ``reconcile`` names a rule set (``POST /reconciliations``) that corrects it first: ``changes`` tells how.
    """
    global _limiter  # noqa: PLW0603 - it belongs to the event loop, which is not there when we are imported
    if _limiter is None:
        _limiter = anyio.CapacityLimiter(_LIMITER_SIZE)
    chunks = request.stream()
    body = _Body(chunks)
    try:
        work = partial(ops.ingest_stream, io.BufferedReader(body, 1 << 20), reconcile=reconcile)
        return await anyio.to_thread.run_sync(work, limiter=_limiter)
    except ClientDisconnect:
        return Response(status_code=400)  # the sender is gone, and what it had sent is thrown away
    finally:
        # A refusal comes before the end of the body: read on, so that the client can read our answer.
        with contextlib.suppress(ClientDisconnect):
            async for _ in chunks:
                pass
