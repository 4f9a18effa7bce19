"""DICOMweb in the conformance statement (PS3.18; PS3.2 on RESTful services)."""

from __future__ import annotations

from service.conformance_text import table, uid_name
from service.dicomweb.media import DICOM, DICOM_JSON, FRAME_TYPES, OCTETS, XML
from service.dicomweb.qido import MAX_RESULTS, RETURNED
from store.query_keys import KEYS

_INSTANCE = "/studies/{study}/series/{series}/instances/{instance}"


def dicomweb() -> str:
    """The whole section."""
    resources = [
        (
            "STOW-RS: store",
            "POST /studies, /studies/{study}",
            f"{DICOM}, in parts or one alone; told as {DICOM_JSON}, {XML}",
        ),
        (
            "QIDO-RS: search",
            "/studies, [/studies/{study}]/series, [/studies/{study}[/series/{series}]]/instances",
            DICOM_JSON,
        ),
        ("WADO-RS: instances", f"/studies/{{study}}, .../series/{{series}}, {_INSTANCE}", DICOM),
        ("WADO-RS: metadata", "the same with /metadata", DICOM_JSON),
        ("WADO-RS: bulk data", f"{_INSTANCE}/bulkdata/...", OCTETS),
        ("WADO-RS: frames", f"{_INSTANCE}/frames/{{list}}", f"{OCTETS}, or as table 4.2-8 has it"),
        (
            "WADO-RS: rendered",
            f"{_INSTANCE}[/frames/{{number}}]/rendered, /thumbnail; thumbnails of studies and series",
            "image/jpeg, image/png",
        ),
    ]
    returned = [(level, ", ".join(sorted(KEYS[tag].keyword for tag in tags))) for level, tags in RETURNED.items()]
    frames = [(uid_name(uid), uid, kind) for uid, kind in FRAME_TYPES.items()]
    statuses = [
        ("200", "all of it"),
        ("202", "STOW-RS: some instances were stored, Failed SOP Sequence has the others"),
        ("204", "QIDO-RS: no match"),
        ("206", "WADO-RS: what can be read now; Warning says how much is on discs only"),
        ("400", "the request contradicts itself, or names an attribute that is none"),
        ("401, 403", "no token, or one without the right"),
        ("404", "never received, or no such frame or value"),
        ("406, 415", "a media type that is not made, or not taken"),
        ("409", "STOW-RS: no instance was stored; WADO-RS: its frames cannot be told apart or decoded"),
        ("503", "on discs only (code OFFLINE), or no room or database at this moment"),
    ]
    return f"""#### 4.2.7 DICOMweb

As origin server, under `/dicomweb` of the HTTP interface, over HTTP or HTTPS; every request needs a token
(docs/api.md). WADO-URI, UPS-RS and other resources are not provided.

{table(("Transaction", "Resources", "Media types"), resources)}

Instances are stored by the door of C-STORE: Failure Reason (0008,1197) is the status that C-STORE would have answered
with (4.2.3), and A900H where the Study Instance UID is not that of the URL. Searches are matched as C-FIND matches
(4.2.6), relational at every level; fuzzy matching is not supported. An answer has at most {MAX_RESULTS:,} matches.
Metadata has values of more than 1 KiB (text: 64 KiB) and all pixel data as BulkDataURI.

Instances are given in Explicit VR Little Endian where no transfer syntax is asked for, as they are held for
`transfer-syntax=*`. One that cannot be decoded is given as it is held where several are asked for, and refused (406)
alone. Of rendered images `window` (linear), `viewport` (width and height) and `quality` are supported.

{table(("Level", "Returned unasked, beside what 4.2.6 tells of every match"), returned)}

Table 4.2-8. Media types of compressed frames as they are held; all others, and those asked for as
{OCTETS}, are decoded.

{table(("Transfer syntax", "UID", "Media type"), frames)}

{table(("Status", "When"), statuses)}"""
