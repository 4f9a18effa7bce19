"""Media creation requests of the network become jobs, or are cancelled (PS3.4 S.3.2.2, S.3.2.3).

The acceptor that has the SCU on the line asks; see ``scp.media_creation`` and ``scp.questions``. To ask again is
harmless: each answer comes from one transaction that looks first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from jobs import preparing
from jobs.context import Context
from jobs.options import OptionsError, RequestOptions
from media.labelcodes import symbology_of
from media.problems import MediaError
from store import creations, jobs, requested
from store.creations import PROFILE_UNSUPPORTED, PROFILES_CONFLICT, Failed, Reference
from store.discs import latest_discs, record
from store.models_jobs import MediaCreation
from store.states import DiscState

_BEGUN = frozenset({DiscState.SUBMITTED, DiscState.BURNING, DiscState.BURNT, DiscState.VERIFYING})
_PREFIX = 9
"""Characters that a File-set ID has before its running number."""
_NOT_OFFERED = {"IncludeNonDICOMObjects": "NO", "IncludeDisplayApplication": "NO"}
"""Attributes that ask for what we do not do unless they say this (S.3.2.1.1.7 and 8 leave it open)."""


_LABEL = {
    "label_text": "LabelText",
    "label_style_selection": "LabelStyleSelection",
    "media_disposition": "MediaDisposition",
    "barcode_value": "BarcodeValue",
    "barcode_symbology": "BarcodeSymbology",
}
"""Options of requests with the attributes that they come from."""


class Creating:
    """Answers the questions of ``scp.media_creation``."""

    def __init__(self, context: Context, submit: Callable[[int], None]) -> None:
        """``submit`` hands a queued job to the engine."""
        self._context = context
        self._submit = submit

    def answer(self, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """``{}``, or ``{"refused": name}`` with a name of ``scp.statuses.answer_named``."""
        if what == "media_creation.initiate":
            return self._initiate(**arguments)
        if what == "media_creation.cancel":
            return self._cancel(**arguments)
        raise LookupError(f"unknown question {what}")

    def _initiate(self, sop_instance_uid: str, copies: int | None, priority: str | None) -> dict[str, Any]:
        with self._context.db.begin() as session:
            creation = creations.find(session, sop_instance_uid)
            if creation is None:
                return {"refused": "no_such_instance"}
            if creation.initiated_at is not None:
                return {"refused": "already_initiated"}
            references = creations.references_of(creation)
            try:
                options = self._options(creation, references, copies, priority)
            except OptionsError:
                return {"refused": "invalid_argument"}
            ids, failed = creations.held(session, references)
            failure = _unfit_profile(options, references) or (("NO_INSTANCE", failed) if failed else None)
            job_id = None
            request_id = None
            if failure is None:
                request_id = requested.add_request(
                    session,
                    ids,
                    selection={"media_creation": sop_instance_uid},
                    options=options.to_json(),
                    source=f"dicom:{creation.calling_ae}",
                    idempotency_key=f"media-creation:{sop_instance_uid}",
                )
                job_id = jobs.create_job(session, request_id, None, options)
                _note(session, creation, job_id)
            if not creations.initiate(session, creation, request_id=request_id, job_id=job_id, failure=failure):
                session.rollback()
                return {"refused": "already_initiated"}
        if job_id is not None:
            self._submit(job_id)
        return {}

    def _options(
        self, creation: MediaCreation, references: list[Reference], copies: int | None, priority: str | None
    ) -> RequestOptions:
        asked = creation.attributes
        profile = next((each.profile for each in references if each.profile), None)
        given: dict[str, Any] = {
            "copies": copies,
            "priority": priority,
            "allow_lossy": asked.get("AllowLossyCompression") == "YES",
            "allow_splitting": {"YES": True, "NO": False}.get(asked.get("AllowMediaSplitting", "")),
            "file_set_prefix": _prefix(asked.get("StorageMediaFileSetID", "")),
            "profile": profile,
            "label_using_information_extracted_from_instances": {"YES": True, "NO": False}.get(
                asked.get("LabelUsingInformationExtractedFromInstances", "")
            ),
            **{option: str(asked[keyword]) for option, keyword in _LABEL.items() if asked.get(keyword)},
        }
        if _unknown_symbology(creation):  # the discs are wanted all the same
            given["barcode_value"] = given["barcode_symbology"] = None
        return RequestOptions.from_settings(self._context.settings, given)

    def _cancel(self, sop_instance_uid: str) -> dict[str, Any]:
        with self._context.db.begin() as session:
            creation = creations.find(session, sop_instance_uid)
            if creation is None:
                return {"refused": "no_such_instance"}
            if creation.initiated_at is not None:
                if creation.job_id is not None:
                    jobs.lock(session, creation.job_id)
                if creations.result_of(session, creation).ended:
                    return {"refused": "completed"}
                assert creation.job_id is not None
                if any(DiscState(disc.state) in _BEGUN for disc in latest_discs(session, creation.job_id)):
                    return {"refused": "not_interruptible"}
                jobs.request_cancel(session, creation.job_id)
            creations.cancel(session, creation)
        return {}


def _unfit_profile(options: RequestOptions, references: list[Reference]) -> tuple[str, list[Failed]] | None:
    """Why the profiles that are asked for cannot be written together, or at all."""
    asked = {each.profile for each in references if each.profile}
    if len(asked) > 1:
        return "INST_AP_CONFLICT", _all(references, PROFILES_CONFLICT)
    try:
        preparing.require_pair(options)
    except MediaError:
        return "NOT_SUPPORTED", _all(references, PROFILE_UNSUPPORTED)
    return None


def _unknown_symbology(creation: MediaCreation) -> bool:
    return not symbology_of(str(creation.attributes.get("BarcodeSymbology") or ""))


def _all(references: list[Reference], reason: int) -> list[Failed]:
    return [Failed(each.sop_class_uid, each.sop_instance_uid, reason) for each in references]


def _prefix(file_set_id: str) -> str | None:
    """What of a requested File-set ID can stand before our running number, which keeps every disc's ID unique."""
    return re.sub(r"[^A-Z0-9_]", "", file_set_id.upper())[:_PREFIX] or None


def _note(session: Session, creation: MediaCreation, job_id: int) -> None:
    """The job's events tell who asked, and what of it we do not do."""
    left = sorted(
        keyword
        for keyword, plain in _NOT_OFFERED.items()
        if (value := creation.attributes.get(keyword)) is not None and value != plain
    )
    detail: dict[str, Any] = {"media_creation": creation.sop_instance_uid, "calling_ae": creation.calling_ae}
    if _unknown_symbology(creation):
        left.append("BarcodeSymbology")
    if left:
        detail["not_offered"] = left
    if disposition := creation.attributes.get("MediaDisposition"):
        detail["media_disposition"] = disposition
    record(session, job_id, None, None, "QUEUED", **detail)
