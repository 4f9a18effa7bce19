"""WADO-RS: frames, as they are held or decoded, and pictures of them (PS3.18 10.4.1.1.6, 10.4.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import Path as UrlPath
from fastapi import Query, Request
from fastapi.responses import Response

from media.framebytes import Frames, NoSuchFrame
from media.problems import InstanceRefused
from scp.sources import Sources
from service.api.access import Ctx
from service.bodiless import HeldStream
from service.dicomweb import auditing, retrieve, urls
from service.dicomweb.media import (
    ANY,
    EXPLICIT_LE,
    FRAME_TYPES,
    OCTETS,
    RELATED,
    Accepted,
    BadRequest,
    NotAcceptable,
    Parts,
    accepted,
)
from service.dicomweb.urls import Frame, Uid
from service.dicomweb.wado import answer
from service.errors import NotFound
from service.rendering import MAX_SIZE, Renderer

router = urls.router()
_INSTANCE = "/studies/{study}/series/{series}/instances/{instance}"
_FRAMES_LIMIT = 10_000
_QUALITY = 90
_PICTURES = ("image/jpeg", "image/png")
_THUMBNAIL = 128

FrameList = Annotated[str, UrlPath(pattern=r"^[0-9]{1,9}(,[0-9]{1,9})*$", max_length=1 << 16)]
Viewport = Annotated[str | None, Query(max_length=64, description="width,height: the picture fits into it")]
Window = Annotated[str | None, Query(max_length=128, description="center,width,linear")]
Quality = Annotated[int, Query(ge=1, le=100, description="Of JPEG")]


# --- Frames -----------------------------------------------------------------------------------------------------------


@router.get(
    f"{_INSTANCE}/frames/{{numbers}}",
    summary="WADO-RS: frames of an instance",
    **answer({RELATED: "binary", OCTETS: "binary"}, "images.view"),
)
def frames(ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid, numbers: FrameList) -> Response:
    """Compressed frames come as they are held where that is accepted (transfer-syntax=*, or their own media type),
    else decoded; numbers begin with 1."""
    wanted = [int(number) for number in numbers.split(",")]
    if len(wanted) > _FRAMES_LIMIT:
        raise BadRequest(f"at most {_FRAMES_LIMIT} frames at a time")
    named = retrieve.only(ctx, study=study, series=series, instance=instance)
    auditing.viewed(ctx, request, study, [named.row_id])
    renderer: Renderer = request.app.state.renderer
    with ExitStack() as stack:
        sources = stack.enter_context(Sources(ctx.spool, ctx.settings.derived_dir))
        path = stack.enter_context(retrieve.local(ctx, sources, named.instance))
        held = stack.enter_context(_frames(path))
        if (wrong := [number for number in wanted if not 1 <= number <= held.count]) != []:
            raise NotFound(f"the instance has {held.count} frames, and none with the number {wrong[0]}")
        held.require(max(wanted))  # what is not there has a status
        single = len(wanted) == 1
        wish = _wish(request, held, single=single)
        if _as_held(wish, held):
            content_type = _held_type(wish, held)

            def bytes_of(number: int) -> Iterator[bytes]:
                yield from held.frame(number).pieces
        else:
            content_type = f"{OCTETS}; transfer-syntax={EXPLICIT_LE}"
            first = renderer.samples(path, wanted[0])  # what cannot be decoded has a status

            def bytes_of(number: int) -> Iterator[bytes]:
                yield first if number == wanted[0] else renderer.samples(path, number)

        if single and not wish.multipart and wish.media_type != ANY:
            return HeldStream(bytes_of(wanted[0]), stack.pop_all(), 200, None, content_type)
        parts = Parts(content_type.partition(";")[0])
        body = _in_parts(parts, content_type, wanted, bytes_of)
        return HeldStream(body, stack.pop_all(), 200, None, parts.content_type)


def _frames(path: Any) -> Frames:
    try:
        return Frames(path)
    except NoSuchFrame as error:
        raise NotFound(f"the instance has no frames: {error}") from None


def _wish(request: Request, held: Frames, *, single: bool) -> Accepted:
    for one in accepted(request.headers.get("accept", ""), request.query_params.get("accept")):
        if not (one.multipart or single or one.media_type == ANY):
            continue
        if _as_held(one, held) or (one.media_type in (OCTETS, ANY) and one.transfer_syntax in ("", "*", EXPLICIT_LE)):
            return one
    own = FRAME_TYPES.get(held.syntax.uid, OCTETS) if held.compressed else OCTETS
    raise NotAcceptable(
        f'these frames come as multipart/related; type="{own}"; transfer-syntax={held.syntax.uid}'
        + (f', or decoded, as type="{OCTETS}"' if held.compressed else "")
    )


def _as_held(wish: Accepted, held: Frames) -> bool:
    """Whether the media range takes a frame as it lies in the file."""
    if not held.compressed:
        return wish.media_type in (OCTETS, ANY) and wish.transfer_syntax in ("", "*", EXPLICIT_LE)
    own = FRAME_TYPES.get(held.syntax.uid)
    if wish.media_type in (ANY, OCTETS):
        return wish.transfer_syntax in ("*", held.syntax.uid)
    if wish.media_type == "image/*":
        return own is not None
    return wish.media_type == own and wish.transfer_syntax in ("", "*", held.syntax.uid)


def _held_type(wish: Accepted, held: Frames) -> str:
    syntax = held.syntax.uid if held.compressed else EXPLICIT_LE
    kind = OCTETS if wish.media_type == OCTETS or not held.compressed else FRAME_TYPES.get(held.syntax.uid, OCTETS)
    return f"{kind}; transfer-syntax={syntax}"


def _in_parts(
    parts: Parts, content_type: str, numbers: list[int], bytes_of: Callable[[int], Iterator[bytes]]
) -> Iterator[bytes]:
    for number in numbers:
        yield parts.head(content_type)
        yield from bytes_of(number)
        yield b"\r\n"
    yield parts.end


# --- Pictures ---------------------------------------------------------------------------------------------------------

_SHOWN: dict[str, Any] = answer(dict.fromkeys(_PICTURES, "binary"), "images.view")


@router.get(f"{_INSTANCE}/rendered", summary="WADO-RS: an instance as a picture", **_SHOWN)
def rendered(
    ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid, viewport: Viewport = None,
    window: Window = None, quality: Quality = _QUALITY,
) -> Response:  # fmt: skip
    return _picture(ctx, request, (study, series, instance), None, viewport, window, quality)


@router.get(f"{_INSTANCE}/frames/{{number}}/rendered", summary="WADO-RS: a frame as a picture", **_SHOWN)
def rendered_frame(
    ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid, number: Frame, viewport: Viewport = None,
    window: Window = None, quality: Quality = _QUALITY,
) -> Response:  # fmt: skip
    return _picture(ctx, request, (study, series, instance), number, viewport, window, quality)


@router.get("/studies/{study}/thumbnail", summary="WADO-RS: a small picture of a study", **_SHOWN)
def study_thumbnail(ctx: Ctx, request: Request, study: Uid, viewport: Viewport = None) -> Response:
    return _thumbnail(ctx, request, (study, "", ""), None, viewport)


@router.get("/studies/{study}/series/{series}/thumbnail", summary="WADO-RS: a small picture of a series", **_SHOWN)
def series_thumbnail(ctx: Ctx, request: Request, study: Uid, series: Uid, viewport: Viewport = None) -> Response:
    return _thumbnail(ctx, request, (study, series, ""), None, viewport)


@router.get(f"{_INSTANCE}/thumbnail", summary="WADO-RS: a small picture of an instance", **_SHOWN)
def thumbnail(
    ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid, viewport: Viewport = None
) -> Response:
    return _thumbnail(ctx, request, (study, series, instance), None, viewport)


@router.get(f"{_INSTANCE}/frames/{{number}}/thumbnail", summary="WADO-RS: a small picture of a frame", **_SHOWN)
def frame_thumbnail(
    ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid, number: Frame, viewport: Viewport = None
) -> Response:
    return _thumbnail(ctx, request, (study, series, instance), number, viewport)


def _thumbnail(
    ctx: Any, request: Request, uids: tuple[str, str, str], number: int | None, viewport: str | None
) -> Response:
    return _picture(ctx, request, uids, number, viewport or f"{_THUMBNAIL},{_THUMBNAIL}", None, _QUALITY)


def _picture(
    ctx: Any,
    request: Request,
    uids: tuple[str, str, str],
    number: int | None,
    viewport: str | None,
    window: str | None,
    quality: int,
) -> Response:
    wish = next(
        (
            one.media_type
            for one in accepted(request.headers.get("accept", ""), request.query_params.get("accept"))
            if not one.multipart and one.media_type in (*_PICTURES, "image/*", ANY)
        ),
        None,
    )
    if wish is None:
        raise NotAcceptable(f"pictures are {' or '.join(_PICTURES)}")
    size, levels = _size(viewport), _window(window)
    chosen = retrieve.choose(ctx, study=uids[0], series=uids[1], instance=uids[2])
    middle = len(chosen.ids) // 2 if not uids[2] else 0
    named = next(retrieve.each(ctx, chosen.ids[middle : middle + 1]), None)
    if named is None:
        raise NotFound("this instance was just deleted")
    auditing.viewed(ctx, request, uids[0], [named.row_id])
    renderer: Renderer = request.app.state.renderer
    with Sources(ctx.spool, ctx.settings.derived_dir) as sources, retrieve.local(ctx, sources, named.instance) as path:
        try:
            png = renderer.picture(path, frame=number, window=levels, size=size).png
        except InstanceRefused as error:
            raise NotAcceptable(f"there is no picture of it: {error.reason}", "NO_PICTURE") from None
    headers = {"Cache-Control": "private, max-age=3600", "Content-Disposition": 'inline; filename="picture"'}
    if wish == "image/png":
        return Response(png, media_type="image/png", headers=headers)
    return Response(_jpeg(png, quality), media_type="image/jpeg", headers=headers)


def _jpeg(png: bytes, quality: int) -> bytes:
    """Of a PNG that our own helper made."""
    import imagecodecs

    return bytes(imagecodecs.jpeg8_encode(imagecodecs.png_decode(png), level=quality))


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or any(not abs(number) < 1e9 for number in found):
        raise BadRequest("viewport and window are numbers, separated by commas", "BAD_VALUE")
    return found


def _size(viewport: str | None) -> int:
    """The longer side of what fits into the viewport; parts of the source are not cut out."""
    if not viewport:
        return MAX_SIZE
    found = _numbers(",".join(viewport.split(",")[:2]))
    if len(viewport.split(",")) != 2 or len(found) != 2 or min(found) < 1:
        raise BadRequest("viewport is width,height; source regions are not supported", "BAD_VALUE")
    return int(min(*found, MAX_SIZE))


def _window(text: str | None) -> tuple[float, float] | None:
    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 3 or parts[2].lower() != "linear":
        raise BadRequest("window is center,width,linear; other functions are not supported", "BAD_VALUE")
    center, width = _numbers(",".join(parts[:2]))
    if width < 1:
        raise BadRequest("the width of a window is at least 1", "BAD_VALUE")
    return center, width
