"""What goes wrong with a C-STORE, and the one status that answers it (PS3.4 B.2.3, PS3.7 C.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
