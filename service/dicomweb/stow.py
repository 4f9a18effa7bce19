"""STOW-RS: instances are stored (PS3.18 10.5), by the door and with the statuses of C-STORE (PS3.4 B.2.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO
from xml.sax.saxutils import escape, quoteattr

from fastapi import Request
from fastapi.responses import Response

from media import dicomjson
from media.attributes import Attribute, Attributes
from media.header import read_header
from media.part10 import locate
from media.problems import NotDicom
from scp.statuses import SUCCESS, UNEXPECTED, Answer, answer_to
from scp.storage import storage_classes
from service import acting
from service.api import answers, uploads
from service.api.access import Actor, Ops, needs
from service.dicomweb import urls
from service.dicomweb.media import (
    ANY,
    DICOM,
    DICOM_JSON,
    JSON,
    RELATED,
    XML,
    BadRequest,
    NotAcceptable,
    Reader,
    Unsupported,
    accepted,
    parameters,
)
from service.dicomweb.urls import Uid, instance_url, root
from service.errors import TryLater
from service.logs import logger
from service.operations import StoreOperations
from store.instances import BadIdentity, Provenance, ingest_file
from store.spool import SpoolFull

router = urls.router()
_PARTS_LIMIT = 100_000
"""Parts of one request: each costs some hundred bytes in the answer."""
_RETRIEVE_URL, _FAILED, _REFERENCED, _REASON = 0x00081190, 0x00081198, 0x00081199, 0x00081197
_CLASS, _INSTANCE = 0x00081150, 0x00081155
_CLASS_NOT_SUPPORTED = Answer(0x0122, "SOP class is not supported")
_OTHER_STUDY = Answer(0xA900, "Study Instance UID differs from the URL's")
_RESOURCES = range(0xA700, 0xA800)
_BODY = {
    RELATED: {"schema": {"type": "string", "format": "binary"}},
    DICOM: {"schema": {"type": "string", "format": "binary"}},
}
_CONTENT: dict[str, Any] = {DICOM_JSON: {"schema": {"type": "object"}}, XML: {"schema": {"type": "string"}}}
_DESCRIBED: dict[str, Any] = {
    "response_class": Response,
    "openapi_extra": {"requestBody": {"required": True, "content": _BODY}},
    "responses": {
        200: {"description": "All were stored", "content": _CONTENT},
        202: {"description": "Some were stored; the others are in Failed SOP Sequence", "content": _CONTENT},
        409: {"description": "None was stored; Failed SOP Sequence says why", "content": _CONTENT},
        **answers.problems(400, 406, 415),
    },
}


@router.post("/studies", summary="STOW-RS: store instances", **_DESCRIBED)
async def store(request: Request, ops: Ops, actor: Annotated[Actor, needs("studies.receive")]) -> Response:
    return await _store(request, ops, actor, "")


@router.post("/studies/{study}", summary="STOW-RS: store instances of a study", **_DESCRIBED)
async def store_study(
    request: Request, ops: Ops, actor: Annotated[Actor, needs("studies.receive")], study: Uid
) -> Response:
    return await _store(request, ops, actor, study)


async def _store(request: Request, ops: StoreOperations, actor: Actor, study: str) -> Response:
    wish = next(
        (
            one.media_type
            for one in accepted(request.headers.get("accept", ""))
            if not one.multipart and one.media_type in (DICOM_JSON, JSON, XML, ANY)
        ),
        None,
    )
    content_type = request.headers.get("content-type", "")
    base = root(request)

    def work(stream: BinaryIO) -> Response:
        if wish is None:
            raise NotAcceptable(f"what became of the instances is told as {DICOM_JSON} or {XML}")
        door = _Door(ops, study, Provenance("", "", acting.source(actor.address or "stow")[:255]))
        for part in _bodies(stream, content_type):
            door.take(part)
        return door.told(wish, base)

    return await uploads.taken(request, work)


def _bodies(stream: BinaryIO, content_type: str) -> Iterator[Iterator[bytes]]:
    """The bytes of each instance; a single one may come without parts."""
    kind = content_type.partition(";")[0].strip().lower()
    given = parameters(content_type[len(kind) :])
    if kind == DICOM:
        yield iter(lambda: stream.read(1 << 20), b"")
        return
    if kind != RELATED:
        raise Unsupported(f'instances are stored as multipart/related; type="{DICOM}"')
    inner = given.get("type", DICOM).lower()
    if inner != DICOM:
        raise Unsupported(f"{inner[:64]} is not taken: instances are stored as {DICOM}")
    for count, (head, content) in enumerate(Reader(stream, given.get("boundary", "")).parts(), 1):
        if count > _PARTS_LIMIT:
            raise BadRequest(f"more than {_PARTS_LIMIT} parts in one request")
        part = head.get("content-type", DICOM).partition(";")[0].strip().lower()
        if part != DICOM:
            raise Unsupported(f"a part is {part[:64]}: instances are stored as {DICOM}")
        yield content


@dataclass(slots=True)
class _Fate:
    """What became of an instance; UIDs are empty where it could not be read."""

    answer: Answer
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    series_instance_uid: str = ""


@dataclass(slots=True)
class _Door:
    """Takes instances in, one after the other."""

    ops: StoreOperations
    study: str
    provenance: Provenance
    fates: list[_Fate] = field(default_factory=list)

    def take(self, content: Iterator[bytes]) -> None:
        """Whatever happens, the instance gets one status; BadRequest where the body itself is broken."""
        fate = _Fate(SUCCESS)
        try:
            self._take(content, fate)
        except BadRequest:
            raise
        except Exception as error:  # noqa: BLE001 - it becomes a status
            fate.answer = _answer_to(error)
            if fate.answer is UNEXPECTED:
                logger("service.dicomweb").error("STOW-RS failed unexpectedly", exc_info=error)
        self.fates.append(fate)

    def _take(self, content: Iterator[bytes], fate: _Fate) -> None:
        registrar = self.ops.intake.registrar
        if registrar.spool.is_full():
            raise SpoolFull("above the high-water mark")
        upload = registrar.spool.incoming()
        try:
            for piece in content:
                upload.write(piece)
            located = locate(upload.path)
            header = read_header(
                upload.path, offset=located.dataset_offset, transfer_syntax_uid=located.transfer_syntax_uid
            )
            fate.sop_class_uid, fate.sop_instance_uid = header.sop_class_uid, header.sop_instance_uid
            fate.study_instance_uid, fate.series_instance_uid = header.study_instance_uid, header.series_instance_uid
            if header.sop_class_uid not in self._supported():
                fate.answer = _CLASS_NOT_SUPPORTED
            elif self.study and header.study_instance_uid != self.study:
                fate.answer = _OTHER_STUDY
            else:
                ingest_file(registrar, upload.path, provenance=self.provenance)
        finally:
            upload.discard()

    def _supported(self) -> frozenset[str]:
        return storage_classes() | frozenset(self.ops.context.settings.dicom.private_sop_classes)

    def told(self, media_type: str, base: str) -> Response:
        """The response of PS3.18 10.5.3: what was stored and what was not."""
        failed = [fate for fate in self.fates if fate.answer.status != SUCCESS.status]
        stored = [fate for fate in self.fates if fate.answer.status == SUCCESS.status]
        if not self.fates:
            raise BadRequest("there is no instance in the request")
        if not stored and all(fate.answer.status in _RESOURCES for fate in failed):
            raise TryLater(failed[0].answer.comment, "OUT_OF_RESOURCES")
        attributes: Attributes = {}
        studies = {fate.study_instance_uid for fate in stored}
        if len(studies) == 1:
            attributes[_RETRIEVE_URL] = Attribute(b"UR", f"{base}/studies/{next(iter(studies))}")
        if failed:
            attributes[_FAILED] = Attribute(b"SQ", tuple(_item(fate) for fate in failed))
        if stored:
            attributes[_REFERENCED] = Attribute(b"SQ", tuple(_item(fate, base) for fate in stored))
        status = 200 if not failed else 202 if stored else 409
        if media_type == XML:
            return Response(_xml(attributes), status, media_type=XML)
        body = json.dumps(dicomjson.of_attributes(attributes), separators=(",", ":"))
        return Response(body, status, media_type=DICOM_JSON)


def _answer_to(error: Exception) -> Answer:
    if isinstance(error, NotDicom) and isinstance(error.__context__, BadIdentity):
        return answer_to(error.__context__)  # ``ingest_file`` puts it into words for people
    return answer_to(error)


def _item(fate: _Fate, base: str = "") -> Attributes:
    item: Attributes = {
        _CLASS: Attribute(b"UI", fate.sop_class_uid),
        _INSTANCE: Attribute(b"UI", fate.sop_instance_uid),
    }
    if base:
        uids = (fate.study_instance_uid, fate.series_instance_uid, fate.sop_instance_uid)
        item[_RETRIEVE_URL] = Attribute(b"UR", instance_url(base, *uids))
    else:
        item[_REASON] = Attribute(b"US", fate.answer.status.to_bytes(2, "little"))
    return item


def _xml(attributes: Attributes) -> str:
    """The Native DICOM Model (PS3.19 A.1) of such an answer."""
    inner = "".join(_xml_element(tag, attributes[tag]) for tag in sorted(attributes))
    space = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
    return f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xmlns="{space}">{inner}</NativeDicomModel>'


def _xml_element(tag: int, attribute: Attribute) -> str:
    from pydicom.datadict import keyword_for_tag

    vr = attribute.vr.decode("ascii")
    head = f'<DicomAttribute tag="{tag:08X}" vr="{vr}" keyword={quoteattr(keyword_for_tag(tag))}>'
    if isinstance(attribute.value, tuple):
        content = "".join(
            f'<Item number="{number}">{"".join(_xml_element(at, item[at]) for at in sorted(item))}</Item>'
            for number, item in enumerate(attribute.value, 1)
        )
    else:
        values = dicomjson.of_attributes({tag: attribute})[f"{tag:08X}"].get("Value", [])
        content = "".join(
            f'<Value number="{number}">{escape(str(value))}</Value>' for number, value in enumerate(values, 1)
        )
    return f"{head}{content}</DicomAttribute>"
