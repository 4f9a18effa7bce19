"""The tray of a drive: open, empty or loaded, and moving it (Linux cdrom ioctls).

Burning tools pull a tray in as soon as they open the drive. While a person is about to lay a disc into it, a drive is
therefore asked by ``CDROM_DRIVE_STATUS``, which moves nothing; a tool gets it only with a medium inside.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from burners.drive_media import device_of, is_pseudo

_DRIVE_STATUS = 0x5326
_CURRENT_SLOT = 0x7FFFFFFF
_EJECT = 0x5309
_CLOSE_TRAY = 0x5319
_LOCK_DOOR = 0x5329
_SPIN_UP_SECONDS = 60.0
_STEP_SECONDS = 0.5


class Tray(StrEnum):
    OPEN = "open"
    EMPTY = "empty"
    NOT_READY = "not ready"
    LOADED = "loaded"
    UNKNOWN = "unknown"
    """Only the tool can tell."""
    GONE = "gone"
    """There is no such device."""


_STATES = {1: Tray.EMPTY, 2: Tray.OPEN, 3: Tray.NOT_READY, 4: Tray.LOADED}


def state(drive: str) -> Tray:
    """How a tray stands. A pseudo-drive is loaded when its file is there."""
    device = device_of(drive)
    try:
        mode = device.stat().st_mode
    except FileNotFoundError:
        return Tray.EMPTY if is_pseudo(drive) else Tray.GONE
    except OSError:
        return Tray.GONE
    if is_pseudo(drive):
        return Tray.LOADED if not stat.S_ISDIR(mode) else Tray.GONE
    try:
        with _opened(drive) as descriptor:
            return _STATES.get(fcntl.ioctl(descriptor, _DRIVE_STATUS, _CURRENT_SLOT), Tray.UNKNOWN)
    except OSError:
        return Tray.UNKNOWN


def sign(drive: str) -> tuple[object, ...]:
    """Changes when another medium was laid in, as far as that can be seen without the tool."""
    if not is_pseudo(drive):
        return (state(drive),)
    with suppress(OSError):
        found = device_of(drive).stat()
        return (found.st_ino, found.st_size, found.st_mtime_ns)
    return ()


def eject(drive: str) -> str:
    """Open the tray; why it could not be, else empty. A pseudo-drive has none."""
    if is_pseudo(drive):
        return ""
    try:
        with _opened(drive) as descriptor:
            with suppress(OSError):
                fcntl.ioctl(descriptor, _LOCK_DOOR, 0)
            fcntl.ioctl(descriptor, _EJECT, 0)
    except OSError as error:
        return f"{drive} does not open: {error.strerror or error}"
    return ""


def reload(drive: str) -> str:
    """Open and close the tray, so that the kernel forgets what it knew of a blank; wait until the disc is ready.

    Returns what a person must do, else empty: the trays of slim drives do not go in by themselves.
    """
    if is_pseudo(drive) or state(drive) is Tray.UNKNOWN:
        return ""
    if trouble := eject(drive):
        return trouble
    with suppress(OSError), _opened(drive) as descriptor:
        fcntl.ioctl(descriptor, _CLOSE_TRAY, 0)
    deadline = time.monotonic() + _SPIN_UP_SECONDS
    while time.monotonic() < deadline:
        now = state(drive)
        if now is Tray.LOADED:
            return ""
        if now is Tray.OPEN and time.monotonic() > deadline - _SPIN_UP_SECONDS * 0.75:
            break
        time.sleep(_STEP_SECONDS)
    return f"push the tray of {drive} in again"


@contextmanager
def _opened(drive: str) -> Iterator[int]:
    descriptor = os.open(device_of(drive), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
