"""Which medium lies before us: the File-set UID that identifies it everywhere, and whose program made it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from media import dicomdir_reader
from media.problems import MediaError
from media.readme import FILE_NAME as README
from media.trees import FileTree
from media.uids import IMPLEMENTATION_CLASS_UID
from media.verify_meta import read_meta
from media.verify_read import HEAD

_DICOMDIR = "DICOMDIR"
_FILE_SET_ID = re.compile(rb"^File-set ID: +([A-Z0-9_]{1,16}) *\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a medium says of itself; empty where it does not, or where that cannot be read."""

    file_set_uid: str = ""
    file_set_id: str = ""
    """Of the DICOMDIR, else the volume identifier, which is the same on a disc of ours (PS3.12 F), else README.TXT."""
    maker: str = ""
    """Implementation Version Name (0002,0013) of the DICOMDIR, else its Implementation Class UID."""
    ours: bool = False


def identify(tree: FileTree) -> Identity:
    """Read a medium's DICOMDIR for what identifies it. Never raises for what is wrong with the medium."""
    label = (tree.volume_id or "").strip() or _label_of_readme(tree)
    if _DICOMDIR not in tree.files:
        return Identity(file_set_id=label)
    maker, ours = "", False
    try:
        with tree.open(_DICOMDIR) as stream:
            head = stream.read(HEAD)
            meta, _ = read_meta(head)
            if meta is not None:
                maker = meta.implementation_version_name or meta.implementation_class_uid
                ours = meta.implementation_class_uid == IMPLEMENTATION_CLASS_UID
            # The File-set UID is the SOP Instance UID in the head: known even where what follows is lost.
            uid = meta.sop_instance_uid if meta is not None else ""
            stream.seek(0)
            with contextlib.suppress(MediaError, OSError):
                said, file_set_id = dicomdir_reader.read_identity(stream)
                return Identity(said or uid, file_set_id or label, maker, ours)
    except OSError:
        return Identity(file_set_id=label)
    return Identity(uid, label, maker, ours)


def _label_of_readme(tree: FileTree) -> str:
    """What README.TXT of a disc of ours says, where a folder has no volume identifier."""
    if README not in tree.files:
        return ""
    try:
        with tree.open(README) as stream:
            found = _FILE_SET_ID.search(stream.read(HEAD))
    except OSError:
        return ""
    return found[1].decode("ascii") if found else ""
