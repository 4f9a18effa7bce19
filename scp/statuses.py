"""What goes wrong with a C-STORE, and the one status that answers it (PS3.4 B.2.3, PS3.7 C.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from media.problems import NotDicom
from store.instances import BadIdentity, RegistrationFailed
from store.spool import SpoolFull


@dataclass(frozen=True, slots=True)
class Answer:
    """A DIMSE status, with an Error Comment (0000,0902) of at most 64 characters that never quotes the data set."""

    status: int
    comment: str = ""
    offending: int | None = None
    """Offending Element (0000,0901), where one element is to blame."""

    def blaming(self, tag: int) -> Answer:
        """The same answer, naming an element."""
        return replace(self, offending=tag)

    def as_dataset(self) -> Any:
        """Status and comment as pynetdicom takes them from a handler."""
        from pydicom import Dataset

        found = Dataset()
        found.Status = self.status
        if self.comment:
            found.ErrorComment = self.comment
        return found


class SopClassMismatch(Exception):
    """The data set's SOP Class UID is not the command's."""


class SopInstanceMismatch(Exception):
    """The data set's SOP Instance UID is not the command's."""


class SopClassNotNegotiated(Exception):
    """The command's SOP class is not that of its presentation context."""


class NoDataSet(Exception):
    """A C-STORE-RQ without a data set, or with an empty one."""


class WrongSyntax(Exception):
    """The data set is not encoded in the transfer syntax of its presentation context."""


SUCCESS = Answer(0x0000)
TABLE: dict[type[Exception], Answer] = {
    SpoolFull: Answer(0xA700, "The spool is full"),
    RegistrationFailed: Answer(0xA701, "The database is not available"),
    OSError: Answer(0xA702, "The spool cannot be written"),
    SopClassMismatch: Answer(0xA900, "SOP Class UID differs from the command's", 0x00080016),
    SopInstanceMismatch: Answer(0xA900, "SOP Instance UID differs from the command's", 0x00080018),
    BadIdentity: Answer(0xA901, "A UID that identifies the instance is missing"),
    NotDicom: Answer(0xC000, "The data set cannot be parsed in its transfer syntax"),
    WrongSyntax: Answer(0xC002, "The data set is not in the negotiated transfer syntax"),
    NoDataSet: Answer(0xC001, "There is no data set"),
    SopClassNotNegotiated: Answer(0x0122, "SOP class is not that of the presentation context"),
}
"""Every error that ``scp.storage`` lets through; the first row that fits answers it."""
UNEXPECTED = Answer(0x0110, "Processing failure, see the log")
_TAG = re.compile(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)")


def answer_to(error: Exception) -> Answer:
    """The status for an error; what is not in the table is our own fault."""
    for kind, answer in TABLE.items():
        if isinstance(error, kind):
            if isinstance(error, BadIdentity):
                return Answer(answer.status, answer.comment, error.tag)
            if isinstance(error, NotDicom) and (tag := _TAG.search(str(error))):
                return Answer(answer.status, answer.comment, int(tag[1] + tag[2], 16))
            return answer
    return UNEXPECTED


# --- DIMSE-N services: PS3.7 Annex C, and PS3.4 S.3.2.2.4, S.3.2.3.4 for the last ones --------------------------------

INVALID_ATTRIBUTE = Answer(0x0106, "Invalid attribute value")
PROCESSING_FAILURE = Answer(0x0110, "Processing failure, see the log")
DUPLICATE_INSTANCE = Answer(0x0111, "There is a request with this SOP Instance UID")
NO_SUCH_INSTANCE = Answer(0x0112, "There is no such media creation request")
INVALID_ARGUMENT = Answer(0x0115, "Number of Copies or Request Priority is invalid")
MISSING_ATTRIBUTE = Answer(0x0120, "A mandatory attribute is missing")
MISSING_VALUE = Answer(0x0121, "A mandatory attribute has no value")
NO_SUCH_ACTION = Answer(0x0123, "There is no such action")
NO_SUCH_COMMITMENT = Answer(0x0112, "There is no such storage commitment")
DUPLICATE_TRANSACTION = Answer(0x0131, "The Transaction UID was used for other instances")
CREATION_ALREADY_INITIATED = Answer(0xA510, "The media creation was initiated before")
CREATION_COMPLETED = Answer(0xC201, "The media creation is completed")
CREATION_NOT_INTERRUPTIBLE = Answer(0xC202, "A disc is being made and cannot be interrupted")
CANCEL_DENIED = Answer(0xC203, "The cancellation is denied")
_NAMED = {
    "no_such_instance": NO_SUCH_INSTANCE,
    "invalid_argument": INVALID_ARGUMENT,
    "already_initiated": CREATION_ALREADY_INITIATED,
    "completed": CREATION_COMPLETED,
    "not_interruptible": CREATION_NOT_INTERRUPTIBLE,
    "denied": CANCEL_DENIED,
}
"""Answers that the server's process gives by name (``scp.questions``)."""


def answer_named(name: str) -> Answer:
    return _NAMED.get(name, PROCESSING_FAILURE)


# --- Query/Retrieve: PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4 ------------------------------------------------------------

PENDING = Answer(0xFF00)
PENDING_WITHOUT_SOME = Answer(0xFF01)
CANCELLED = Answer(0xFE00)
OUT_OF_RESOURCES = Answer(0xA700, "The database is not available")
NOT_COUNTED = Answer(0xA701, "The database is not available")
NO_SUB_OPERATION = Answer(0xA702, "No sub-operation succeeded")
NOT_RECALLED = Answer(0xA702, "A recall timed out, was refused, or has only begun")
DESTINATION_AWAY = Answer(0xA702, "The move destination does not accept an association")
UNKNOWN_DESTINATION = Answer(0xA801, "The move destination is not one of our nodes")
WRONG_LEVEL = Answer(0xA900, "Query/Retrieve Level is missing or none of the model", 0x00080052)
WRONG_UNIQUE_KEY = Answer(0xA900, "A unique key above the level is missing or no single value")
NO_UNIQUE_KEY = Answer(0xA900, "The unique key of the level is missing")
UNREADABLE_IDENTIFIER = Answer(0xC000, "The identifier cannot be parsed")
UNABLE = Answer(0xC001, "Unable to process, see the log")
WRONG_VALUE = Answer(0xC002, "A key has a value that its VR does not allow")
ONLY_ON_DISCS = Answer(0xC003, "Only on discs; recall is not available")
TOO_MANY_VALUES = Answer(0xC004, "A key has too many values")
SOME_FAILED = Answer(0xB000, "Some sub-operations failed")
QUERY_ANSWERS: dict[str, tuple[Answer, ...]] = {
    "C-FIND": (
        SUCCESS,
        PENDING,
        PENDING_WITHOUT_SOME,
        CANCELLED,
        OUT_OF_RESOURCES,
        WRONG_LEVEL,
        WRONG_UNIQUE_KEY,
        UNREADABLE_IDENTIFIER,
        UNABLE,
        WRONG_VALUE,
        TOO_MANY_VALUES,
    ),
    "C-MOVE, C-GET": (
        SUCCESS,
        PENDING,
        CANCELLED,
        SOME_FAILED,
        NOT_COUNTED,
        NO_SUB_OPERATION,
        NOT_RECALLED,
        DESTINATION_AWAY,
        UNKNOWN_DESTINATION,
        WRONG_LEVEL,
        WRONG_UNIQUE_KEY,
        NO_UNIQUE_KEY,
        UNREADABLE_IDENTIFIER,
        UNABLE,
        ONLY_ON_DISCS,
        TOO_MANY_VALUES,
    ),
}
"""What each service answers with."""
