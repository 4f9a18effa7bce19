"""Giving a finished file its final name: durable, all at once, and never over another file."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_SYNC_FILE_RANGE_WRITE = 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def publish(temporary: Path, final: Path) -> None:
    """Rename ``temporary`` to ``final`` and make the name durable. Raises FileExistsError where ``final`` exists.

    Both must be in one folder. The content must have been fsynced before.
    """
    error = _rename_noreplace(temporary, final)
    if error in _CANNOT:  # NFS and old kernels: a hard link is refused where the name exists
        os.link(temporary, final)
        temporary.unlink()
    elif error == errno.EEXIST:
        raise FileExistsError(error, os.strerror(error), str(final))
    elif error:
        raise OSError(error, os.strerror(error), str(final))
    sync_folder(final.parent)


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
