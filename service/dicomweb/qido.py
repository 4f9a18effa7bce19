"""QIDO-RS: searches (PS3.18 10.6), with the matching of C-FIND (``store.query``)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Query as UrlQuery
from fastapi import Request
from fastapi.responses import Response

from media import dicomjson
from media.attributes import Attribute, Attributes
from media.elements import dictionary_vr
from service.api import answers
from service.api.access import Ctx, needs
from service.dicomweb import auditing, urls
from service.dicomweb.media import DICOM_JSON, BadRequest, NotAcceptable, accepted
from service.dicomweb.urls import Uid, root
from store.matching import BadKey
from store.query import Match, find
from store.query_facts import NEARLINE, ONLINE
from store.query_keys import (
    COMPUTED,
    FILE_SET_ID,
    FILE_SET_UID,
    INSTANCE_AVAILABILITY,
    KEYS,
    LEVELS,
    UNIQUE,
    Level,
    Query,
    keys_at,
)

MAX_RESULTS = 5000
"""Matches of one answer; who wants more asks again with ``offset``."""
_VALUES_LIMIT = 10_000
_RETRIEVE_URL, _CHARACTER_SET = 0x00081190, 0x00080005
_STUDY = (0x00080020, 0x00080030, 0x00080050, 0x00080061, 0x00080090, 0x00081030)
_PATIENT = (0x00100010, 0x00100020, 0x00100030, 0x00100040)
RETURNED: Mapping[Level, tuple[int, ...]] = {
    "STUDY": (*_STUDY, *_PATIENT, 0x0020000D, 0x00200010, 0x00201206, 0x00201208),
    "SERIES": (
        *(0x00080060, 0x0008103E, 0x0020000E, 0x00200011, 0x00201209),
        *(0x00080021, 0x00080031, 0x00400244, 0x00400245, 0x00400275),
    ),
    "IMAGE": (0x00080016, 0x00080018, 0x00083002, 0x00200013, 0x00280008, 0x00280010, 0x00280011),
}
"""What is told of each match unasked (PS3.18 Tables 10.6.3-3 to 10.6.3-5), where it is a key of ours."""
_SEQUENCE_DEPTH = 2
_NOT_KEYS = frozenset(("accept", "limit", "offset", "includefield", "fuzzymatching", "charset"))
_PASSED_OVER = frozenset(("emptyvaluematching", "multiplevaluematching"))

router = urls.router()
Limit = Annotated[int | None, UrlQuery(ge=1, le=1 << 31, description="At most so many matches")]
Offset = Annotated[int, UrlQuery(ge=0, le=1 << 31, description="Matches to pass over")]
Fields = Annotated[list[str] | None, UrlQuery(description="`all`, or attributes by keyword or tag")]
Fuzzy = Annotated[str, UrlQuery(description="Not supported: an answer says so in Warning")]
_ANSWER: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "Matches in the DICOM JSON model",
            "content": {DICOM_JSON: {"schema": {"type": "array", "items": {"type": "object"}}}},
        },
        204: {"description": "There is no match"},
        **answers.problems(400, 406),
    },
    "dependencies": [needs("studies.read")],
}


@router.get("/studies", summary="QIDO-RS: search for studies", **_ANSWER)
def studies(
    ctx: Ctx,
    request: Request,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = "",
) -> Response:
    return _search(ctx, request, "STUDY", {}, limit, offset)


@router.get("/series", summary="QIDO-RS: search for series of all studies", **_ANSWER)
def all_series(
    ctx: Ctx,
    request: Request,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = "",
) -> Response:
    return _search(ctx, request, "SERIES", {}, limit, offset)


@router.get("/studies/{study}/series", summary="QIDO-RS: search for series of a study", **_ANSWER)
def series(
    ctx: Ctx,
    request: Request,
    study: Uid,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = "",
) -> Response:
    return _search(ctx, request, "SERIES", {"STUDY": study}, limit, offset)


@router.get("/instances", summary="QIDO-RS: search for instances of all studies", **_ANSWER)
def all_instances(
    ctx: Ctx,
    request: Request,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = "",
) -> Response:
    return _search(ctx, request, "IMAGE", {}, limit, offset)


@router.get("/studies/{study}/instances", summary="QIDO-RS: search for instances of a study", **_ANSWER)
def instances_of_study(
    ctx: Ctx,
    request: Request,
    study: Uid,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = "",
) -> Response:
    return _search(ctx, request, "IMAGE", {"STUDY": study}, limit, offset)


@router.get(
    "/studies/{study}/series/{series}/instances", summary="QIDO-RS: search for instances of a series", **_ANSWER
)
def instances_of_series(
    ctx: Ctx,
    request: Request,
    study: Uid,
    series: Uid,
    limit: Limit = None,
    offset: Offset = 0,
    includefield: Fields = None,
    fuzzymatching: Fuzzy = "",
) -> Response:
    return _search(ctx, request, "IMAGE", {"STUDY": study, "SERIES": series}, limit, offset)


def _search(
    ctx: Any, request: Request, level: Level, above: Mapping[Level, str], limit: int | None, offset: int
) -> Response:
    if not any(one.media_type in (DICOM_JSON, "application/json", "*/*") for one in accepted(
        request.headers.get("accept", ""), request.query_params.get("accept")
    )):  # fmt: skip
        raise NotAcceptable(f"matches are told in {DICOM_JSON} only")
    asked = read(request.query_params.multi_items(), level, above)
    wanted = min(limit or MAX_RESULTS, MAX_RESULTS)
    order: Any = "latest" if level == "STUDY" else "received"
    base = root(request)
    with ctx.db.read() as session:
        try:
            matches = find(session, asked.query, order=order)
            found = [told(match, asked, base) for match in itertools.islice(matches, offset, offset + wanted)]
            more = limit is None and len(found) == wanted and next(matches, None) is not None
        except BadKey as error:
            raise BadRequest(str(error), "BAD_VALUE") from None
    auditing.searched(ctx, request)
    warnings = asked.warnings + (
        [f"There are more than the {wanted} matches of this answer; ask with offset for the next"] if more else []
    )
    # RFC 7234 5.5: the agent is who warns
    headers = {"Warning": ", ".join(f'299 burnish "{text}"' for text in warnings)} if warnings else {}
    if not found:
        return Response(status_code=204, headers=headers)
    body = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return Response(body, media_type=DICOM_JSON, headers=headers)


# --- What is asked for ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """A search."""

    query: Query
    above: list[Level]
    """Levels whose attributes are told, too."""
    warnings: list[str] = field(default_factory=list)


def read(parameters: Iterable[tuple[str, str]], level: Level, above: Mapping[Level, str]) -> Asked:
    """The keys and fields of a URL. Raises BadRequest for what is no attribute or value."""
    keys: dict[int, Attribute] = {}
    fields: list[str] = []
    passed_over: list[str] = []
    fuzzy = False
    known = {key.tag: key for key in keys_at(level)}
    for name, value in parameters:
        if "\0" in value:
            raise BadRequest("a value has a NUL character", "BAD_VALUE")
        if name == "includefield":
            fields += value.split(",")
        elif name == "fuzzymatching":
            fuzzy = value.lower() == "true"
        elif name in _PASSED_OVER:
            passed_over.append(name)
        elif name not in _NOT_KEYS:
            tags = _tags(name)
            key = known.get(tags[0])
            if key is None and tags[0] in (INSTANCE_AVAILABILITY, FILE_SET_ID, FILE_SET_UID):
                keys[tags[0]] = Attribute(b"UI" if tags[0] == FILE_SET_UID else b"SH", value)
            elif key is None or (not key.matched and value) or (len(tags) > 1 and tags[1] not in key.items):
                passed_over.append(name)
            else:
                _add(keys, tags, key.vr, value)
    for at, uid in above.items():
        if uid:
            unique = UNIQUE[at]
            keys[unique.tag] = Attribute(unique.vr, uid)
    told_above = [each for each in LEVELS[1 : LEVELS.index(level)] if not above.get(each)]
    wanted: set[int] = set(RETURNED[level])
    for each in told_above:
        wanted |= {tag for tag in RETURNED[each] if KEYS[tag].source != COMPUTED}
    if told_above:
        wanted |= set(_PATIENT)
    wanted |= {UNIQUE[each].tag for each in LEVELS[1 : LEVELS.index(level) + 1]}
    wanted |= set(known) if "all" in fields else {_tags(one)[0] for one in fields if one}
    for tag in wanted & set(known):
        keys.setdefault(tag, Attribute(known[tag].vr, () if known[tag].vr == b"SQ" else ""))
    warnings = []
    if fuzzy:
        warnings.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
    if passed_over:
        names = ", ".join(sorted(set(passed_over)))
        warnings.append(f"The following parameters are not supported and were passed over: {names}")
    return Asked(Query(level, keys), told_above, warnings)


def _tags(name: str) -> tuple[int, ...]:
    """The attribute that is meant, and the one in its items: ``PatientID``, ``00100020``, ``00400275.00400009``."""
    from pydicom.datadict import tag_for_keyword

    parts = name.split(".")
    found = []
    for part in parts:
        tag = int(part, 16) if len(part) == 8 and set(part) <= set("0123456789abcdefABCDEF") else tag_for_keyword(part)
        if tag is None:
            raise BadRequest(f"{part[:64]!r} is no attribute of DICOM, by keyword or by tag", "BAD_ATTRIBUTE")
        found.append(int(tag))
    if len(found) > _SEQUENCE_DEPTH:
        raise BadRequest(f"{name[:64]!r}: keys are at most {_SEQUENCE_DEPTH} levels deep", "BAD_ATTRIBUTE")
    return tuple(found)


def _add(keys: dict[int, Attribute], tags: tuple[int, ...], vr: bytes, value: str) -> None:
    tag = tags[0]
    if vr == b"SQ":
        if len(tags) < 2:
            raise BadRequest(f"{tag:08X} is a sequence: say which attribute of its items", "BAD_ATTRIBUTE")
        before = keys.get(tag)
        item: Attributes = dict(before.value[0]) if before and isinstance(before.value, tuple) and before.value else {}
        item[tags[1]] = Attribute((dictionary_vr(tags[1]) or "LO").encode("ascii"), value)
        keys[tag] = Attribute(vr, (item,))
        return
    if vr == b"UI":
        value = value.replace(",", "\\")
    if vr == b"US":
        try:
            keys[tag] = Attribute(vr, int(value).to_bytes(2, "little") if value else b"")
        except (ValueError, OverflowError):
            raise BadRequest(f"{tag:08X} is a number up to 65535", "BAD_VALUE") from None
        return
    earlier = keys.get(tag)
    if earlier is not None and isinstance(earlier.value, str) and earlier.value and value:
        value = f"{earlier.value}\\{value}"
    if value.count("\\") >= _VALUES_LIMIT:
        raise BadRequest(f"{tag:08X} has more than {_VALUES_LIMIT} values", "BAD_VALUE")
    keys[tag] = Attribute(vr, value)


# --- What is told -----------------------------------------------------------------------------------------------------


def told(match: Match, asked: Asked, base: str) -> dict[str, Any]:
    """One match in the DICOM JSON model."""
    attributes: Attributes = dict(match.attributes)
    fact = match.fact
    attributes[_CHARACTER_SET] = Attribute(b"CS", "ISO_IR 192")
    attributes[INSTANCE_AVAILABILITY] = Attribute(b"CS", fact.availability)
    for tag, vr, value in ((FILE_SET_ID, b"SH", fact.file_set_id), (FILE_SET_UID, b"UI", fact.file_set_uid)):
        if value:
            attributes[tag] = Attribute(vr, value)
    if fact.availability in (ONLINE, NEARLINE):
        attributes[_RETRIEVE_URL] = Attribute(b"UR", base + _path(attributes, asked.query.level))
    return dicomjson.of_attributes(attributes)


_PLACES: tuple[tuple[Level, str], ...] = (("STUDY", "studies"), ("SERIES", "series"), ("IMAGE", "instances"))


def _path(attributes: Attributes, level: Level) -> str:
    path = ""
    for each, name in _PLACES:
        path += f"/{name}/{attributes[UNIQUE[each].tag].value!s}"
        if each == level:
            break
    return path
