"""The storage SCP (PS3.4 B.2): what is accepted, and one instance from its command to its status."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from media.header import read_header
from media.part10 import file_meta
from scp.commands import StoreRequest
from scp.statuses import (
    SUCCESS,
    UNEXPECTED,
    Answer,
    NoDataSet,
    SopClassMismatch,
    SopClassNotNegotiated,
    SopInstanceMismatch,
    WrongSyntax,
    answer_to,
)
from store.instances import Outcome, Provenance, Registrar
from store.spool import Incoming, SpoolFull

_log = logging.getLogger(__name__)
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
_IMPLICIT_LE, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_NOT_PREFERRED = (_IMPLICIT_LE, _BIG_ENDIAN)
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
_HEAD = 8
_NO_INSTANCES = ("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2")
"""Their names say Storage, yet they are no instances to keep: DICOMDIR, Storage Commitment."""
_NO_FILES = ("1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.20")
"""MIME and XML encoding, Papyrus 3: no data sets of PS3.5."""


@cache
def storage_classes() -> frozenset[str]:
    """Every standard storage SOP class, retired ones and those of no patient included."""
    from pydicom._uid_dict import UID_dictionary
    from pynetdicom import sop_class

    named = {uid for uid, row in UID_dictionary.items() if row[1] == "SOP Class" and "Storage" in row[0]}
    known = {*sop_class._STORAGE_CLASSES.values(), *sop_class._NON_PATIENT_OBJECT_CLASSES.values()}
    return frozenset(map(str, named | known)) - {*_NO_INSTANCES}


@cache
def transfer_syntaxes() -> frozenset[str]:
    """Every transfer syntax that pydicom knows for data sets; compressed ones are stored as received."""
    from pydicom._uid_dict import UID_dictionary
    from pydicom.uid import AllTransferSyntaxes

    named = {uid for uid, row in UID_dictionary.items() if row[1] == "Transfer Syntax"}
    return frozenset(map(str, named.union(AllTransferSyntaxes))) - {*_NO_FILES}


def choose_syntax(proposed: Sequence[str]) -> str | None:
    """The transfer syntax to accept of those that a sender proposes for one presentation context.

    The sender's first that we know, for that is most often how it holds the instance; but never implicit VR or big
    endian from a sender that also offers explicit VR little endian, in which the instance goes on a disc as it is.
    """
    known = transfer_syntaxes()
    first = next((syntax for syntax in proposed if syntax in known), None)
    return EXPLICIT_LE if first in _NOT_PREFERRED and EXPLICIT_LE in proposed else first


def begins_in(head: bytes, syntax: str) -> bool:
    """Whether the first element of a data set can be encoded in this transfer syntax.

    Every instance has a SOP Class UID (0008,0016), so its first tag is that or a lower one; and no element up to there
    has a value so long that its length would look like a VR.
    """
    if syntax in _DEFLATED:
        return True
    group, element = struct.unpack_from(">HH" if syntax == _BIG_ENDIAN else "<HH", head.ljust(_HEAD, b"\0"))
    has_vr = head[4:6].isalpha() and head[4:6].isupper()
    return (group, element) <= (0x0008, 0x0016) and has_vr != (syntax == _IMPLICIT_LE)


class Reception:
    """One data set on its way from the network into the spool. Whatever happens, the peer gets one status."""

    def __init__(
        self, registrar: Registrar, request: StoreRequest, sop_class_uid: str, syntax: str, provenance: Provenance
    ) -> None:
        """``sop_class_uid`` and ``syntax`` are those of the presentation context."""
        self._registrar = registrar
        self._request = request
        self._syntax = syntax
        self._provenance = provenance
        self._incoming: Incoming | None = None
        self._error: Exception | None = None
        self.received = 0
        """Bytes of the data set so far."""
        self._head = b""
        try:
            if request.sop_class_uid != sop_class_uid:
                raise SopClassNotNegotiated
            if registrar.spool.is_full():
                raise SpoolFull("above the high-water mark")
            meta = file_meta(request.sop_class_uid, request.sop_instance_uid, syntax)
            self._incoming = registrar.spool.incoming()
            self._incoming.write_meta(meta)
        except Exception as error:  # noqa: BLE001 - it becomes a status
            self._fail(error)

    def write(self, data: memoryview) -> None:
        """The next fragment; after an error the rest of the data set is only passed over."""
        self.received += len(data)
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        if self._incoming is not None:
            try:
                self._incoming.write(data)
            except Exception as error:  # noqa: BLE001 - it becomes a status
                self._fail(error)

    def finish(self) -> Answer:
        """The data set is complete: check, register, answer."""
        if self._incoming is not None:
            try:
                outcome = self._register(self._incoming)
                self._incoming = None
                if outcome.kind == "conflict":
                    _log.warning(
                        "SOP Instance UID %s came with other content than before; both are kept",
                        outcome.sop_instance_uid,
                    )
                return SUCCESS
            except Exception as error:  # noqa: BLE001 - it becomes a status
                self._fail(error)
        assert self._error is not None
        answer = answer_to(self._error)
        if answer is UNEXPECTED:
            _log.error("C-STORE failed unexpectedly", exc_info=self._error)
        else:
            reason = type(self._error).__name__
            _log.warning(
                "C-STORE from %s at %s refused with %04XH (%s): %s",
                self._provenance.calling_ae,
                self._provenance.source,
                answer.status,
                reason,
                answer.comment,
            )
        return answer

    def discard(self) -> None:
        """The association ended in the middle: leave nothing."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.discard()  # gives the room back at once

    def _register(self, incoming: Incoming) -> Outcome:
        if not self.received:
            raise NoDataSet
        if not begins_in(self._head, self._syntax):
            raise WrongSyntax
        header = read_header(
            incoming.path, offset=incoming.dataset_offset, transfer_syntax_uid=self._syntax, length=self.received
        )
        if header.sop_class_uid != self._request.sop_class_uid:
            raise SopClassMismatch
        if header.sop_instance_uid != self._request.sop_instance_uid:
            raise SopInstanceMismatch
        return self._registrar.register(incoming, header, self._provenance)


class Storage:
    """What all associations of a process share."""

    def __init__(self, registrar: Registrar, *, private_sop_classes: Iterable[str] = ()) -> None:
        self.registrar = registrar
        self.sop_classes = storage_classes() | frozenset(private_sop_classes)

    def receiver(self, provenance: Provenance) -> Callable[[StoreRequest, str, str], Reception]:
        """What begins a reception for one association."""

        def begin(request: StoreRequest, sop_class_uid: str, syntax: str) -> Reception:
            return Reception(self.registrar, request, sop_class_uid, syntax, provenance)

        return begin
