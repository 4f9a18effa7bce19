"""Updating a file-set in its place (File-set Updater, PS3.10 4.4): instances come and go, its UID and the rest stay."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from media.items import Item
from media.problems import FileSetInvalid
from media.profile_keys import KeySet
from media.readme import FILE_NAME as README
from media.signing import Seal
from media.trees import canonical, open_tree
from media.update_change import DICOMDIR, Orders, Updated, outcome, read_text
from media.update_directory import DirectoryEdit, Node
from media.update_folder import STAGING, recover, update_folder
from media.update_image import update_image
from media.update_texts import is_our_readme

__all__ = ["STAGING", "Held", "Updated", "contents", "profile_of", "recover", "update"]


@dataclass(frozen=True, slots=True)
class Held:
    """An instance on a medium, as its DICOMDIR describes it."""

    sop_instance_uid: str
    path: str
    patient_id: str = ""
    study_instance_uid: str = ""
    accession_number: str = ""
    series_instance_uid: str = ""
    modality: str = ""


def contents(target: Path) -> list[Held]:
    """The instances of a medium. Raises FileSetInvalid where it has no DICOMDIR that could be changed."""
    with open_tree(target) as tree:
        edit = DirectoryEdit(read_text(tree, DICOMDIR))
    found = []
    for chain in edit.chains():
        if chain[-1].path and chain[-1].sop_instance_uid:
            by_type: dict[str, Node] = {node.type: node for node in chain}

            def text(kind: str, tag: int, among: dict[str, Node] = by_type) -> str:
                return among[kind].text(tag) if kind in among else ""

            found.append(
                Held(
                    chain[-1].sop_instance_uid,
                    chain[-1].path,
                    text("PATIENT", 0x00100020),
                    text("STUDY", 0x0020000D),
                    text("STUDY", 0x00080050),
                    text("SERIES", 0x0020000E),
                    text("SERIES", 0x00080060),
                )
            )
    return found


def update(
    target: Path,
    *,
    add: Sequence[Item] = (),
    remove: Collection[str] = (),
    now: datetime,
    keys: KeySet | None = None,
    seal: Seal | None = None,
    random_file_ids: bool = False,
) -> Updated:
    """Add instances to a file-set, and remove others by their SOP Instance UIDs. ``now``: UTC, for README.TXT.

    ``keys``: the directory keys that the profile adds to new records (None: those that any profile does). ``seal``:
    what signs the new manifest of a medium that was signed; None: it is not signed any more, and says so by having no
    signature. ``random_file_ids``: new names have random numbers (PS3.11 C.3.3.2).

    ``target``: a folder, a mounted writable medium, its DICOMDIR, or a disc image. Raises MediaError and leaves all as
    it was: no file-set, or a damaged one; an instance that is there with other bytes, or not there; another patient
    under one Patient ID; no space. OSError when writing fails; the next update then tidies up.
    """
    orders = Orders(tuple(add), frozenset(remove), now, keys, seal, random_file_ids)
    if target.is_dir():
        return outcome(update_folder(target, orders))
    if target.is_file() and canonical(target.name) == DICOMDIR:
        return outcome(update_folder(target.parent, orders))
    if not stat.S_ISREG(target.stat().st_mode):
        raise FileSetInvalid(f"{target}: a burnt disc or device cannot be changed; mount a writable medium.")
    return outcome(update_image(target, orders))


def profile_of(target: Path) -> str | None:
    """The application profile that README.TXT names, on a medium of ours."""
    with open_tree(target) as tree:
        readme = read_text(tree, README) if README in tree.files else b""
    found = re.search(rb"^Profile: +([A-Z0-9-]{1,40})\r?$", readme, re.MULTILINE)
    return found[1].decode("ascii") if found and is_our_readme(readme) else None
