"""An image that is there already, streamed to another disc as it is: a copy of a copy, byte by byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from media.device import SECTOR
from media.iso9660 import WriteCancelled
from media.items import DiscFile
from media.problems import MediaError

_CHUNK = 512 * SECTOR


class CopiedImage:
    """The first ``sectors`` of an image file or drive, which must have the digest ``sha256``.

    Like ``media.iso9660.IsoImage`` for whoever streams it; it has no files of its own, so it is for discs alone.
    """

    files: Sequence[DiscFile] = ()

    def __init__(self, path: Path, *, volume_id: str, sectors: int, sha256: str) -> None:
        self.path = path
        self.volume_id = volume_id
        self.sectors = sectors
        self._sha256 = sha256

    def write(
        self,
        out: Callable[[bytes], object] | BinaryIO,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """Write all bytes; returns their digest. MediaError where it cannot be read or is another; WriteCancelled."""
        put = out if callable(out) else out.write
        digest = hashlib.sha256()
        done, size = 0, self.sectors * SECTOR
        try:
            source = self.path.open("rb", buffering=0)
        except OSError as error:
            raise MediaError(f"{self.path}: cannot be opened: {error.strerror or error}") from error
        with source:
            while done < size:
                if cancelled is not None and cancelled():
                    raise WriteCancelled(f"{self.volume_id} was cancelled")
                try:
                    piece = source.read(min(_CHUNK, size - done))
                except OSError as error:
                    raise MediaError(
                        f"{self.path}: sector {done // SECTOR} cannot be read: {error.strerror or error}"
                    ) from error
                if not piece:
                    raise MediaError(f"{self.path}: ends after {done} bytes; {self.volume_id} has {size}")
                put(piece)
                digest.update(piece)
                done += len(piece)
                if progress is not None:
                    progress(done)
        found = digest.hexdigest()
        if found != self._sha256:
            raise MediaError(f"{self.path}: is not as {self.volume_id} was made (its digest is {found})")
        return found
