"""From a request to a plan: select, check, conform what must change, pack by real sizes.

A plan is a value that can be shown before any disc is spent. Making it again after a crash costs little: what was
conformed is in the derived cache.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.changes import change_groups, compression_groups
from jobs.checking import Candidate, Checked, Refusal, check, refuse_unfit
from jobs.choosing import choose, require_choice
from jobs.compression import is_lossy_already
from jobs.conform_pool import Cancelled
from jobs.conforming import Progress, conform, is_whole
from jobs.context import Context
from jobs.correcting import correct
from jobs.fetching import require_fetchable
from jobs.iconing import make_icons, pins, restore, unpinned
from jobs.iodcheck import check_iods
from jobs.options import AUTO, RequestOptions
from jobs.protecting import Protection, ProtectionRefused, protection_document, protection_of
from media import mediatypes, profiles
from media.contents import arrange
from media.ecc import Layout
from media.fileids import FileIds
from media.fileset import assemble, overview, sizing
from media.items import Icon, Item
from media.problems import MediaError
from media.profile_keys import KeySet, key_set
from media.readme import DiscText, Missing
from media.records import ROOT_RECORDS
from media.signing import Seal, SiteKey
from media.uids import new_uid
from media.volumes import Packing, SetOversized, VolumePlan, pack
from store import plans
from store.models import Derived, Instance, Plan, Request, Volume, VolumeInstance
from store.plans import InstanceRow
from store.selection import Selection, instance_ids


class PlanRefused(Exception):
    """There is no plan for this request; ``code`` is a defined term (PS3.3 C.22.2) or one of ours."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


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
    return plans.add_request(
        session,
        ids,
        selection=selection.to_json(),
        options=options.to_json(),
        source=source,
        idempotency_key=idempotency_key,
    )


def require_pair(options: RequestOptions) -> None:
    """Raise ``MediaError`` that lists what is allowed, where profile and medium do not exist or belong together."""
    if options.profile == AUTO:
        require_choice(options)
    else:
        profile_and_medium(options)


def profile_and_medium(options: RequestOptions) -> tuple[profiles.Profile, mediatypes.MediaType]:
    """The rows that the options name; raises ``MediaError`` that lists what is allowed."""
    profile = profiles.profile(options.profile)
    medium = mediatypes.media_type(options.medium or profile.default_medium)
    profiles.check_pair(profile.identifier, medium.name)
    return profile, medium


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
        rows = plans.requested(session, request_id)
        conflicts = plans.conflicts_of_request(session, request_id)
    corrected = correct(
        ctx,
        rows,
        options,
        path_of=lambda row: source_of(ctx, row),
        has_source=lambda row: has_source(ctx, row),
        progress=lambda done, total: progress("correct", done, total, "instances"),
        cancelled=cancelled,
    )
    rows = corrected.rows
    chosen = None
    if options.profile == AUTO:
        progress("choose a profile", 0, len(rows), "instances")
        profile, medium, chosen = settle(ctx, rows, conflicts, options, cancelled=cancelled)
    else:
        profile, medium = profile_and_medium(options)
    progress("check", 0, len(rows), "instances")
    checked = check(
        rows,
        profile=profile,
        conflicts=conflicts,
        policy=options.conflicts,
        compression=options.compression(ctx.settings),
        has_source=lambda row: has_source(ctx, row),
        is_lossy_already=lambda row: is_lossy_already(source_of(ctx, row)),
        values=corrected.values,
        modalities=corrected.modalities,
    )
    checked.refused += [Refusal(*refused) for refused in corrected.refused]
    refuse_unfit(
        checked,
        profile=profile,
        path_of=lambda candidate: source_of(ctx, candidate.row),
        progress=lambda done, total: progress("check", done, total, "instances"),
        cancelled=cancelled,
    )
    iod = check_iods(
        checked,
        options.iod,
        path_of=lambda candidate: source_of(ctx, candidate.row),
        processes=ctx.settings.jobs.conform_processes,
        progress=lambda done, total: progress("iod check", done, total, "instances"),
        cancelled=cancelled,
    )
    on_phase("CONFORMING")

    def path_of(candidate: Candidate) -> Path:
        return source_of(ctx, candidate.row)

    derived = conform(ctx, profile, checked, progress, cancelled, path_of=path_of)
    there = len(checked.candidates)
    icons = make_icons(ctx, profile, checked, progress, cancelled)
    if len(checked.candidates) < there:  # nothing may refer to what is not on the discs under its new UID
        derived = conform(ctx, profile, checked, progress, cancelled, path_of=path_of)
    if cancelled():
        raise Cancelled
    progress("pack", 0, len(checked.candidates), "instances")
    return _pack(ctx, request_id, options, profile, medium, checked, derived, icons, {"iod": iod, "chosen": chosen})


def settle(
    ctx: Context,
    rows: list[InstanceRow],
    conflicts: Mapping[str, list[int]],
    options: RequestOptions,
    *,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[profiles.Profile, mediatypes.MediaType, dict[str, Any]]:
    """Profile and medium of a request that says ``auto``, and why. Raises ``PlanRefused``, ``Cancelled``."""
    try:
        choice = choose(
            ctx,
            rows,
            conflicts,
            options,
            has_source=lambda row: has_source(ctx, row),
            path_of=lambda row: source_of(ctx, row),
            cancelled=cancelled,
        )
    except profiles.ProfileError as error:
        raise PlanRefused("NOT_SUPPORTED", str(error)) from error
    return choice.profile, choice.medium, choice.document


def has_source(ctx: Context, row: InstanceRow) -> bool:
    """Whether an instance's bytes are in the spool."""
    if row.spool_path is None:
        return False
    try:
        return ctx.spool.path_of(row.spool_path).stat().st_size == row.file_bytes
    except OSError:
        return False


def source_of(ctx: Context, row: InstanceRow) -> Path:
    """Where they are."""
    assert row.spool_path is not None
    return ctx.spool.path_of(row.spool_path)


def _item(ctx: Context, candidate: Candidate, derived: Derived | None, icon: Icon | None) -> Item:
    row = candidate.row
    return Item(
        key=row.id,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=candidate.new_uid,
        transfer_syntax_uid=derived.transfer_syntax_uid if derived else row.transfer_syntax_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        patient=row.patient,
        patient_id=row.patient_id,
        record_type=candidate.record_type,
        directory_keys=derived.directory_keys if derived and derived.directory_keys is not None else row.directory_keys,
        source=ctx.derived_path(derived.path) if derived else source_of(ctx, row),
        size=derived.size if derived else row.file_bytes,
        sha256=derived.sha256 if derived else row.file_sha256,
        supplied=candidate.supplied,
        icon=icon,
    )


def _pack(
    ctx: Context,
    request_id: int,
    options: RequestOptions,
    profile: profiles.Profile,
    medium: mediatypes.MediaType,
    checked: Checked,
    derived: dict[int, Derived],
    icons: dict[int, Icon],
    report: dict[str, Any],
) -> int:
    """Put the candidates on volumes and enter the plan."""
    plan_settings = ctx.settings.plan
    capacity = options.capacity_sectors or medium.usable_sectors(
        reserve_percent=plan_settings.reserve_percent, reserve_sectors=plan_settings.reserve_sectors
    )
    protection = _protection(ctx, options, medium, capacity)
    text = DiscText(
        product=f"Burnish {version('burnish')}",
        profile=profile.identifier,
        medium=medium.name,
        medium_note="\n".join(filter(None, (medium.note, protection.note if protection else ""))),
        institution=ctx.settings.site.institution,
        contact=ctx.settings.site.contact,
    )
    missing: dict[Hashable, list[Missing]] = defaultdict(list)
    for refusal in checked.refused:
        missing[refusal.row.patient].append(Missing(refusal.row.sop_instance_uid, refusal.reason))
    by_id = {candidate.row.id: candidate for candidate in checked.candidates}
    items = {
        row_id: _item(ctx, candidate, derived.get(row_id), icons.get(row_id)) for row_id, candidate in by_id.items()
    }
    contents = arrange(
        ((item, by_id[row_id].row) for row_id, item in items.items()), root_records=ROOT_RECORDS, missing=missing
    )
    keys = key_set(profile.directory_keys)
    seal = _seal(ctx)
    try:
        packing = pack(
            contents,
            capacity_sectors=protection.iso_sectors if protection else capacity,
            sizing=sizing(
                text,
                file_set_id_length=len(options.file_set_prefix) + plans.FILE_SET_DIGITS,
                keys=keys,
                signed=seal is not None,
            ),
            many_patients=options.patients_per_disc == "many",
            splitting=options.allow_splitting,
            name_refused=True,
        )
    except SetOversized as error:
        raise PlanRefused(error.code, str(error).removeprefix(f"{error.code}: ")) from error
    for oversized in packing.refused:
        checked.refused.append(Refusal(by_id[oversized.item.key].row, oversized.code, oversized.reason))
    layouts = _layouts(protection, packing)
    created = datetime.now(UTC).replace(microsecond=0)
    with ctx.db.begin() as session:
        ids = plans.take_file_set_ids(session, options.file_set_prefix, len(packing.volumes))
    # Between the two transactions: a directory of many thousand records takes a while, and nobody shall wait for it.
    volumes = [
        _new_volume(volume, file_set_id, created, text, derived, keys, seal, profile.random_file_ids)
        for volume, file_set_id in zip(packing.volumes, ids, strict=True)
    ]
    if protection is not None:
        capacity = protection.capacity_sectors
        volumes = [
            replace(
                volume,
                sectors=layout.sectors,
                capacity_sectors=capacity,
                protection=layout.method,
                protection_roots=layout.roots,
                iso_sectors=layout.iso_sectors,
            )
            for volume, layout in zip(volumes, layouts, strict=True)
        ]
        report = report | {"protection": protection.as_json()}
    with ctx.db.begin() as session:
        return plans.add_plan(
            session,
            request_id,
            profile=profile.identifier,
            medium=medium.name,
            capacity_sectors=capacity,
            report=_report(checked, derived, packing, medium) | report,
            volumes=volumes,
        )


def _protection(ctx: Context, options: RequestOptions, medium: mediatypes.MediaType, usable: int) -> Protection | None:
    try:
        return protection_of(options, medium, ctx.settings, usable)
    except ProtectionRefused as error:
        raise PlanRefused("NOT_SUPPORTED", str(error)) from error


def _layouts(protection: Protection | None, packing: Packing) -> list[Layout]:
    """How each volume is protected; empty: not at all."""
    if protection is None:
        return []
    try:
        return [protection.layout(volume.sectors) for volume in packing.volumes]
    except MediaError as error:
        raise PlanRefused("NOT_SUPPORTED", str(error)) from error


def _seal(ctx: Context) -> Seal | None:
    path = ctx.settings.signing_key
    return SiteKey.open(path).seal if path else None


def _new_volume(
    volume: VolumePlan,
    file_set_id: str,
    created: datetime,
    text: DiscText,
    derived: dict[int, Derived],
    keys: KeySet | None,
    seal: Seal | None,
    random_file_ids: bool,
) -> plans.NewVolume:
    file_set_uid = new_uid()
    file_ids = FileIds(file_set_uid if random_file_ids else "")
    placed = [(item, file_ids.allocate(item)) for item in volume.items]
    readme = overview(volume, text=text, file_set_id=file_set_id, created=created)
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
    )


def _report(
    checked: Checked,
    derived: dict[int, Derived],
    packing: Packing,
    medium: mediatypes.MediaType,
) -> dict[str, Any]:
    """What a dry run tells besides the volumes: every change, every supplied key, every refusal."""
    refused = {refusal.row.id for refusal in checked.refused}
    used = [candidate for candidate in checked.candidates if candidate.row.id not in refused]
    changes = [
        {"sop_instance_uid": candidate.row.sop_instance_uid, **change}
        for candidate in used
        if candidate.row.id in derived
        for change in derived[candidate.row.id].changes
    ]
    return {
        "changes": changes,
        "changed": change_groups(changes),
        "compression": compression_groups(
            _compressed(candidate, derived.get(candidate.row.id)) for candidate in used if candidate.row.has_pixel_data
        ),
        "supplied": [
            {
                "sop_instance_uid": candidate.row.sop_instance_uid,
                "record_type": key.record_type,
                "tag": key.tag,
                "value": key.value,
            }
            for candidate in used
            for key in candidate.supplied
        ],
        "refused": [refusal.as_json() for refusal in checked.refused],
        "reasons": sorted({refusal.code for refusal in checked.refused}),
        "conflicts": checked.conflicts,
        "notes": [medium.note] if medium.note else [],
        "lower_bound": packing.lower_bound,
    }


def _compressed(candidate: Candidate, derived: Derived | None) -> tuple[str, str, str]:
    """Recipe, transfer syntax on the disc, and why that is not what was wanted."""
    recipe = candidate.recipe or ""
    if derived is None:
        return recipe, candidate.row.transfer_syntax_uid, candidate.note
    words = (str(change["new"]) for change in derived.changes)
    whole = next((word for word in words if word.startswith("not compressed: ")), "")
    return recipe, derived.transfer_syntax_uid, whole or candidate.note


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


def plan_document(session: Session, plan_id: int) -> dict[str, Any]:
    """The ``burnish plan --json`` document."""
    plan = session.get_one(Plan, plan_id)
    volumes = session.scalars(select(Volume).where(Volume.plan_id == plan_id).order_by(Volume.number)).all()
    contents = plans.volume_contents(session, plan_id)
    return {
        "plan": f"P{plan.id}",
        "request": f"R{plan.request_id}",
        "profile": plan.profile,
        "medium": plan.medium,
        "created": plan.created_at.isoformat(),
        "volumes": [
            {
                "number": volume.number,
                "of": volume.of,
                "file_set_id": volume.file_set_id,
                "file_set_uid": volume.file_set_uid,
                "sectors": volume.sectors,
                "capacity_sectors": volume.capacity_sectors,
                **protection_document(volume),
                **contents[volume.id],
            }
            for volume in volumes
        ],
        **plan.report,
    }
