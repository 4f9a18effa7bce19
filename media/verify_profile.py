"""Rules of PS3.10, PS3.11 and PS3.12 that no single file can break: names, syntaxes, identifiers of the medium."""

from __future__ import annotations

import re
from collections.abc import Callable

from media.dicomdir_reader import Directory
from media.problems import ProblemKind
from media.profile_keys import key_set
from media.profiles import Profile, profile, profiles
from media.trees import IsoTree
from media.verify_instance import OTHERWISE_ENCODED
from media.verify_meta import Meta, is_uid
from media.verify_values import quoted

Report = Callable[[ProblemKind, str, str], None]

DICOMDIR = "DICOMDIR"
_FILE_SET_ID = re.compile(r"[A-Z0-9_ ]{0,16}")
_D_CHARACTERS = re.compile(r"[A-Z0-9_]*")


class Rules:
    """What a profile allows; without one, what any profile of PS3.11 allows."""

    def __init__(self, row: Profile | None) -> None:
        self._row = row
        self.name = row.identifier if row is not None else None
        self.directory_keys = key_set(row.directory_keys) if row is not None else None
        """The directory keys that it adds to those of PS3.3 Annex F."""

    def check_transfer_syntax(self, name: str, meta: Meta, report: Report) -> None:
        """Whether the file may be on the medium in the transfer syntax that it says."""
        if self._row is not None:
            for violation in self._row.violations(meta.sop_class_uid, meta.transfer_syntax_uid):
                report(ProblemKind.PROFILE, name, f"Its {violation}.")
        elif meta.transfer_syntax_uid in OTHERWISE_ENCODED:
            detail = f"Its transfer syntax {meta.transfer_syntax_uid} is one of no application profile of PS3.11."
            report(ProblemKind.PROFILE, name, detail)


def rules_for(name: str | None) -> Rules:
    """The rules of a profile by its name; None: the common ones. MediaError where there is no such profile."""
    return Rules(profile(name) if name else None)


def is_known(name: str) -> bool:
    """Whether config/profiles.toml has a profile of this name."""
    return name in profiles()


def check_directory(directory: Directory, report: Report) -> None:
    """The names that the DICOMDIR gives to the medium (PS3.10 8.6; PS3.3 F.3.2.1)."""
    if not is_uid(directory.file_set_uid):
        report(ProblemKind.UID, DICOMDIR, f"File-set UID {quoted(directory.file_set_uid)} is no valid UID.")
    if not _FILE_SET_ID.fullmatch(directory.file_set_id):
        detail = f"File-set ID {quoted(directory.file_set_id)} is not up to 16 characters of A-Z, 0-9, _ and blank."
        report(ProblemKind.PROFILE, DICOMDIR, detail)


def check_volume_id(tree: IsoTree, directory: Directory, report: Report) -> None:
    """PS3.12 F.1: the volume identifier is the File-set ID; blanks are not among the characters that it can have."""
    file_set_id = directory.file_set_id.strip()
    volume_id = (tree.volume_id or "").strip()
    wanted = file_set_id if _D_CHARACTERS.fullmatch(file_set_id) else file_set_id.replace(" ", "_")
    if volume_id not in (file_set_id, wanted):
        detail = f"The volume identifier is {quoted(volume_id)}, the File-set ID {quoted(file_set_id)} (PS3.12 F)."
        report(ProblemKind.PROFILE, "", detail)
