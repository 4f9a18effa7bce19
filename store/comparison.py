"""Comparing two instances after decoding, in a process of its own.

Decoders are large, and they are fed with what came from the network: neither belongs into a process that receives.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from store.processes import die_with_parent

_log = logging.getLogger(__name__)
_TIMEOUT = 900.0
_EQUAL, _DIFFERENT, _UNREADABLE = 10, 11, 12


def same_content_aside(first: Path, second: Path) -> bool:
    """Whether two PS3.10 files are equal after decoding; False where that cannot be told."""
    command = [sys.executable, "-m", "store.comparison", str(os.getpid()), str(first), str(second)]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        _log.warning("comparing two instances of one UID took more than %d s; both are kept", _TIMEOUT)
        return False
    if done.returncode not in (_EQUAL, _DIFFERENT):
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        _log.warning("two instances of one UID cannot be compared (%s); both are kept", reason)
    return done.returncode == _EQUAL


def main(arguments: list[str]) -> int:
    """``python -m store.comparison PARENT FILE FILE``: the answer is the exit status."""
    die_with_parent(int(arguments[0]))
    from media.compare import same_content
    from media.problems import MediaError

    try:
        return _EQUAL if same_content(Path(arguments[1]), Path(arguments[2])) else _DIFFERENT
    except (MediaError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}\n")
        return _UNREADABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
