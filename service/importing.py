"""``burnish import``: files, folders, DICOMDIR file-sets and disc images through the same door as C-STORE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from media.problems import MediaError, Problem
from media.signing import HELP_FILE, KEY_FILE, SIGNATURE_FILE
from media.trees import FileTree, FolderTree, TreeFile, canonical, canonical_path, open_tree
from service.contract import Document, Operations, Source
from service.errors import Refusal, UsageError, as_refusal

IN_FLIGHT = 8
"""Files on their way at the same time, so that they share commits."""
_MEDIUM_ONLY = frozenset({"DICOMDIR", "README.TXT", "MANIFEST.TXT", "VOLUMES.TXT", SIGNATURE_FILE, KEY_FILE, HELP_FILE})
"""Files of a medium that describe it and are no instances (at the DICOMDIR's own level)."""
_OTHER_FORMAT = ", not DICOM"
"""End of the reason for which a file is refused that is known to be something else (``media.part10``)."""
_ISO_MAGIC = (32769, b"CD001")


@dataclass(slots=True)
class Found:
    """What the paths hold: files to take in, and what is refused without being opened."""

    sources: list[Source] = field(default_factory=list)
    refused: list[Document] = field(default_factory=list)
    referenced: set[str] = field(default_factory=set)
    """What a DICOMDIR says is an instance."""

    @property
    def bytes(self) -> int:
        return sum(source.size for source in self.sources)

    def refuse(self, path: str, reason: str) -> None:
        self.refused.append({"path": path, "reason": reason})

    def is_no_instance(self, refused: Document) -> bool:
        """Whether a file that was refused is just another kind of file, which nothing says is an instance: a text, a
        viewer's program or picture."""
        return str(refused["reason"]).endswith(_OTHER_FORMAT) and refused["path"] not in self.referenced


def survey(paths: Sequence[Path], stack: ExitStack) -> Found:
    """List what is to be imported, in an order that depends on the paths alone.

    Images stay open until ``stack`` ends. Raises ``UsageError`` for a path that does not exist.
    """
    absent = [str(path) for path in paths if not path.exists()]
    if absent:
        raise UsageError(f"there is no {', '.join(absent)}")
    found = Found()
    for path in paths:
        if path.is_dir() or canonical(path.name) == "DICOMDIR" or _is_image(path):
            try:
                tree = open_tree(path)
            except MediaError as error:
                found.refuse(str(path), _without(str(error), str(path)))
                continue
            stack.callback(tree.close)
            _survey_tree(tree, found)
        elif path.is_file():
            found.sources.append(Source(str(path), path.stat().st_size, partial(_open, path), path))
        else:
            found.refuse(str(path), "it is neither a file nor a folder")
    return found


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _is_image(path: Path) -> bool:
    offset, magic = _ISO_MAGIC
    if path.is_block_device():
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(len(magic)) == magic and not _is_part10(path)
    except OSError:
        return False


def _is_part10(path: Path) -> bool:
    """An instance may hold the magic of a disc image by chance, an image has no DICOM prefix (but may have both)."""
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(6) == b"DICM\x02\x00"


def _survey_tree(tree: FileTree, found: Found) -> None:
    for problem in tree.problems:
        found.refuse(f"{tree.label}/{problem.file}".rstrip("/"), problem.detail)
    roots = [name for name in tree.files if name.rpartition("/")[2] == "DICOMDIR"]
    folder = Path(tree.label) if isinstance(tree, FolderTree) else None
    described = {f"{_folder(root)}{name}" for root in roots for name in _MEDIUM_ONLY}
    for name in tree.order:
        if name not in described:
            file = tree.files[name]
            path = folder / file.raw if folder else None
            found.sources.append(Source(f"{tree.label}/{file.raw}", file.size, partial(tree.open, name), path))
    for root in sorted(roots):
        _survey_directory(tree, tree.files[root], found)


def _survey_directory(tree: FileTree, directory: TreeFile, found: Found) -> None:
    """What a DICOMDIR refers to and what is not there."""
    from media import dicomdir_reader

    shown = f"{tree.label}/{directory.raw}"
    try:
        with tree.open(directory.name) as stream:
            read = dicomdir_reader.read(stream)
    except (MediaError, OSError) as error:
        found.refuse(shown, f"the DICOMDIR cannot be read: {_without(str(error), shown)}")
        return
    for problem in read.problems:
        found.refuse(*_shown_problem(tree, directory, problem))
    missing: set[str] = set()
    for record in read.records:
        if not record.file_id:
            continue
        name = canonical_path("/".join(record.file_id))
        file = tree.files.get(f"{_folder(directory.name)}{name}")
        if file is not None:
            found.referenced.add(f"{tree.label}/{file.raw}")
        elif name not in missing:
            missing.add(name)
            found.refuse(
                f"{tree.label}/{_folder(directory.raw)}{name}", f"{directory.raw} refers to it, but it is absent"
            )


def _shown_problem(tree: FileTree, directory: TreeFile, problem: Problem) -> tuple[str, str]:
    return f"{tree.label}/{directory.raw}", f"{problem.file}: {problem.detail}" if problem.file else problem.detail


def _folder(name: str) -> str:
    return name[: name.rfind("/") + 1]


def _without(text: str, path: str) -> str:
    """A reason that does not begin with the path which stands beside it."""
    for prefix in (path, path.rpartition("/")[2]):
        text = text.removeprefix(prefix).lstrip(": ") or text
    return text


def bring_in(
    operations: Operations,
    found: Found,
    *,
    progress: Callable[[int], None] = lambda _bytes: None,
    in_flight: int = IN_FLIGHT,
    reconcile: str = "",
    taken: list[int] | None = None,
) -> Document:
    """Take everything in: the ``burnish import --json`` document. ``progress`` hears the bytes of each file done.

    A file that is refused does not stop the others; a service or spool that cannot go on does (``Refusal``).
    ``reconcile``: digest of the rule set that corrects each on its way in. ``taken`` gets the number of each instance.
    """
    counts = {"stored": 0, "duplicate": 0, "conflict": 0}
    conformed = 0
    refused = list(found.refused)
    changes = _Changes()
    ingest = partial(operations.ingest, reconcile=reconcile) if reconcile else operations.ingest
    for source, result in _in_order(ingest, found.sources, in_flight):
        if isinstance(result, str):
            refused.append({"path": source.shown, "reason": result})
        else:
            counts[result["outcome"]] += 1
            conformed += bool(result.get("conformed"))
            changes.add(result)
            if taken is not None:
                taken.append(result["instance"])
        progress(source.size)
    return {
        "imported": counts["stored"],
        "duplicates": counts["duplicate"],
        "conflicts": counts["conflict"],
        **({"conformed": conformed} if conformed else {}),
        "refused": refused,
        **(changes.document() if reconcile else {}),
    }


class _Changes:
    """What rules changed on the way in, equal changes of many instances told once."""

    def __init__(self) -> None:
        self._instances = 0
        self._groups: dict[tuple[str, str, str], list[str]] = {}

    def add(self, result: Document) -> None:
        self._instances += bool(result.get("changes"))
        for change in result.get("changes", ()):
            group = self._groups.setdefault((change["tag"], change["old"], change["new"]), [])
            group.append(result["sop_instance_uid"])

    def document(self) -> Document:
        return {
            "reconciled": self._instances,
            "changes": [
                {"tag": tag, "old": old, "new": new, "instances": uids}
                for (tag, old, new), uids in self._groups.items()
            ],
        }


Ingest = Callable[[Source], Document]


def _in_order(ingest: Ingest, sources: Sequence[Source], in_flight: int) -> Iterator[tuple[Source, Document | str]]:
    with ThreadPoolExecutor(in_flight, thread_name_prefix="import") as pool:
        waiting: deque[tuple[Source, Future[Document | str]]] = deque()
        try:
            for source in sources:
                waiting.append((source, pool.submit(_one, ingest, source)))
                if len(waiting) >= 2 * in_flight:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _one(ingest: Ingest, source: Source) -> Document | str:
    """One file: what came of it, or why it is refused."""
    try:
        return ingest(source)
    except Exception as error:
        refusal: Refusal | None = as_refusal(error)
        if refusal is None:  # a fault of ours with this one file must not cost the others
            return f"unexpected {type(error).__name__}: {error}"
        if refusal.http_status == 503:
            raise
        return _without(str(refusal), source.shown)
