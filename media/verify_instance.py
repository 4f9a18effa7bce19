"""The data set of one file on a medium: is it whole, and what does it say?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from media.encoding import DEFLATED
from media.part10 import EXPLICIT_BE, IMPLICIT_LE
from media.problems import NotDicom, ProblemKind
from media.trees import FileTree, FolderTree, IsoTree
from media.verify_meta import Meta
from media.verify_read import FileRead
from media.verify_scan import Malformed, Value, elements, scan

Report = Callable[[ProblemKind, str, str], None]

OTHERWISE_ENCODED = frozenset({IMPLICIT_LE, EXPLICIT_BE, *DEFLATED})
"""Transfer syntaxes whose data set is not in plain Explicit VR Little Endian. None belongs on a disc."""


@dataclass(frozen=True, slots=True)
class FileValues:
    """Wanted values of a data set."""

    values: dict[int, Value]
    complete: bool = True
    """False: only directory keys were looked for; what is not in ``values`` may all the same be in the file."""


def dataset_values(
    tree: FileTree, file: FileRead, meta: Meta, wanted: frozenset[int], report: Report
) -> FileValues | None:
    """Walk a file's data set to its end and return the wanted values; None where it cannot be walked, which is said."""
    name, size = file.name, file.size
    if meta.dataset_offset >= size:
        report(ProblemKind.STRUCTURE, name, "It has no data set behind its file meta information.")
        return None
    if meta.transfer_syntax_uid in OTHERWISE_ENCODED:
        return _otherwise_encoded(tree, name, meta, size, report)
    try:
        found = scan(file.head, file.read, meta.dataset_offset, size, wanted)
    except Malformed as error:
        report(ProblemKind.STRUCTURE, name, f"Its data set is damaged: {error}.")
        return None
    for complaint in found.complaints:
        report(ProblemKind.STRUCTURE, name, f"Its data set is irregular: {complaint}.")
    return FileValues(found.values)


def _otherwise_encoded(tree: FileTree, name: str, meta: Meta, size: int, report: Report) -> FileValues | None:
    """Slower, by the reader that ingest uses; such a file breaks every profile, which is reported elsewhere."""
    from media.header import read_header

    place = _place(tree, name)
    if place is None:
        return None
    path, offset = place
    try:
        header = read_header(
            path,
            offset=offset + meta.dataset_offset,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            length=size - meta.dataset_offset,
        )
        values = elements(header.directory_keys)
    except (NotDicom, Malformed) as error:
        report(ProblemKind.STRUCTURE, name, f"Its data set is damaged: {error}.")
        return None
    for tag, uid in (
        (0x00080016, header.sop_class_uid),
        (0x00080018, header.sop_instance_uid),
        (0x0020000D, header.study_instance_uid),
        (0x0020000E, header.series_instance_uid),
    ):
        values[tag] = Value("UI", uid.encode("ascii"))
    return FileValues(values, complete=False)


def _place(tree: FileTree, name: str) -> tuple[Path, int] | None:
    """A file of this system that holds the file's bytes, and from which byte on."""
    if isinstance(tree, FolderTree):
        return Path(tree.label) / tree.files[name].raw, 0
    if isinstance(tree, IsoTree):
        pieces = tree.extents(name)
        if len(pieces) == 1:
            return tree.volume.path, pieces[0][0]
    return None
