"""Images with error-correction data behind their file system: staged once, then streamed to every copy.

The file system is not changed by it: its volume descriptor says where it ends, and readers look no further. The program
that makes the correction data needs the whole image in a file, so unlike other images these are staged. A staged
image appears under its name only when it is complete and was tested; what a crash leaves is thrown away by who comes
next. The same image and layout give the same bytes, so copies are equal, whenever and in whatever process they are
made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from media import dvdisaster, ecc
from media.device import SECTOR
from media.ecc import Layout
from media.iso9660 import IsoImage, WriteCancelled
from media.isoread import IsoVolume
from media.items import DiscFile
from media.problems import MediaError

SPARE_BYTES = 64 << 20
"""Left free where images are staged."""
_CHUNK = 1 << 20
_LOOK_SECONDS = 0.2
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ProtectedImage:
    """An image with error-correction data; it is what burners take for an image, only larger.

    ``staging``: a folder where images of this installation are staged, ``key``: what names this one there (the same
    for every copy of a volume, and for no other).
    """

    def __init__(self, image: IsoImage, layout: Layout, staging: Path, key: str) -> None:
        if image.sectors != layout.iso_sectors:
            raise MediaError(
                f"{image.volume_id} was planned with {layout.iso_sectors} sectors and came out with {image.sectors}."
            )
        if not _KEY.fullmatch(key):
            raise MediaError(f"{key!r} names no staged image.")
        self._image = image
        self._layout = layout
        self._staging = staging
        self._key = key

    @property
    def volume_id(self) -> str:
        return self._image.volume_id

    @property
    def sectors(self) -> int:
        """Of the whole, correction data included."""
        return self._layout.sectors

    @property
    def size(self) -> int:
        return self.sectors * SECTOR

    @property
    def files(self) -> Sequence[DiscFile]:
        return self._image.files

    def write(
        self,
        out: Callable[[bytes], object] | BinaryIO,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """Stage the image where it is not yet, and write it in sequence; its SHA-256.

        Raises MediaError (no space, the program is missing or fails, a source has changed), WriteCancelled, and OSError
        from ``out`` itself.
        """
        with _locked(self._staging, self._key, cancelled) as lock:
            staged, digest = self._staged(lock, cancelled)
            source = _opened(staged)
        written = hashlib.sha256()
        done = 0
        put = out if callable(out) else _all_of(out)
        with source:
            while chunk := source.read(_CHUNK):
                if cancelled is not None and cancelled():
                    raise WriteCancelled("Writing the image was cancelled.")
                put(chunk)
                written.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done)
        if written.hexdigest() != digest:
            staged.unlink(missing_ok=True)
            raise MediaError(
                f"The staged image {staged} has changed since it was made; it was removed, try again "
                f"(SHA-256 {written.hexdigest()}, not {digest})."
            )
        return digest

    def _staged(self, lock: int, cancelled: Callable[[], bool] | None) -> tuple[Path, str]:
        """The complete image and its SHA-256; made now where it is not there."""
        for name in _names(self._staging, self._key):
            staged = self._staging / name
            digest = name.rpartition(".")[2]
            if staged.stat().st_size == self.size:
                return staged, digest
            staged.unlink()
        _sweep_parts(self._staging, self._key)
        _check_space(self._staging, self.size)
        part = self._staging / f".{self._key}.{secrets.token_hex(4)}.part"
        try:
            return self._make(part, lock, cancelled)
        except dvdisaster.ToolCancelled as error:
            raise WriteCancelled(str(error)) from error
        except OSError as error:
            raise MediaError(f"Staging {self.volume_id} in {self._staging}: {error.strerror or error}.") from error
        finally:
            part.unlink(missing_ok=True)

    def _make(self, part: Path, lock: int, cancelled: Callable[[], bool] | None) -> tuple[Path, str]:
        with part.open("xb", buffering=0) as file:
            plain = self._image.write(file, cancelled=cancelled)
        dvdisaster.augment(part, self._layout, cancelled=cancelled, keep=(lock,))
        tested = dvdisaster.test(part, cancelled=cancelled)
        if not tested.good:
            raise MediaError(
                f"dvdisaster finds fault with its own work on {self.volume_id}: {'; '.join(tested.faults)}."
            )
        before, digest = _digests(part, self._layout.iso_sectors * SECTOR)
        if before != plain:
            raise MediaError(f"dvdisaster changed the file system of {self.volume_id} itself.")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        final = self._staging / f"{self._key}.{digest}"
        part.rename(final)
        return final, digest


def protection_of(volume: IsoVolume) -> Layout | None:
    """The error-correction data behind a volume's file system, as its header says; None: there is none to be seen."""
    if volume.volume_size >= volume.image_size:
        return None
    try:
        found = ecc.recorded(volume.read_at, volume.volume_size // SECTOR)
    except OSError:
        return None
    return found.layout if found is not None else None


def refuse_update(volume: IsoVolume) -> None:
    """Raise MediaError where a change of the file system would leave error-correction data that is wrong."""
    layout = protection_of(volume)
    if layout is not None:
        raise MediaError(
            f"{volume.path} has error-correction data ({layout.text}), which would be wrong after an update; "
            "burn a new disc instead."
        )


def forget(staging: Path, keep: Callable[[str], bool]) -> int:
    """Remove staged images and what crashes left of some, but for those whose key ``keep`` says yes to; how many.

    One that is being made or streamed is let be, or loses its name only.
    """
    removed = 0
    for key in {_key_of(name) for name in _listed(staging)} - {""}:
        if keep(key):
            continue
        with _try_lock(staging, key) as held:
            for name in _listed(staging) if held else ():
                if _key_of(name) == key:
                    (staging / name).unlink(missing_ok=True)
                    removed += not name.endswith(".lock")
    return removed


def _listed(staging: Path) -> list[str]:
    try:
        return sorted(path.name for path in staging.iterdir())
    except FileNotFoundError:
        return []


def _key_of(name: str) -> str:
    found = re.fullmatch(r"\.?([A-Za-z0-9_-]{1,64})\.(?:[0-9a-f]{64}|[0-9a-f]{8}\.part|lock)", name)
    return found[1] if found else ""


def _names(staging: Path, key: str) -> list[str]:
    return [name for name in _listed(staging) if re.fullmatch(re.escape(key) + r"\.[0-9a-f]{64}", name)]


def _sweep_parts(staging: Path, key: str) -> None:
    for name in _listed(staging):
        if _key_of(name) == key and name.endswith(".part"):
            (staging / name).unlink(missing_ok=True)


@contextmanager
def _locked(staging: Path, key: str, cancelled: Callable[[], bool] | None) -> Iterator[int]:
    """Be alone with a staged image. The program inherits the lock: while it runs nobody makes the image anew."""
    lock = None
    try:
        staging.mkdir(parents=True, exist_ok=True)
        while (lock := _lock(staging, key)) is None:
            if cancelled is not None and cancelled():
                raise WriteCancelled("Writing the image was cancelled.")
            time.sleep(_LOOK_SECONDS)
    except OSError as error:
        raise MediaError(f"The staging folder {staging}: {error.strerror or error}.") from error
    try:
        yield lock
    finally:
        os.close(lock)


@contextmanager
def _try_lock(staging: Path, key: str) -> Iterator[bool]:
    lock = _lock(staging, key)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _lock(staging: Path, key: str) -> int | None:
    """A descriptor that holds the lock; None: another has it, or has just removed it."""
    path = staging / f".{key}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _check_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need + SPARE_BYTES:
        raise MediaError(f"The staging folder {folder} has {free} bytes free; the image needs {need}.")


def _digests(path: Path, first: int) -> tuple[str, str]:
    """SHA-256 of the first bytes and of all of them."""
    whole = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        left = first
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                break
            whole.update(chunk)
            left -= len(chunk)
        part = whole.hexdigest()
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
    return part, whole.hexdigest()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise MediaError(f"The staged image {path}: {error.strerror or error}.") from error


def _all_of(out: BinaryIO) -> Callable[[bytes], object]:
    """A function that writes all of what it is given; a pipe may take less at a time."""

    def put(chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[out.write(view) :]

    return put
