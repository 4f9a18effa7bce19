"""Exchange with remote nodes: enter, echo and ask them; fetching and sending have files of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobs.context import Context
from scp.remote import Peer, RemoteFailed
from service import acting
from service.contract import Document, OnProgress
from service.errors import NotDone, UsageError
from service.pulling import Pulling
from service.reaching import Reaching
from service.sending import Sending
from store import auditwhat, remotes
from store.instances import Registrar
from store.remotes import Remote
from store.selection import parse_date_range

if TYPE_CHECKING:
    from pydicom import Dataset

_MATCHES = 200
"""Studies that a query tells of; whoever gets so many asks more narrowly."""
_QUERY_KEYS = {
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "accession": "AccessionNumber",
    "date_range": "StudyDate",
    "modality": "ModalitiesInStudy",
}


class Exchange:
    """Operations with remote nodes on an open store."""

    def __init__(self, context: Context, registrar: Callable[[], Registrar], *, receiving: bool) -> None:
        """``receiving``: our own storage SCP runs, so that a C-MOVE to ourselves can arrive."""
        self._context = context
        self._nodes = Reaching(context)
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

    def remove_node(self, name: str, require: Callable[[Remote], None] = lambda _remote: None) -> Document:
        """``require`` raises for one that shall not be removed."""
        with self._context.db.begin() as session:
            remote = remotes.by_name(session, name, lock=True)
            require(remote)
            remotes.remove(session, name)
        return _document(remote)

    def echo_node(self, name: str) -> Document:
        peer = self._nodes.named(name)
        try:
            seconds = round(peer.echo(), 3)
        except RemoteFailed as error:
            self._nodes.note(name, str(error))
            raise NotDone(str(error), "REMOTE") from error
        self._nodes.note(name)
        return _document(peer.remote) | {"seconds": seconds}

    def query(self, name: str, criteria: Mapping[str, str]) -> list[Document]:
        """Studies of a node that match, by C-FIND: ``patient_name``, ``patient_id``, ``accession``, ``date_range`` and
        ``modality``. Raises ``UsageError`` where nothing is asked for, ``NotDone`` (REMOTE) where it cannot be asked.
        """
        given = {key: value.strip() for key, value in criteria.items() if value.strip()}
        if not given or set(given) - _QUERY_KEYS.keys():
            raise UsageError("say what to look for: a name, a Patient ID, an accession number or a date")
        peer = self._nodes.named(name)
        with self._context.db.begin() as session:
            self._context.audit.record(
                session, auditwhat.query(acting.who(), "", repr(given).encode(), answered_by=name)
            )
        try:
            matches = self._nodes.retried(lambda: peer.find(_query_identifier(given)), lambda: False)
        except RemoteFailed as error:
            self._nodes.note(name, str(error))
            raise NotDone(str(error), "REMOTE") from error
        self._nodes.note(name)
        return [_match(one) for one in matches[:_MATCHES]]

    def peer(self, remote: Remote) -> Peer:
        """How a node is reached."""
        return self._nodes.peer(remote)

    def pull(
        self,
        name: str,
        criteria: Mapping[str, Any],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        by: str | None = None,
    ) -> Document:
        """See ``service.pulling``."""
        pulling = Pulling(self._context, self._nodes, self._registrar, receiving=self._receiving)
        return pulling.pull(name, criteria, progress, cancelled, by=by)

    def send(
        self,
        name: str,
        ids: Sequence[int],
        progress: OnProgress,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        commit: bool = False,
    ) -> Document:
        """See ``service.sending``."""
        sending = Sending(self._context, self._nodes, receiving=self._receiving)
        return sending.send(name, ids, progress, cancelled, commit=commit)


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


def _document(remote: Remote) -> Document:
    return asdict(remote)
