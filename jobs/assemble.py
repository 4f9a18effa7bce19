"""The image of a planned volume, described from its rows: spool files are read as it is written. Nothing is staged, but
for images that get error-correction data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import select

from jobs.context import Context
from jobs.iconing import Pinned, restore, unpinned
from jobs.people import People
from jobs.protecting import layout_of, protected
from media import signing
from media.fileset import assemble
from media.iso9660 import IsoImage
from media.items import Item
from media.problems import MediaError
from media.profile_keys import key_set
from media.profiles import profile
from media.protection import ProtectedImage
from media.records import record_type
from store.models import Derived, Instance, Patient, Series, Study
from store.models_jobs import Plan, Volume, VolumeInstance


def volume_image(ctx: Context, volume_id: int) -> IsoImage | ProtectedImage:
    """The image of a volume; the same rows give the same bytes, however often and wherever it is written.

    Raises ``MediaError`` naming an instance whose bytes are no longer there, or where the image would not have the
    planned size.
    """
    with ctx.db.read() as session:
        volume = session.get_one(Volume, volume_id)
        keys = key_set(profile(session.get_one(Plan, volume.plan_id).profile).directory_keys)
    layout = layout_of(volume)
    image = assemble(
        volume_items(ctx, volume_id),
        overview=volume.readme,
        file_set_id=volume.file_set_id,
        file_set_uid=volume.file_set_uid,
        created=volume.created_at,
        sectors=layout.iso_sectors if layout else volume.sectors,
        keys=keys,
        seal=signing.kept(volume.signing_key, volume.signature) if volume.signing_key and volume.signature else None,
        set_catalogue=volume.set_catalogue,
    ).image
    return protected(ctx, volume, image, layout) if layout else image


def volume_items(ctx: Context, volume_id: int) -> list[tuple[Item, tuple[str, ...]]]:
    """The instances of a volume in their order on it, each with its File ID. Raises ``MediaError`` as above."""
    with ctx.db.read() as session:
        people = People(
            session,
            session.scalars(
                select(Derived.facts)
                .join(VolumeInstance, VolumeInstance.derived_id == Derived.id)
                .where(VolumeInstance.volume_id == volume_id, Derived.facts.is_not(None))
            ),
        )
        rows: Any = session.execute(
            select(
                VolumeInstance.file_id,
                VolumeInstance.size,
                VolumeInstance.sha256,
                VolumeInstance.supplied,
                Instance.id,
                Instance.sop_class_uid,
                Instance.sop_instance_uid,
                Instance.transfer_syntax_uid,
                Instance.digest,
                Instance.directory_keys,
                Instance.spool_path,
                Derived.path.label("derived_path"),
                Derived.transfer_syntax_uid.label("derived_syntax"),
                Derived.new_sop_instance_uid,
                Derived.directory_keys.label("derived_keys"),
                Derived.facts,
                Series.series_instance_uid,
                Study.study_instance_uid,
                Patient.id.label("patient"),
                Patient.patient_id,
            )
            .join(Instance, Instance.id == VolumeInstance.instance_id)
            .outerjoin(Derived, Derived.id == VolumeInstance.derived_id)
            .outerjoin(Series, Series.id == Instance.series_id)
            .outerjoin(Study, Study.id == Series.study_id)
            .outerjoin(Patient, Patient.id == Study.patient_id)
            .where(VolumeInstance.volume_id == volume_id)
            .order_by(VolumeInstance.position)
            .execution_options(yield_per=1000)
        )
        planned = [(*_item(ctx, row, people), tuple(row.file_id.split("/"))) for row in rows]
    icons = [pinned for _, pinned, _ in planned if pinned is not None]
    if icons:
        restore(ctx, icons)
    return [
        (replace(item, icon=pinned.icon(ctx)) if pinned is not None else item, file_id)
        for item, pinned, file_id in planned
    ]


def _item(ctx: Context, row: Any, people: People) -> tuple[Item, Pinned | None]:
    if row.derived_path is not None:
        source = ctx.derived_path(row.derived_path)
    elif row.spool_path is not None:
        source = ctx.spool.path_of(row.spool_path)
    else:
        raise MediaError(f"instance {row.sop_instance_uid} is no longer in the spool")
    supplied, pinned = unpinned(
        row.supplied, digest=row.digest, sop_instance_uid=row.sop_instance_uid, spool_path=row.spool_path
    )
    facts = row.facts or {}
    item = Item(
        key=row.id,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.new_sop_instance_uid or row.sop_instance_uid,
        transfer_syntax_uid=row.derived_syntax or row.transfer_syntax_uid,
        study_instance_uid=row.study_instance_uid or "",
        series_instance_uid=row.series_instance_uid or "",
        patient=people.key(row.patient, row.facts),
        patient_id=facts.get("patient_id", row.patient_id) or "",
        record_type=record_type(row.sop_class_uid) or "",
        directory_keys=row.directory_keys if row.derived_keys is None else row.derived_keys,
        source=source,
        size=row.size,
        sha256=row.sha256,
        supplied=supplied,
    )
    return item, pinned
