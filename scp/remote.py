"""Us as user of another's services: C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE, storage commitment (PS3.4 A, B, C, J).

Every call opens an association of its own and ends it. What goes wrong is a ``RemoteFailed`` in words; whether it may
help to try again is told.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from media.part10 import locate
from media.problems import MediaError
from scp.sender import Sender, SenderFailed
from scp.tls import TlsError, ended
from store.remotes import Remote

if TYPE_CHECKING:
    import ssl

    from pydicom import Dataset
    from pynetdicom.association import Association

    from store.commitments import Outcome

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_COMPRESSED = (
    *(f"1.2.840.10008.1.2.4.{end}" for end in (70, 90, 91, 80, 81, 50, 51, 57)),
    "1.2.840.10008.1.2.5",
    *(f"1.2.840.10008.1.2.4.{end}" for end in (201, 202, 203, 100, 101, 102, 103, 104, 105, 106)),
)
"""Transfer syntaxes in which we take what another holds compressed; DCMTK hangs where a request has very many."""
_PENDING = (0xFF00, 0xFF01)
_CONTEXTS = 128
"""Presentation contexts of one association (PS3.8 7.1.1.13: odd numbers to 255)."""
_OPEN = ("Sta6", "Sta7", "Sta8")
"""States of PS3.8 9.2 in which responses may still come."""
_HEED_SECONDS = 0.2
_OUT_OF_RESOURCES = range(0xA700, 0xA800)


class RemoteFailed(Exception):
    """The other side did not do what was asked; ``transient``: it may do it later."""

    def __init__(self, text: str, *, transient: bool = True) -> None:
        super().__init__(text)
        self.transient = transient


class NothingAccepted(RemoteFailed):
    """The other side accepts none of the presentation contexts."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An instance that is to be sent: a PS3.10 file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one."""

    sop_instance_uid: str
    status: int
    """Of its C-STORE response; -1: there was none."""
    reason: str
    """Empty for success."""
    transient: bool = False
    """It may help to send it again."""
    unaccepted: bool = False
    """Its transfer syntax, or SOP class, was not accepted."""

    @property
    def ok(self) -> bool:
        """Kept by the other side: success, or a warning (PS3.4 B.2.3)."""
        return self.status == 0 or 0xB000 <= self.status <= 0xBFFF


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The end of a C-MOVE or C-GET."""

    status: int
    completed: int
    failed: int
    warning: int
    failed_uids: tuple[str, ...]
    comment: str


class Peer:
    """A remote node and how we reach it. Safe to share between threads."""

    def __init__(
        self,
        remote: Remote,
        *,
        ae_title: str,
        connect_timeout: float = 10.0,
        acse_timeout: float = 30.0,
        dimse_timeout: float = 60.0,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """``ae_title``: ours. ``tls`` makes the context for a node that is reached over TLS. Times in seconds;
        ``dimse_timeout`` for one response, however many there are.
        """
        self.remote = remote
        self._ae_title = ae_title
        self._connect_timeout = connect_timeout
        self._acse_timeout = acse_timeout
        self._dimse_timeout = dimse_timeout
        self._tls = tls

    def echo(self) -> float:
        """Seconds that the answer to a C-ECHO took, association included. Raises RemoteFailed."""
        began = time.monotonic()
        with self._association([(VERIFICATION, (EXPLICIT_LE, IMPLICIT_LE))]) as association:
            status = association.send_c_echo()
            self._require(status, "C-ECHO")
        return time.monotonic() - began

    def find(self, identifier: Dataset) -> list[Dataset]:
        """Every match of a C-FIND, study root. Raises RemoteFailed."""
        with self.finding() as find:
            return find(identifier)

    @contextmanager
    def finding(self) -> Iterator[Callable[[Dataset], list[Dataset]]]:
        """Several queries on one association: a function like ``find``."""
        with self._association([(STUDY_ROOT_FIND, (EXPLICIT_LE, IMPLICIT_LE))]) as association:

            def find(identifier: Dataset) -> list[Dataset]:
                if not association.is_established:
                    raise RemoteFailed(f"{self.remote.name} has ended the association")
                found = []
                for status, match in association.send_c_find(identifier, STUDY_ROOT_FIND):
                    if "Status" in status and status.Status in _PENDING:
                        if match is not None:
                            found.append(match)
                        continue
                    self._require(status, "C-FIND")
                return found

            yield find

    def move(
        self, identifier: Dataset, destination: str, progress: Callable[[int, int], None] = lambda *_: None
    ) -> Retrieved:
        """C-MOVE, study root, to an AE title that the other side knows. Raises RemoteFailed.

        ``progress`` hears how many instances are through, and of how many, as the other side tells.
        """
        with self._association([(STUDY_ROOT_MOVE, (EXPLICIT_LE, IMPLICIT_LE))]) as association:
            responses = association.send_c_move(identifier, destination, STUDY_ROOT_MOVE)
            return self._retrieved(responses, "C-MOVE", progress)

    def get(
        self,
        identifier: Dataset,
        wanted: Iterable[str],
        store: Callable[[Path], int],
        progress: Callable[[int, int], None] = lambda *_: None,
        *,
        room: Path,
    ) -> Retrieved:
        """C-GET, study root, of instances of these SOP classes (at most 126). Raises RemoteFailed.

        ``store`` is given each as a PS3.10 file in the folder ``room``, which is removed afterwards, and returns the
        status to answer.
        """
        from pynetdicom import build_role, evt

        classes = sorted(set(wanted))[: _CONTEXTS - 2]
        # The sender picks one of them for all instances of a class; it can decode what it holds to the first.
        contexts: list[tuple[str, tuple[str, ...]]] = [(uid, (EXPLICIT_LE, IMPLICIT_LE)) for uid in classes]
        contexts += [(uid, _COMPRESSED) for uid in classes[: _CONTEXTS - 1 - len(classes)]]

        def on_store(event: Any) -> int:
            try:
                return store(Path(event.dataset_path))
            finally:
                _drop(event.request._dataset_file)

        dimse: Any = None
        try:
            with (
                _chunked(room),
                self._association(
                    [(STUDY_ROOT_GET, (EXPLICIT_LE, IMPLICIT_LE)), *contexts],
                    roles=[build_role(uid, scp_role=True) for uid in classes],
                    handlers=[(evt.EVT_C_STORE, on_store)],
                ) as association,
            ):
                dimse = association.dimse
                responses = association.send_c_get(identifier, STUDY_ROOT_GET)
                return self._retrieved(responses, "C-GET", progress)
        finally:
            if dimse is not None:
                _drop_rest(dimse)

    def store(self, instances: Sequence[Outgoing], *, on_sent: Callable[[Sent], None] = lambda _: None) -> list[Sent]:
        """Send instances, as many associations as their presentation contexts need; what became of each.

        Raises RemoteFailed where an association does not come about.
        """
        results = []
        for batch in _batches(instances):
            sender = self._sender(list(dict.fromkeys(_pair(one) for one in batch)))
            try:
                over = ""
                for one in batch:
                    if over:
                        sent = Sent(one.sop_instance_uid, -1, over, transient=True)
                    else:
                        sent, over = self._store_one(sender, one)
                    on_sent(sent)
                    results.append(sent)
            except BaseException:
                sender.abort()
                raise
            sender.release()
        return results

    def _store_one(self, sender: Sender, one: Outgoing) -> tuple[Sent, str]:
        """What became of it, and why the association is over if it is."""
        uid = one.sop_instance_uid
        context_id = sender.accepted.get(_pair(one))
        if context_id is None:
            return self._unaccepted(one), ""
        try:
            offset = locate(one.path).dataset_offset
            with one.path.open("rb", buffering=0) as stream:
                length = stream.seek(0, os.SEEK_END) - offset
                stream.seek(offset)
                code = sender.store(context_id, one.sop_class_uid, uid, stream, length)
        except SenderFailed as error:
            return Sent(uid, -1, f"no answer: {error}", transient=True), "the association ended before it was sent"
        except (MediaError, OSError) as error:
            return Sent(uid, -1, f"it cannot be sent: {error}"), ""
        reason = "" if code == 0 else f"answered with {code:04X}H" + (f" ({sender.comment})" if sender.comment else "")
        return Sent(uid, code, reason, transient=code in _OUT_OF_RESOURCES), ""

    def _sender(self, contexts: list[tuple[str, str]]) -> Sender:
        """An association on which instances are sent. Raises RemoteFailed."""
        remote = self.remote
        arguments = self._tls_arguments()

        def secure(sock: socket.socket) -> socket.socket:
            assert arguments is not None
            return ended(sock, arguments[0], peer=remote.name, timeout=self._acse_timeout, server_hostname=remote.host)

        try:
            return Sender(
                (remote.host, remote.port),
                calling=self._ae_title,
                called=remote.ae_title,
                contexts=contexts,
                acse_timeout=self._acse_timeout,
                dimse_timeout=self._dimse_timeout,
                connect_timeout=self._connect_timeout,
                secure=secure if arguments is not None else None,
            )
        except SenderFailed as error:
            raise RemoteFailed(f"{remote.name}: {error}", transient=error.transient) from error

    def _unaccepted(self, one: Outgoing) -> Sent:
        reason = f"{self.remote.name} does not accept its SOP class in its transfer syntax"
        return Sent(one.sop_instance_uid, -1, reason, unaccepted=True)

    def commit(self, transaction_uid: str, pairs: Sequence[Any], *, listen: float, on_result: Any) -> None:
        """Ask for storage commitment (J.3.2), and listen some seconds for a result on the same association.

        ``on_result`` is called with the Event Information. Raises RemoteFailed where the request is not accepted.
        """
        from pynetdicom import evt

        from scp import commitment

        heard = []

        def on_report(event: Any) -> tuple[int, None]:
            heard.append(True)
            on_result(event.event_information)
            return 0x0000, None

        contexts = [(commitment.SOP_CLASS, (EXPLICIT_LE, IMPLICIT_LE))]
        with self._association(contexts, handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]) as association:
            status, _ = association.send_n_action(
                commitment.request(transaction_uid, list(pairs)),
                commitment.REQUEST,
                commitment.SOP_CLASS,
                commitment.SOP_INSTANCE,
            )
            self._require(status, "N-ACTION of storage commitment")
            deadline = time.monotonic() + listen
            while not heard and association.is_established and time.monotonic() < deadline:
                time.sleep(0.05)

    def report(self, transaction_uid: str, outcome: Outcome) -> None:
        """Tell the result of a storage commitment that was asked of us (J.3.3). Raises RemoteFailed."""
        from pynetdicom import build_role

        from scp import commitment

        # The one who opens this association is SCP of the service, so it has to say so (PS3.7 D.3.3.4).
        roles = [build_role(commitment.SOP_CLASS, scp_role=True)]
        with self._association([(commitment.SOP_CLASS, (EXPLICIT_LE, IMPLICIT_LE))], roles=roles) as association:
            reason = commitment.tell(association, transaction_uid, outcome)
        if reason is not None:
            raise RemoteFailed(reason)

    # -- associations ------------------------------------------------------------------------------------------

    @contextmanager
    def _association(
        self,
        contexts: Sequence[tuple[str, tuple[str, ...]]],
        *,
        roles: Sequence[Any] = (),
        handlers: Sequence[Any] = (),
    ) -> Iterator[Association]:
        from pynetdicom.ae import ApplicationEntity
        from pynetdicom.presentation import build_context

        from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

        entity = ApplicationEntity(self._ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.connection_timeout = self._connect_timeout
        entity.acse_timeout, entity.dimse_timeout = self._acse_timeout, self._dimse_timeout
        entity.network_timeout = max(self._dimse_timeout, self._acse_timeout)
        remote = self.remote
        where = f"{remote.name} ({remote.ae_title} at {remote.host}:{remote.port})"
        association = entity.associate(
            remote.host,
            remote.port,
            tls_args=self._tls_arguments(),
            contexts=[build_context(uid, list(syntaxes)) for uid, syntaxes in contexts],
            ae_title=remote.ae_title,
            ext_neg=list(roles),
            evt_handlers=list(handlers),
        )
        if not association.is_established:
            if association.is_rejected:
                primitive = association.acceptor.primitive
                why = getattr(primitive, "reason_str", "") or "no reason given"
                raise RemoteFailed(
                    f"{where} rejects the association: {why}", transient=getattr(primitive, "result", 2) == 2
                )
            if association.rejected_contexts:
                raise NothingAccepted(f"{where} does not offer this service", transient=False)
            raise RemoteFailed(f"{where} cannot be reached, or does not speak DICOM there")
        _heed_the_end(association)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _tls_arguments(self) -> tuple[ssl.SSLContext, str] | None:
        if not self.remote.tls:
            return None
        if self._tls is None:
            raise RemoteFailed(f"{self.remote.name} is reached over TLS, and there is none here", transient=False)
        try:
            return self._tls(), self.remote.host
        except TlsError as error:
            raise RemoteFailed(f"{self.remote.name} is reached over TLS: {error}", transient=False) from error

    def _retrieved(
        self, responses: Iterator[tuple[Dataset, Dataset | None]], what: str, progress: Callable[[int, int], None]
    ) -> Retrieved:
        for status, identifier in responses:
            if "Status" not in status:
                raise RemoteFailed(f"{self.remote.name} does not answer the {what} any more")
            done, failed, warned, left = (
                int(status.get(f"NumberOf{name}Suboperations") or 0)
                for name in ("Completed", "Failed", "Warning", "Remaining")
            )
            if status.Status in _PENDING:
                progress(done + failed + warned, done + failed + warned + left)
                continue
            uids = identifier.get("FailedSOPInstanceUIDList") if identifier is not None else None
            names = (str(uids),) if isinstance(uids, str) else tuple(str(uid) for uid in uids or ())
            comment = str(status.get("ErrorComment") or "")
            return Retrieved(int(status.Status), done, failed, warned, names, comment)
        raise RemoteFailed(f"{self.remote.name} does not answer the {what}")

    def _require(self, status: Dataset, what: str) -> None:
        if "Status" not in status:
            raise RemoteFailed(f"{self.remote.name} does not answer the {what}")
        if status.Status != 0:
            comment = str(status.get("ErrorComment") or "")
            words = f"{self.remote.name} answers the {what} with {status.Status:04X}H" + (
                f" ({comment})" if comment else ""
            )
            raise RemoteFailed(words, transient=int(status.Status) in _OUT_OF_RESOURCES)


def _pair(one: Outgoing) -> tuple[str, str]:
    return one.sop_class_uid, one.transfer_syntax_uid


def _batches(instances: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Instances in their order, as many at a time as one association has presentation contexts for."""
    batch: list[Outgoing] = []
    contexts: set[tuple[str, str]] = set()
    for one in instances:
        if len(contexts | {_pair(one)}) > _CONTEXTS:
            yield batch
            batch, contexts = [], set()
        contexts.add(_pair(one))
        batch.append(one)
    if batch:
        yield batch


def _heed_the_end(association: Association) -> None:
    """Have waiting for a response end when the association does; pynetdicom waits out its time."""
    dimse: Any = association.dimse
    at_once = dimse.get_msg

    def get_msg(block: bool = False) -> tuple[Any, Any]:
        if not block:
            return at_once(block)  # type: ignore[no-any-return]
        deadline = None if dimse.dimse_timeout is None else time.monotonic() + dimse.dimse_timeout
        while True:
            try:
                return dimse.msg_queue.get(timeout=_HEED_SECONDS)  # type: ignore[no-any-return]
            except queue.Empty:
                over = association.dul.state_machine.current_state not in _OPEN
                if (over and dimse.msg_queue.empty()) or (deadline is not None and time.monotonic() > deadline):
                    return None, None

    dimse.get_msg = get_msg


def _drop(file: Any) -> None:
    """Remove a file that pynetdicom received into; where we are the user it leaves them all behind."""
    if file is not None:
        file.close()
        Path(file.name).unlink(missing_ok=True)


def _drop_rest(dimse: Any) -> None:
    """Remove what came and was not looked at any more when an association ended."""
    with suppress(queue.Empty):
        while True:
            _, message = dimse.msg_queue.get_nowait()
            _drop(getattr(message, "_dataset_file", None))
    if dimse.message is not None:
        _drop(dimse.message._data_set_file)


_chunking = 0
_chunking_lock = threading.Lock()


@contextmanager
def _chunked(room: Path) -> Iterator[None]:
    """Have pynetdicom receive into files of a folder, in pieces: instances may be larger than memory.

    It knows one switch for the whole process: on from the first that needs it to the last. The folder, too, is the
    process's: of several the latest.
    """
    from pynetdicom import _config, dimse_messages

    def switch(step: int) -> None:
        global _chunking  # noqa: PLW0603 - as the switch is
        with _chunking_lock:
            _chunking += step
            _config.STORE_RECV_CHUNKED_DATASET = _chunking > 0
            made = partial(NamedTemporaryFile, dir=room, prefix="received-") if _chunking else NamedTemporaryFile
            dimse_messages.NamedTemporaryFile = made  # type: ignore[attr-defined,assignment]

    switch(1)
    try:
        yield
    finally:
        switch(-1)
