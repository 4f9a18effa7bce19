"""Reads a disc for a catalogue that lost it: every file once, each instance's header, every digest compared.

Nothing is taken from a database. The manifest says what the files were when the disc was made, VOLUMES.TXT what set the
disc belongs to, README.TXT and the volume descriptor the rest; a disc of another maker has its DICOMDIR and its files.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from media import dicomdir_reader, manifest, readme, setcatalogue, signing, verify_manifest, verify_set
from media.discfacts import DiscFacts, from_readme, from_set, volume_date
from media.headermemory import HeaderMemory, Values
from media.identity import Identity, identify
from media.isolayout import SECTOR
from media.items import Header
from media.part10 import locate_in
from media.problems import MediaError, NotDicom, Problem, ProblemKind
from media.protection import protection_of
from media.setcatalogue_read import SetCatalogue
from media.spill import Spill
from media.trees import FileTree, IsoTree, canonical_path, open_tree
from media.verify_meta import MetaMemory, is_part10, read_meta
from media.verify_read import Digests, FileRead, Pass, read_tree

_DICOMDIR = "DICOMDIR"
_TEXTS = frozenset(
    (
        _DICOMDIR,
        manifest.FILE_NAME,
        readme.FILE_NAME,
        setcatalogue.FILE_NAME,
        signing.SIGNATURE_FILE,
        signing.KEY_FILE,
        signing.HELP_FILE,
    )
)
_README_LIMIT = 4 << 20
_PATH_LIMIT = 80
_PROBLEM_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class FileFound:
    """An instance that could be read, and is as it was when the disc was made."""

    position: int
    """Among the files of the disc, from 1; the same on every copy, whatever can be read of it."""
    name: str
    """File ID, joined by slashes."""
    size: int
    sha256: str
    header: int
    """Where its header stands in ``DiscFound.headers``."""
    digest: str = ""
    """SHA-256 of the data set on the disc; empty where VOLUMES.TXT has that of the data set as received."""
    vouched: bool = False
    """Whether the manifest says that it is as it was; without one, only that it could be read is known."""


@dataclass(slots=True, kw_only=True)
class DiscFound(DiscFacts):
    """What was found on one medium."""

    path: Path
    kind: str
    """``image``, ``drive`` or ``folder``."""
    identity: Identity
    set_catalogue: SetCatalogue | None = None
    set_bytes: bytes | None = None
    """VOLUMES.TXT as it stands there."""
    readme: bytes = b""
    signing_key: bytes | None = None
    signature: bytes | None = None
    image_sha256: str | None = None
    """Of the whole image, where all of it could be read."""
    files: list[FileFound] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    """Instances that could not be read, or are not what they were, by file, and why."""
    problems: list[Problem] = field(default_factory=list)
    sectors_unreadable: int = 0
    seconds: float = 0.0
    headers: Spill[Values] = field(default_factory=Spill)
    """See ``header_of``."""

    @property
    def sound(self) -> bool:
        """Whether all that the disc should have was read and is as it was."""
        return not self.lost and not self.problems

    @property
    def damaged(self) -> bool:
        """Whether something is lost. What else is odd about another maker's disc is no damage."""
        if self.identity.ours:
            return not self.sound
        kinds = {problem.kind for problem in self.problems}
        return bool(self.lost) or bool(kinds & {ProblemKind.UNREADABLE, ProblemKind.MISSING, ProblemKind.DIGEST})

    def header_of(self, file: FileFound) -> Header:
        """The header of a file's data set."""
        return Header(*self.headers.get(file.header))

    def close(self) -> None:
        self.headers.close()


def read_disc(
    path: Path,
    *,
    scratch: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> DiscFound:
    """Read a disc image, a device, a mounted disc or a folder with a disc's files; ``close`` what is returned.

    ``scratch``: a folder for a temporary file. Raises FileSetInvalid for what is no medium at all, VerifyCancelled.
    """
    started = time.monotonic()
    with open_tree(path) as tree:
        reading = _Reading(tree, path, scratch)
        try:
            found = reading.run(progress, cancelled)
        except BaseException:
            reading.found.close()
            raise
    found.seconds = time.monotonic() - started
    return found


class _Reading:
    """One medium being read."""

    def __init__(self, tree: FileTree, path: Path, scratch: Path | None) -> None:
        self._tree = tree
        self.found = found = DiscFound(path=path, kind=_kind(tree), identity=identify(tree), headers=Spill(scratch))
        for problem in tree.problems:
            self._report(problem.kind, problem.file, problem.detail)
        ours = found.identity.ours
        self._manifest = verify_manifest.load(tree, ours, self._report)
        if ours:
            self._load_ours()
        else:
            found.created = volume_date(tree)
        entries = found.set_catalogue.entries if found.set_catalogue is not None else None
        self._referenced = self._load_directory() if entries is None else {}
        names = entries if entries is not None else self._candidates()
        self._positions: Mapping[str, int] = {name: number for number, name in enumerate(names, start=1)}
        self._entries = entries
        self._memory = HeaderMemory()
        self._metas = MetaMemory()
        self._headers: dict[str, int] = {}
        self._offsets: dict[str, int] = {}

    def _report(self, kind: ProblemKind, file: str, detail: str) -> None:
        if len(self.found.problems) < _PROBLEM_LIMIT:
            self.found.problems.append(Problem(kind, file, detail))

    # ------------------------------------------------------------------ before the pass

    def _load_directory(self) -> dict[str, None]:
        """The files that the DICOMDIR references, in its order."""
        if _DICOMDIR not in self._tree.files:
            return {}
        try:
            with self._tree.open(_DICOMDIR) as stream:
                directory = dicomdir_reader.read(stream)
        except (MediaError, OSError) as error:
            self._report(ProblemKind.UNREADABLE, _DICOMDIR, str(error))
            return {}
        native = dicomdir_reader.NATIVE
        named = (record.file_id for record in directory.records if record.file_id and record.type not in native)
        return dict.fromkeys(canonical_path("/".join(file_id)) for file_id in named)

    def _candidates(self) -> list[str]:
        """What may be instances: what is referenced, on other makers' discs also what is not."""
        if self.found.identity.ours:
            return list(self._referenced)
        others = (name for name in self._tree.files if name not in _TEXTS and name not in self._referenced)
        return [*self._referenced, *sorted(others)]

    def _load_ours(self) -> None:
        found, tree = self.found, self._tree
        found.set_catalogue = verify_set.load(tree, self._report)
        if found.set_catalogue is not None and found.set_catalogue.volume.file_set_uid != found.identity.file_set_uid:
            self._report(ProblemKind.CATALOGUE, setcatalogue.FILE_NAME, "It is that of another File-set.")
            found.set_catalogue = None
        if found.set_catalogue is not None:
            found.set_bytes = self._text(setcatalogue.FILE_NAME)
        found.readme = self._text(readme.FILE_NAME) or b""
        found.signing_key = self._text(signing.KEY_FILE)
        found.signature = self._text(signing.SIGNATURE_FILE)
        if isinstance(tree, IsoTree):
            found.iso_sectors = tree.volume.volume_size // SECTOR
            found.protection = protection_of(tree.volume)
        from_readme(found, found.readme, volume_date(tree))
        if found.set_catalogue is not None:
            from_set(found, found.set_catalogue)
        elif found.protection is not None:
            found.sectors = found.protection.sectors
        else:
            found.sectors = found.iso_sectors

    def _text(self, name: str) -> bytes | None:
        """A small file of the root; None where there is none, or it cannot be read (which the pass will tell)."""
        if name not in self._tree.files:
            return None
        limit = self._tree.files[name].size if name == setcatalogue.FILE_NAME else _README_LIMIT
        try:
            with self._tree.open(name) as stream:
                return stream.read(limit)
        except OSError:
            return None

    # ------------------------------------------------------------------ the pass

    @property
    def _needs_datasets(self) -> bool:
        """Whether digests of data sets are needed: VOLUMES.TXT has none, or nothing else tells what became other."""
        return self._entries is None or self._manifest is None

    def run(self, progress: Callable[[int, int], None] | None, cancelled: Callable[[], bool] | None) -> DiscFound:
        found = self.found
        task = Pass(
            self._visit,
            progress,
            cancelled,
            image_bytes=found.sectors * SECTOR if found.sectors and found.kind != "folder" else None,
            stream=found.identity.ours,
            dataset_offset=_dataset_offset if self._needs_datasets else None,
        )
        if isinstance(self._tree, IsoTree) and not found.sectors and found.kind == "drive":
            task.image_bytes = self._tree.volume.volume_size
        digests = read_tree(self._tree, task)
        for problem in task.problems:
            self._report(problem.kind, problem.file, problem.detail)
        found.sectors_unreadable = sum(last - first + 1 for first, last in task.unreadable)
        found.image_sha256 = digests.image
        self._settle(digests)
        return found

    def _visit(self, file: FileRead) -> None:
        name = file.name
        if name in _TEXTS or name not in self._positions:
            return
        if self._entries is None and not is_part10(file.head) and name not in self._referenced:
            return  # a viewer, a web page: no part of the file-set
        stream = _Stream(file)
        try:
            if self._entries is not None:
                meta = self._metas.read(file.head)
                if meta is None:
                    raise NotDicom("It is no PS3.10 file")
                offset, syntax, like = meta.dataset_offset, meta.transfer_syntax_uid, meta.sop_class_uid
            else:
                located = locate_in(stream, name)  # type: ignore[arg-type]
                offset, syntax, like = located.dataset_offset, located.transfer_syntax_uid, located.sop_class_uid
            values = self._memory.values_in(
                stream,  # type: ignore[arg-type]
                file.head,
                offset=offset,
                transfer_syntax_uid=syntax,
                length=file.size - offset,
                like=like,
            )
        except NotDicom as error:
            self.found.lost[name] = str(error)
            return
        self._offsets[name] = offset
        self._headers[name] = self.found.headers.add(values)

    def _settle(self, digests: Digests) -> None:
        """Which of the files are as they were."""
        found = self.found
        listed = self._manifest.digests if self._manifest is not None else {}
        failed = {problem.file: problem.detail for problem in found.problems if problem.file}
        wanted: Collection[str] = {**self._referenced, **dict.fromkeys(self._headers)}
        if self._entries is not None:
            wanted = self._entries
        for name in wanted:
            file = self._tree.files.get(name)
            if file is None:
                found.lost[name] = "It is not there."
            elif name not in digests.files:
                found.lost.setdefault(name, failed.get(name, "It cannot be read."))
            elif name in listed and digests.files[name] != listed[name]:
                found.lost[name] = f"Its SHA-256 is {digests.files[name]}; the manifest says {listed[name]}."
            elif len(name) > _PATH_LIMIT:
                found.lost[name] = f"Its name has more than {_PATH_LIMIT} characters."
            elif name in self._headers:
                self._take(name, file.size, digests, vouched=name in listed)
        for name in listed:
            if name in found.lost or name in wanted or name in failed:
                continue
            if name not in self._tree.files:
                self._report(ProblemKind.MISSING, name, "It is not there; the manifest lists it.")
            elif digests.files.get(name, listed[name]) != listed[name]:
                self._report(ProblemKind.DIGEST, name, "It is not what the manifest says.")
        found.files.sort(key=lambda one: one.position)

    def _take(self, name: str, size: int, digests: Digests, *, vouched: bool) -> None:
        """A file that is as it was, as far as this disc tells."""
        digest = self._dataset_digest(name, digests) if self._needs_datasets else ""
        if self._entries is not None:
            entry = self._entries[name]
            if digest and entry.before is None and digest != entry.digest:
                self.found.lost[name] = (
                    f"The SHA-256 of its data set is {digest}; {setcatalogue.FILE_NAME} says {entry.digest}."
                )
                return
            digest = ""
        self.found.files.append(
            FileFound(self._positions[name], name, size, digests.files[name], self._headers[name], digest, vouched)
        )

    def _dataset_digest(self, name: str, digests: Digests) -> str:
        offset, digest = digests.datasets.get(name, (-1, ""))
        if offset == self._offsets[name]:
            return digest
        return self._hashed(name, self._offsets[name])  # a file that begins otherwise than PS3.10 says

    def _hashed(self, name: str, offset: int) -> str:
        digest = hashlib.sha256()
        with self._tree.open(name) as stream:
            stream.seek(offset)
            while piece := stream.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()


class _Stream:
    """A file that has just been read, to be read again in places: what its head has comes from there."""

    def __init__(self, file: FileRead) -> None:
        self._file = file
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = self._file.size - self._at
        count = left if count < 0 else min(count, left)
        if count <= 0:
            return b""
        head = self._file.head
        if self._at < len(head):
            data = head[self._at : self._at + count]
        else:
            data = self._file.read(self._at, count)
        self._at += len(data)
        return data


def _kind(tree: FileTree) -> str:
    if isinstance(tree, IsoTree):
        return "drive" if tree.volume.device.is_drive else "image"
    return "folder"


def _dataset_offset(head: bytes) -> int:
    """Where the data set of a regular PS3.10 file begins; -1 for any other file."""
    if not is_part10(head):
        return -1
    meta, _ = read_meta(head)
    return meta.dataset_offset if meta is not None else -1
