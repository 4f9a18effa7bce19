"""A long list kept in a temporary file that has no name, so that it costs no memory."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import IO, Generic, TypeVar

T = TypeVar("T")


class Spill(Generic[T]):
    """Values that are put in one after the other and fetched by their places. Only what we put in ourselves is read."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: where the file lies; None: where the system has temporary files."""
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, value: T) -> int:
        """Keep a value; returns its place."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=1 << 18)  # noqa: SIM115 - ours until close
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        place = self._end
        self._file.write(len(data).to_bytes(4, "little"))
        self._file.write(data)
        self._end += 4 + len(data)
        return place

    def get(self, place: int) -> T:
        assert self._file is not None
        self._file.seek(place)
        length = int.from_bytes(self._file.read(4), "little")
        value: T = pickle.loads(self._file.read(length))
        return value

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
