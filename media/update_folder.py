"""Updating a folder or mounted medium, so that at every moment its DICOMDIR describes files that are there.

New files come first, then the new DICOMDIR is renamed over the old one, and files are removed only after that.
Everything new waits in the folder ``BURNISH.TMP`` with a journal; after a crash the next update, or ``recover``,
finishes what had replaced the DICOMDIR and takes back what had not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from media.fileids import hostile_component
from media.items import Item
from media.problems import MediaError
from media.trees import FolderTree, canonical
from media.update_change import DICOMDIR, Change, Orders, changed, digest_of, read_text
from media.update_directory import DirectoryEdit
from media.update_files import exclusive, remove_tree, sync

STAGING = "BURNISH.TMP"
"""Folder in the root of the medium, only while an update runs (or after one that was killed)."""
_JOURNAL = "JOURNAL"
_JOURNAL_LIMIT = 64 << 20
_CHUNK = 1 << 20


def update_folder(root: Path, orders: Orders) -> Change:
    with _locked(root):
        _recover(root)
        with FolderTree(root) as tree:
            change = changed(tree, orders)
            if not change.replaced:
                return change
            _room(root, change)
            try:
                _stage(root, tree, change)
                _apply(root, _journal(root))
            except (MediaError, OSError):
                with suppress(MediaError, OSError):
                    _recover(root)
                raise
    return change


def recover(root: Path) -> bool:
    """End what a killed update left in a folder; whether there was anything. MediaError for a journal not ours."""
    with _locked(root):
        return _recover(root)


def _room(root: Path, change: Change) -> None:
    cluster = max(512, os.statvfs(root).f_frsize)
    sizes = [item.size for _, item in change.added] + [len(data) for data in change.replaced.values()]
    need = sum(-(-size // cluster) * cluster for size in sizes) + 64 * cluster
    free = shutil.disk_usage(root).free
    if free < need:
        raise MediaError(f"{root} has {free} bytes free; the update needs {need}.")


def _stage(root: Path, tree: FolderTree, change: Change) -> None:
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
        "directory": hashlib.sha256(change.replaced.get(DICOMDIR, b"")).hexdigest(),
        "place": place,
        "replace": replace,
        "delete": [tree.files[path].raw for path in change.removed],
    }
    _write(staging / f"{_JOURNAL}.NEW", json.dumps(journal).encode("ascii"))
    sync(staging)
    (staging / f"{_JOURNAL}.NEW").rename(staging / _JOURNAL)
    sync(staging)
    sync(root)


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
        sync(folder)
    _finish(root, journal)


def _finish(root: Path, journal: dict[str, Any]) -> None:
    """From the new DICOMDIR on; also what a later run does where a crash came after that."""
    staging = root / STAGING
    for name, path in journal["replace"]:
        if (staging / name).exists():
            (staging / name).replace(_below(root, path))
            sync(root)
    for path in journal["delete"]:
        _delete(root, path)
    sync(root)
    remove_tree(staging)
    sync(root)


def _recover(root: Path) -> bool:
    staging = root / STAGING
    if not os.path.lexists(staging):
        return False
    if staging.is_symlink() or not staging.is_dir():
        raise MediaError(f"{staging} is in the way, and is no folder of ours.")
    if not (staging / _JOURNAL).exists():
        remove_tree(staging)
        return True
    journal = _journal(root)
    with FolderTree(root) as tree:
        current = digest_of(tree, DICOMDIR)
        referenced = DirectoryEdit(read_text(tree, DICOMDIR)).files() if DICOMDIR in tree.files else set()
    if current == journal["directory"]:
        _finish(root, journal)
        return True
    for name, path in journal["place"]:
        if not (staging / name).exists() and "/".join(map(canonical, path.split("/"))) not in referenced:
            _delete(root, path)
        else:
            _prune(root, _below(root, path).parent)
    remove_tree(staging)
    sync(root)
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


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One update at a time."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        exclusive(descriptor, root)
        yield
    finally:
        os.close(descriptor)
