"""Updating a file-set in its place (File-set Updater, PS3.10 4.4): instances come and go, its UID and the rest stay.

A folder or mounted medium is changed so that at every moment its DICOMDIR describes files that are there: new files
first, then the new DICOMDIR renamed over the old one, and files are removed only after that. Everything new waits in
the folder ``BURNISH.TMP`` with a journal; after a crash the next update, or ``recover``, finishes what had replaced the
DICOMDIR and takes back what had not. An image is made anew beside the old one and renamed over it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from media.dicomdir_reader import read
from media.fileids import FileIds, hostile_component
from media.iso9660 import IsoImage
from media.items import DiscFile, Item
from media.manifest import FILE_NAME as MANIFEST
from media.problems import FileSetInvalid, MediaError
from media.readme import FILE_NAME as README
from media.trees import FileTree, FolderTree, IsoTree, canonical, open_tree
from media.update_directory import DirectoryEdit, Node
from media.update_texts import is_our_manifest, is_our_readme, renewed_manifest, renewed_readme

STAGING = "BURNISH.TMP"
"""Folder in the root of the medium, only while an update runs (or after one that was killed)."""
_DIRECTORY = "DICOMDIR"
_JOURNAL = "JOURNAL"
_JOURNAL_LIMIT = 64 << 20
_CHUNK = 1 << 20
_TEXT_LIMIT = 256 << 20


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


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did."""

    file_set_id: str
    file_set_uid: str
    added: tuple[str, ...]
    """Canonical names of the new files."""
    removed: tuple[str, ...]
    already: tuple[str, ...]
    """SOP Instance UIDs that were to be added and were there, with the same bytes."""
    instances: int
    """How many the file-set has now."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A file-set's files as they will be, apart from those that stay."""

    edit: DirectoryEdit
    added: tuple[tuple[str, Item], ...]
    removed: tuple[str, ...]
    already: tuple[str, ...]
    replaced: dict[str, bytes]
    """New content of DICOMDIR, README.TXT and MANIFEST.TXT, as far as they change."""


def contents(target: Path) -> list[Held]:
    """The instances of a medium. Raises FileSetInvalid where it has no DICOMDIR that could be changed."""
    with open_tree(target) as tree:
        edit = DirectoryEdit(_read(tree, _DIRECTORY))
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


def update(target: Path, *, add: Sequence[Item] = (), remove: Collection[str] = (), now: datetime) -> Updated:
    """Add instances to a file-set, and remove others by their SOP Instance UIDs. ``now``: UTC, for README.TXT.

    ``target``: a folder, a mounted writable medium, its DICOMDIR, or a disc image. Raises MediaError and leaves all as
    it was: no file-set, or a damaged one; an instance that is there with other bytes, or not there; another patient
    under one Patient ID; no space. OSError when writing fails; the next update then tidies up.
    """
    if target.is_dir():
        return _update_folder(target, add, remove, now)
    if target.is_file() and canonical(target.name) == _DIRECTORY:
        return _update_folder(target.parent, add, remove, now)
    if not stat.S_ISREG(target.stat().st_mode):
        raise FileSetInvalid(f"{target}: a burnt disc or device cannot be changed; mount a writable medium.")
    return _update_image(target, add, remove, now)


def profile_of(target: Path) -> str | None:
    """The application profile that README.TXT names, on a medium of ours."""
    with open_tree(target) as tree:
        readme = _read(tree, README) if README in tree.files else b""
    found = re.search(rb"^Profile: +([A-Z0-9-]{1,40})\r?$", readme, re.MULTILINE)
    return found[1].decode("ascii") if found and is_our_readme(readme) else None


def recover(root: Path) -> bool:
    """End what a killed update left in a folder; whether there was anything. MediaError for a journal not ours."""
    with _locked(root):
        return _recover(root)


def _update_folder(root: Path, add: Sequence[Item], remove: Collection[str], now: datetime) -> Updated:
    with _locked(root):
        _recover(root)
        with FolderTree(root) as tree:
            change = _changed(tree, add, remove, now)
            if not change.replaced:
                return _result(change)
            _room(root, change)
            try:
                _stage(root, tree, change)
                _apply(root, _journal(root))
            except (MediaError, OSError):
                with suppress(MediaError, OSError):
                    _recover(root)
                raise
    return _result(change)


def _update_image(target: Path, add: Sequence[Item], remove: Collection[str], now: datetime) -> Updated:
    """The image anew, with every file that stays byte for byte; free space for it twice is needed beside it."""
    work = target.with_name(f".{target.name}.update")
    try:
        with target.open("rb") as stream, IsoTree(target) as tree:
            _flock(stream.fileno(), target)
            _remove_tree(work)
            change = _changed(tree, add, remove, now)
            if not change.replaced:
                return _result(change)
            kept = [name for name in tree.order if name not in change.removed and name not in change.replaced]
            beyond = (
                2 * sum(tree.files[name].size for name in kept) + sum(item.size for _, item in change.added) + 2**20
            )
            if shutil.disk_usage(target.parent).free < beyond:
                raise MediaError(f"{target.parent} has not the {beyond} bytes free that the new image needs.")
            work.mkdir(mode=0o700)
            files = [_generated(name, data) for name, data in change.replaced.items()]
            for number, name in enumerate(kept):
                copy = work / f"{number}"
                digest = _extract(tree, name, copy)
                files.append(DiscFile(tuple(name.split("/")), tree.files[name].size, digest, copy))
            files += [
                DiscFile(tuple(path.split("/")), item.size, item.sha256, item.source) for path, item in change.added
            ]
            rank = {_DIRECTORY: 0, README: 1, MANIFEST: 2}
            files.sort(key=lambda file: rank.get(file.path, 3))
            image = IsoImage(files, tree.volume_id or change.edit.directory.file_set_id, now)
            fresh = work / "image"
            with fresh.open("xb") as out:
                image.write(out)
                out.flush()
                os.fsync(out.fileno())
            shutil.copymode(target, fresh)
            fresh.replace(target)
            _sync(target.parent)
    finally:
        _remove_tree(work)
    return _result(change)


def _result(change: _Change) -> Updated:
    directory = change.edit.directory
    return Updated(
        directory.file_set_id,
        directory.file_set_uid,
        tuple(path for path, _ in change.added),
        change.removed,
        change.already,
        len(change.edit.files()),
    )


# ---------------------------------------------------------------------- what is to change


def _changed(tree: FileTree, add: Sequence[Item], remove: Collection[str], now: datetime) -> _Change:
    """Work out everything that changes; nothing is written."""
    if _DIRECTORY not in tree.files:
        raise FileSetInvalid(f"{tree.label}: there is no DICOMDIR in its root.")
    edit = DirectoryEdit(_read(tree, _DIRECTORY))
    by_uid = {chain[-1].sop_instance_uid: chain[-1].path for chain in edit.chains() if chain[-1].path}
    removed = {path for path in edit.remove(remove) if path in tree.files} if remove else set()
    already, added = [], []
    names = _Names(tree)
    for item in add:
        if edit.holds(item.sop_instance_uid):
            if _digest(tree, by_uid.get(item.sop_instance_uid, "")) != item.sha256:
                raise MediaError(f"Instance {item.sop_instance_uid} is on the medium already, with other bytes.")
            already.append(item.sop_instance_uid)
            continue
        path = names.next(item, edit)
        edit.add(item, path)
        added.append((path, item))
    if not added and not removed and not remove:
        return _Change(edit, (), (), tuple(already), {})
    data = edit.to_bytes()
    _check(data, edit)
    replaced = {_DIRECTORY: data, **_texts(tree, edit, data, added, removed, now)}
    return _Change(edit, tuple(added), tuple(sorted(removed)), tuple(already), replaced)


def _check(data: bytes, edit: DirectoryEdit) -> None:
    """What was written is read again, by the reader that trusts nothing."""
    again = read(data)
    wanted = sum(1 for _ in edit.chains())
    if sum(record.reachable for record in again.records) != wanted or again.file_set_uid != edit.directory.file_set_uid:
        raise MediaError("The new DICOMDIR does not read as it was written; nothing was changed.")


def _texts(
    tree: FileTree,
    edit: DirectoryEdit,
    directory: bytes,
    added: Sequence[tuple[str, Item]],
    removed: set[str],
    now: datetime,
) -> dict[str, bytes]:
    """README.TXT and MANIFEST.TXT as they become, where they are ours."""
    changed: dict[str, bytes] = {}
    if README in tree.files and is_our_readme(old := _read(tree, README)):
        changed[README] = renewed_readme(old, edit, now, keys_supplied=any(item.supplied for _, item in added))
    if MANIFEST in tree.files and is_our_manifest(old := _read(tree, MANIFEST)):
        changed[MANIFEST] = renewed_manifest(
            old,
            changed={_DIRECTORY: directory, **changed},
            added=[(path, item.size, item.sha256, item.supplied) for path, item in added],
            removed=removed,
        )
    return changed


class _Names:
    """File IDs that go on where those of the medium end, and never meet a name that is there."""

    def __init__(self, tree: FileTree) -> None:
        self._taken: set[str] = set()
        for name in tree.files:
            parts = name.split("/")
            self._taken |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        self._own: dict[tuple[str, ...], str] = {}
        self._numbers: dict[tuple[str, str], int] = {}

    def next(self, item: Item, edit: DirectoryEdit) -> str:
        """``DICOM/P.../ST.../SE.../IM...``: in the folder of its series, study or patient, if it has one like ours."""
        first = FileIds().allocate(item)
        if len(first) == 2:
            return self._fresh(first[0], first[1])
        place = edit.place(item)
        pattern = first[: len(place)]
        like_ours = len(place) <= len(first) - 1 and all(
            part == model or part.rstrip("0123456789") == model.rstrip("0123456789")
            for part, model in zip(place, pattern, strict=True)
        )
        if not like_ours:
            place = ()
        keys = (str(item.patient), item.study_instance_uid, item.series_instance_uid)
        folder = "/".join(place) if place else first[0]
        for depth in range(max(len(place), 1), len(first) - 1):
            key = keys[:depth]
            if key not in self._own:
                self._own[key] = self._fresh(folder, first[depth])
            folder = self._own[key]
        return self._fresh(folder, first[-1])

    def _fresh(self, folder: str, model: str) -> str:
        """The name of the model's kind behind the highest number in a folder."""
        prefix = model.rstrip("0123456789")
        digits = 8 - len(prefix)
        highest = self._highest(folder, prefix)
        name = f"{folder}/{prefix}{highest + 1:0{digits}d}"
        if len(name.rpartition("/")[2]) > 8:
            raise MediaError(f"{folder} would hold more entries than File IDs can number.")
        self._taken.add(name)
        self._numbers[folder, prefix] = highest + 1
        return name

    def _highest(self, folder: str, prefix: str) -> int:
        known = self._numbers.get((folder, prefix))
        if known is not None:
            return known
        highest, start = 0, f"{folder}/{prefix}"
        for name in self._taken:
            if name.startswith(start):
                rest = name[len(start) :].partition("/")[0]
                if rest.isascii() and rest.isdigit():
                    highest = max(highest, int(rest))
        return highest


def _generated(name: str, data: bytes) -> DiscFile:
    return DiscFile((name,), len(data), hashlib.sha256(data).hexdigest(), data)


def _read(tree: FileTree, name: str) -> bytes:
    if name not in tree.files:
        raise FileSetInvalid(f"{tree.label}: there is no {name} in its root.")
    if tree.files[name].size > _TEXT_LIMIT:
        raise FileSetInvalid(f"{tree.label}: {name} has {tree.files[name].size} bytes; that is too much to change.")
    with tree.open(name) as stream:
        return stream.read()


def _digest(tree: FileTree, name: str) -> str:
    if name not in tree.files:
        return ""
    digest = hashlib.sha256()
    with tree.open(name) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _extract(tree: FileTree, name: str, target: Path) -> str:
    digest = hashlib.sha256()
    with tree.open(name) as stream, target.open("xb") as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


# ---------------------------------------------------------------------- a folder, step by step


def _room(root: Path, change: _Change) -> None:
    cluster = max(512, os.statvfs(root).f_frsize)
    sizes = [item.size for _, item in change.added] + [len(data) for data in change.replaced.values()]
    need = sum(-(-size // cluster) * cluster for size in sizes) + 64 * cluster
    free = shutil.disk_usage(root).free
    if free < need:
        raise MediaError(f"{root} has {free} bytes free; the update needs {need}.")


def _stage(root: Path, tree: FolderTree, change: _Change) -> None:
    """Write everything new, and the journal last: from its name on, the update can be finished or taken back."""
    staging = root / STAGING
    staging.mkdir(mode=0o700)
    folders = _real_folders(tree)
    place = []
    for number, (path, item) in enumerate(change.added):
        name = f"N{number:07}"
        _write_checked(item, staging / name)
        place.append([name, _real(path, folders)])
    replace = []
    for number, (name, data) in enumerate(change.replaced.items()):
        _write(staging / f"R{number:07}", data)
        replace.append([f"R{number:07}", tree.files[name].raw if name in tree.files else name])
    journal = {
        "directory": hashlib.sha256(change.replaced.get(_DIRECTORY, b"")).hexdigest(),
        "place": place,
        "replace": replace,
        "delete": [tree.files[path].raw for path in change.removed],
    }
    _write(staging / f"{_JOURNAL}.NEW", json.dumps(journal).encode("ascii"))
    _sync(staging)
    (staging / f"{_JOURNAL}.NEW").rename(staging / _JOURNAL)
    _sync(staging)
    _sync(root)


def _apply(root: Path, journal: dict[str, Any]) -> None:
    staging = root / STAGING
    folders: dict[Path, None] = {}
    for name, path in journal["place"]:
        final = _below(root, path)
        for folder in reversed(final.relative_to(root).parents[:-1]):
            if not (root / folder).is_dir():
                (root / folder).mkdir(mode=0o750)
            folders[(root / folder).parent] = folders[root / folder] = None
        if os.path.lexists(final):
            raise MediaError(f"{path} appeared on the medium during the update; run it again.")
        (staging / name).rename(final)
    for folder in folders:
        _sync(folder)
    _finish(root, journal)


def _finish(root: Path, journal: dict[str, Any]) -> None:
    """From the new DICOMDIR on; also what a later run does where a crash came after that."""
    staging = root / STAGING
    for name, path in journal["replace"]:
        if (staging / name).exists():
            (staging / name).replace(_below(root, path))
            _sync(root)
    for path in journal["delete"]:
        _delete(root, path)
    _sync(root)
    _remove_tree(staging)
    _sync(root)


def _recover(root: Path) -> bool:
    staging = root / STAGING
    if not os.path.lexists(staging):
        return False
    if staging.is_symlink() or not staging.is_dir():
        raise MediaError(f"{staging} is in the way, and is no folder of ours.")
    if not (staging / _JOURNAL).exists():
        _remove_tree(staging)
        return True
    journal = _journal(root)
    with FolderTree(root) as tree:
        current = _digest(tree, _DIRECTORY)
        referenced = DirectoryEdit(_read(tree, _DIRECTORY)).files() if _DIRECTORY in tree.files else set()
    if current == journal["directory"]:
        _finish(root, journal)
        return True
    for name, path in journal["place"]:
        if not (staging / name).exists() and "/".join(map(canonical, path.split("/"))) not in referenced:
            _delete(root, path)
        else:
            _prune(root, _below(root, path).parent)
    _remove_tree(staging)
    _sync(root)
    return True


def _journal(root: Path) -> dict[str, Any]:
    """The journal, as far as its names are names below the root. MediaError where it is not ours."""
    file = root / STAGING / _JOURNAL
    try:
        with file.open("rb") as stream:
            journal = json.loads(stream.read(_JOURNAL_LIMIT))
        for name, path in [*journal["place"], *journal["replace"]]:
            if "/" in name or hostile_component(name):
                raise ValueError(name)
            _below(root, path)
        for path in journal["delete"]:
            _below(root, path)
        str(journal["directory"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(f"{file} is no journal of ours; look at {STAGING} and remove it.") from error
    result: dict[str, Any] = journal
    return result


def _below(root: Path, path: str) -> Path:
    """A path of the medium; ValueError where it would lead out of it."""
    parts = path.split("/")
    if any(hostile_component(part) for part in parts):
        raise ValueError(path)
    found = root
    for part in parts[:-1]:
        found /= part
        if found.is_symlink():
            raise ValueError(path)
    return root.joinpath(*parts)


def _delete(root: Path, path: str) -> None:
    file = _below(root, path)
    with suppress(FileNotFoundError, NotADirectoryError):
        file.unlink()
    _prune(root, file.parent)


def _prune(root: Path, folder: Path) -> None:
    """Remove folders that are empty, from here upwards."""
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def _real_folders(tree: FolderTree) -> dict[str, str]:
    """Folders of the medium as they are spelt there, by canonical name."""
    found: dict[str, str] = {}
    for name, file in tree.files.items():
        given, raw = name.split("/")[:-1], file.raw.split("/")[:-1]
        for depth in range(1, len(given) + 1):
            found["/".join(given[:depth])] = "/".join(raw[:depth])
    return found


def _real(path: str, folders: dict[str, str]) -> str:
    parts = path.split("/")
    for depth in range(len(parts) - 1, 0, -1):
        known = folders.get("/".join(parts[:depth]))
        if known is not None:
            return "/".join([known, *parts[depth:]])
    return path


def _write_checked(item: Item, target: Path) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with item.source.open("rb", buffering=0) as source, target.open("xb") as out:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    except FileNotFoundError as error:
        raise MediaError(f"Instance {item.sop_instance_uid}: its source {item.source} is not there.") from error
    if size != item.size or digest.hexdigest() != item.sha256:
        raise MediaError(f"Instance {item.sop_instance_uid}: its source {item.source} has changed.")


def _write(target: Path, data: bytes) -> None:
    with target.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system that cannot is let be
            raise
    finally:
        os.close(descriptor)


def _remove_tree(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One update at a time."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _flock(descriptor, root)
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise MediaError(f"{target} is being updated by another process.") from error
