"""What an update changes on a medium, worked out before anything is written."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from media import setcatalogue, signing, verify_manifest
from media.dicomdir_reader import read
from media.fileids import FileIds, may_number, numbered, random_names
from media.items import Item
from media.manifest import FILE_NAME as MANIFEST
from media.problems import FileSetInvalid, MediaError
from media.profile_keys import KeySet
from media.readme import FILE_NAME as README
from media.signing import Seal
from media.trees import FileTree
from media.update_directory import DirectoryEdit
from media.update_texts import is_our_manifest, is_our_readme, renewed_manifest, renewed_readme

DICOMDIR = "DICOMDIR"
_CHUNK = 1 << 20
_TEXT_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be done; see ``media.update.update``."""

    add: tuple[Item, ...]
    remove: frozenset[str]
    now: datetime
    keys: KeySet | None
    seal: Seal | None
    random_file_ids: bool = False


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
class Change:
    """A file-set's files as they will be, apart from those that stay."""

    edit: DirectoryEdit
    added: tuple[tuple[str, Item], ...]
    removed: tuple[str, ...]
    already: tuple[str, ...]
    replaced: dict[str, bytes]
    """New content of DICOMDIR, README.TXT and MANIFEST.TXT, as far as they change."""


def outcome(change: Change) -> Updated:
    directory = change.edit.directory
    return Updated(
        directory.file_set_id,
        directory.file_set_uid,
        tuple(path for path, _ in change.added),
        change.removed,
        change.already,
        len(change.edit.files()),
    )


def changed(tree: FileTree, orders: Orders) -> Change:
    """Work out everything that changes; nothing is written."""
    if DICOMDIR not in tree.files:
        raise FileSetInvalid(f"{tree.label}: there is no DICOMDIR in its root.")
    edit = DirectoryEdit(read_text(tree, DICOMDIR), keys=orders.keys)
    _sound_signature(tree)
    by_uid = {chain[-1].sop_instance_uid: chain[-1].path for chain in edit.chains() if chain[-1].path}
    removed = {path for path in edit.remove(orders.remove) if path in tree.files} if orders.remove else set()
    already, added = [], []
    names = _Names(tree, random.Random() if orders.random_file_ids else None)
    for item in orders.add:
        if edit.holds(item.sop_instance_uid):
            if digest_of(tree, by_uid.get(item.sop_instance_uid, "")) != item.sha256:
                raise MediaError(f"Instance {item.sop_instance_uid} is on the medium already, with other bytes.")
            already.append(item.sop_instance_uid)
            continue
        path = names.next(item, edit)
        edit.add(item, path)
        added.append((path, item))
    if not added and not removed and not orders.remove:
        return Change(edit, (), (), tuple(already), {})
    data = edit.to_bytes()
    _check(data, edit)
    replaced = {DICOMDIR: data, **_texts(tree, edit, data, added, removed, orders)}
    return Change(edit, tuple(added), tuple(sorted(removed)), tuple(already), replaced)


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
    orders: Orders,
) -> dict[str, bytes]:
    """README.TXT, MANIFEST.TXT and its signature as they become, where they are ours; ``removed`` gets the signature's
    files where nobody signs."""
    changed: dict[str, bytes] = {}
    if README in tree.files and is_our_readme(old := read_text(tree, README)):
        changed[README] = renewed_readme(old, edit, orders.now, keys_supplied=any(item.supplied for _, item in added))
    if MANIFEST in tree.files and is_our_manifest(old := read_text(tree, MANIFEST)):
        signed = signing.SIGNATURE_FILE in tree.files
        # The catalogue of the volume set tells what the plan had put there: that is so no more.
        removed |= {setcatalogue.FILE_NAME} & set(tree.files)
        if signed and orders.seal is not None:
            changed[signing.KEY_FILE] = orders.seal.public_key
        elif signed:
            removed |= {signing.SIGNATURE_FILE, signing.KEY_FILE, signing.HELP_FILE} & set(tree.files)
        changed[MANIFEST] = renewed_manifest(
            old,
            changed={DICOMDIR: directory, **changed},
            added=[(path, item.size, item.sha256, item.supplied) for path, item in added],
            removed=removed,
        )
        if signed and orders.seal is not None:
            changed[signing.SIGNATURE_FILE] = orders.seal.sign(changed[MANIFEST])
    return changed


def _sound_signature(tree: FileTree) -> None:
    """MediaError for a medium whose signature is wrong: a new one would make what was forged look right."""
    found: list[str] = []
    verify_manifest.signer(tree, lambda _kind, file, detail: found.append(f"{file}: {detail}"))
    if found:
        raise MediaError(f"{tree.label}: {found[0]} It is not changed.")


class _Names:
    """File IDs that go on where those of the medium end, or random ones; they never meet a name that is there."""

    def __init__(self, tree: FileTree, dice: random.Random | None) -> None:
        self._dice = dice
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
        if self._dice is not None:
            return self._fresh_random(folder, prefix, self._dice)
        highest = self._highest(folder, prefix)
        if not may_number(prefix, highest + 1):
            raise MediaError(f"{folder} would hold more entries than File IDs can number.")
        name = f"{folder}/{numbered(prefix, highest + 1)}"
        self._taken.add(name)
        self._numbers[folder, prefix] = highest + 1
        return name

    def _fresh_random(self, folder: str, prefix: str, dice: random.Random) -> str:
        there = self._numbers[folder, prefix] = self._numbers.get((folder, prefix), self._count(folder, prefix)) + 1
        if not may_number(prefix, there):
            raise MediaError(f"{folder} would hold more entries than File IDs can number.")
        names = (f"{folder}/{name}" for name in random_names(prefix, dice))
        found = next(name for name in names if name not in self._taken)
        self._taken.add(found)
        return found

    def _count(self, folder: str, prefix: str) -> int:
        """Names of a kind in a folder."""
        return sum(name.startswith(f"{folder}/{prefix}") and "/" not in name[len(folder) + 1 :] for name in self._taken)

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


def read_text(tree: FileTree, name: str) -> bytes:
    if name not in tree.files:
        raise FileSetInvalid(f"{tree.label}: there is no {name} in its root.")
    if tree.files[name].size > _TEXT_LIMIT:
        raise FileSetInvalid(f"{tree.label}: {name} has {tree.files[name].size} bytes; that is too much to change.")
    with tree.open(name) as stream:
        return stream.read()


def digest_of(tree: FileTree, name: str) -> str:
    if name not in tree.files:
        return ""
    digest = hashlib.sha256()
    with tree.open(name) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
