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
    if meta.dataset_offset >= file.size:
        report(ProblemKind.STRUCTURE, file.name, "It has no data set behind its file meta information.")
        return None
    strict = ""
    if meta.transfer_syntax_uid not in OTHERWISE_ENCODED:
        try:
            return FileValues(scan(file.head, file.read, meta.dataset_offset, file.size, wanted))
        except Malformed as error:
            strict = str(error)
    try:
        return _as_received(tree, file, meta)
    except NotDicom as error:
        report(ProblemKind.STRUCTURE, file.name, f"Its data set is damaged: {strict or error}.")
        return None


def _as_received(tree: FileTree, file: FileRead, meta: Meta) -> FileValues | None:
    """By the reader that lets instances in: slower, for every encoding, and for what devices get slightly wrong.

    Such an instance goes on a disc as it is, padded with zeros or with elements out of order, and is no fault of the
    disc. An encoding that no profile allows is reported elsewhere.
    """
    from media.header import read_header

    place = _place(tree, file.name)
    if place is None:
        return None
    path, offset = place
    header = read_header(
        path,
        offset=offset + meta.dataset_offset,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        length=file.size - meta.dataset_offset,
    )
    try:
        values = elements(header.directory_keys)
    except Malformed as error:
        raise NotDicom(str(error)) from None
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
