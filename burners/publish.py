"""Giving a finished file its final name: durable, all at once, and never over another file."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How a blank or tab in a mount point is written in /proc/mounts."""
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def publish(temporary: Path, final: Path) -> None:
    """Rename ``temporary``, a file or a folder, to ``final`` and make the name durable.

    Raises FileExistsError where ``final`` exists. Both must be in one file system. The content must have been fsynced
    before.
    """
    error = _rename_noreplace(temporary, final)
    if error in _CANNOT and temporary.is_dir():
        # Folders have no hard links; rename(2) itself replaces nothing but an empty folder.
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        temporary.rename(final)
    elif error in _CANNOT and _no_links(final.parent):
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        temporary.rename(final)
    elif error in _CANNOT:  # NFS and old kernels: a hard link is refused where the name exists
        os.link(temporary, final)
        temporary.unlink()
    elif error == errno.EEXIST:
        raise FileExistsError(error, os.strerror(error), str(final))
    elif error:
        raise OSError(error, os.strerror(error), str(final))
    sync_folder(final.parent)


def _no_links(folder: Path) -> bool:
    """FAT has no hard links (and, but for old kernels, no need of them here)."""
    return file_system_of(folder) in ("vfat", "msdos", "exfat")


def file_system_of(folder: Path) -> str:
    """Type of the file system that holds a folder, as mount(8) names it: ``vfat``, ``udf`` ...; empty: not known."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place = folder.resolve()
    found, depth = "", -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1]))
        if (place == point or point in place.parents) and len(point.parts) >= depth:
            found, depth = fields[2], len(point.parts)
    return found


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; file systems that cannot are let be."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(descriptor)


def start_writing_back(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing these dirty pages to the disk, without waiting: a hint (sync_file_range(2))."""
    call = _c_function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    if call is not None:
        call(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


def _rename_noreplace(source: Path, target: Path) -> int:
    """renameat2(2); returns 0 or the errno."""
    call = _c_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if call is None:
        return errno.ENOSYS
    if call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
        return 0
    return ctypes.get_errno()


@lru_cache(maxsize=4)
def _c_function(name: str, *arguments: Any) -> Any:
    """A function of the C library, None where it has none."""
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function
