"""What a helper process may use for one instance: a file that makes a decoder run wild ends its helper only.

Where the system knows no such limits nothing is limited.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

try:
    import resource
except ImportError:
    _KNOWN = False
else:
    _KNOWN = True

_PROGRAM_BYTES = 1 << 30
"""Address space of Python and the codecs themselves; most of it is never touched."""
_LEAST_BYTES, _MOST_BYTES = 1 << 30, 4 << 30
"""Of decoded frames: files of a few kB may well hold large ones."""
_BYTES_FOR_EACH = 16
"""The same for each byte of the file."""
_SHARE = 0.75
"""Of the machine's memory, for all helpers."""
_SECONDS, _SECONDS_FOR_MEGABYTE = 300, 4
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one instance may cost."""

    memory: int
    """Bytes."""
    seconds: int
    """Of processor time."""


def bounds_of(size: int, *, helpers: int = 1, megabytes: int = 0) -> Bounds:
    """For an instance of ``size`` bytes where ``helpers`` work at once.

    ``megabytes``: of memory, as somebody has set it; 0: by the instance's size and the machine's memory.
    """
    seconds = _SECONDS + _SECONDS_FOR_MEGABYTE * (size >> 20)
    if megabytes:
        return Bounds(megabytes << 20, seconds)
    share = int(_memory() * _SHARE) // max(1, helpers)
    return Bounds(max(_LEAST_BYTES, min(share, _MOST_BYTES + _BYTES_FOR_EACH * size)), seconds)


def keep_within(bounds: Bounds) -> None:
    """From now on this process gets a MemoryError, or is ended (SIGXCPU), where it goes beyond; it leaves no core file,
    which would hold patients' data.
    """
    if not _KNOWN:
        return
    used = time.process_time()
    for what, limit in (
        (resource.RLIMIT_AS, _PROGRAM_BYTES + bounds.memory),
        (resource.RLIMIT_CPU, int(used) + 1 + bounds.seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        with suppress(OSError, ValueError):  # a limit that the system does not know is none
            resource.setrlimit(what, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _memory() -> int:
    """Bytes of memory that this machine has, or its container may use."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        found = min(found, int(_CGROUP.read_text()))
    return found
