"""Routes: the studies that were received, in the spool or on discs only; their series and instances, and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Annotated, Any

from fastapi import Query as UrlQuery
from fastapi import Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.context import Context
from media.problems import InstanceRefused
from service import telling
from service.api import answers
from service.api.access import Actor, Ctx, needs
from service.api.documents import InstanceList, SeriesList, StudyList, WholeStudy
from service.bodiless import wants_body
from service.dicomweb import auditing
from service.errors import NotDone, NotFound, TryLater
from service.rendering import Renderer
from store import auditwhat, seriesview, studylist
from store.auditmessage import Participant
from store.auditwhat import Who
from store.models import Instance, Series, Study
from store.studylist import Query, StudyRow

router = answers.router()
_PNG: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "OK", "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        **answers.problems(404, 409),
    },
}
Text = Annotated[str, Field(max_length=255)]
Size = Annotated[int, UrlQuery(ge=16, le=1024, description="Pixels of the longer side")]
Frame = Annotated[int | None, UrlQuery(ge=1, lt=1 << 31, description="Else the representative one")]


_STUDY = tuple(one.name for one in fields(StudyRow) if one.name not in ("id", "patient"))


class StudyQuery(BaseModel):
    """What is looked for; in a body, so that no patient's name stands in a URL. All that is given must fit."""

    model_config = ConfigDict(extra="forbid")
    text: Text = Field(default="", description="The beginning of a name in any script, of an ID or accession number")
    patient_name: Text = Field(default="", description="With wildcards * and ?, in any script")
    patient_id: Text = ""
    accession: Text = ""
    study: Text = ""
    date_range: Text = Field(default="", description="YYYYMMDD-YYYYMMDD, either end may be left open")
    modality: Text = ""
    calling_ae: Text = ""
    limit: answers.BodyLimit = answers.DEFAULT_PAGE
    cursor: answers.BodyCursor = None


@router.get("/studies", summary="What was received, a study each, the newest first", **answers.returns(StudyList))
def studies(
    ctx: Ctx,
    actor: Annotated[Actor, needs("studies.read")],
    *,
    date_range: Annotated[str, UrlQuery(max_length=32)] = "",
    modality: Annotated[str, UrlQuery(max_length=16)] = "",
    calling_ae: Annotated[str, UrlQuery(max_length=16)] = "",
    limit: answers.Limit = answers.DEFAULT_PAGE,
    cursor: answers.Cursor = None,
) -> dict[str, Any]:
    with ctx.db.read() as session:
        query = Query(date_range=date_range, modality=modality, calling_ae=calling_ae)
        found = _found(session, query, limit, cursor)
    if cursor is None:
        _note_search(ctx, actor, query)
    return found


@router.post("/studies/search", summary="Search for studies", **answers.returns(StudyList))
def search(ctx: Ctx, actor: Annotated[Actor, needs("studies.read")], body: StudyQuery) -> dict[str, Any]:
    query = Query(**body.model_dump(exclude={"limit", "cursor"}))
    with ctx.db.read() as session:
        found = _found(session, query, body.limit, body.cursor)
    if body.cursor is None:
        _note_search(ctx, actor, query)
    return found


def _found(session: Session, query: Query, limit: int, cursor: str | None) -> dict[str, Any]:
    after = None
    if cursor:
        date, key = answers.read_cursor(cursor, str, int)
        after = (date, key)
    rows = studylist.search(session, query, limit=limit + 1, after=after)
    more = answers.cursor(*rows[limit - 1].key) if len(rows) > limit else None
    return answers.listing(map(study_document, rows[:limit]), more)


def study_document(row: StudyRow) -> dict[str, Any]:
    """A study of a list."""
    document = {name: getattr(row, name) for name in _STUDY}
    document["received_at"] = row.received_at.isoformat() if row.received_at else None
    return document


@router.get("/studies/{study}", summary="A study with its series, and the discs that hold it",
            **answers.returns(WholeStudy, 200, 404, 409))  # fmt: skip
def study(ctx: Ctx, actor: Annotated[Actor, needs("studies.read")], study: answers.Uid) -> dict[str, Any]:
    """409 ``AMBIGUOUS`` where two patients have a study with this UID: search by patient, and tell them apart first."""
    with ctx.db.read() as session:
        key = _study(session, study)
        row = studylist.one(session, key)
        assert row is not None
        document = study_document(row) | {
            "series_list": _series(session, key),
            "discs": [
                {"disc": f"D{one.id}", "volume": one.number} | {k: v for k, v in asdict(one).items() if k not in _OTHER}
                for one in seriesview.discs_of(session, key)
            ],
        }
        instances = seriesview.instance_ids(session, key)
    _note_access(ctx, actor, instances)
    return document


_OTHER = ("id", "number")


@router.get("/studies/{study}/series", summary="The series of a study",
            dependencies=[needs("studies.read")], **answers.returns(SeriesList, 200, 404, 409))  # fmt: skip
def series(
    ctx: Ctx, study: answers.Uid, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None
) -> dict[str, Any]:
    with ctx.db.read() as session:
        return answers.page_of(_series(session, _study(session, study)), limit, cursor)


@router.get("/series/{series}/instances", summary="The instances of a series, in order of receipt",
            dependencies=[needs("studies.read")], **answers.returns(InstanceList, 200, 404))  # fmt: skip
def instances(
    ctx: Ctx, series: answers.Uid, limit: answers.Limit = answers.DEFAULT_PAGE, cursor: answers.Cursor = None
) -> dict[str, Any]:
    after = answers.read_cursor(cursor, int)[0] if cursor else 0
    with ctx.db.read() as session:
        keys = list(session.scalars(select(Series.id).where(Series.series_instance_uid == series)))
        if not keys:
            raise NotFound("no series with this UID was received")
        found = list(
            session.scalars(
                select(Instance)
                .where(Instance.series_id.in_(keys), Instance.id > after)
                .order_by(Instance.id)
                .limit(limit + 1)
            )
        )
    more = answers.cursor(found[limit - 1].id) if len(found) > limit else None
    return answers.listing(map(_instance_document, found[:limit]), more)


@router.get("/instances/{instance}", summary="The instances with this UID: more than one where contents conflict",
            dependencies=[needs("studies.read")], **answers.returns(InstanceList, 200, 404))  # fmt: skip
def instance(ctx: Ctx, instance: answers.Uid) -> dict[str, Any]:
    with ctx.db.read() as session:
        return answers.listing(map(_instance_document, _instances(session, instance)))


@router.get(
    "/instances/{instance}/file",
    summary="An instance as a PS3.10 file, as it was received; Range requests",
    response_class=FileResponse,
    responses={
        200: {
            "description": "OK",
            "content": {"application/dicom": {"schema": {"type": "string", "format": "binary"}}},
        },
        206: {"description": "The part that Range asks for"},
        416: {"description": "There is no such part"},
        **answers.problems(400, 404),
    },
)
def file(
    ctx: Ctx, request: Request, actor: Annotated[Actor, needs("files.download")], instance: answers.Uid
) -> FileResponse:
    with ctx.db.read() as session:
        one = _instances(session, instance)[0]
    if one.spool_path is None:
        raise TryLater("the instance is on discs only: recall it, then ask again", "OFFLINE")
    path = ctx.spool.path_of(one.spool_path)
    if not path.is_file():
        raise TryLater("the instance cannot be read from the spool now", "OFFLINE")
    destination = Participant("download", "destination_media", address=actor.address, media="URI")
    if wants_body(request):
        with ctx.db.begin() as session:
            for message in auditwhat.exported(session, [one.id], Who(actor.name, actor.address), destination):
                ctx.audit.record(session, message)
    name = f"{instance}.dcm"
    return FileResponse(path, media_type="application/dicom", filename=name, headers={"Cache-Control": "no-store"})


@router.get("/studies/{study}/thumbnail", summary="A small picture of a study",
            dependencies=[needs("images.view")], **_PNG)  # fmt: skip
def study_thumbnail(ctx: Ctx, request: Request, study: answers.Uid, size: Size = 128) -> Response:
    with ctx.db.read() as session:
        key = _study(session, study)
        shown = seriesview.series_to_show(session, key)
        seen = seriesview.instance_ids(session, key)
        path = seriesview.picture_of_series(session, shown) if shown is not None else None
    auditing.viewed(ctx, request, study, seen)
    return _picture(ctx, request, path, None, size)


@router.get("/series/{series}/thumbnail", summary="A small picture of a series",
            dependencies=[needs("images.view")], **_PNG)  # fmt: skip
def series_thumbnail(ctx: Ctx, request: Request, series: answers.Uid, size: Size = 128) -> Response:
    with ctx.db.read() as session:
        keys = list(session.scalars(select(Series.id).where(Series.series_instance_uid == series)))
        if not keys:
            raise NotFound("no series with this UID was received")
        path = seriesview.picture_of_series(session, keys[0])
        seen = list(session.scalars(select(Instance.id).where(Instance.series_id == keys[0])))
        study = seriesview.study_of_instance(session, seen[0]) if seen else ""
    auditing.viewed(ctx, request, study, seen)
    return _picture(ctx, request, path, None, size)


@router.get("/instances/{instance}/thumbnail", summary="A picture of an instance, or of a frame of it",
            dependencies=[needs("images.view")], **_PNG)  # fmt: skip
def instance_thumbnail(
    ctx: Ctx, request: Request, instance: answers.Uid, frame: Frame = None, size: Size = 128
) -> Response:
    with ctx.db.read() as session:
        one = _instances(session, instance)[0]
        path, study = one.spool_path, seriesview.study_of_instance(session, one.id)
    auditing.viewed(ctx, request, study, [one.id])
    return _picture(ctx, request, path, frame, size)


def _picture(ctx: Context, request: Request, path: str | None, frame: int | None, size: int) -> Response:
    if path is None:
        raise NotFound("there is no image of it in the spool", "NO_PICTURE")
    renderer: Renderer = request.app.state.renderer
    try:
        picture = renderer.picture(ctx.spool.path_of(path), frame=frame, size=size)
    except InstanceRefused as error:
        raise NotDone(f"there is no picture of it: {error.reason}", "NO_PICTURE") from None
    return Response(picture.png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


# --- What UIDs mean ---------------------------------------------------------------------------------------------------


def _study(session: Session, uid: str) -> int:
    keys = list(session.scalars(select(Study.id).where(Study.study_instance_uid == uid).limit(2)))
    if not keys:
        raise NotFound("no study with this UID was received")
    if len(keys) > 1:
        raise NotDone("more than one patient has a study with this UID", "AMBIGUOUS")
    return keys[0]


def _instances(session: Session, uid: str) -> list[Instance]:
    """In order of receipt; at least one."""
    found = list(session.scalars(select(Instance).where(Instance.sop_instance_uid == uid).order_by(Instance.id)))
    if not found:
        raise NotFound("no instance with this UID was received")
    return found


def _series(session: Session, study_id: int) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in asdict(row).items() if key not in ("id", "images_here")}
        for row in seriesview.series_of(session, study_id)
    ]


def _instance_document(one: Instance) -> dict[str, Any]:
    return {
        "sop_instance_uid": one.sop_instance_uid,
        "sop_class_uid": one.sop_class_uid,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "instance_number": one.instance_number,
        "rows": one.rows,
        "columns": one.columns,
        "number_of_frames": one.number_of_frames,
        "has_pixel_data": one.has_pixel_data,
        "bytes": one.file_bytes,
        "sha256": one.digest,
        "online": one.spool_path is not None,
        "conflict": one.conflict_of is not None,
        "calling_ae": one.calling_ae,
        "received_at": one.received_at.isoformat(),
    }


def _note_search(ctx: Context, actor: Actor, query: Query) -> None:
    message = auditwhat.query(Who(actor.name, actor.address), "", repr(query).encode("utf-8", "replace"))
    telling.soon(ctx, lambda _session: [message])


def _note_access(ctx: Context, actor: Actor, instances: Iterable[int]) -> None:
    seen, who = list(instances), Who(actor.name, actor.address)
    telling.soon(ctx, lambda session: auditwhat.accessed(session, who, seen))
