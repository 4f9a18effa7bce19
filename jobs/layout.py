"""What was prepared, put on volumes by real sizes: directories, README.TXT and error-correction data counted in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from jobs import setbook
from jobs.checking import Candidate, Refusal
from jobs.context import Context
from jobs.options import RequestOptions
from jobs.preparing import PlanRefused, Prepared
from jobs.protecting import Protection, ProtectionRefused, protection_of
from jobs.setbook import SetBook
from jobs.sources import source_of
from media import mediatypes
from media.contents import arrange
from media.ecc import Layout
from media.fileset import sizing
from media.items import Icon, Item
from media.packing import pack_pieces
from media.problems import MediaError
from media.profile_keys import KeySet, key_set
from media.readme import DiscText, Missing
from media.records import ROOT_RECORDS
from media.signing import Seal, SiteKey
from media.sizing import Fill, Piece, Sizing
from media.volumes import Packing, SetOversized, pack
from store import plans
from store.models import Derived

Packer = Callable[[Sequence[Piece], Sizing, int], list[Fill]]
"""See ``media.packing.pack_pieces``."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Volumes, and all that is needed to enter them or to write them."""

    packing: Packing
    capacity_sectors: int
    """Of a medium, with error-correction data."""
    protection: Protection | None
    protected: Sequence[Layout]
    """How each volume is protected; empty: not at all."""
    text: DiscText
    keys: KeySet | None
    seal: Seal | None
    book: SetBook | None = None
    """What goes on the discs as the catalogue of their set; None: nothing ..."""
    reserved: int = 0
    """... and the bytes that are kept for what it tells of the set."""


def lay_out(ctx: Context, options: RequestOptions, prepared: Prepared, *, packer: Packer = pack_pieces) -> Laid:
    """Put the candidates on volumes. ``prepared.checked`` takes what fits on none. Raises ``PlanRefused``."""
    checked, medium = prepared.checked, prepared.medium
    plan_settings = ctx.settings.plan
    capacity = options.capacity_sectors or medium.usable_sectors(
        reserve_percent=plan_settings.reserve_percent, reserve_sectors=plan_settings.reserve_sectors
    )
    protection = _protection(ctx, options, medium, capacity)
    text = DiscText(
        product=f"Burnish {version('burnish')}",
        profile=prepared.profile.identifier,
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
        row_id: _item(ctx, candidate, prepared.derived.get(row_id), prepared.icons.get(row_id))
        for row_id, candidate in by_id.items()
    }
    contents = arrange(
        ((item, by_id[row_id].row) for row_id, item in items.items()), root_records=ROOT_RECORDS, missing=missing
    )
    keys = key_set(prepared.profile.directory_keys)
    seal = _seal(ctx)
    room = protection.iso_sectors if protection else capacity
    book = _book(ctx, options, prepared, items, keys, protection.capacity_sectors if protection else capacity)
    reserved = book.first_reserve(room, items.values()) if book is not None else 0
    for _ in setbook.tries():
        try:
            packing = pack(
                contents,
                capacity_sectors=room,
                sizing=sizing(
                    text,
                    file_set_id_length=len(options.file_set_prefix) + plans.FILE_SET_DIGITS,
                    keys=keys,
                    signed=seal is not None,
                    set_catalogue=book.sizing(reserved) if book is not None else None,
                ),
                many_patients=options.patients_per_disc == "many",
                splitting=options.allow_splitting,
                name_refused=True,
                packer=packer,
            )
        except SetOversized as error:
            raise PlanRefused(error.code, str(error).removeprefix(f"{error.code}: ")) from error
        needed = book.needed(packing) if book is not None else 0
        if needed <= reserved:
            break
        reserved = setbook.reserve_again(needed)
    else:
        raise PlanRefused("PROC_FAILURE", "the catalogue of the volume set does not come to an end of growing")
    for oversized in packing.refused:
        checked.refused.append(Refusal(by_id[oversized.item.key].row, oversized.code, oversized.reason))
    layouts = _layouts(protection, packing)
    if protection is not None:
        capacity = protection.capacity_sectors
    return Laid(packing, capacity, protection, layouts, text, keys, seal, book, reserved)


def _book(
    ctx: Context,
    options: RequestOptions,
    prepared: Prepared,
    items: Mapping[int, Item],
    keys: KeySet | None,
    capacity_sectors: int,
) -> SetBook | None:
    if setbook.purpose_of(options) in setbook.WITHOUT or not items:
        return None
    ruled = bool(options.coerce or options.coerce_catalogue)
    corrected = any(
        (ruled and candidate.values) or (candidate.row.restored is not None and candidate.row.restored.facts)
        for candidate in prepared.checked.candidates
    )
    if corrected and not ctx.settings.plan.tell_corrected:
        return None  # it tells what everything was when it was received: a name that was taken out would be back
    return SetBook(
        ctx,
        options,
        profile=prepared.profile.identifier,
        medium=prepared.medium.name,
        capacity_sectors=capacity_sectors,
        candidates=prepared.checked.candidates,
        derived=prepared.derived,
        items=items,
        keys=keys,
    )


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
