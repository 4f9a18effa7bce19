"""The Media Creation Management SCP (PS3.4 Annex S): N-CREATE, N-ACTION Initiate and Cancel, N-GET.

What an SCU asks for is entered here; what it becomes (a job) is decided in the server's process, which is asked. As the
standard advises (S.3.2.1.3, note 1), N-CREATE checks little: whether the instances are there and the profile can be
written is found at Initiate, and told by N-GET.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pynetdicom import evt

from scp.questions import NoAnswer, Questions
from scp.services import Service
from scp.statuses import (
    DUPLICATE_INSTANCE,
    INVALID_ARGUMENT,
    INVALID_ATTRIBUTE,
    MISSING_ATTRIBUTE,
    MISSING_VALUE,
    NO_SUCH_ACTION,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
    Answer,
    answer_named,
)
from store import creations
from store.creations import DuplicateCreation, Reference, Result
from store.db import Database

if TYPE_CHECKING:
    from pydicom import Dataset

_log = logging.getLogger(__name__)
SOP_CLASS = "1.2.840.10008.5.1.1.33"
INITIATE, CANCEL = 1, 2
"""Action Type IDs (S.3.2.2, S.3.2.3)."""

_YES_NO = ("YES", "NO")
TERMS: dict[str, tuple[str, ...]] = {
    "LabelUsingInformationExtractedFromInstances": _YES_NO,
    "AllowMediaSplitting": _YES_NO,
    "AllowLossyCompression": _YES_NO,
    "IncludeNonDICOMObjects": ("NO", "FOR_PHYSICIAN", "FOR_PATIENT", "FOR_TEACHING", "FOR_RESEARCH"),
    "IncludeDisplayApplication": _YES_NO,
    "PreserveCompositeInstancesAfterMediaCreation": _YES_NO,
}
"""Enumerated values and defined terms of the Media Creation Management module (PS3.3 C.22.1)."""
ATTRIBUTES = (
    "StorageMediaFileSetID",
    "StorageMediaFileSetUID",
    "LabelText",
    "LabelStyleSelection",
    "MediaDisposition",
    "BarcodeValue",
    "BarcodeSymbology",
    *TERMS,
)
"""What is kept of an N-CREATE beside its Referenced SOP Sequence."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_REFERENCES_LIMIT = 200_000


class Refused(Exception):
    """What was asked cannot be done; ``answer`` tells the SCU."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.comment)
        self.answer = answer


def service(database: Database, questions: Questions) -> Service:
    """The service for all associations of a process."""
    scp = _Provider(database, questions)
    return Service(
        frozenset({SOP_CLASS}),
        (
            (evt.EVT_N_CREATE, scp.on_create),
            (evt.EVT_N_ACTION, scp.on_action),
            (evt.EVT_N_GET, scp.on_get),
        ),
    )


class _Provider:
    def __init__(self, database: Database, questions: Questions) -> None:
        self._database = database
        self._questions = questions

    def on_create(self, event: Any) -> tuple[Any, Dataset | None]:
        return self._answered(event, "N-CREATE", self._create)

    def on_action(self, event: Any) -> tuple[Any, Dataset | None]:
        return self._answered(event, "N-ACTION", self._action)

    def on_get(self, event: Any) -> tuple[Any, Dataset | None]:
        return self._answered(event, "N-GET", self._get)

    def _answered(
        self, event: Any, operation: str, work: Callable[[Any], Dataset | None]
    ) -> tuple[Any, Dataset | None]:
        requestor = event.assoc.requestor
        who = f"{requestor.ae_title} at {requestor.address}"
        try:
            return SUCCESS.as_dataset(), work(event)
        except Refused as error:
            answer = error.answer
        except Exception:  # noqa: BLE001 - the SCU gets a status
            _log.exception("%s from %s failed unexpectedly", operation, who)
            answer = PROCESSING_FAILURE
        _log.warning("%s from %s refused with %04XH: %s", operation, who, answer.status, answer.comment)
        return answer.as_dataset(), None

    def _create(self, event: Any) -> Dataset:
        """S.3.2.1. The response holds the attributes that we keep."""
        from pydicom.uid import generate_uid

        asked = event.attribute_list
        given = event.request.AffectedSOPInstanceUID
        uid = str(given or generate_uid(prefix=None))
        if not _is_uid(uid):
            raise Refused(INVALID_ATTRIBUTE)
        references = references_asked(asked)
        attributes = attributes_asked(asked)
        requestor = event.assoc.requestor
        try:
            with self._database.begin() as session:
                creations.create(
                    session,
                    uid,
                    calling_ae=str(requestor.ae_title),
                    source=str(requestor.address),
                    attributes=attributes,
                    references=references,
                )
        except DuplicateCreation:
            raise Refused(DUPLICATE_INSTANCE) from None
        _log.info(
            "media creation %s of %d instances for %s at %s",
            uid,
            len(references),
            requestor.ae_title,
            requestor.address,
        )
        kept = data_set(attributes)
        if given is None:
            kept.AffectedSOPInstanceUID = uid
        return kept

    def _action(self, event: Any) -> None:
        """S.3.2.2, S.3.2.3: the server's process makes it a job, or cancels that."""
        uid = str(event.request.RequestedSOPInstanceUID or "")
        if event.action_type == INITIATE:
            copies, priority = arguments_asked(event.action_information)
            what, arguments = "initiate", {"copies": copies, "priority": priority}
        elif event.action_type == CANCEL:
            what, arguments = "cancel", {}
        else:
            raise Refused(NO_SUCH_ACTION)
        try:
            answer = self._questions.ask(f"media_creation.{what}", sop_instance_uid=uid, **arguments)
        except NoAnswer as error:
            _log.error("media creation %s: %s", uid, error)
            raise Refused(PROCESSING_FAILURE) from None
        if refusal := answer.get("refused"):
            raise Refused(answer_named(refusal))

    def _get(self, event: Any) -> Dataset:
        """S.3.2.4: the attributes that are asked for, or all."""
        uid = str(event.request.RequestedSOPInstanceUID or "")
        with self._database.read() as session:
            creation = creations.find(session, uid)
            if creation is None:
                raise Refused(NO_SUCH_INSTANCE)
            result = creations.result_of(session, creation)
            whole = result_data_set(creation.attributes, creations.references_of(creation), result)
        wanted = event.attribute_identifiers
        if not wanted:
            return whole
        from pydicom import Dataset

        chosen = Dataset()
        for tag in {*wanted, 0x00080005}:
            if tag in whole:
                chosen[tag] = whole[tag]
        return chosen


def references_asked(asked: Dataset) -> list[Reference]:
    """The Referenced SOP Sequence of an N-CREATE (PS3.3 C.22.1). Raises Refused."""
    if "ReferencedSOPSequence" not in asked:
        raise Refused(MISSING_ATTRIBUTE.blaming(0x00081199))
    items = asked.ReferencedSOPSequence or ()
    if not items:
        raise Refused(MISSING_VALUE.blaming(0x00081199))
    if len(items) > _REFERENCES_LIMIT:
        raise Refused(INVALID_ATTRIBUTE.blaming(0x00081199))
    found: dict[tuple[str, str], Reference] = {}
    for item in items:
        sop_class, sop_instance = (
            str(item.get("ReferencedSOPClassUID") or ""),
            str(item.get("ReferencedSOPInstanceUID") or ""),
        )
        for uid, tag in ((sop_class, 0x00081150), (sop_instance, 0x00081155)):
            if not uid:
                raise Refused(MISSING_VALUE.blaming(tag))
            if not _is_uid(uid):
                raise Refused(INVALID_ATTRIBUTE.blaming(tag))
        profile = str(item.get("RequestedMediaApplicationProfile") or "").strip()
        found.setdefault((sop_class, sop_instance), Reference(sop_class, sop_instance, profile[:16]))
    return list(found.values())


def attributes_asked(asked: Dataset) -> dict[str, Any]:
    """What else an N-CREATE says, by keyword. Raises Refused for a value that is none of the defined ones."""
    from pydicom.datadict import tag_for_keyword

    found: dict[str, Any] = {}
    for keyword in ATTRIBUTES:
        value = asked.get(keyword)
        if value is None or value == "":
            continue
        text = str(value).strip()
        if keyword in TERMS and text not in TERMS[keyword]:
            raise Refused(INVALID_ATTRIBUTE.blaming(tag_for_keyword(keyword) or 0))
        found[keyword] = text
    return found


def arguments_asked(information: Dataset) -> tuple[int | None, str | None]:
    """Number of Copies and Request Priority of an Initiate (S.3.2.2.1). Raises Refused."""
    copies = _number(information.get("NumberOfCopies"))
    priority = str(information.get("RequestPriority") or "").strip()
    if copies is not None and copies < 1:
        raise Refused(INVALID_ARGUMENT)
    if priority not in ("", "HIGH", "MED", "LOW"):
        raise Refused(INVALID_ARGUMENT)
    return copies, priority.lower() or None


def _number(value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise Refused(INVALID_ARGUMENT) from None


def data_set(attributes: dict[str, Any]) -> Dataset:
    """Attributes by keyword as a data set in UTF-8."""
    from pydicom import Dataset

    found = Dataset()
    if any(isinstance(value, str) and not value.isascii() for value in attributes.values()):
        found.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


def result_data_set(attributes: dict[str, Any], references: Iterable[Reference], result: Result) -> Dataset:
    """Everything that N-GET can tell (S.3.2.4.1)."""
    from pydicom import Dataset

    found = data_set(attributes)
    found.ExecutionStatus = result.status
    found.ExecutionStatusInfo = result.info
    found.TotalNumberOfPiecesOfMediaCreated = min(result.pieces, 0xFFFF)
    found.ReferencedStorageMediaSequence = [_media(*each) for each in result.media]
    lines = []
    for failed in result.failed:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = failed.sop_class_uid, failed.sop_instance_uid
        item.FailureReason = failed.reason
        lines.append(item)
    if lines:
        found.FailedSOPSequence = lines
    lines = []
    for each in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = each.sop_class_uid, each.sop_instance_uid
        if each.profile:
            item.RequestedMediaApplicationProfile = each.profile
        lines.append(item)
    found.ReferencedSOPSequence = lines
    return found


def _media(file_set_id: str, file_set_uid: str) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.StorageMediaFileSetID, item.StorageMediaFileSetUID = file_set_id, file_set_uid
    return item


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None
