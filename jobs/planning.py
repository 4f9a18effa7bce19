"""From a request to a plan: a value that can be shown before any disc is spent, and burnt exactly so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.conforming import Progress, is_whole
from jobs.context import Context
from jobs.fetching import require_fetchable
from jobs.iconing import pins, restore, unpinned
from jobs.layout import Laid, lay_out
from jobs.options import RequestOptions
from jobs.plandocument import report
from jobs.preparing import PlanRefused, Prepared, prepare, require_pair
from media.fileids import FileIds
from media.fileset import assemble, overview
from media.filling import fewest
from media.items import Item
from media.packing import pack_pieces
from media.problems import MediaError
from media.setcatalogue import SetVolume
from media.uids import new_uid
from media.volumes import VolumePlan
from store import plans, requested
from store.models import Derived, Instance
from store.models_jobs import Plan, Request, Volume, VolumeInstance
from store.selection import Selection, instance_ids


def create_request(
    session: Session,
    *,
    selection: Selection,
    options: RequestOptions,
    source: str,
    idempotency_key: str | None = None,
) -> int:
    """Freeze what is selected now; returns the Request's id.

    Raises ``PlanRefused`` (NO_INSTANCE) where nothing is selected, ``SelectionError``, and ``MediaError`` for a profile
    and medium that do not belong together: better told now than by a failed job.
    """
    require_pair(options)
    if options.pull_from:
        require_fetchable(selection)
        ids = []  # frozen when they are here
    else:
        ids = instance_ids(session, selection)
    if not ids and not options.pull_from:
        raise PlanRefused("NO_INSTANCE", "nothing that was received matches the selection")
    return requested.add_request(
        session,
        ids,
        selection=selection.to_json(),
        options=options.to_json(),
        source=source,
        idempotency_key=idempotency_key,
        pool=options.pool or None,
    )


def make_plan(
    ctx: Context,
    request_id: int,
    *,
    progress: Progress = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
    on_phase: Callable[[str], None] = lambda _: None,
) -> int:
    """Plan a request; returns the Plan's id. Raises ``PlanRefused``, ``Cancelled``.

    A plan with refused instances is entered all the same, without them: whether that will do is for the job to decide.
    """
    with ctx.db.read() as session:
        request = session.get_one(Request, request_id)
        options = RequestOptions.from_json(request.options)
        rows = requested.instances_of(session, request_id)
        conflicts = requested.conflicts_of_request(session, request_id)
    prepared = prepare(ctx, rows, conflicts, options, progress=progress, cancelled=cancelled, on_phase=on_phase)
    progress("pack", 0, len(prepared.checked.candidates), "instances")
    packer = fewest if options.pool else pack_pieces  # what a pool takes was found to fill its volumes
    return _enter(ctx, request_id, options, prepared, lay_out(ctx, options, prepared, packer=packer))


def _enter(ctx: Context, request_id: int, options: RequestOptions, prepared: Prepared, laid: Laid) -> int:
    """Give the volumes their File-set IDs and enter the plan."""
    created = datetime.now(UTC).replace(microsecond=0)
    planned = laid.packing.volumes
    with ctx.db.begin() as session:
        ids = plans.take_file_set_ids(session, options.file_set_prefix, len(planned))
    # Between the two transactions: a directory of many thousand records takes a while, and nobody shall wait for it.
    uids = [new_uid() for _ in planned]
    placed = [_placed(volume, uid, prepared) for volume, uid in zip(planned, uids, strict=True)]
    catalogues: Sequence[bytes | None] = [None] * len(planned)
    if laid.book is not None:
        named = [
            SetVolume(volume.number, file_set_id, uid)
            for volume, file_set_id, uid in zip(planned, ids, uids, strict=True)
        ]
        catalogues = laid.book.catalogues(
            laid.packing, named, placed, protected=laid.protected, created=created, reserved=laid.reserved
        )
    site = ctx.settings.site.institution
    volumes = [
        replace(_new_volume(*each, created, prepared, laid), site=site)
        for each in zip(planned, ids, uids, placed, catalogues, strict=True)
    ]
    told = dict(prepared.told)
    if laid.protection is not None:
        volumes = [
            replace(
                volume,
                sectors=layout.sectors,
                capacity_sectors=laid.capacity_sectors,
                protection=layout.method,
                protection_roots=layout.roots,
                iso_sectors=layout.iso_sectors,
            )
            for volume, layout in zip(volumes, laid.protected, strict=True)
        ]
        told["protection"] = laid.protection.as_json()
    with ctx.db.begin() as session:
        return plans.add_plan(
            session,
            request_id,
            profile=prepared.profile.identifier,
            medium=prepared.medium.name,
            capacity_sectors=laid.capacity_sectors,
            report=report(prepared, laid.packing) | told,
            volumes=volumes,
        )


def _placed(volume: VolumePlan, file_set_uid: str, prepared: Prepared) -> list[tuple[Item, tuple[str, ...]]]:
    """The instances of a volume in disc order, each with its File ID."""
    file_ids = FileIds(file_set_uid if prepared.profile.random_file_ids else "")
    return [(item, file_ids.allocate(item)) for item in volume.items]


def _new_volume(
    volume: VolumePlan,
    file_set_id: str,
    file_set_uid: str,
    placed: Sequence[tuple[Item, tuple[str, ...]]],
    set_catalogue: bytes | None,
    created: datetime,
    prepared: Prepared,
    laid: Laid,
) -> plans.NewVolume:
    derived, keys, seal = prepared.derived, laid.keys, laid.seal
    readme = overview(volume, text=laid.text, file_set_id=file_set_id, created=created)
    signature = None
    if seal is not None:
        signature = assemble(
            placed,
            overview=readme,
            file_set_id=file_set_id,
            file_set_uid=file_set_uid,
            created=created,
            sectors=volume.sectors,
            keys=keys,
            seal=seal,
            set_catalogue=set_catalogue,
        ).signature
    files = [
        plans.NewFile(
            instance_id=item.key,
            derived_id=derived[item.key].id if item.key in derived else None,
            file_id="/".join(file_id),
            size=item.size,
            sha256=item.sha256,
            supplied=(*item.supplied, *(pins(item, keys.icon.recipe) if keys is not None and keys.icon else ())),
        )
        for item, file_id in placed
    ]
    return plans.NewVolume(
        number=volume.number,
        of=volume.of,
        file_set_id=file_set_id,
        file_set_uid=file_set_uid,
        created_at=created,
        sectors=volume.sectors,
        capacity_sectors=volume.capacity_sectors,
        readme=readme,
        files=files,
        signing_key=seal.public_key if seal else None,
        signature=signature,
        set_catalogue=set_catalogue,
    )


def check_plan(ctx: Context, plan_id: int) -> None:
    """Raise ``PlanRefused`` (PLAN_STALE) where a plan can no longer be burnt exactly as it was shown."""
    with ctx.db.read() as session:
        plan = session.get(Plan, plan_id)
        if plan is None:
            raise PlanRefused("PLAN_STALE", f"there is no plan P{plan_id}; it may have been forgotten")
        rows: Any = session.execute(
            select(
                Instance.sop_instance_uid,
                Instance.spool_path,
                Instance.digest,
                VolumeInstance.size,
                VolumeInstance.supplied,
                Derived.path,
            )
            .join(Volume, Volume.id == VolumeInstance.volume_id)
            .join(Instance, Instance.id == VolumeInstance.instance_id)
            .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
            .where(Volume.plan_id == plan_id)
        )
        icons = []
        for uid, spool_path, digest, size, kept, derived_path in rows:
            if derived_path is not None:
                path = ctx.derived_path(derived_path)
            elif spool_path is not None:
                path = ctx.spool.path_of(spool_path)
            else:
                raise PlanRefused("PLAN_STALE", f"instance {uid} of plan P{plan_id} is no longer in the spool")
            if not is_whole(path, size):
                raise PlanRefused("PLAN_STALE", f"the file of instance {uid} of plan P{plan_id} is gone or changed")
            _, icon = unpinned(kept, digest=digest, sop_instance_uid=uid, spool_path=spool_path)
            if icon is not None:
                icons.append(icon)
    try:
        restore(ctx, icons)
    except MediaError as error:
        raise PlanRefused("PLAN_STALE", f"{error} (plan P{plan_id})") from error
