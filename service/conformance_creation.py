"""Media Creation Management in the conformance statement (PS3.4 S.4), made of the tables that the SCP uses."""

from __future__ import annotations

from scp import statuses
from scp.media_creation import SOP_CLASS, TERMS
from scp.statuses import Answer
from service.conformance_text import table

_ATTRIBUTES = (
    (
        "Storage Media File-Set ID",
        "(0088,0130)",
        "nine characters of A-Z 0-9 _ of it stand before a running number",
    ),
    ("Storage Media File-Set UID", "(0088,0140)", "kept and returned; each volume is given its own"),
    ("Label Using Information Extracted From Instances", "(2200,0001)", "followed; YES where it is left out"),
    ("Label Text", "(2200,0002)", "printed on the label"),
    ("Label Style Selection", "(2200,0003)", "a layout of config/labels.toml; others are told of and not used"),
    ("Media Disposition", "(2200,0004)", "printed on the label, and shown in the job's events"),
    ("Barcode Value, Barcode Symbology", "(2200,0005), (2200,0006)", "printed on the label, if known"),
    ("Allow Media Splitting", "(2200,0007)", "NO: a set that needs more than one medium fails as SET_OVERSIZED"),
    ("Include Non-DICOM Objects", "(2200,0008)", "there are none to include; the job's events say so"),
    ("Include Display Application", "(2200,0009)", "there is none to include; the job's events say so"),
    (
        "Preserve Composite Instances After Media Creation",
        "(2200,000A)",
        "instances stay until they are purged",
    ),
    (
        "Allow Lossy Compression",
        "(2200,000F)",
        "YES allows the lossy compression that settings `[compress]` want; else nothing is compressed lossily",
    ),
    ("Referenced SOP Sequence", "(0008,1199)", "the instances; type 1"),
    (
        "> Requested Media Application Profile",
        "(2200,000C)",
        "one for all; `plan.profile` where there is none",
    ),
)
_CREATE = (
    statuses.SUCCESS,
    statuses.INVALID_ATTRIBUTE,
    statuses.PROCESSING_FAILURE,
    statuses.DUPLICATE_INSTANCE,
    statuses.MISSING_ATTRIBUTE,
    statuses.MISSING_VALUE,
)
_ACTION = (
    statuses.SUCCESS,
    statuses.PROCESSING_FAILURE,
    statuses.NO_SUCH_INSTANCE,
    statuses.INVALID_ARGUMENT,
    statuses.NO_SUCH_ACTION,
    statuses.CREATION_ALREADY_INITIATED,
    statuses.CREATION_COMPLETED,
    statuses.CREATION_NOT_INTERRUPTIBLE,
)
_GET = (statuses.SUCCESS, statuses.PROCESSING_FAILURE, statuses.NO_SUCH_INSTANCE)
_EXECUTION = (
    ("IDLE", "NORMAL", "created, not initiated"),
    ("PENDING", "QUEUED", "the job waits for its turn or for the burner"),
    ("CREATING", "NORMAL", "it is planned, conformed, or its media are made and verified"),
    ("CREATING", "CHECK_MCD_OP", "the burner waits for a person"),
    ("DONE", "NORMAL", "every copy of every volume is verified"),
    ("FAILURE", "NO_INSTANCE", "instances are not here (Failure Reason 0112H) or of another SOP class (0119H)"),
    ("FAILURE", "NOT_SUPPORTED", "the profile is not one that Burnish writes (0204H)"),
    ("FAILURE", "INST_AP_CONFLICT", "instances do not fit the profile (0202H), or several were requested (0201H)"),
    ("FAILURE", "INST_OVERSIZED, SET_OVERSIZED", "an instance (0205H), or the set, is too large for the medium"),
    ("FAILURE", "DUPL_REF_INST", "an instance was received twice with different content (setting `plan.conflicts`)"),
    ("FAILURE", "PROC_FAILURE, MCD_FAILURE", "an instance cannot be conformed (0110H); the media could not be made"),
)


def media_creation() -> str:
    """The whole section."""
    return f"""#### 4.2.4 Media Creation Management

As SCP of Media Creation Management ({SOP_CLASS}; N-CREATE, N-ACTION, N-GET), in Explicit VR Little Endian, Implicit VR
Little Endian or Explicit VR Big Endian. Which attributes an N-CREATE may have and what becomes of them:

{table(("Attribute", "Tag", "Use"), _ATTRIBUTES)}

Values other than these are refused (0106H): {
        "; ".join(f"{_spaced(key)} {', '.join(terms)}" for key, terms in TERMS.items())
    }.

N-CREATE checks no more than that. N-ACTION Initiate (Action Type 1; Number of Copies 1 to 99, Request Priority HIGH,
MED or LOW) makes it a job; whether the instances are here and fit is told by N-GET. N-ACTION Cancel (Action Type 2)
ends what no device has begun; after it, the SOP Instance exists no more. A SOP Instance is kept without limit, over
restarts; what N-GET tells follows from the state of its job:

{table(("Execution Status", "Execution Status Info", "When"), _EXECUTION)}

Total Number of Pieces of Media Created counts verified media, the Referenced Storage Media Sequence lists their
volumes. There is no N-EVENT-REPORT in this service. Statuses:

{
        table(
            ("Operation", "Status", "When (Error Comment)"),
            [*_rows("N-CREATE", _CREATE), *_rows("N-ACTION", _ACTION), *_rows("N-GET", _GET)],
        )
    }"""


def _rows(operation: str, answers: tuple[Answer, ...]) -> list[tuple[str, str, str]]:
    return [(operation, f"{answer.status:04X}H", answer.comment or "Success") for answer in answers]


def _spaced(keyword: str) -> str:
    from pydicom.datadict import dictionary_description, tag_for_keyword

    return dictionary_description(tag_for_keyword(keyword) or 0)
