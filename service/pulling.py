"""Fetching studies from a remote node: found by C-FIND, brought by C-MOVE to ourselves or C-GET, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from jobs.context import Context
from media.problems import MediaError
from scp.remote import Peer, RemoteFailed, Retrieved
from service import reaching
from service.contract import Document, OnProgress
from service.errors import NotDone, NotFound, UsageError
from service.reaching import Reaching
from store import remotes
from store.bulk import chunks
from store.instances import Provenance, Registrar, ingest_file
from store.models import Instance
from store.selection import parse_date_range
from store.spool import SpoolFull

if TYPE_CHECKING:
    from pydicom import Dataset

_UIDS = 100
"""SOP Instance UIDs of one C-MOVE or C-GET."""
PULL_CRITERIA = ("study", "patient_id", "accession", "date_range")


class Pulling:
    """Pulls into an open store."""

    def __init__(
        self, context: Context, nodes: Reaching, registrar: Callable[[], Registrar], *, receiving: bool
    ) -> None:
        """``receiving``: our own storage SCP runs, so that a C-MOVE to ourselves can arrive."""
        self._context = context
        self._nodes = nodes
        self._registrar = registrar
        self._receiving = receiving

    def pull(
        self,
        name: str,
        criteria: Mapping[str, Any],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        by: str | None = None,
    ) -> Document:
        """Fetch every study that matches; tells by study what came and, by instance, what did not.

        Raises ``NotFound`` where nothing matches, ``NotDone`` (REMOTE) where the node cannot even be asked.
        """
        given = {key: value for key, value in criteria.items() if value}
        if not given or set(given) - set(PULL_CRITERIA):
            raise UsageError("say what to pull: --study, --patient-id, --accession or --date-range")
        peer = self._nodes.named(name)
        way = by or peer.remote.retrieve
        if way not in remotes.RETRIEVE:
            raise UsageError(f"{way!r} is neither move nor get")
        if way == "move" and not self._receiving:
            raise NotDone("a C-MOVE to ourselves needs the running service; start it, or say --by get", "NOT_RUNNING")
        try:
            studies = self._nodes.retried(partial(_studies, peer, given), cancelled)
            self._nodes.note(name)
            if not studies:
                raise NotFound(f"{name} has no study that matches")
            listed: dict[str, list[_Listed]] = {}
            for number, study in enumerate(studies):
                progress({"phase": "ask", "done": number, "total": len(studies), "unit": "studies"})
                listed[study] = self._nodes.retried(partial(_instances, peer, study), cancelled)
        except RemoteFailed as error:
            self._nodes.note(name, str(error))
            raise NotDone(str(error), "REMOTE") from error
        total = sum(map(len, listed.values()))
        done = 0
        documents = []
        for study, instances in listed.items():
            before = done

            def told(count: int, before: int = before) -> None:
                at = min(before + count, total)
                progress({"phase": "fetch", "done": at, "total": total, "unit": "instances"})

            documents.append(self._pull_study(peer, way, study, instances, told, cancelled))
            done += len(instances)
            told(len(instances))
        missing = sum(len(document["missing"]) for document in documents)
        return {"node": name, "studies": documents, "instances": total, "received": total - missing, "missing": missing}

    def _pull_study(
        self,
        peer: Peer,
        way: str,
        study: str,
        instances: Sequence[_Listed],
        told: Callable[[int], None],
        cancelled: Callable[[], bool],
    ) -> Document:
        missing = self._missing(instances)
        already = len(instances) - len(missing)
        reason = ""
        for attempt in range(self._context.settings.remote.retries + 1):
            if not missing or cancelled():
                break
            if attempt:
                reaching.pause(attempt, cancelled)
            whole = len(missing) == len(instances)
            for identifier, classes in _wanted(study, missing, whole=whole):
                try:
                    here = len(instances) - len(missing)
                    ended = self._retrieve(peer, way, identifier, classes, partial(_tell, told, here))
                    reason = _words(peer, way, ended)
                except RemoteFailed as error:
                    reason = str(error)
                    if not error.transient:
                        break
            missing = self._missing(missing)
        return {
            "study_instance_uid": study,
            "instances": len(instances),
            "already": already,
            "received": len(instances) - len(missing),
            "missing": [
                {"sop_instance_uid": each.sop_instance_uid, "reason": reason or "cancelled"} for each in missing
            ],
        }

    def _retrieve(
        self,
        peer: Peer,
        way: str,
        identifier: Dataset,
        classes: set[str],
        progress: Callable[[int, int], None],
    ) -> Retrieved:
        own = self._context.settings.dicom.ae_title
        if way == "move":
            return peer.move(identifier, own, progress)
        provenance = Provenance(peer.remote.ae_title, own, peer.remote.host)

        def store(path: Path) -> int:
            try:
                ingest_file(self._registrar(), path, provenance=provenance)
            except SpoolFull:
                return 0xA700
            except MediaError:
                return 0xC000
            return 0x0000

        room = self._context.spool.scratch().parent  # swept, should we die while something comes
        return peer.get(identifier, classes, store, progress, room=room)

    def _missing(self, instances: Sequence[_Listed]) -> list[_Listed]:
        held: set[str] = set()
        uids = [each.sop_instance_uid for each in instances]
        with self._context.db.read() as session:
            for chunk in chunks(uids):
                held.update(
                    session.scalars(
                        select(Instance.sop_instance_uid).where(
                            Instance.sop_instance_uid.in_(chunk),
                            Instance.spool_path.is_not(None),
                        )
                    )
                )
        return [each for each in instances if each.sop_instance_uid not in held]


@dataclass(frozen=True, slots=True)
class _Listed:
    """An instance that a node says it has."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def _studies(peer: Peer, given: Mapping[str, Any]) -> list[str]:
    """Study Instance UIDs that match, by C-FIND at STUDY level."""
    found: dict[str, None] = {}
    for identifier in _study_identifiers(given):
        for match in peer.find(identifier):
            if uid := str(match.get("StudyInstanceUID") or ""):
                found[uid] = None
    return list(found)


def _study_identifiers(given: Mapping[str, Any]) -> list[Dataset]:
    from pydicom import Dataset

    dates = ""
    if given.get("date_range"):
        first, last = parse_date_range(given["date_range"])
        dates = f"{first}-{'' if last == '99999999' else last}"
    made = []
    # Several values of one criterion are asked one after the other: only UIDs can be listed in a query.
    for patient_id in given.get("patient_id") or ("",):
        for accession in given.get("accession") or ("",):
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "STUDY"
            identifier.StudyInstanceUID = list(given.get("study") or ()) or ""
            identifier.PatientID, identifier.AccessionNumber, identifier.StudyDate = patient_id, accession, dates
            made.append(identifier)
    return made


def _instances(peer: Peer, study: str) -> list[_Listed]:
    """Every instance of a study, by C-FIND at SERIES and IMAGE level, on one association."""
    from pydicom import Dataset

    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID, asked.SeriesInstanceUID = "SERIES", study, ""
    listed: dict[str, _Listed] = {}
    with peer.finding() as find:
        for series in [str(match.get("SeriesInstanceUID") or "") for match in find(asked)]:
            asked = Dataset()
            asked.QueryRetrieveLevel, asked.StudyInstanceUID, asked.SeriesInstanceUID = "IMAGE", study, series
            asked.SOPInstanceUID, asked.SOPClassUID = "", ""
            for match in find(asked):
                if uid := str(match.get("SOPInstanceUID") or ""):
                    listed[uid] = _Listed(str(match.get("SOPClassUID") or ""), uid, series)
    return list(listed.values())


def _wanted(study: str, missing: Sequence[_Listed], *, whole: bool) -> Iterator[tuple[Dataset, set[str]]]:
    """Identifiers of the C-MOVE or C-GET that bring a study, or what is missing of it."""
    from pydicom import Dataset

    if whole:
        identifier = Dataset()
        identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", study
        yield identifier, _classes(missing)
        return
    by_series: dict[str, list[_Listed]] = {}
    for each in missing:
        by_series.setdefault(each.series_instance_uid, []).append(each)
    for series, instances in by_series.items():
        for part in chunks(instances, _UIDS):
            identifier = Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study, series
            identifier.SOPInstanceUID = [each.sop_instance_uid for each in part]
            yield identifier, _classes(part)


def _classes(instances: Sequence[_Listed]) -> set[str]:
    """SOP classes for a C-GET; where the node does not tell them, those that studies are made of."""
    known = {each.sop_class_uid for each in instances if each.sop_class_uid}
    if known:
        return known
    from pynetdicom.presentation import StoragePresentationContexts

    return {str(context.abstract_syntax) for context in StoragePresentationContexts}


def _tell(told: Callable[[int], None], here: int, done: int, _total: int) -> None:
    told(here + done)


def _words(peer: Peer, way: str, ended: Retrieved) -> str:
    name = f"C-{way.upper()}"
    if ended.status == 0:
        return f"{peer.remote.name} says that its {name} is complete, but it did not come"
    comment = f" ({ended.comment})" if ended.comment else ""
    return f"{peer.remote.name} ended the {name} with {ended.status:04X}H{comment}"
