"""Rules of PS3.10, PS3.11 and PS3.12 that no single file can break: names, syntaxes, identifiers of the medium."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from media.dicomdir_reader import Directory
from media.elements import tag_text
from media.problems import NotDicom, ProblemKind
from media.profile_facts import (
    LONGEST,
    MOST_ITEMS,
    OVERLAYS,
    TRANSFER_SYNTAX,
    Facts,
    Wanted,
    facts_in,
    is_overlay,
    text_values,
)
from media.profile_keys import key_set
from media.profile_rules import check, names, wanted_of
from media.profiles import Profile, profile, profiles
from media.trees import FileTree, IsoTree
from media.verify_instance import OTHERWISE_ENCODED, FileValues
from media.verify_meta import Meta, is_uid
from media.verify_read import FileRead, reason
from media.verify_scan import Malformed, Value, elements, items
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
        self._wanted = wanted_of(row.rules) if row is not None and row.rules else None
        self.wanted = self._wanted.tags() if self._wanted is not None else frozenset[int]()
        """Tags whose values ``check_attributes`` needs."""

    def check_transfer_syntax(self, name: str, meta: Meta, report: Report) -> None:
        """Whether the file may be on the medium in the transfer syntax that it says."""
        if self._row is not None:
            for violation in self._row.violations(meta.sop_class_uid, meta.transfer_syntax_uid):
                report(ProblemKind.PROFILE, name, f"Its {violation}.")
        elif meta.transfer_syntax_uid in OTHERWISE_ENCODED:
            detail = f"Its transfer syntax {meta.transfer_syntax_uid} is one of no application profile of PS3.11."
            report(ProblemKind.PROFILE, name, detail)

    def check_attributes(
        self, tree: FileTree, file: FileRead, meta: Meta, found: FileValues | None, report: Report
    ) -> None:
        """Whether the instance's attributes are as the profile demands; ``found`` has the values of ``wanted``."""
        if self._row is None or self._wanted is None or found is None:
            return
        unclear = any(found.values[tag].vr == "UN" for tag in self._wanted.sequences if tag in found.values)
        syntax = meta.transfer_syntax_uid
        try:
            if found.complete and not unclear:
                facts = _facts(found.values, self._wanted, syntax)
            else:
                with tree.open(file.name) as stream:
                    facts = facts_in(stream, file.name, self._wanted, syntax, meta.dataset_offset)
        except OSError as error:
            report(ProblemKind.UNREADABLE, file.name, f"It cannot be read: {reason(error)}.")
            return
        except (Malformed, NotDicom) as error:
            report(ProblemKind.STRUCTURE, file.name, f"Its data set is damaged: {error}.")
            return
        for violation in check(self._row, facts):
            report(ProblemKind.PROFILE, file.name, f"{violation.text}.")


def _facts(values: Mapping[int, Value], wanted: Wanted, transfer_syntax_uid: str = "") -> Facts:
    """What the rules look at, from values as they lie in the data set or in an item."""
    texts: dict[int, tuple[str, ...]] = {}
    sequences: dict[int, tuple[Facts, ...]] = {}
    for tag, value in values.items():
        if is_overlay(tag):
            texts[OVERLAYS] = ()
        inner, vr = wanted.sequences.get(tag), wanted.vr(tag)
        if inner is not None and value.vr == "SQ":
            try:
                sequences[tag] = tuple(
                    _facts(elements(item, inner.tags()), inner) for item in items(value.data)[: MOST_ITEMS + 1]
                )
            except Malformed as error:
                raise Malformed(f"in {names()[tag]} {tag_text(tag)}, {error}") from None
        elif vr is not None:
            known = vr if value.vr == "UN" else value.vr
            texts[tag] = text_values(known, value.data) if len(value.data) <= LONGEST else (f"{len(value.data)} bytes",)
    texts[TRANSFER_SYNTAX] = (transfer_syntax_uid,)
    return Facts(texts, sequences)


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
