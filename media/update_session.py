"""Updating by a new session: behind what is written come the new files and a new DICOMDIR; nothing before is touched.

Whose hand writes the session is the caller's business (``Append``). The session counts only when it is complete: on an
image it is written to a copy, which replaces the image once it was read back and found right; on a disc readers go by
the last session that was ended, or, where sectors can be written again, by the volume descriptor, the last thing that
is written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from media.problems import MediaError
from media.protection import refuse_update
from media.setcatalogue import FILE_NAME as SET_FILE
from media.signing import HELP_FILE, KEY_FILE, SIGNATURE_FILE
from media.trees import IsoTree
from media.update_change import Change, Orders, changed
from media.update_files import exclusive, remove_tree, sync
from media.verify import Expected, VerifyResult, verify_path

_CHUNK = 1 << 20
_SECTOR = 2048
_SPARE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Session:
    """What is to be appended: files that lie in ``work``, by their names on the medium."""

    work: Path
    files: tuple[tuple[str, str], ...]
    """(name in ``work``, canonical name on the medium)."""
    hidden: tuple[str, ...]
    """Files of the medium's root that the new tree does not show any more (a signature that nobody can renew)."""
    sectors: int
    """An upper bound of what it needs."""


Append = Callable[[Session, str], None]
"""Appends a session to a device or image file, given by its path. Raises MediaError, OSError."""


def append_to_image(target: Path, orders: Orders, append: Append) -> Change:
    """Append a session to a copy of the image, read it back, and replace the image. Space for both is needed."""
    work = target.with_name(f".{target.name}.update")
    try:
        with target.open("rb") as stream:
            exclusive(stream.fileno(), target)
            remove_tree(work)
            work.mkdir(mode=0o700)
            change, session, before = _prepared(target, orders, work)
            if session is None:
                return change
            need = target.stat().st_size + session.sectors * _SECTOR + _SPARE_BYTES
            if shutil.disk_usage(target.parent).free < need:
                raise MediaError(f"{target.parent} has not the {need} bytes free that the new image needs.")
            fresh = work / "image"
            shutil.copyfile(target, fresh)
            append(session, str(fresh))
            _check(fresh, change, before)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            shutil.copymode(target, fresh)
            fresh.replace(target)
            sync(target.parent)
    finally:
        remove_tree(work)
    return change


def append_to_disc(device: Path, orders: Orders, append: Append, work: Path, ready: Callable[[], None]) -> Change:
    """Append a session to the disc in a drive, and read all of it back.

    ``work``: a folder of our own for what is to be written. ``ready`` makes the drive forget what it knew of the disc.
    Raises MediaError when the disc is not what it should be then; what was on it before is not written over.
    """
    remove_tree(work)
    work.mkdir(parents=True, mode=0o700)
    try:
        change, session, before = _prepared(device, orders, work)
        if session is not None:
            append(session, str(device))
            ready()
            _check(device, change, before)
    finally:
        remove_tree(work)
    return change


def _prepared(target: Path, orders: Orders, work: Path) -> tuple[Change, Session | None, VerifyResult]:
    """What changes, with its files in ``work``, and what the medium holds now; all sources are checked."""
    if orders.remove:
        raise MediaError("A session takes nothing away: what was written stays readable on the disc.")
    with IsoTree(target) as tree:
        refuse_update(tree.volume)
        change = changed(tree, orders)
        if not change.replaced:
            return change, None, VerifyResult(str(target), (), "", "", None, (), None)
        gone = tuple(name for name in change.removed if name in (SIGNATURE_FILE, KEY_FILE, HELP_FILE, SET_FILE))
        if gone != change.removed:
            raise MediaError("A session takes nothing away: what was written stays readable on the disc.")
        directories = sum(1 for name in tree.files) + len(change.added)
    before = verify_path(target)
    files: list[tuple[str, str]] = []
    sectors = 400 + directories // 8
    for number, (name, data) in enumerate(change.replaced.items()):
        (work / f"t{number}").write_bytes(data)
        files.append((f"t{number}", name))
        sectors += -(-len(data) // _SECTOR)
    for number, (path, item) in enumerate(change.added):
        _copy(item.source, work / f"i{number}", item.size, item.sha256, path)
        files.append((f"i{number}", path))
        sectors += -(-item.size // _SECTOR)
    return change, Session(work, tuple(files), gone, sectors), before


def _copy(source: Path, target: Path, size: int, sha256: str, name: str) -> None:
    """Copy a source, which must be what was planned: a session on a disc cannot be taken back."""
    digest, left = hashlib.sha256(), size
    try:
        with source.open("rb", buffering=0) as stream, target.open("xb") as out:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                left -= len(chunk)
                out.write(chunk)
    except OSError as error:
        raise MediaError(f"{name}: cannot read its source {source}: {error.strerror or error}.") from error
    if left or digest.hexdigest() != sha256:
        raise MediaError(f"{name}: its source {source} has changed since it was planned.")


def _check(medium: Path, change: Change, before: VerifyResult) -> None:
    """Read all of the medium: what was on it is there, byte for byte, what came is there, and nothing new is wrong."""
    wanted = {one.sop_instance_uid: one.sha256 for one in before.instances}
    wanted |= {item.sop_instance_uid: item.sha256 for _, item in change.added}
    directory = change.edit.directory
    expect = Expected(file_set_id=directory.file_set_id, file_set_uid=directory.file_set_uid, instances=wanted)
    after = verify_path(medium, expect=expect, drop_cache=True)
    known = {(problem.kind, problem.file, problem.detail) for problem in before.problems}
    wrong = [one for one in after.problems if (one.kind, one.file, one.detail) not in known]
    if wrong:
        first = wrong[0]
        raise MediaError(f"{medium} is not right with its new session: {first.file}: {first.detail}")
