"""Reading instances back from a disc: file by file, each compared with the catalogue's digest and made durable.

A file that is on the disc as it was received goes back to the spool. One that was conformed for the disc goes to the
derived-file cache, from where it is served as long as the spool has not what was received.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from jobs.context import Context
from media.part10 import locate_in
from media.problems import MediaError
from media.trees import FileTree, canonical_path
from store.bulk import chunks
from store.guard import rows_changed
from store.models import Derived, Instance
from store.models_base import now
from store.models_jobs import VolumeInstance
from store.query_facts import on_disc
from store.spool import Incoming, SpoolFull, sync_folder

_CHUNK = 1 << 20
_GROUP_FILES = 64
_GROUP_BYTES = 64 << 20
_GROUP_SECONDS = 2.0
_GONE = (errno.ENOMEDIUM, errno.ENODEV, errno.ENXIO)
_AWAY_AFTER = 3
"""Files in a row that cannot be read, after which it is looked whether the disc is still there."""


class DiscGone(Exception):
    """The disc was taken away while it was read."""


class _NotTheSame(MediaError):
    """The file is what the catalogue says, but not the instance: no fault of the disc."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of a volume that is to be read back."""

    instance_id: int
    sop_instance_uid: str
    digest: str
    """Of the data set as received."""
    derived_id: int | None
    """It is this conformed file; None: as received."""
    file_id: str
    size: int
    sha256: str


@dataclass(slots=True)
class Reading:
    """What came of reading a disc."""

    restored: int = 0
    bytes: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    """Instances that the disc did not give, and why."""
    unreadable: bool = False
    """Whether some of it could not be read, or was not what should be there."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A file that is durable but for the name of its folder, and not yet in the database."""

    wanted: Wanted
    incoming: Incoming | None
    derived: Path | None
    file_sha256: str
    file_bytes: int


def wanted_files(session: Session, volume_id: int, ids: Collection[int]) -> list[Wanted]:
    """Where on a volume some instances are. Files that became other instances are none of them."""
    found: list[Wanted] = []
    wanted = sorted(ids)
    for chunk in chunks(wanted):
        columns: Any = select(
            Instance.id,
            Instance.sop_instance_uid,
            Instance.digest,
            VolumeInstance.derived_id,
            VolumeInstance.file_id,
            VolumeInstance.size,
            VolumeInstance.sha256,
        ).select_from(Instance)
        rows = session.execute(on_disc(columns).where(VolumeInstance.volume_id == volume_id, Instance.id.in_(chunk)))
        found += [Wanted(*row) for row in rows]
    return found


def restore(
    ctx: Context,
    tree: FileTree,
    files: Sequence[Wanted],
    *,
    entered: Callable[[Session, Sequence[int]], None],
    still_there: Callable[[], bool],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Reading:
    """Bring files back, in the order in which they lie on the disc.

    ``entered`` runs in each transaction that makes instances available, with their ids; ``still_there`` is asked where
    nothing can be read any more. What is wrong with a file stands in the result. Raises SpoolFull, and DiscGone; what
    was restored until then stays.
    """
    work = _Restoring(ctx, tree, entered, still_there)
    places = {name: place for place, name in enumerate(tree.order)}
    ordered = sorted(files, key=lambda one: places.get(canonical_path(one.file_id), -1))
    done = 0
    try:
        for one in ordered:
            if cancelled():
                break
            work.take(one)
            done += 1
            progress(done, len(ordered))
    finally:
        work.commit()
    return work.reading


class _Restoring:
    def __init__(
        self,
        ctx: Context,
        tree: FileTree,
        entered: Callable[[Session, Sequence[int]], None],
        still_there: Callable[[], bool],
    ) -> None:
        self.reading = Reading()
        self._ctx = ctx
        self._tree = tree
        self._entered = entered
        self._still_there = still_there
        self._ready: list[_Ready] = []
        self._bytes = 0
        self._begun = time.monotonic()
        self._in_a_row = 0

    def take(self, one: Wanted) -> None:
        """Read one file. Raises SpoolFull, DiscGone."""
        try:
            ready = self._read(one)
        except OSError as error:
            self._in_a_row += 1
            if error.errno in _GONE or (self._in_a_row >= _AWAY_AFTER and not self._still_there()):
                raise DiscGone("the disc was taken out while it was read") from error
            self._fail(one, f"cannot be read: {error.strerror or error}")
            return
        except _NotTheSame as error:
            self.reading.failed[one.instance_id] = f"{one.file_id} {error}"
            return
        except MediaError as error:
            self._fail(one, str(error))
            return
        self._in_a_row = 0
        self._ready.append(ready)
        self._bytes += ready.file_bytes
        late = time.monotonic() - self._begun > _GROUP_SECONDS
        if len(self._ready) >= _GROUP_FILES or self._bytes >= _GROUP_BYTES or late:
            self.commit()

    def _fail(self, one: Wanted, reason: str) -> None:
        self.reading.failed[one.instance_id] = f"{one.file_id} {reason}"
        self.reading.unreadable = True

    def _read(self, one: Wanted) -> _Ready:
        name = canonical_path(one.file_id)
        if name not in self._tree.files:
            raise MediaError("is not on the disc")
        if self._ctx.spool.is_full():
            raise SpoolFull("the spool is above its high-water mark; purge it, or give it room")
        with self._tree.open(name) as stream:
            offset = locate_in(stream, name).dataset_offset
            stream.seek(0)
            return self._as_received(one, stream, offset) if one.derived_id is None else self._conformed(one, stream)

    def _as_received(self, one: Wanted, stream: BinaryIO, offset: int) -> _Ready:
        incoming = self._ctx.spool.incoming()
        try:
            incoming.write_meta(_exactly(stream, offset))
            while piece := stream.read(_CHUNK):
                incoming.write(piece)
            received = incoming.finish()
            if received.file_sha256 != one.sha256:
                raise MediaError("differs from the catalogue's digest")
            if received.digest != one.digest:
                raise _NotTheSame("holds another data set than was received")
            incoming.publish()
        except BaseException:
            incoming.discard()
            raise
        return _Ready(one, incoming, None, received.file_sha256, received.file_bytes)

    def _conformed(self, one: Wanted, stream: BinaryIO) -> _Ready:
        # A name that no file had before: what a purge removes by name is never what came back since.
        target = self._ctx.derived_path(f"{one.digest[:2]}/{one.digest}.disc.{uuid.uuid4().hex[:12]}.dcm")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        digest, size = hashlib.sha256(), 0
        try:
            with part.open("wb") as out:
                while piece := stream.read(_CHUNK):
                    digest.update(piece)
                    out.write(piece)
                    size += len(piece)
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != one.sha256:
                raise MediaError("differs from the catalogue's digest")
            part.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull(f"there is no room for conformed files: {error.strerror}") from error
            raise
        finally:
            part.unlink(missing_ok=True)
        return _Ready(one, None, target, one.sha256, size)

    def commit(self) -> None:
        """Enter in the database what is ready."""
        ready, self._ready = self._ready, []
        self._bytes, self._begun = 0, time.monotonic()
        if not ready:
            return
        self._ctx.spool.sync([each.incoming.spool_path for each in ready if each.incoming is not None])
        for folder in {each.derived.parent for each in ready if each.derived is not None}:
            sync_folder(folder)
        kept: set[int] = set()
        # Should this fail: whether it was committed only the database knows. What no row names is swept later.
        with self._ctx.db.begin() as session:
            for each in ready:
                if self._enter(session, each):
                    kept.add(each.wanted.instance_id)
            self._entered(session, [each.wanted.instance_id for each in ready])
        for each in ready:
            if each.incoming is not None:
                if each.wanted.instance_id in kept:
                    each.incoming.settle()
                else:
                    each.incoming.discard()
            elif each.derived is not None and each.wanted.instance_id not in kept:
                with suppress(OSError):
                    each.derived.unlink()
        self.reading.restored += len(ready)
        self.reading.bytes += sum(each.file_bytes for each in ready)

    def _enter(self, session: Session, ready: _Ready) -> bool:
        """Whether the row names this file now; False: another has brought it back at the same moment."""
        one = ready.wanted
        if ready.incoming is not None:
            statement = update(Instance).where(Instance.id == one.instance_id, Instance.spool_path.is_(None))
            return (
                rows_changed(
                    session,
                    statement.values(
                        spool_path=ready.incoming.spool_path,
                        file_sha256=ready.file_sha256,
                        file_bytes=ready.file_bytes,
                    ),
                )
                == 1
            )
        assert ready.derived is not None
        row = session.get(Derived, one.derived_id, populate_existing=True)
        if row is None or row.sha256 != one.sha256:
            return False
        if row.restored_at is not None and self._ctx.derived_path(row.path).is_file():
            return False
        relative = str(ready.derived.relative_to(self._ctx.settings.derived_dir))
        changed = update(Derived).where(Derived.id == row.id, Derived.path == row.path)
        return rows_changed(session, changed.values(path=relative, restored_at=now())) == 1


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (piece := stream.read(count - len(data))):
        data += piece
    return bytes(data)
