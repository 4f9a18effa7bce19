"""Instances that a receiver does not take as they are held, made plain for it: Explicit VR Little Endian.

Decoders are large, and are fed with what came from the network: they run in a helper process, which ends with the
retrieve that needed it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from store.processes import die_with_parent

EXPLICIT_LE = "1.2.840.10008.1.2.1"
_PATIENCE = 300.0
_HELPER = (sys.executable, "-m", "scp.conversion")


class ConversionFailed(Exception):
    """An instance cannot be converted; the text says why."""


class Converter:
    """One after the other, in a helper that is started when it is first needed. Used by one thread; ``close`` it."""

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        """``patience``: seconds for one instance."""
        self._patience = patience
        self._helper: subprocess.Popen[bytes] | None = None

    def convert(self, source: Path, target: Path) -> None:
        """Write ``target``, a PS3.10 file with the same instance. Raises ConversionFailed."""
        if self._helper is None:
            self._helper = subprocess.Popen(
                [*_HELPER, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        assert self._helper.stdin is not None
        try:
            self._helper.stdin.write(json.dumps([str(source), str(target)]).encode() + b"\n")
            self._helper.stdin.flush()
            answer = json.loads(self._line())
        except (OSError, ValueError) as error:
            self.close()
            raise ConversionFailed("its decoder ended unexpectedly") from error
        if answer["refused"]:
            raise ConversionFailed(answer["refused"])

    def _line(self) -> bytes:
        assert self._helper is not None and self._helper.stdout is not None
        line, deadline = b"", time.monotonic() + self._patience
        fd = self._helper.stdout.fileno()
        while not line.endswith(b"\n"):
            if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise OSError("it takes too long")
            data = os.read(fd, 65536)
            if not data:
                raise OSError("it is gone")
            line += data
        return line

    def close(self) -> None:
        """End the helper."""
        helper, self._helper = self._helper, None
        if helper is None:
            return
        helper.kill()
        helper.wait()
        for pipe in (helper.stdin, helper.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()


def main(arguments: list[str]) -> int:
    """``python -m scp.conversion PARENT``: a line ``[source, target]`` in, a line out."""
    die_with_parent(int(arguments[0]))
    from media.bounds import bounds_of, keep_within
    from media.conform import conform
    from media.problems import MediaError
    from media.recipes import EXPLICIT_LE_RECIPE

    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # a decoder's print must not look like an answer
    for line in sys.stdin:
        source, target = json.loads(line)
        refused = ""
        try:
            keep_within(bounds_of(Path(source).stat().st_size))
            conform(Path(source), Path(target), EXPLICIT_LE_RECIPE)
        except MemoryError:
            refused = "it needs more memory than one instance may have"
        except (MediaError, OSError) as error:
            refused = str(error) or type(error).__name__
        out.write(json.dumps({"refused": refused}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
