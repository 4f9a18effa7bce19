"""VOLUMES.TXT of a medium of ours against the medium: which volume of which set it is, and what is on it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from media.dicomdir_reader import Directory
from media.problems import MediaError, ProblemKind
from media.setcatalogue import FILE_NAME
from media.setcatalogue_read import LIMIT, SetCatalogue, parse
from media.trees import FileTree
from media.verify_read import reason
from media.verify_values import quoted

Report = Callable[[ProblemKind, str, str], None]


def load(tree: FileTree, report: Report) -> SetCatalogue | None:
    """Read it strictly. None: there is none, or it cannot be believed, which is said."""
    if FILE_NAME not in tree.files:
        return None
    size = tree.files[FILE_NAME].size
    if size > LIMIT:
        report(ProblemKind.CATALOGUE, FILE_NAME, f"It has {size} bytes; more than {LIMIT} are not read.")
        return None
    try:
        with tree.open(FILE_NAME) as stream:
            return parse(stream.read(size))
    except OSError as error:
        report(ProblemKind.UNREADABLE, FILE_NAME, f"It cannot be read: {reason(error)}.")
    except MediaError as error:
        report(ProblemKind.CATALOGUE, FILE_NAME, str(error))
    return None


def check(found: SetCatalogue, directory: Directory, referenced: Collection[str], report: Report) -> None:
    """It tells of this volume, and of each instance that the directory references."""
    for what, said, wanted in (
        ("File-set ID", found.volume.file_set_id, directory.file_set_id),
        ("File-set UID", found.volume.file_set_uid, directory.file_set_uid),
    ):
        if said != wanted:
            report(
                ProblemKind.CATALOGUE, FILE_NAME, f"Its {what} is {quoted(said)}; that of DICOMDIR is {quoted(wanted)}."
            )
    for name in referenced:
        if name not in found.entries:
            report(ProblemKind.CATALOGUE, FILE_NAME, f"It does not list {name}, which DICOMDIR references.")
    for name in found.entries:
        if name not in referenced:
            report(ProblemKind.CATALOGUE, FILE_NAME, f"It lists {name}, which no record in DICOMDIR references.")
    here = sum(study.volumes.get(found.volume.number, 0) for study in found.studies)
    if here > found.instances:
        report(
            ProblemKind.CATALOGUE,
            FILE_NAME,
            f"Its studies have {here} instances on this volume; it lists {found.instances}.",
        )
