"""UIDs of our own making (PS3.5 section 9, PS3.10 7.1)."""

from __future__ import annotations

import uuid

IMPLEMENTATION_CLASS_UID = "2.25.302819462270163390524837212085237113461"
"""(0002,0012) of every file that we write."""
IMPLEMENTATION_VERSION_NAME = "BURNISH_010"
"""(0002,0013), at most 16 characters."""
EARLIER_VERSION_NAMES: tuple[str, ...] = ()
"""What it was in versions before. Add the old one here whenever it changes: files that those wrote are known by it
(``store.owncopies``)."""


def new_uid() -> str:
    """A new UID under the 2.25 root (PS3.5 B.2), always 44 characters.

    The fixed length lets a plan know the size of a DICOMDIR before its UID is made.
    """
    while True:
        uid = f"2.25.{uuid.uuid4().int}"
        if len(uid) == 44:
            return uid
