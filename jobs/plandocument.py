"""Plans as the JSON documents that commands and the API show."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.changes import change_groups, compression_groups
from jobs.checking import Candidate
from jobs.preparing import Prepared
from jobs.protecting import protection_document
from media.volumes import Packing
from store import plans
from store.models import Derived
from store.models_jobs import Plan, Volume


def report(prepared: Prepared, packing: Packing) -> dict[str, Any]:
    """What a dry run tells besides the volumes: every change, every supplied key, every refusal."""
    checked, derived, medium = prepared.checked, prepared.derived, prepared.medium
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
