"""Routes: what a disc is, to take away: its image, and the report of its verification."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import FileResponse
from sqlalchemy import select

from media.isolayout import SECTOR
from service.api import answers
from service.api.access import Actor, Ctx, needs
from service.api.documents import Report
from service.api.places import readable
from service.bodiless import wants_body
from service.contract import number
from service.errors import NotDone, NotFound
from store import auditwhat, discviews
from store.auditmessage import Participant
from store.auditwhat import Who
from store.models_jobs import Disc, Volume, VolumeInstance
from store.states import DiscState

router = answers.router()
_REPORTED = (
    *("disc", "job", "file_set_id", "file_set_uid", "volume", "of", "copy", "state", "error", "profile", "sectors"),
    *("protection", "sha256", "verified_by", "verified_at", "times_read", "instances", "checks", "events"),
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/discs/{disc_id}/image",
    summary="The published image of a verified disc; Range requests",
    response_class=FileResponse,
    responses={
        200: {"description": "OK", "content": {"application/vnd.efi.iso": _BINARY}},
        206: {"description": "The part that Range asks for", "content": {"application/vnd.efi.iso": _BINARY}},
        416: {"description": "There is no such part"},
        **answers.problems(400, 404, 409),
    },
)
def image(
    ctx: Ctx, request: Request, actor: Annotated[Actor, needs("files.download")], disc_id: answers.DiscId
) -> FileResponse:
    """``Repr-Digest`` has the SHA-256 that its verification found (RFC 9530), so that what arrived can be checked. An
    image that lies in no folder of a burner and in none of ``http.media_folders`` is handed out to nobody (403).
    """
    key = number("D", disc_id)
    with ctx.db.read() as session:
        disc = session.get(Disc, key)
        if disc is None:
            raise NotFound(f"there is no disc D{key}")
        volume = session.get_one(Volume, disc.volume_id)
        if disc.state != DiscState.VERIFIED or not disc.image:
            raise NotDone(f"D{key} has no published image: it is {disc.state}, by burner {disc.burner}", "NO_IMAGE")
        # A catalogue that was imported says where images lie, and must not open other files to whoever imports one.
        path = readable(ctx.settings, actor, disc.image)
        if not path.is_file():
            raise NotDone(f"the image of D{key} is not a file that can be read here", "NO_IMAGE")
        if path.stat().st_size != volume.sectors * SECTOR:
            raise NotDone(f"the image of D{key} has not the {volume.sectors} sectors that were verified", "DAMAGED")
        held = select(VolumeInstance.instance_id).where(VolumeInstance.volume_id == volume.id)
        instances = list(session.scalars(held))
    destination = Participant(
        volume.file_set_uid, "destination_media", name=volume.file_set_id, address=actor.address, media="URI"
    )
    if wants_body(request):
        with ctx.db.begin() as session:
            for message in auditwhat.exported(session, instances, Who(actor.name, actor.address), destination):
                ctx.audit.record(session, message)
    headers = {"Cache-Control": "no-store"}
    if disc.sha256:
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(disc.sha256)).decode()}:"
    name = f"{volume.file_set_id}_{disc.copy}.iso"
    return FileResponse(path, media_type="application/vnd.efi.iso", filename=name, headers=headers)


@router.get(
    "/discs/{disc_id}/report",
    summary="How a disc was verified, and every reading of it since",
    dependencies=[needs("files.download")],
    **answers.returns(Report, 200, 404),
)
def report(ctx: Ctx, disc_id: answers.DiscId) -> dict[str, Any]:
    with ctx.db.read() as session:
        known = discviews.disc(session, number("D", disc_id))
    return {key: known[key] for key in _REPORTED}
