"""Pictures of frames for people's eyes: rendered by helper processes, which may crash on hostile data without harm.

A few helpers live for a while, since starting one takes longer than most frames do. They end with the service: their
standard input does. Lately rendered pictures are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from media.problems import InstanceRefused

HELPER = (sys.executable, "-m", "service.rendering")
MAX_SIZE = 2048
"""Pixels of a picture's longer side."""
_LIMIT_SECONDS = 30.0
_IDLE_SECONDS = 120.0
_CACHE_BYTES = 64 << 20
FRAME_LIMIT = 256 << 20
"""Bytes of a decoded frame that is shown or handed over; the largest real ones have 100 MB."""
_MEMORY = (1 << 30, 4 << 30)
"""Bytes that a helper process may have, at least and at most; in between, all of them half the machine's memory."""
_HEAD = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame as PNG."""

    png: bytes
    rows: int
    columns: int
    frame: int
    """From 1."""
    frames: int
    window: tuple[float, float] | None
    """Center and width that were used; None for colour."""
    spread: tuple[float, float] | None
    """Center and width over 99 % of the values; None for colour."""


class Renderer:
    """Renders frames, at most ``helpers`` at a time."""

    def __init__(self, *, helpers: int = 2, command: Sequence[str] = HELPER) -> None:
        self._command = (*command, str(_memory(helpers)))
        self._seats = threading.BoundedSemaphore(helpers)
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._kept: OrderedDict[tuple[Any, ...], Picture] = OrderedDict()
        self._kept_bytes = 0
        self._closed = False

    def picture(
        self, path: Path, *, frame: int | None = None, window: tuple[float, float] | None = None, size: int = 512
    ) -> Picture:
        """A frame (None: the representative one) with its longer side at most ``size`` pixels.

        ``window``: center and width instead of the instance's own. InstanceRefused where it cannot be shown, with the
        reason; OSError where the file cannot be read.
        """
        size = max(16, min(size, MAX_SIZE))
        key = (str(path), frame, window, size)
        path.stat()  # what has left the spool is not shown any more
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        answer, png = self._run({"path": str(path), "frame": frame, "window": window, "size": size})
        picture = Picture(
            png,
            answer["rows"],
            answer["columns"],
            answer["frame"],
            answer["frames"],
            _pair(answer["window"]),
            _pair(answer["spread"]),
        )
        self._keep(key, picture)
        return picture

    def samples(self, path: Path, frame: int) -> bytes:
        """A frame decoded: native samples, little endian. InstanceRefused where that cannot be, with the reason."""
        return self._run({"path": str(path), "samples": frame})[1]

    def _run(self, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._seats:
            helper = self._take()
            answer, content = helper.run(order)
            self._give_back(helper)
        if "refused" in answer:
            raise InstanceRefused("PROC_FAILURE", str(answer["refused"]))
        return answer, content

    def close(self) -> None:
        """End the helpers."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for helper in idle:
            helper.end()

    def _take(self) -> _Helper:
        old: list[_Helper] = []
        try:
            with self._lock:
                while self._idle:
                    helper = self._idle.pop()
                    if helper.alive and time.monotonic() - helper.used < _IDLE_SECONDS:
                        return helper
                    old.append(helper)
        finally:
            for one in old:
                one.end()
        return _Helper(self._command)

    def _give_back(self, helper: _Helper) -> None:
        with self._lock:
            if helper.alive and not self._closed:
                helper.used = time.monotonic()
                self._idle.append(helper)
                return
        helper.end()

    def _keep(self, key: tuple[Any, ...], picture: Picture) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._kept_bytes += len(picture.png)
            while self._kept_bytes > _CACHE_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= len(oldest.png)


def _memory(helpers: int) -> int:
    least, most = _MEMORY
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(least, min(most, machine // (2 * helpers)))


def _pair(value: list[float] | None) -> tuple[float, float] | None:
    return None if value is None else (value[0], value[1])


class _Helper:
    def __init__(self, command: Sequence[str]) -> None:
        self.alive = True
        self.used = time.monotonic()
        environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )

    def run(self, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """One picture; a helper that crashes or hangs is a refusal."""
        assert self._process.stdin is not None and self._process.stdout is not None
        deadline = time.monotonic() + _LIMIT_SECONDS
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            lengths = _HEAD.unpack(self._read(_HEAD.size, deadline))
            answer = json.loads(self._read(lengths[0], deadline))
            return answer, self._read(lengths[1], deadline)
        except _Lost as lost:
            self.alive = False
            return {"refused": str(lost)}, b""
        except OSError:
            self.alive = False
            return {"refused": "the helper process ended before it began"}, b""

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        found = bytearray()
        while len(found) < count:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._process.kill()
                raise _Lost(f"its decoder did not end within {_LIMIT_SECONDS:.0f} s")
            piece = os.read(self._process.stdout.fileno(), min(count - len(found), 1 << 20))
            if not piece:
                status = self._process.wait()
                why = signal.Signals(-status).name if status < 0 else f"exit status {status}"
                raise _Lost(f"its decoder crashed ({why})")
            found += piece
        return bytes(found)

    def end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Lost(Exception):
    """A helper has crashed or hangs."""


def render(
    path: Path, frame: int | None, window: tuple[float, float] | None, size: int
) -> tuple[dict[str, Any], bytes]:
    """What a helper does: the picture's facts and PNG. Raises MediaError, OSError."""
    import imagecodecs

    from media import picture
    from media.codestreams import FrameError
    from media.framesource import frame_at

    found = frame_at(path, frame, limit=FRAME_LIMIT)
    try:
        shown = picture.picture_of(found, size, window=window, enlarge=False)
        known = picture.windows(found)
    except FrameError as error:
        raise InstanceRefused("PROC_FAILURE", f"its pixel data cannot be shown: {error}") from None
    facts = {
        "rows": shown.shape[0],
        "columns": shown.shape[1],
        "frame": found.number,
        "frames": found.frames,
        "window": None if known is None else (window or known[0]),
        "spread": None if known is None else known[1],
    }
    return facts, bytes(imagecodecs.png_encode(shown, level=1))


def decoded(path: Path, frame: int) -> bytes:
    """A frame's samples. Raises MediaError, NoSuchFrame, OSError."""
    from media.framebytes import Frames

    with Frames(path) as frames:
        return frames.decoded(frame, limit=FRAME_LIMIT)


def _serve_orders(memory: int) -> None:
    """The helper's own main: one order a line in, one answer out, until the input ends.

    ``memory``: bytes that it may have; a frame that needs more is refused, whatever its codestream makes of itself.
    """
    import queue
    import resource

    from media.problems import MediaError

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not get among the answers
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            orders.put(line)
        os._exit(0)  # the service is gone or done with us, even in the middle of a frame

    threading.Thread(target=listen, daemon=True).start()
    while True:
        order = json.loads(orders.get())
        png = b""
        try:
            if "samples" in order:
                answer, png = dict[str, Any](), decoded(Path(order["path"]), order["samples"])
            else:
                window = _pair(order["window"])
                answer, png = render(Path(order["path"]), order["frame"], window, order["size"])
        except InstanceRefused as error:
            answer = {"refused": error.reason}
        except (MediaError, OSError) as error:
            answer = {"refused": str(error)}
        except MemoryError:
            answer = {"refused": f"it needs more memory than the {memory >> 20} MiB that one picture may have"}
        except Exception as error:  # noqa: BLE001 - hostile bytes: any decoder error refuses this picture only
            answer = {"refused": f"{type(error).__name__}: {error}"[:500]}
        head = json.dumps(answer).encode()
        answers.write(_HEAD.pack(len(head), len(png)) + head + png)
        answers.flush()


if __name__ == "__main__":
    _serve_orders(int(sys.argv[1]))
