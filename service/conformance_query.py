"""Query/Retrieve in the conformance statement (PS3.2 Annex A layout): models, keys, statuses."""

from __future__ import annotations

from service.conformance_text import table, uid_name

_MATCHING = {
    b"PN": "single value, list, wildcard; any component group, without regard to case, accents, `^` and blanks",
    b"UI": "single value, list of UID",
    b"DA": "single value, list, range",
    b"TM": "single value, list, range",
    b"DT": "single value, list, range",
    b"IS": "single value, list",
    b"US": "single value, list",
    b"SQ": "sequence: one item, by its keys of any kind",
}
_TYPES = {"U": "unique", "R": "required", "O": "optional"}
_MEANINGS = (
    (0x0000, "Success"),
    (0xA700, "Refused: Out of resources"),
    (0xA702, "Refused: Unable to perform sub-operations"),
    (0xA801, "Refused: Move destination unknown"),
    (0xA900, "Error: Identifier does not match SOP class"),
    (0xB000, "Warning: Sub-operations complete, one or more failures"),
    (0xC000, "Failed: Unable to process"),
    (0xFE00, "Cancel"),
    (0xFF00, "Pending"),
)
_WORDS = {
    0x0000: "Done; also where nothing matches",
    0xFE00: "Ended by a C-CANCEL",
    0xFF00: "A match, or the numbers of sub-operations",
    0xFF01: "A match; of the keys some are not supported, or not matched on",
}


def query_retrieve() -> str:
    """Section 4.2.6."""
    from scp.identifier import FIND, GET, MOVE, sop_classes

    classes = [(uid_name(uid), uid, "SCP") for uid in sorted(sop_classes(FIND, MOVE, GET))]
    return f"""#### 4.2.6 Query/Retrieve

{table(("SOP class", "UID", "Role"), classes)}

Transfer syntaxes: Explicit VR Little Endian, Implicit VR Little Endian, Explicit VR Big Endian, in this order of
preference. What is found is everything that was received and belongs to a patient, in the spool or on discs only. Of
several instances with one SOP Instance UID and different content the first received is found and sent.

Table 4.2-6. Keys of C-FIND. At each level the keys of the levels above can be matched and returned, too (Study Root has
those of PATIENT at its level STUDY); computed ones only at their own. Empty and `*` are universal matching.

{_keys()}

Every match also tells the unique keys of its level and those above, Instance Availability (0008,0056), where it is
ONLINE or NEARLINE Retrieve AE Title (0008,0054), and Storage Media File-Set ID and UID (0088,0130; 0088,0140) where
verified discs of one File-set hold all of its instances; of several File-sets the latest is told. These but the AE
title can be matched on.

{_availability()}

Hierarchical behaviour: of each level above that of the request the unique key must have a single value, else A900H.
Relational queries and retrievals, and combined date-time matching, are agreed to by extended negotiation; fuzzy
semantic matching, time zone adjustment and conversion of enhanced multi-frame images are not. Text is matched with
regard to case, but for person names. Specific Character Set of a request may be any of section 6. A response is in that
of the request where this can hold all of its values, else in `ISO_IR 192`; where ASCII does, it names none.

C-MOVE sends to the nodes that `burnish nodes` knows, over an association of its own, and names the Move Originator;
C-GET sends on the same association, in presentation contexts for which the requestor has negotiated the role of SCP.
Instances go out in the transfer syntax in which they are held. One that the receiver does not accept in it is decoded
and goes as Explicit VR Little Endian, if setting `remote.convert` says so, else it counts as failed. What is NEARLINE
is read from the disc's image, once its digest is that of the catalogue. For what is OFFLINE a recall is begun: setting
`recall.network` says whether the retrieve waits for its discs (at most `recall.network_seconds`; pending responses go
out every `recall.pending_seconds`, instances as they come, the association to the move destination is opened anew), or
ends with A702H while the recall goes on. Without recall it is not sent; where nothing else was asked for, the retrieve
ends with C003H and names the File-sets. A file that names another patient on its disc than the instance was received
for is never sent as that instance; it counts as failed. C-CANCEL, and the loss of the association, end a recall that
is waited for. A pending response with numbers of sub-operations follows each C-STORE. The last response has Failed SOP
Instance UID List (0008,0058) where any failed.

Table 4.2-7. Statuses. Comments stand in Error Comment (0000,0902); Offending Element (0000,0901) names the key that is
to blame.

{_statuses()}"""


def _keys() -> str:
    from store.query_keys import COMPUTED, KEYS

    rows = []
    for key in KEYS.values():
        if key.source == COMPUTED:
            matching = "list, wildcard" if key.matched else "none: returned only"
        else:
            matching = _MATCHING.get(key.vr, "single value, list, wildcard")
        if key.items:
            matching += " (" + ", ".join(f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in key.items) + ")"
        tag = f"({key.tag >> 16:04X},{key.tag & 0xFFFF:04X})"
        rows.append((key.level, key.keyword, tag, key.vr.decode(), _TYPES[key.type], matching))
    return table(("Level", "Key", "Tag", "VR", "Type", "Matching"), rows)


def _availability() -> str:
    from store.query_facts import NEARLINE, OFFLINE, ONLINE, UNAVAILABLE

    rows = [
        (ONLINE, "in the spool, or back from a disc"),
        (NEARLINE, "purged, and on a verified disc whose image file can be read"),
        (OFFLINE, "only on verified discs that somebody would have to insert"),
        (UNAVAILABLE, "purged, and on no verified disc that was not found damaged since"),
    ]
    return table(("Instance Availability", "The worst of its instances is"), rows)


def _statuses() -> str:
    from scp.statuses import QUERY_ANSWERS

    rows = []
    for service, answers in QUERY_ANSWERS.items():
        for answer in sorted(answers, key=lambda each: (each.status, each.comment)):
            meaning = max(row for row in _MEANINGS if row[0] <= answer.status)[1]
            when = answer.comment or _WORDS[answer.status]
            rows.append((service, f"{answer.status:04X}H", meaning, when))
    return table(("Service", "Status", "Meaning", "When (Error Comment)"), rows)
