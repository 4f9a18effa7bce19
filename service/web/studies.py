"""Studies: what was received, found as people type; a study's series and images; keeping it; bringing it back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from media.problems import InstanceRefused
from service.api.access import Actor, Ctx, needs
from service.dicomweb import auditing
from service.errors import NotFound
from service.rendering import Renderer
from service.web.pages import language_of, page
from service.web.routes import router
from service.web.texts import texts_of
from store import auditwhat, seriesview, studylist
from store.auditwhat import Who
from store.models import Instance
from store.studylist import Query, StudyRow

routes = router()
PAGE = 30
_MOST_SHOWN = 600
THUMBNAIL = 144
_PICTURE_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
Words = Annotated[str, Form(max_length=255)]


@routes.get("/studies", dependencies=[needs("studies.read")])
def studies(request: Request, ctx: Ctx) -> Response:
    with ctx.db.read() as session:
        found = studylist.search(session, Query(), limit=PAGE + 1)
    auditing.looked_for(ctx, request, repr(Query()))
    return page(request, "studies.html", **_listed(found), searched=False)


@routes.post("/studies/found", dependencies=[needs("studies.read")])
def found(
    request: Request,
    ctx: Ctx,
    text: Words = "",
    date_from: Words = "",
    date_to: Words = "",
    modality: Words = "",
    calling_ae: Words = "",
    after_date: Words = "",
    after_id: Annotated[int, Form(ge=0)] = 0,
    shown: Annotated[int, Form(ge=0)] = 0,
) -> Response:
    """In a body, so that no patient's name stands in an address. ``shown``: so many are on the page already."""
    query = Query(
        text=text,
        date_range=_range(date_from, date_to),
        modality=modality.strip().upper(),
        calling_ae=calling_ae.strip(),
    )
    after = (after_date, after_id) if after_id else None
    most = min(max(shown, PAGE), _MOST_SHOWN)
    with ctx.db.read() as session:
        rows = studylist.search(session, query, limit=most + 1, after=after)
    auditing.looked_for(ctx, request, repr(query))
    return page(request, "parts/study_rows.html", **_listed(rows, most), searched=query != Query())


def _listed(rows: list[StudyRow], most: int = PAGE) -> dict[str, Any]:
    return {"studies": rows[:most], "next": rows[most - 1].key if len(rows) > most else None}


def _range(first: str, last: str) -> str:
    """Of two HTML date fields."""
    first, last = first.replace("-", ""), last.replace("-", "")
    return f"{first}-{last}" if first or last else ""


@routes.get("/studies/{study_id}")
def study(request: Request, ctx: Ctx, actor: Annotated[Actor, needs("studies.read")], study_id: int) -> Response:
    with ctx.db.read() as session:
        row = studylist.one(session, study_id)
        if row is None:
            raise NotFound(texts_of(language_of(request))("studies.gone"))
        series = seriesview.series_of(session, study_id)
        discs = seriesview.discs_of(session, study_id)
        instances = seriesview.instance_ids(session, study_id)
    with ctx.db.begin() as session:
        for message in auditwhat.accessed(session, Who(actor.name, actor.address), instances):
            ctx.audit.record(session, message)
    first = next((one for one in series if one.images_here), next((one for one in series if one.images), None))
    return page(request, "study.html", study=row, series=series, first=first, discs=discs)


def study_uid(session: Session, study_id: int) -> str:
    """Raises NotFound."""
    found = seriesview.study_of(session, study_id)
    if found is None:
        raise NotFound("there is no such study any more")
    return found.study_instance_uid


@routes.get("/series/{series_id}/images", dependencies=[needs("images.view")])
def images(ctx: Ctx, series_id: int) -> Response:
    with ctx.db.read() as session:
        return JSONResponse(seriesview.images_of(session, series_id), headers={"Cache-Control": "no-store"})


@routes.get("/studies/{study_id}/thumbnail.png", dependencies=[needs("images.view")])
def study_thumbnail(request: Request, ctx: Ctx, study_id: int) -> Response:
    with ctx.db.read() as session:
        series = seriesview.series_to_show(session, study_id)
        path = seriesview.picture_of_series(session, series) if series is not None else None
    return _thumbnail(request, ctx, path)


@routes.get("/series/{series_id}/thumbnail.png", dependencies=[needs("images.view")])
def series_thumbnail(request: Request, ctx: Ctx, series_id: int) -> Response:
    with ctx.db.read() as session:
        path = seriesview.picture_of_series(session, series_id)
    return _thumbnail(request, ctx, path)


def _thumbnail(request: Request, ctx: Ctx, path: str | None) -> Response:
    """A picture, or none where none can be made: a list of studies must not fail because of one."""
    if path is None:
        return Response(status_code=204, headers=_PICTURE_HEADERS)
    renderer: Renderer = request.app.state.renderer
    try:
        picture = renderer.picture(ctx.spool.path_of(path), size=THUMBNAIL)
    except (InstanceRefused, OSError):
        return Response(status_code=204, headers=_PICTURE_HEADERS)
    return Response(picture.png, media_type="image/png", headers=_PICTURE_HEADERS)


@routes.get("/images/{instance_id}.png", dependencies=[needs("images.view")])
def image(
    request: Request,
    ctx: Ctx,
    instance_id: int,
    frame: int = 1,
    center: float | None = None,
    width: float | None = None,
    size: int = 1024,
) -> Response:
    """A frame. Headers tell the window that was used and the one over nearly all values: ``CENTER WIDTH``."""
    with ctx.db.read() as session:
        instance = session.get(Instance, instance_id)
        study = seriesview.study_of_instance(session, instance_id) if instance is not None else ""
    texts = texts_of(language_of(request))
    if instance is None or instance.spool_path is None:
        return Response(texts("viewer.not_here"), 404, media_type="text/plain", headers=_PICTURE_HEADERS)
    auditing.viewed(ctx, request, study, [instance_id])
    window = (center, max(width, 0.001)) if center is not None and width is not None else None
    renderer: Renderer = request.app.state.renderer
    try:
        picture = renderer.picture(ctx.spool.path_of(instance.spool_path), frame=frame, window=window, size=size)
    except OSError:
        return Response(texts("viewer.not_here"), 404, media_type="text/plain", headers=_PICTURE_HEADERS)
    except InstanceRefused as error:
        text = texts("viewer.cannot", reason=error.reason)
        return Response(text, 422, media_type="text/plain", headers=_PICTURE_HEADERS)
    headers = dict(_PICTURE_HEADERS)
    if picture.window is not None and picture.spread is not None:
        headers["X-Window"] = f"{picture.window[0]:g} {picture.window[1]:g}"
        headers["X-Spread"] = f"{picture.spread[0]:g} {picture.spread[1]:g}"
    return Response(picture.png, media_type="image/png", headers=headers)
