"""Instances for WADO-RS: what a URL means, what of it can be had now, and its bytes on a local disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from jobs.context import Context
from media.part10 import file_meta
from scp.sources import NotThere, Source, Sources
from service.dicomweb.media import EXPLICIT_LE
from service.errors import NotDone, NotFound, TryLater
from store.models import Instance, Series, Study
from store.query_facts import first_of_its_uid
from store.retrieval import Held, Wanted, held, wanted_ids

_BATCH = 200
_CHUNK = 1 << 20


class CannotConvert(NotDone):
    """An instance cannot be decoded, so that there is no plain form of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "CANNOT_DECODE")


class Offline(TryLater):
    """We know the instances, but they are on discs only."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "OFFLINE")


@dataclass(frozen=True, slots=True)
class Named:
    """An instance with the UIDs that its URL has."""

    row_id: int
    study_instance_uid: str
    series_instance_uid: str
    instance: Held


@dataclass(frozen=True, slots=True)
class Chosen:
    """The instances that a URL means."""

    ids: Sequence[int]
    """Of those that can be read now."""
    missing: int
    """How many others there are."""
    on_discs: tuple[str, ...]
    """File-set IDs of some discs that hold the others."""

    @property
    def warning(self) -> str:
        """For the header Warning (RFC 7234 5.5); empty where nothing is missing."""
        if not self.missing:
            return ""
        where = f"on discs only: {', '.join(self.on_discs)}" if self.on_discs else "not available"
        return f'299 burnish "{self.missing} further instances are {where}"'


def choose(ctx: Context, *, study: str, series: str = "", instance: str = "") -> Chosen:
    """Raises NotFound where nothing of the kind was ever received, Offline where nothing of it can be read now."""
    wanted: Wanted = {"STUDY": [study], "SERIES": [series] if series else [], "IMAGE": [instance] if instance else []}
    with ctx.db.read() as session:
        ids = wanted_ids(session, wanted)
        there: array[int] = array("q")
        discs: dict[str, None] = {}
        renamed = False
        for at in range(0, len(ids), _BATCH):
            part = ids[at : at + _BATCH]
            statement = select(Instance.id, Instance.sop_instance_uid)
            purged = dict(
                session.execute(statement.where(Instance.id.in_(part), Instance.spool_path.is_(None))).tuples().all()
            )
            readable = set()
            for one in held(session, list(purged)) if purged else ():
                renamed = renamed or one.only_renamed
                if one.restored is not None or one.places:
                    readable.add(one.sop_instance_uid)
                else:
                    discs |= dict.fromkeys(one.file_sets[:3])
            there.extend(row_id for row_id in part if row_id not in purged or purged[row_id] in readable)
    what = "instance" if instance else "series" if series else "study"
    if not ids:
        raise NotFound(f"this {what} was never received here")
    on_discs = tuple(discs)[:5]
    if not there:
        if on_discs:
            raise Offline(f"this {what} is on discs only ({', '.join(on_discs)}): recall it, then ask again")
        if renamed:
            raise Offline(f"this {what} is there only under another patient's name or number, and not given out")
        raise NotFound(f"this {what} was received here, but is neither in the spool nor on a verified disc any more")
    return Chosen(there, len(ids) - len(there), on_discs)


def each(ctx: Context, ids: Sequence[int]) -> Iterator[Named]:
    """The instances with all that is needed to read them, some at a time."""
    for at in range(0, len(ids), _BATCH):
        part = list(ids[at : at + _BATCH])
        with ctx.db.read() as session:
            uids = {
                instance: (row_id, study, series)
                for row_id, instance, study, series in session.execute(
                    select(Instance.id, Instance.sop_instance_uid, Study.study_instance_uid, Series.series_instance_uid)
                    .join(Series, Series.id == Instance.series_id)
                    .join(Study, Study.id == Series.study_id)
                    .where(Instance.id.in_(part), first_of_its_uid())
                )
            }
            found = held(session, part)
        yield from (Named(*uids[one.sop_instance_uid], one) for one in found if one.sop_instance_uid in uids)


def only(ctx: Context, *, study: str, series: str, instance: str) -> Named:
    """The one instance that a URL means. Raises as ``choose``."""
    chosen = choose(ctx, study=study, series=series, instance=instance)
    for named in each(ctx, chosen.ids[:1]):
        return named
    raise NotFound("this instance was just deleted")


@contextmanager
def opened(sources: Sources, instance: Held, *, plain: bool = False) -> Iterator[Source]:
    """Its data set as it is held; ``plain``: in Explicit VR Little Endian. Raises Offline, CannotConvert."""
    try:
        with sources.open(instance) as source:
            if not plain or source.transfer_syntax_uid == EXPLICIT_LE:
                yield source
                return
            try:
                with sources.plain(instance, source) as converted:
                    yield converted
            except NotThere as error:
                raise CannotConvert(str(error)) from error
    except NotThere as error:
        raise Offline(f"it cannot be read now: {error}") from error


def part10(instance: Held, source: Source) -> Iterator[bytes]:
    """The instance as a PS3.10 file, in pieces."""
    yield file_meta(instance.sop_class_uid, instance.sop_instance_uid, source.transfer_syntax_uid)
    buffer = memoryview(bytearray(_CHUNK))
    while count := source.stream.readinto(buffer):
        yield bytes(buffer[:count])


@contextmanager
def local(ctx: Context, sources: Sources, instance: Held) -> Iterator[Path]:
    """A PS3.10 file with the instance as it is held: that in the spool, or a copy that lives as long as the block.

    Raises Offline where it cannot be read (now).
    """
    with opened(sources, instance) as source:
        if instance.spool_path is not None:
            yield ctx.spool.path_of(instance.spool_path)
            return
        path = ctx.spool.scratch()
        try:
            with path.open("wb") as out:
                for piece in part10(instance, source):
                    out.write(piece)
            yield path
        finally:
            path.unlink(missing_ok=True)
