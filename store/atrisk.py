"""What is on too few discs, and what of that nothing but those discs holds.

Volumes with fewer good copies than wanted have an index of their own, so the answer takes time by its own length and
not by that of the catalogue. A study that is wholly in the spool is not at risk, however few discs it is on: a re-burn
is offered. What is neither in the spool nor on as many counted discs as its volume wants is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Subquery, case, distinct, exists, func, select
from sqlalchemy.orm import Session, aliased

from store.bulk import chunks
from store.checks import ARCHIVE, BACKUP, is_good, is_unconfirmed
from store.models import Instance, Patient, Series, Study
from store.models_jobs import Disc, Volume, VolumeInstance
from store.states import DiscState
from store.whole import holds_all

_PAGE = 100


def _copies(volume_id: int) -> Subquery:
    """``instance_id`` of each that a volume holds, and on how many counted discs it is in full (``copies``), whatever
    volume they are of; none of those that are on no volume in full."""
    here = aliased(VolumeInstance)
    # A disc of another maker may have an instance twice.
    on = (
        select(VolumeInstance.instance_id, VolumeInstance.volume_id)
        .where(VolumeInstance.instance_id.in_(select(here.instance_id).where(here.volume_id == volume_id)), holds_all())
        .distinct()
        .subquery()
    )
    return (
        select(on.c.instance_id, func.sum(Volume.good_copies).label("copies"))
        .join(Volume, Volume.id == on.c.volume_id)
        .group_by(on.c.instance_id)
        .subquery()
    )


def _on_no_disc() -> ColumnElement[bool]:
    """True for an Instance that no counted disc holds in full."""
    volume = aliased(Volume)
    held = exists().where(
        VolumeInstance.instance_id == Instance.id,
        holds_all(),
        volume.id == VolumeInstance.volume_id,
        volume.good_copies > 0,
    )
    return ~held.correlate(Instance)


def volumes(
    session: Session,
    *,
    in_spool_too: bool = False,
    of_volumes: Iterable[int] | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[dict[str, Any]]:
    """Volumes on too few discs of which something is at risk; with ``in_spool_too`` also those of which nothing is.

    ``of_volumes``: of these only. ``after``: those with a higher id. Each tells its studies with how many instances are
    at risk and on how many counted discs the least of them is, its discs, and from what it can be burnt again.
    """
    found: list[dict[str, Any]] = []
    for short in _short(session, after, of_volumes):
        discs = _discs(session, [volume.id for volume in short])
        for volume in short:
            document = _document(session, volume, discs.get(volume.id, []))
            if in_spool_too or document["at_risk"]:
                found.append(document)
                if len(found) == limit:
                    return found
    return found


def _short(session: Session, after: int, of_volumes: Iterable[int] | None = None) -> Iterator[Sequence[Volume]]:
    """Volumes on too few discs, some at a time, by their index alone: what is on them is another question."""
    wanted = None if of_volumes is None else list(of_volumes)
    while True:
        query = select(Volume).where(Volume.good_copies < Volume.wanted_copies, Volume.id > after)
        if wanted is not None:
            query = query.where(Volume.id.in_(wanted))
        found = session.scalars(query.order_by(Volume.id).limit(_PAGE)).all()
        if not found:
            return
        yield found
        after = found[-1].id


def instances(session: Session) -> list[int]:
    """Every instance that is at risk, by id: in no spool, and on fewer counted discs than a volume of it wants."""
    found: set[int] = set()
    for short in _short(session, 0):
        for volume in short:
            copies = _copies(volume.id)
            found.update(
                session.scalars(
                    select(Instance.id)
                    .join(VolumeInstance, VolumeInstance.instance_id == Instance.id)
                    .outerjoin(copies, copies.c.instance_id == Instance.id)
                    .where(
                        VolumeInstance.volume_id == volume.id,
                        Instance.spool_path.is_(None),
                        func.coalesce(copies.c.copies, 0) < volume.wanted_copies,
                    )
                )
            )
    return sorted(found)


def on_nothing(session: Session, volume_id: int) -> int:
    """How many instances of a volume are neither in the spool nor on any disc that counts."""
    return session.execute(
        select(func.count(distinct(Instance.id)))
        .join(VolumeInstance, VolumeInstance.instance_id == Instance.id)
        .where(VolumeInstance.volume_id == volume_id, Instance.spool_path.is_(None), _on_no_disc())
    ).scalar_one()


def unconfirmed(session: Session) -> dict[str, int]:
    """``{"discs", "volumes"}``: discs of which nobody said what they are for, and how many volumes hold something that
    is neither in the spool nor on a disc that counts, but on these. It ends when somebody says what they are for."""
    on = aliased(VolumeInstance)
    on_these_alone = exists().where(
        on.volume_id == Volume.id, Instance.id == on.instance_id, Instance.spool_path.is_(None), _on_no_disc()
    )
    volumes = (
        select(func.count())
        .select_from(Volume)
        .where(
            Volume.id.in_(select(Disc.volume_id).where(is_unconfirmed())),
            Volume.good_copies == 0,
            on_these_alone,
        )
    )
    discs = unconfirmed_discs(session)
    return {"discs": discs, "volumes": session.execute(volumes).scalar_one() if discs else 0}


def backups_alone(session: Session, volume_ids: Iterable[int]) -> list[int]:
    """Discs (by id) of those of these volumes that a rebuild found, that were made as a backup, and whose volume has
    something that is neither in the spool nor on any disc that counts: what is left of an archive whose own discs are
    gone."""
    found: list[int] = []
    rebuilt = select(Volume.id).where(Volume.id.in_(volume_ids), Volume.origin == "rebuilt").order_by(Volume.id)
    for volume_id in session.scalars(rebuilt).all():
        query = select(Disc.id).where(Disc.volume_id == volume_id, Disc.purpose == BACKUP, is_good())
        if (discs := session.scalars(query.order_by(Disc.id)).all()) and on_nothing(session, volume_id):
            found += discs
    return found


def unconfirmed_discs(session: Session) -> int:
    """How many discs there are of which nobody said what they are for."""
    return session.execute(select(func.count()).select_from(Disc).where(is_unconfirmed())).scalar_one()


def summary(session: Session) -> dict[str, int]:
    """``{"short", "at_risk", "gone"}``: volumes on too few discs, those with something at risk, and those with
    something that is on no counted disc at all."""
    documents = volumes(session, in_spool_too=True, limit=1_000_000)
    return {
        "short": len(documents),
        "at_risk": sum(one["at_risk"] for one in documents),
        "gone": sum(one["gone"] for one in documents),
    }


def _document(session: Session, volume: Volume, discs: Sequence[Disc]) -> dict[str, Any]:
    studies = _studies(session, volume)
    gone = any(study["at_risk"] and not study["copies"] for study in studies)
    in_spool = sum(study["in_spool"] for study in studies)
    total = sum(study["instances"] for study in studies)
    good = [disc for disc in discs if disc_counts(disc)]
    return {
        "volume_id": volume.id,
        "file_set_id": volume.file_set_id,
        "file_set_uid": volume.file_set_uid,
        "volume": volume.number,
        "of": volume.of,
        "good_copies": volume.good_copies,
        "wanted_copies": volume.wanted_copies,
        "at_risk": any(study["at_risk"] for study in studies),
        "gone": gone,
        "in_spool": "all" if in_spool == total else "some" if in_spool else "none",
        "studies": studies,
        "discs": [disc_summary(disc) for disc in discs],
        "reburn": _offer(volume, all_in_spool=in_spool == total, good=good, discs=discs),
    }


def _offer(volume: Volume, *, all_in_spool: bool, good: Sequence[Disc], discs: Sequence[Disc]) -> dict[str, Any]:
    """What the volume can be made again from: the spool, else a disc that counts, else what is left of another."""
    command = f"burnish reburn {volume.file_set_id}"
    if all_in_spool:
        return {"from": "spool", "disc": None, "command": command}
    if good:
        return {"from": "disc", "disc": f"D{good[0].id}", "command": command}
    left = [disc for disc in discs if disc.marked != "LOST"]
    return {
        "from": "nothing" if not left else "damaged disc",
        "disc": f"D{left[0].id}" if left else None,
        "command": f"{command} --from PATH" if left else None,
    }


def disc_counts(disc: Disc) -> bool:
    """``store.checks.counts`` for a row that was read."""
    return (
        disc.state == DiscState.VERIFIED
        and disc.purpose == ARCHIVE
        and disc.marked is None
        and disc.checked_result != "DAMAGED"
    )


def disc_summary(disc: Disc) -> dict[str, Any]:
    """A disc as lists of discs tell it: which it is, how it stands, where it is."""
    return {
        "disc": f"D{disc.id}",
        "copy": disc.copy,
        "state": disc.state,
        "purpose": disc.purpose,
        "pool": disc.pool,
        "counts": disc_counts(disc),
        "marked": disc.marked,
        "marked_at": disc.marked_at.isoformat() if disc.marked_at else None,
        "checked_result": disc.checked_result,
        "shelf": disc.shelf,
        "checked_out_to": disc.checked_out_to,
        "location": disc.location,
    }


def _discs(session: Session, volume_ids: Sequence[int]) -> dict[int, list[Disc]]:
    found: dict[int, list[Disc]] = {}
    for chunk in chunks(volume_ids):
        rows = session.scalars(
            select(Disc)
            .where(Disc.volume_id.in_(chunk), Disc.state == DiscState.VERIFIED)
            .order_by(Disc.volume_id, Disc.copy, Disc.attempt)
        )
        for disc in rows:
            found.setdefault(disc.volume_id, []).append(disc)
    return found


def _studies(session: Session, volume: Volume) -> list[dict[str, Any]]:
    found: dict[int | None, dict[str, Any]] = {}
    of_series = _series_counts(session, volume)
    studies = _studies_of(session, [row.series_id for row in of_series if row.series_id is not None])
    for row in of_series:
        study = studies.get(row.series_id)
        known = found.setdefault(
            study.id if study is not None else None,
            {
                "study_instance_uid": study.study_instance_uid if study is not None else "",
                "study_date": study.study_date if study is not None else "",
                "patient_id": study.patient_id if study is not None else "",
                "patient_name": study.patient_name if study is not None else "",
                "instances": 0,
                "in_spool": 0,
                "at_risk": 0,
                "copies": None,
            },
        )
        known["instances"] += row.instances
        known["in_spool"] += int(row.in_spool)
        known["at_risk"] += int(row.at_risk)
        if row.copies is not None:  # those that are in the spool count none
            known["copies"] = min(int(row.copies), known["copies"] if known["copies"] is not None else int(row.copies))
    return [one for _, one in sorted(found.items(), key=_by_patient)]


def _by_patient(item: tuple[int | None, dict[str, Any]]) -> tuple[str, str, int]:
    study, document = item
    return document["patient_id"], document["study_date"], study or 0


def _series_counts(session: Session, volume: Volume) -> Sequence[Any]:
    """By series of a volume: its instances there, how many are in the spool, how many at risk, the least copies."""
    copies = _copies(volume.id)
    inner = (
        select(
            Instance.series_id,
            Instance.spool_path.is_not(None).label("spooled"),
            case((Instance.spool_path.is_(None), func.coalesce(copies.c.copies, 0))).label("copies"),
        )
        .select_from(VolumeInstance)
        .join(Instance, Instance.id == VolumeInstance.instance_id)
        .outerjoin(copies, copies.c.instance_id == Instance.id)
        .where(VolumeInstance.volume_id == volume.id)
        .subquery()
    )
    c = inner.c
    return session.execute(
        select(
            c.series_id,
            func.count().label("instances"),
            func.sum(case((c.spooled, 1), else_=0)).label("in_spool"),
            func.sum(case((c.copies < volume.wanted_copies, 1), else_=0)).label("at_risk"),
            func.min(c.copies).label("copies"),
        ).group_by(c.series_id)
    ).all()


def _studies_of(session: Session, series: Sequence[int]) -> dict[int, Any]:
    """Study and patient of each series, by the series' id: asked for by number, as a join with what is on a volume
    would have a database that expects many rows look through all studies that there are."""
    found: dict[int, Any] = {}
    for chunk in chunks(series):
        rows = session.execute(
            select(
                Series.id.label("series"),
                Study.id,
                Study.study_instance_uid,
                Study.study_date,
                Patient.patient_id,
                Patient.patient_name,
            )
            .join(Study, Study.id == Series.study_id)
            .join(Patient, Patient.id == Study.patient_id)
            .where(Series.id.in_(chunk))
        )
        found.update((row.series, row) for row in rows)
    return found
