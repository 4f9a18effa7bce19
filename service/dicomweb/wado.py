"""WADO-RS: instances, metadata, bulk data (PS3.18 10.4)."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from media import dicomjson
from media.part10 import locate
from scp.sources import Sources
from service.api import answers
from service.api.access import Ctx, needs
from service.bodiless import HeldStream
from service.dicomweb import auditing, retrieve, urls
from service.dicomweb.media import (
    ANY,
    DICOM,
    DICOM_JSON,
    EXPLICIT_LE,
    JSON,
    OCTETS,
    RELATED,
    Accepted,
    NotAcceptable,
    Parts,
    accepted,
)
from service.dicomweb.retrieve import CannotConvert, Chosen, Named
from service.dicomweb.urls import Uid, instance_url, root
from service.errors import NotFound

router = urls.router()


def answer(media_types: dict[str, str], right: str, *errors: int) -> dict[str, Any]:
    """What a retrieve's route says of itself: media types with their schemas' formats, and how it can fail."""
    content = {name: {"schema": {"type": "string", "format": kind}} for name, kind in media_types.items()}
    return {
        "response_class": Response,
        "responses": {
            200: {"description": "All of it", "content": content},
            206: {"description": "What can be read now; Warning says what cannot", "content": content},
            **answers.problems(400, 404, 406, 409, *errors),
        },
        "dependencies": [needs(right)],
    }


_FILES = answer({RELATED: "binary", DICOM: "binary"}, "files.download")
_METADATA: dict[str, Any] = answer({}, "images.view")
for _status in (200, 206):
    _METADATA["responses"][_status]["content"] = {
        DICOM_JSON: {"schema": {"type": "array", "items": {"type": "object"}}}
    }


# --- Instances --------------------------------------------------------------------------------------------------------


@router.get("/studies/{study}", summary="WADO-RS: the instances of a study", **_FILES)
def study(ctx: Ctx, request: Request, study: Uid) -> Response:
    return _files(ctx, request, retrieve.choose(ctx, study=study))


@router.get("/studies/{study}/series/{series}", summary="WADO-RS: the instances of a series", **_FILES)
def series(ctx: Ctx, request: Request, study: Uid, series: Uid) -> Response:
    return _files(ctx, request, retrieve.choose(ctx, study=study, series=series))


@router.get("/studies/{study}/series/{series}/instances/{instance}", summary="WADO-RS: an instance", **_FILES)
def instance(ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
    return _files(ctx, request, retrieve.choose(ctx, study=study, series=series, instance=instance), single=True)


def _files(ctx: Any, request: Request, chosen: Chosen, *, single: bool = False) -> Response:
    wish = _wish(request, ctx, chosen, single=single)
    auditing.retrieved(ctx, request, chosen.ids)
    headers = {"Warning": chosen.warning} if chosen.missing else {}
    if single:
        return _one_file(ctx, chosen, wish, headers)
    parts = Parts(DICOM)
    status = 206 if chosen.missing else 200
    return StreamingResponse(_stream(ctx, chosen, wish, parts), status, headers, parts.content_type)


def _wish(request: Request, ctx: Any, chosen: Chosen, *, single: bool) -> Accepted:
    """The first media range that can be served."""
    for one in accepted(request.headers.get("accept", ""), request.query_params.get("accept")):
        if one.media_type not in (DICOM, ANY) or not (single or one.multipart or one.media_type == ANY):
            continue
        if one.transfer_syntax in ("", "*", EXPLICIT_LE) or _all_in(ctx, chosen, one.transfer_syntax):
            return one
    shape = f"{DICOM} or " if single else ""
    raise NotAcceptable(
        f'instances come as {shape}multipart/related; type="{DICOM}", with transfer-syntax={EXPLICIT_LE} (the default) '
        "or *, which is as they are held"
    )


def _all_in(ctx: Any, chosen: Chosen, syntax: str) -> bool:
    return all(named.instance.transfer_syntax_uid == syntax for named in retrieve.each(ctx, chosen.ids))


def _is_plain(wish: Accepted) -> bool:
    """Explicit VR Little Endian is what a range without transfer syntax asks for (PS3.18 8.7.3.5.2)."""
    return wish.transfer_syntax in ("", EXPLICIT_LE)


def _one_file(ctx: Any, chosen: Chosen, wish: Accepted, headers: dict[str, str]) -> Response:
    """What it is is known before the answer begins, so that a failure has a status."""
    named = next(retrieve.each(ctx, chosen.ids), None)
    if named is None:
        raise NotFound("this instance was just deleted")
    with ExitStack() as stack:
        sources = stack.enter_context(Sources(ctx.spool, ctx.settings.derived_dir))
        try:
            source = stack.enter_context(retrieve.opened(sources, named.instance, plain=_is_plain(wish)))
        except CannotConvert as error:
            raise NotAcceptable(f"{error}; with transfer-syntax=* it comes as it is held") from error
        content_type = f"{DICOM}; transfer-syntax={source.transfer_syntax_uid}"
        pieces = retrieve.part10(named.instance, source)
        if wish.multipart or wish.media_type == ANY:
            parts = Parts(DICOM)
            body = _wrapped(parts, content_type, pieces)
            content_type = parts.content_type
        else:
            body = pieces
        return HeldStream(body, stack.pop_all(), 200, headers, content_type)


def _wrapped(parts: Parts, content_type: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield parts.head(content_type)
    yield from pieces
    yield b"\r\n" + parts.end


def _stream(ctx: Any, chosen: Chosen, wish: Accepted, parts: Parts) -> Iterator[bytes]:
    """All instances; one that cannot be decoded goes out as it is held, and its part says so."""
    with Sources(ctx.spool, ctx.settings.derived_dir) as sources:
        for named in retrieve.each(ctx, chosen.ids):
            with ExitStack() as stack:
                try:
                    source = stack.enter_context(retrieve.opened(sources, named.instance, plain=_is_plain(wish)))
                except CannotConvert:
                    source = stack.enter_context(retrieve.opened(sources, named.instance))
                yield parts.head(f"{DICOM}; transfer-syntax={source.transfer_syntax_uid}")
                yield from retrieve.part10(named.instance, source)
                yield b"\r\n"
        yield parts.end


# --- Metadata ---------------------------------------------------------------------------------------------------------


@router.get("/studies/{study}/metadata", summary="WADO-RS: a study's data sets without bulk data", **_METADATA)
def study_metadata(ctx: Ctx, request: Request, study: Uid) -> Response:
    return _metadata(ctx, request, study, retrieve.choose(ctx, study=study))


@router.get("/studies/{study}/series/{series}/metadata", summary="WADO-RS: the same of a series", **_METADATA)
def series_metadata(ctx: Ctx, request: Request, study: Uid, series: Uid) -> Response:
    return _metadata(ctx, request, study, retrieve.choose(ctx, study=study, series=series))


@router.get(
    "/studies/{study}/series/{series}/instances/{instance}/metadata",
    summary="WADO-RS: the same of an instance",
    **_METADATA,
)
def instance_metadata(ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
    return _metadata(ctx, request, study, retrieve.choose(ctx, study=study, series=series, instance=instance))


def _metadata(ctx: Any, request: Request, study: str, chosen: Chosen) -> Response:
    ranges = accepted(request.headers.get("accept", ""), request.query_params.get("accept"))
    if not any(one.media_type in (DICOM_JSON, JSON, ANY) and not one.multipart for one in ranges):
        raise NotAcceptable(f"metadata is {DICOM_JSON}")
    auditing.viewed(ctx, request, study, chosen.ids)
    pieces = _data_sets(ctx, chosen, root(request))
    first = next(pieces)  # what fails at once has a status
    headers = {"Warning": chosen.warning} if chosen.missing else {}
    status = 206 if chosen.missing else 200
    held = ExitStack()
    held.callback(pieces.close)
    return HeldStream(itertools.chain([first], pieces), held, status, headers, DICOM_JSON)


def _data_sets(ctx: Any, chosen: Chosen, base: str) -> Generator[str, None, None]:
    lead = "["
    with Sources(ctx.spool, ctx.settings.derived_dir) as sources:
        for named in retrieve.each(ctx, chosen.ids):
            with retrieve.local(ctx, sources, named.instance) as path:
                located = locate(path)
                more = {
                    "00083002": {"vr": "UI", "Value": [located.transfer_syntax_uid]},
                    "00081190": {"vr": "UR", "Value": [_url(base, named)]},
                }
                for piece in dicomjson.of_instance(path, located, _bulk(base, named), more):
                    yield lead + piece
                    lead = ""
            lead = ","
    yield "]" if lead == "," else "[]"


def _url(base: str, named: Named) -> str:
    uids = (named.study_instance_uid, named.series_instance_uid, named.instance.sop_instance_uid)
    return instance_url(base, *uids)


def _bulk(base: str, named: Named) -> Callable[[str], str]:
    begin = f"{_url(base, named)}/bulkdata/"
    return lambda where: begin + where


# --- Bulk data --------------------------------------------------------------------------------------------------------


@router.get(
    "/studies/{study}/series/{series}/instances/{instance}/bulkdata/{where:path}",
    summary="WADO-RS: one value of a data set",
    **answer({RELATED: "binary", OCTETS: "binary"}, "images.view"),
)
def bulkdata(ctx: Ctx, request: Request, study: Uid, series: Uid, instance: Uid, where: str) -> Response:
    """``where`` as a BulkDataURI of the metadata has it; compressed pixel data comes decoded."""
    ranges = accepted(request.headers.get("accept", ""), request.query_params.get("accept"))
    wish = next((one for one in ranges if one.media_type in (OCTETS, ANY)), None)
    if wish is None:
        raise NotAcceptable(f"bulk data is {OCTETS}, alone or in {RELATED}")
    named = retrieve.only(ctx, study=study, series=series, instance=instance)
    auditing.viewed(ctx, request, study, [named.row_id])
    with ExitStack() as stack:
        sources = stack.enter_context(Sources(ctx.spool, ctx.settings.derived_dir))
        try:
            found = _value(ctx, stack, sources, named, where, plain=False)
        except dicomjson.NoSuchValue:
            if not where.startswith("7FE0"):
                raise NotFound("there is no such value in this instance") from None
            found = _decoded(ctx, stack, sources, named, where)
        headers = {"Content-Location": f"{_url(root(request), named)}/bulkdata/{where}"}
        if not wish.multipart and wish.media_type == OCTETS:
            headers["Content-Length"] = str(found.length)
            return HeldStream(found.pieces, stack.pop_all(), 200, headers, OCTETS)
        parts = Parts(OCTETS)
        body = _wrapped(parts, OCTETS, found.pieces)
        return HeldStream(body, stack.pop_all(), 200, None, parts.content_type)


def _decoded(ctx: Any, stack: ExitStack, sources: Sources, named: Named, where: str) -> dicomjson.BulkValue:
    try:
        return _value(ctx, stack, sources, named, where, plain=True)
    except dicomjson.NoSuchValue:
        raise NotFound("there is no such value in this instance") from None


def _value(
    ctx: Any, stack: ExitStack, sources: Sources, named: Named, where: str, *, plain: bool
) -> dicomjson.BulkValue:
    steps = dicomjson.steps_of(where)
    source = stack.enter_context(retrieve.opened(sources, named.instance, plain=plain))
    raw: Any = source.stream
    stream = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
    begin = stream.seek(0, os.SEEK_CUR)
    data, encoding = dicomjson.opened_at(stream, begin, source.transfer_syntax_uid, "the instance")
    return dicomjson.bulk_value(data, encoding, steps)
