"""``burnish update``: instances of the spool into a file-set that exists, or some of its own out of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from media.items import Item
from media.problems import MediaError
from media.profile_keys import key_set
from media.profiles import Profile, profile
from media.signing import Seal, SiteKey
from media.update import Held, Updated, contents, profile_of, update
from media.update_change import Change, Orders, outcome
from media.update_session import Session, append_to_disc, append_to_image
from service.contract import Document, OnProgress, Operations, number
from service.errors import NotDone, UsageError

if TYPE_CHECKING:
    from config.settings import Settings

_ON_MEDIUM = {
    "study": "study_instance_uid",
    "series": "series_instance_uid",
    "sop": "sop_instance_uid",
    "patient_id": "patient_id",
    "accession": "accession_number",
    "modality": "modality",
}
"""Criteria that a DICOMDIR can answer, and what of it they mean."""


def add(
    settings: Settings,
    operations: Operations,
    target: Path,
    selection: Mapping[str, Any],
    options: Mapping[str, Any],
    progress: OnProgress,
    *,
    copy: bool = False,
    session: bool = False,
    close: bool = False,
) -> Document:
    """Plan a selection as for discs and add what came of it to ``target``; ``copy`` as in ``remove``.

    ``session``: append it as a session, as is always done to the disc in a drive; ``close``: the disc's last one.
    """
    session = session or close or target.is_block_device()
    if session and not (target.is_block_device() or target.is_file()):
        raise UsageError(f"a session is appended to an image or to the disc in a drive; {target} is neither")
    contents(target)  # says what is wrong with it before any work
    _spare_catalogue(settings, target, copy=copy)
    row = _may_be_updated(options.get("profile") or _profile(target))
    given = {**options, "profile": row.identifier if row else None, "patients_per_disc": "many", "protect": "none"}
    plan = operations.plan(selection, {key: value for key, value in given.items() if value is not None}, progress)
    refused = plan["refused"]
    if refused and not options.get("skip_refused"):
        reason = f"{len(refused)} instances are refused ({refused[0]}); --skip-refused leaves them out"
        raise NotDone(reason, "REFUSED")
    items = _items(settings, number("P", plan["plan"]))
    if not items:
        raise NotDone("nothing can be added: every instance is refused", "REFUSED")
    _may_be_updated(plan["profile"])
    rules = row or profile(plan["profile"])
    now, keys, seal = datetime.now(UTC), key_set(rules.directory_keys), _seal(settings)
    if session:
        orders = Orders(tuple(items), frozenset(), now, keys, seal, rules.random_file_ids)
        done = outcome(_append(settings, target, orders, close=close))
    else:
        done = update(target, add=items, now=now, keys=keys, seal=seal, random_file_ids=rules.random_file_ids)
    return _document(target, done, plan=plan["plan"], refused=refused)


def _append(settings: Settings, target: Path, orders: Orders, *, close: bool) -> Change:
    """Append a session by xorriso. A drive belongs to us alone meanwhile: no burner of this node uses it."""
    from burners import session
    from burners.drive_record import take
    from burners.drive_work import lock_name

    def append(made: Session, place: str) -> None:
        session.append(made, place, close=close)

    if not target.is_block_device():
        return append_to_image(target, orders, append)
    room = settings.data / "drives"
    room.mkdir(parents=True, exist_ok=True)
    names = [lock_name(name) for name in (str(target), f"stdio:{target}")]
    held = [take(room / name, patience=5.0) for name in (*names, *(f"{name}.asked" for name in names))]
    try:
        if None in held:
            raise NotDone(f"{target} is burning a disc", "DRIVE_BUSY")
        work = room / f"session{lock_name(str(target))}"
        return append_to_disc(target, orders, append, work, lambda: session.ready(str(target)))
    finally:
        for descriptor in held:
            if descriptor is not None:
                os.close(descriptor)


def remove(settings: Settings, target: Path, selection: Mapping[str, Any], *, copy: bool = False) -> Document:
    """Remove the instances of ``target`` that are meant.

    A disc that the catalogue counts on is not changed; ``copy`` says that this one is a copy that it does not know.
    """
    unknown = sorted(set(selection) - {*_ON_MEDIUM, "all"})
    if unknown:
        raise UsageError(f"remove cannot select by {', '.join(unknown)}: a DICOMDIR does not tell that")
    held = contents(target)
    chosen = [one.sop_instance_uid for one in held if _meant(one, selection)]
    if not chosen:
        raise UsageError(f"the selection is empty: no instance of {target} matches")
    _spare_catalogue(settings, target, copy=copy)
    _may_be_updated(_profile(target))
    done = update(target, remove=chosen, now=datetime.now(UTC), seal=_seal(settings))
    return _document(target, done, plan=None, refused=[])


def _may_be_updated(name: str | None) -> Profile | None:
    """The profile of this name. Raises NotDone for one under which nobody updates a file-set."""
    row = profile(name) if name else None
    if row is not None and "FSU" not in row.roles:
        raise NotDone(
            f"{row.identifier} defines no File-set Updater ({row.clause('identification')}): burn a new disc", "ROLE"
        )
    return row


def _seal(settings: Settings) -> Seal | None:
    return SiteKey.open(settings.signing_key).seal if settings.signing_key else None


def _spare_catalogue(settings: Settings, target: Path, *, copy: bool) -> None:
    """Raise NotDone for a disc of the catalogue: what it says of a verified disc, and what a purge frees for it, must
    stay true."""
    from sqlalchemy import select

    from media.dicomdir_reader import read
    from media.fileset import DICOMDIR
    from media.trees import open_tree
    from service import opening
    from store.models_jobs import Disc, Volume
    from store.states import DiscState

    with open_tree(target) as tree, tree.open(DICOMDIR) as file:
        uid = read(file).file_set_uid
    context = opening.open_context(settings)
    try:
        with context.db.read() as session:
            found = session.execute(
                select(Volume.file_set_id, Disc.copy, Disc.location)
                .join(Disc, Disc.volume_id == Volume.id)
                .where(Volume.file_set_uid == uid, Disc.state == DiscState.VERIFIED)
            ).all()
    finally:
        opening.close_context(context)
    for file_set_id, number_of_copy, location in found:
        itself = location is not None and Path(location).resolve() == target.resolve()
        if itself or not copy:
            mend = (
                "burn a new disc" if itself else "burn a new disc, or say --copy for a copy that it does not count on"
            )
            raise NotDone(
                f"{target} is {file_set_id} copy {number_of_copy}, which the catalogue counts on as it is; {mend}",
                "CATALOGUED",
            )


def _meant(held: Held, selection: Mapping[str, Any]) -> bool:
    return all(
        getattr(held, _ON_MEDIUM[criterion]) in values for criterion, values in selection.items() if criterion != "all"
    )


def _profile(target: Path) -> str | None:
    """What the medium itself says it is, if that is a profile that we know."""
    name = profile_of(target)
    if name is None:
        return None
    try:
        profile(name)
    except MediaError:
        return None
    return name


def _items(settings: Settings, plan_id: int) -> list[Item]:
    """What a plan would put on discs. The store is only read, so it may be in use by a service."""
    from sqlalchemy import select

    from jobs.assemble import volume_items
    from service import opening
    from store.models_jobs import Volume

    context = opening.open_context(settings)
    try:
        with context.db.read() as session:
            volumes = session.scalars(select(Volume.id).where(Volume.plan_id == plan_id).order_by(Volume.number)).all()
        return [item for volume in volumes for item, _ in volume_items(context, volume)]
    finally:
        opening.close_context(context)


def _document(target: Path, done: Updated, *, plan: str | None, refused: list[Any]) -> Document:
    return {
        "target": str(target),
        "file_set_id": done.file_set_id,
        "file_set_uid": done.file_set_uid,
        "added": list(done.added),
        "removed": list(done.removed),
        "already": list(done.already),
        "instances": done.instances,
        "refused": refused,
        "plan": plan,
    }
