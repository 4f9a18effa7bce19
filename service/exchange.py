"""Exchange with remote nodes: echo them, fetch studies from them, send instances to them (with commitment)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from config.settings import Settings
from jobs.conform_pool import Task, conform_all
from jobs.context import Context
from media.problems import MediaError
from media.recipes import EXPLICIT_LE_RECIPE
from scp import commitment
from scp.remote import EXPLICIT_LE, Outgoing, Peer, RemoteFailed, Retrieved, Sent
from service.contract import Document, OnProgress
from service.errors import NotDone, NotFound, UsageError
from store import commitments, remotes
from store.commitments import Pair
from store.instances import Provenance, Registrar, ingest_file
from store.models import Instance
from store.remotes import Remote
from store.retrieval import held
from store.selection import parse_date_range
from store.spool import SpoolFull

if TYPE_CHECKING:
    import ssl

    from pydicom import Dataset

_CHUNK = 500
_UIDS = 100
"""SOP Instance UIDs of one C-MOVE or C-GET."""
_LISTEN_SECONDS = 2.0
_MATCHES = 200
"""Studies that a query tells of; whoever gets so many asks more narrowly."""
_QUERY_KEYS = {
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "accession": "AccessionNumber",
    "date_range": "StudyDate",
    "modality": "ModalitiesInStudy",
}
PULL_CRITERIA = ("study", "patient_id", "accession", "date_range")


class Exchange:
    """Operations with remote nodes on an open store."""

    def __init__(self, context: Context, registrar: Callable[[], Registrar], *, receiving: bool) -> None:
        """``receiving``: our own storage SCP runs, so that a C-MOVE to ourselves can arrive."""
        self._context = context
        self._registrar = registrar
        self._receiving = receiving

    # -- nodes ---------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Document]:
        with self._context.db.read() as session:
            return [_document(remote) for remote in remotes.listed(session)]

    def add_node(self, values: Mapping[str, Any]) -> Document:
        remote = Remote(**values)
        with self._context.db.begin() as session:
            remotes.add(session, remote)
        return _document(remote)

    def remove_node(self, name: str) -> Document:
        with self._context.db.begin() as session:
            remote = remotes.by_name(session, name)
            remotes.remove(session, name)
        return _document(remote)

    def echo_node(self, name: str) -> Document:
        peer = self._peer(name)
        try:
            seconds = round(peer.echo(), 3)
        except RemoteFailed as error:
            self._note(name, str(error))
            raise NotDone(str(error), "REMOTE") from error
        self._note(name)
        return _document(peer.remote) | {"seconds": seconds}

    def _note(self, name: str, problem: str = "") -> None:
        """Keep that a node answered, or why it did not."""
        with self._context.db.begin() as session:
            remotes.note_contact(session, name, ok=not problem, words=problem)

    def query(self, name: str, criteria: Mapping[str, str]) -> list[Document]:
        """Studies of a node that match, by C-FIND: ``patient_name``, ``patient_id``, ``accession``, ``date_range`` and
        ``modality``. Raises ``UsageError`` where nothing is asked for, ``NotDone`` (REMOTE) where it cannot be asked.
        """
        given = {key: value.strip() for key, value in criteria.items() if value.strip()}
        if not given or set(given) - _QUERY_KEYS.keys():
            raise UsageError("say what to look for: a name, a Patient ID, an accession number or a date")
        peer = self._peer(name)
        try:
            matches = self._retried(lambda: peer.find(_query_identifier(given)), lambda: False)
        except RemoteFailed as error:
            self._note(name, str(error))
            raise NotDone(str(error), "REMOTE") from error
        self._note(name)
        return [_match(one) for one in matches[:_MATCHES]]

    def _peer(self, name: str) -> Peer:
        with self._context.db.read() as session:
            return self.peer(remotes.by_name(session, name))

    def peer(self, remote: Remote) -> Peer:
        """How a node is reached."""
        settings = self._context.settings
        return Peer(
            remote,
            ae_title=settings.dicom.ae_title,
            connect_timeout=settings.remote.connect_timeout,
            acse_timeout=settings.dicom.acse_timeout,
            dimse_timeout=settings.remote.answer_timeout,
            tls=partial(tls_context, settings),
        )

    # -- pull ----------------------------------------------------------------------------------------------------

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
        peer = self._peer(name)
        way = by or peer.remote.retrieve
        if way not in remotes.RETRIEVE:
            raise UsageError(f"{way!r} is neither move nor get")
        if way == "move" and not self._receiving:
            raise NotDone("a C-MOVE to ourselves needs the running service; start it, or say --by get", "NOT_RUNNING")
        try:
            studies = self._retried(partial(_studies, peer, given), cancelled)
            self._note(name)
            if not studies:
                raise NotFound(f"{name} has no study that matches")
            listed: dict[str, list[_Listed]] = {}
            for number, study in enumerate(studies):
                progress({"phase": "ask", "done": number, "total": len(studies), "unit": "studies"})
                listed[study] = self._retried(partial(_instances, peer, study), cancelled)
        except RemoteFailed as error:
            self._note(name, str(error))
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
                _pause(attempt, cancelled)
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

        return peer.get(identifier, classes, store, progress)

    def _missing(self, instances: Sequence[_Listed]) -> list[_Listed]:
        held: set[str] = set()
        uids = [each.sop_instance_uid for each in instances]
        with self._context.db.read() as session:
            for start in range(0, len(uids), _CHUNK):
                held.update(
                    session.scalars(
                        select(Instance.sop_instance_uid).where(
                            Instance.sop_instance_uid.in_(uids[start : start + _CHUNK]),
                            Instance.spool_path.is_not(None),
                        )
                    )
                )
        return [each for each in instances if each.sop_instance_uid not in held]

    def _retried(self, ask: Callable[[], Any], cancelled: Callable[[], bool]) -> Any:
        for attempt in range(1, self._context.settings.remote.retries + 1):
            try:
                return ask()
            except RemoteFailed as error:
                if not error.transient or cancelled():
                    raise
            _pause(attempt, cancelled)
        return ask()

    # -- send ----------------------------------------------------------------------------------------------------

    def send(
        self,
        name: str,
        ids: Sequence[int],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        commit: bool = False,
    ) -> Document:
        """Send instances; tells by instance what was not taken. With ``commit`` the node is asked to commit them."""
        peer = self._peer(name)
        waiting, failed = self._outgoing(ids)
        total = len(waiting) + len(failed)
        pairs = {one.sop_instance_uid: Pair(one.sop_class_uid, one.sop_instance_uid) for one in waiting.values()}
        sent: dict[str, Sent] = {}

        def on_sent(one: Sent) -> None:
            if one.ok:
                sent[one.sop_instance_uid] = one
                progress({"phase": "send", "done": len(sent), "total": total, "unit": "instances"})

        attempt, reason = 0, "cancelled"
        with tempfile.TemporaryDirectory(prefix="sending-", dir=self._context.settings.data) as folder:
            while waiting and not cancelled():
                try:
                    results = peer.store(list(waiting.values()), on_sent=on_sent)
                except RemoteFailed as error:
                    reason = str(error)
                    if not error.transient:
                        break
                    results = []
                plain: list[Outgoing] = []
                for one in results:
                    if one.ok:
                        waiting.pop(one.sop_instance_uid)
                    elif one.transient:
                        reason = one.reason
                    else:
                        outgoing = waiting.pop(one.sop_instance_uid)
                        if one.unaccepted and self._convertible(outgoing):
                            plain.append(outgoing)
                        else:
                            failed.append(one)
                again = bool(waiting)
                converted, refused = self._converted(plain, Path(folder), cancelled)
                waiting |= {one.sop_instance_uid: one for one in converted}
                failed += refused
                if again:
                    attempt += 1
                    if attempt > self._context.settings.remote.retries:
                        break
                    _pause(attempt, cancelled)
        failed += [Sent(uid, -1, reason) for uid in waiting if uid not in sent]
        document: Document = {
            "node": name,
            "instances": total,
            "sent": len(sent),
            "warnings": [_line(one) for one in sent.values() if one.status],
            "failed": [_line(one) for one in failed],
            "commitment": None,
        }
        if commit and sent:
            document["commitment"] = self._commit(peer, [pairs[uid] for uid in sent], progress, cancelled)
        return document

    def _outgoing(self, ids: Sequence[int]) -> tuple[dict[str, Outgoing], list[Sent]]:
        """What can be sent, by UID, and what is no longer here; of several with one UID the first is sent."""
        found: dict[str, Outgoing] = {}
        gone: dict[str, Sent] = {}
        with self._context.db.read() as session:
            for start in range(0, len(ids), _CHUNK):
                for one in held(session, sorted(ids[start : start + _CHUNK])):
                    uid, syntax = one.sop_instance_uid, one.transfer_syntax_uid
                    if one.spool_path is not None:
                        path = self._context.spool.path_of(one.spool_path)
                    elif one.restored is not None:
                        path = self._context.derived_path(one.restored.path)
                        syntax = one.restored.transfer_syntax_uid
                    else:
                        gone[uid] = Sent(uid, -1, "it is no longer in the spool; `burnish recall` brings it back")
                        continue
                    found.setdefault(uid, Outgoing(one.sop_class_uid, uid, syntax, path))
        return found, [one for uid, one in gone.items() if uid not in found]

    def _convertible(self, one: Outgoing) -> bool:
        return self._context.settings.remote.convert and one.transfer_syntax_uid != EXPLICIT_LE

    def _converted(
        self, instances: Sequence[Outgoing], folder: Path, cancelled: Callable[[], bool]
    ) -> tuple[list[Outgoing], list[Sent]]:
        """Explicit VR Little Endian copies, decoded in helper processes, and what cannot be decoded."""
        tasks = [
            Task(number, one.sop_instance_uid, one.path, folder / f"{number}.dcm", EXPLICIT_LE_RECIPE)
            for number, one in enumerate(instances)
        ]
        made, refused = [], []
        for result in conform_all(tasks, processes=self._context.settings.jobs.conform_processes, cancelled=cancelled):
            one = instances[result.task.key]
            if result.refused is not None:
                refused.append(Sent(one.sop_instance_uid, -1, f"it cannot be converted: {result.refused[1]}"))
            else:
                made.append(replace(one, transfer_syntax_uid=EXPLICIT_LE, path=result.task.target))
        return made, refused

    def _commit(
        self, peer: Peer, pairs: Sequence[Pair], progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Document:
        """Ask the node to commit what it took, and wait for its result, on this association or one of its own."""
        from media.uids import new_uid

        uid, db = new_uid(), self._context.db
        with db.begin() as session:
            number = commitments.enter(
                session, "scu", uid, pairs, ae_title=peer.remote.ae_title, source=peer.remote.host
            )
        progress({"phase": "commit", "done": 0, "total": len(pairs), "unit": "instances"})

        def on_result(information: Dataset) -> None:
            with db.begin() as session:
                commitments.answered(session, uid, peer.remote.ae_title, commitment.told(information))

        try:
            peer.commit(uid, pairs, listen=_LISTEN_SECONDS, on_result=on_result)
        except RemoteFailed as error:
            return {"transaction_uid": uid, "state": "failed", "reason": str(error), "committed": 0, "failed": []}
        deadline = time.monotonic() + (self._context.settings.remote.commit_timeout if self._receiving else 0)
        while True:
            with db.read() as session:
                outcome = commitments.result_of(session, number)
            if outcome is not None or cancelled() or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if outcome is None:
            reason = f"{peer.remote.name} has not told its result yet"
            return {"transaction_uid": uid, "state": "pending", "reason": reason, "committed": 0, "failed": []}
        return {
            "transaction_uid": uid,
            "state": "committed" if not outcome.failed else "failed",
            "reason": "",
            "committed": len(outcome.committed),
            "failed": [
                {"sop_instance_uid": each.sop_instance_uid, "reason": f"Failure Reason {each.reason:04X}H"}
                for each in outcome.failed
            ],
        }


def tls_context(settings: Settings) -> ssl.SSLContext:
    """For associations that we open. Raises ``scp.tls.TlsError``."""
    from scp.tls import TlsFiles, client_context

    tls = settings.tls
    files = TlsFiles(settings.in_data(tls.certificate), settings.in_data(tls.key), settings.in_data(tls.ca))
    return client_context(files, check_host=tls.check_host)


@dataclass(frozen=True, slots=True)
class _Listed:
    """An instance that a node says it has."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def _query_identifier(given: Mapping[str, str]) -> Dataset:
    from pydicom import Dataset

    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = "STUDY"
    for keyword in _QUERY_KEYS.values():
        setattr(asked, keyword, "")
    for keyword in ("StudyInstanceUID", "StudyDescription", "PatientBirthDate", "NumberOfStudyRelatedInstances"):
        setattr(asked, keyword, "")
    for key, value in given.items():
        if key == "date_range":
            first, last = parse_date_range(value)
            dates = first if first == last else f"{first}-{'' if last == '99999999' else last}"
            asked.StudyDate = dates
        else:
            setattr(asked, _QUERY_KEYS[key], value)
    return asked


def _match(found: Dataset) -> Document:
    def text(keyword: str) -> str:
        value = found.get(keyword)
        return "\\".join(map(str, value)) if isinstance(value, list) else str(value or "")

    return {
        "study_instance_uid": text("StudyInstanceUID"),
        "patient_name": text("PatientName"),
        "patient_id": text("PatientID"),
        "patient_birth_date": text("PatientBirthDate"),
        "study_date": text("StudyDate"),
        "study_description": text("StudyDescription"),
        "accession_number": text("AccessionNumber"),
        "modalities": text("ModalitiesInStudy"),
        "instances": text("NumberOfStudyRelatedInstances"),
    }


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
    """Every instance of a study, by C-FIND at SERIES and IMAGE level."""
    from pydicom import Dataset

    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID, asked.SeriesInstanceUID = "SERIES", study, ""
    listed: dict[str, _Listed] = {}
    for series in [str(match.get("SeriesInstanceUID") or "") for match in peer.find(asked)]:
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID, asked.SeriesInstanceUID = "IMAGE", study, series
        asked.SOPInstanceUID, asked.SOPClassUID = "", ""
        for match in peer.find(asked):
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
        for start in range(0, len(instances), _UIDS):
            part = instances[start : start + _UIDS]
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


def _line(one: Sent) -> Document:
    return {"sop_instance_uid": one.sop_instance_uid, "reason": one.reason}


def _document(remote: Remote) -> Document:
    return asdict(remote)


def _pause(attempt: int, cancelled: Callable[[], bool]) -> None:
    """Wait before another attempt, longer each time; returns early when cancelled."""
    deadline = time.monotonic() + min(2.0 ** (attempt - 1), 30.0)
    while time.monotonic() < deadline and not cancelled():
        time.sleep(0.1)
