"""Storage Commitment Push Model, as SCP and for what others answer to us (PS3.4 Annex J).

An N-ACTION is entered and answered; the result goes out as N-EVENT-REPORT: over a new association where the asker is a
node that we know, else over the one it asked on, as long as it is there. What cannot be told is told later.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pynetdicom import evt

from scp import statuses
from scp.services import Service
from scp.statuses import SUCCESS, Answer
from store import commitments, remotes
from store.commitments import Committed, DuplicateTransaction, NotCommitted, Outcome, Pair
from store.db import Database

if TYPE_CHECKING:
    from pydicom import Dataset

_log = logging.getLogger(__name__)
SOP_CLASS = "1.2.840.10008.1.20.1"
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known one."""
REQUEST = 1
"""Action Type ID (J.3.2.1)."""
ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs (J.3.3.1)."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_LIMIT = 200_000
_TAKEN_SECONDS = 120.0


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.comment)
        self.answer = answer


def service(database: Database, *, discs: int, patience: timedelta, give_up_after: timedelta) -> Service:
    """The service for all associations of a process.

    ``discs``: verified discs that must hold an instance before it is committed; ``patience``: how long to wait for
    them; ``give_up_after``: when a result that nobody takes is told no more.
    """
    scp = _Provider(database, discs=discs, patience=patience, give_up_after=give_up_after)
    return Service(frozenset({SOP_CLASS}), ((evt.EVT_N_ACTION, scp.on_action), (evt.EVT_N_EVENT_REPORT, scp.on_report)))


class _Provider:
    def __init__(self, database: Database, *, discs: int, patience: timedelta, give_up_after: timedelta) -> None:
        self._database = database
        self._discs = discs
        self._patience = patience
        self._give_up_after = give_up_after

    def on_action(self, event: Any) -> tuple[Any, Dataset | None]:
        return self._answered(event, "N-ACTION", self._action)

    def on_report(self, event: Any) -> tuple[Any, Dataset | None]:
        return self._answered(event, "N-EVENT-REPORT", self._report)

    def _answered(self, event: Any, operation: str, work: Callable[[Any], None]) -> tuple[Any, Dataset | None]:
        requestor = event.assoc.requestor
        who = f"{requestor.ae_title} at {requestor.address}"
        try:
            work(event)
        except _Refused as error:
            answer = error.answer
        except Exception:  # noqa: BLE001 - the other side gets a status
            _log.exception("%s of a storage commitment from %s failed unexpectedly", operation, who)
            answer = statuses.PROCESSING_FAILURE
        else:
            return SUCCESS.as_dataset(), None
        _log.warning(
            "%s of a storage commitment from %s refused with %04XH: %s", operation, who, answer.status, answer.comment
        )
        return answer.as_dataset(), None

    def _action(self, event: Any) -> None:
        """J.3.2: what is to be committed."""
        if event.action_type != REQUEST:
            raise _Refused(statuses.NO_SUCH_ACTION)
        if str(event.request.RequestedSOPInstanceUID or "") != SOP_INSTANCE:
            raise _Refused(statuses.NO_SUCH_COMMITMENT)
        if event.request.ActionInformation is None:
            raise _Refused(statuses.MISSING_ATTRIBUTE.blaming(0x00081195))
        transaction_uid, pairs = asked(event.action_information)
        requestor = event.assoc.requestor
        ae_title, source = str(requestor.ae_title).strip(), str(requestor.address)
        try:
            with self._database.begin() as session:
                commitment_id = commitments.enter(
                    session, "scp", transaction_uid, pairs, ae_title=ae_title, source=source
                )
                known = remotes.by_ae_title(session, ae_title) is not None
        except DuplicateTransaction:
            raise _Refused(statuses.DUPLICATE_TRANSACTION) from None
        _log.info("storage commitment of %d instances for %s at %s", len(pairs), ae_title, source)
        if not known:
            # Nowhere to call back: the answer goes out here, right behind the response.
            event.assoc.afterwards.append(lambda: self._tell_here(event.assoc, commitment_id, transaction_uid))

    def _tell_here(self, association: Any, commitment_id: int, transaction_uid: str) -> None:
        with self._database.begin() as session:
            if not commitments.take(session, commitment_id, seconds=_TAKEN_SECONDS):
                return
            outcome = commitments.settle(session, commitment_id, discs=self._discs, patience=self._patience)
        if outcome is None:
            return
        reason = tell(association, transaction_uid, outcome)
        with self._database.begin() as session:
            if reason is None:
                commitments.reported(session, commitment_id)
            else:
                commitments.not_reported(session, commitment_id, reason, give_up_after=self._give_up_after)

    def _report(self, event: Any) -> None:
        """J.3.3, we being the SCU: another tells what it has committed for us."""
        information = event.event_information
        transaction_uid = str(information.get("TransactionUID") or "")
        outcome = told(information)
        ae_title = str(event.assoc.requestor.ae_title).strip()
        with self._database.begin() as session:
            if not commitments.answered(session, transaction_uid, ae_title, outcome):
                raise _Refused(statuses.NO_SUCH_COMMITMENT)
        _log.info(
            "storage commitment by %s: %d instances, %d failed", ae_title, len(outcome.committed), len(outcome.failed)
        )


def asked(information: Dataset) -> tuple[str, list[Pair]]:
    """Transaction UID and instances of a request (J.3.2.1.1). Raises ``_Refused``."""
    transaction_uid = str(information.get("TransactionUID") or "")
    if not transaction_uid:
        raise _Refused(statuses.MISSING_ATTRIBUTE.blaming(0x00081195))
    if not _is_uid(transaction_uid):
        raise _Refused(statuses.INVALID_ATTRIBUTE.blaming(0x00081195))
    items = information.get("ReferencedSOPSequence") or ()
    if not items:
        raise _Refused(statuses.MISSING_ATTRIBUTE.blaming(0x00081199))
    if len(items) > _LIMIT:
        raise _Refused(statuses.INVALID_ATTRIBUTE.blaming(0x00081199))
    pairs = []
    for item in items:
        pair = Pair(str(item.get("ReferencedSOPClassUID") or ""), str(item.get("ReferencedSOPInstanceUID") or ""))
        for uid, tag in ((pair.sop_class_uid, 0x00081150), (pair.sop_instance_uid, 0x00081155)):
            if not _is_uid(uid):
                raise _Refused(statuses.INVALID_ATTRIBUTE.blaming(tag))
        pairs.append(pair)
    return transaction_uid, pairs


def request(transaction_uid: str, pairs: list[Pair]) -> Dataset:
    """The Action Information of a request."""
    from pydicom import Dataset

    found = Dataset()
    found.TransactionUID = transaction_uid
    found.ReferencedSOPSequence = [_item(pair.sop_class_uid, pair.sop_instance_uid) for pair in pairs]
    return found


def result(transaction_uid: str, outcome: Outcome) -> tuple[int, Dataset]:
    """Event Type and Event Information (J.3.3.1.1); File-sets of verified discs are named item by item."""
    from pydicom import Dataset

    found = Dataset()
    found.TransactionUID = transaction_uid
    items = []
    for each in outcome.committed:
        item = _item(each.sop_class_uid, each.sop_instance_uid)
        if each.file_set_uid:
            item.StorageMediaFileSetID, item.StorageMediaFileSetUID = each.file_set_id, each.file_set_uid
        items.append(item)
    found.ReferencedSOPSequence = items
    if not outcome.failed:
        return ALL_COMMITTED, found
    failed = []
    for lost in outcome.failed:
        item = _item(lost.sop_class_uid, lost.sop_instance_uid)
        item.FailureReason = lost.reason
        failed.append(item)
    found.FailedSOPSequence = failed
    if not items:
        del found.ReferencedSOPSequence
    return SOME_FAILED, found


def told(information: Dataset) -> Outcome:
    """The result that another tells us."""
    committed = tuple(
        Committed(
            str(item.get("ReferencedSOPClassUID") or ""),
            str(item.get("ReferencedSOPInstanceUID") or ""),
            str(item.get("StorageMediaFileSetID") or ""),
            str(item.get("StorageMediaFileSetUID") or ""),
        )
        for item in information.get("ReferencedSOPSequence") or ()
    )
    failed = tuple(
        NotCommitted(
            str(item.get("ReferencedSOPClassUID") or ""),
            str(item.get("ReferencedSOPInstanceUID") or ""),
            int(item.get("FailureReason") or 0x0110),
        )
        for item in information.get("FailedSOPSequence") or ()
    )
    return Outcome(committed, failed)


def tell(association: Any, transaction_uid: str, outcome: Outcome) -> str | None:
    """Send the result over an association; None where the other side took it, else why not."""
    event_type, information = result(transaction_uid, outcome)
    try:
        status, _ = association.send_n_event_report(information, event_type, SOP_CLASS, SOP_INSTANCE)
    except (RuntimeError, ValueError) as error:
        return f"it cannot be sent: {error}"
    if "Status" not in status:
        return "no answer"
    return None if status.Status == 0 else f"answered with {status.Status:04X}H"


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None
