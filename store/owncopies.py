"""Instances that come in as we made them ourselves: conformed for a disc, and back from that disc.

Such bytes are no other content of the instance, but known: the instance was received, the file was made of it, and the
catalogue has its digest. Where what was received is not in the spool any more, they serve as what a recall brings back:
as a conformed file that is there again. One that lost pixel data, or that names another patient, stands for nothing but
itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.orm import Session

from media import uids
from media.items import Header
from media.part10 import file_meta
from store.models import Derived, Instance
from store.models_base import now
from store.models_nodes import Event
from store.spool import SpoolFull, sync_folder
from store.whole import is_lossy, is_of_another, with_conformed


@dataclass(frozen=True, slots=True)
class OwnCopy:
    """What is known of a file that came in."""

    instance_id: int
    """As received."""
    spool_path: str | None
    """Of that."""
    derived_id: int
    source_digest: str
    path: str
    """Of the conformed file, relative to the derived folder ..."""
    size: int
    sha256: str
    meta: bytes = b""
    """Its file meta information, where that is not as this version writes it ..."""
    meta_end: int = 0
    """... in place of so many bytes of the file that came in."""
    derived_dir: Path | None = None
    """... which is this one; None: nobody said which."""
    placed: Path | None = None
    """Where it was put anew."""


def as_earlier(path: Path, meta_end: int, header: Header) -> dict[str, bytes]:
    """The same file as earlier versions of Burnish wrote it: digests, each with that version's file meta information.

    ``meta_end``: where the data set begins. All of it is read.
    """
    metas = [
        file_meta(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid, name)
        for name in uids.EARLIER_VERSION_NAMES
    ]
    hashes = [hashlib.sha256(meta) for meta in metas]
    if hashes:
        with path.open("rb") as stream:
            stream.seek(meta_end)
            while piece := stream.read(1 << 20):
                for one in hashes:
                    one.update(piece)
    return {one.hexdigest(): meta for one, meta in zip(hashes, metas, strict=True)}


def recognise(
    session: Session, sop_instance_uid: str, digests: Collection[str], file_sha256: Collection[str]
) -> OwnCopy | None:
    """The conformed file of one of some instances with this UID (``digests``: of their data sets) that has one of these
    digests.

    None: it is none, or one that does not stand for the instance.
    """
    query = (
        with_conformed(
            select(
                Instance.id,
                Instance.spool_path,
                Derived.id,
                Derived.source_digest,
                Derived.path,
                Derived.size,
                Derived.sha256,
            )
        )
        .where(
            Derived.source_digest.in_(digests),
            Derived.sop_instance_uid == sop_instance_uid,
            Derived.sha256.in_(file_sha256),
            Derived.new_sop_instance_uid.is_(None),
            ~is_lossy(),
            ~is_of_another(),
        )
        .order_by(Instance.id)
        .limit(1)
    )
    row = session.execute(query).first()
    return OwnCopy(*row) if row is not None else None


def placed(own: OwnCopy, source: Path, derived_dir: Path) -> OwnCopy:
    """The same, its file where the catalogue may count on it: put there, unless it is there. Raises SpoolFull."""
    there = _is_there(own, derived_dir)
    return replace(own, derived_dir=derived_dir, placed=None if there else _place(source, own, derived_dir))


def _is_there(own: OwnCopy, derived_dir: Path) -> bool:
    """Whether the conformed file lies where its row says."""
    with suppress(OSError):
        return (derived_dir / own.path).stat().st_size == own.size
    return False


def _place(source: Path, own: OwnCopy, derived_dir: Path) -> Path:
    """Put the file that came in among the conformed ones, durably, under a name that no file had before.

    Should nobody enter it, the sweep removes it.
    """
    digest = own.source_digest
    target = derived_dir / digest[:2] / f"{digest}.disc.{uuid.uuid4().hex[:12]}.dcm"
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if own.meta or not _linked(source, part):
            with source.open("rb") as read, part.open("wb") as out:
                out.write(own.meta)
                read.seek(own.meta_end)
                shutil.copyfileobj(read, out, 1 << 20)
                out.flush()
                os.fsync(out.fileno())
        part.rename(target)
        sync_folder(target.parent)
        sync_folder(derived_dir)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull(f"there is no room for conformed files: {error.strerror}") from error
        raise
    return target


def _linked(source: Path, part: Path) -> bool:
    """False: it is on another file system, or one without links."""
    try:
        os.link(source, part)
    except OSError:
        return False
    return True


def enter(connection: Connection, own: OwnCopy, *, calling_ae: str, source: str) -> bool:
    """The conformed file stands for what was received. False: its row is not as it was seen, so look again.

    ``calling_ae``, ``source``: where it came from this time.
    """
    if own.derived_dir is None:
        return False
    row = update(Derived).where(Derived.id == own.derived_id, Derived.path == own.path)
    at = now()
    if own.placed is None:
        there = row.where(or_(Derived.purged_at.is_(None), Derived.restored_at.is_not(None)))
        if not connection.execute(there.values(restored_at=Derived.restored_at)).rowcount:
            return False
        new = connection.execute(row.where(Derived.restored_at.is_(None)).values(restored_at=at)).rowcount
    else:
        path = str(own.placed.relative_to(own.derived_dir))
        new = connection.execute(row.values(path=path, restored_at=at)).rowcount
        if not new:
            return False
    if new:
        detail = {"derived": own.derived_id, "calling_ae": calling_ae, "source": source}
        connection.execute(insert(Event).values(at=at, kind="restored", instance_id=own.instance_id, detail=detail))
    return True
