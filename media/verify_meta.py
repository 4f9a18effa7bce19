"""The file meta information of one file, checked against PS3.10 7.1."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from media.problems import ProblemKind

_NEEDED = {
    0x00020002: "Media Storage SOP Class UID",
    0x00020003: "Media Storage SOP Instance UID",
    0x00020010: "Transfer Syntax UID",
    0x00020012: "Implementation Class UID",
}
_LONG = (b"OB", b"OW", b"UN", b"UT", b"SQ", b"UC", b"UR")
# PS3.5 9.1 forbids leading zeros in components too, but devices write such UIDs. A medium that holds them is a faithful
# copy: to change them would break every reference to the instance, so they are no fault of the medium.
_UID = re.compile(r"(?=.{1,64}\Z)\d+(\.\d+)*", re.ASCII)
_LENGTHS = 64
"""Group lengths of which a MetaMemory knows an example."""
_LONGEST = 65536
"""Bytes of group 2 that are believed; real ones have some two hundred."""


class Meta(NamedTuple):
    """Group 2 of a file, and where its data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    """Whose program wrote the file (PS3.10 7.1)."""


def is_uid(text: str) -> bool:
    """1 to 64 characters, digits and full stops (PS3.5 9.1, but for leading zeros: see above)."""
    return _UID.fullmatch(text) is not None


def is_part10(head: bytes) -> bool:
    """Whether a file begins with a preamble and the DICM prefix."""
    return head[128:132] == b"DICM"


class MetaMemory:
    """``read_meta`` of many files whose group 2 differs in little more than the SOP Instance UID."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int, bytes, bytes, Meta]] = {}
        """By the group length: begin and end of the UID, what stands before and behind it, what was read."""

    def read(self, head: bytes) -> Meta | None:
        """The file meta information in a file's first bytes. None: it cannot be read on."""
        known = self._known.get(head[132:144])
        if known is not None:
            begin, end, before, behind, meta = known
            stop = meta.dataset_offset
            if (
                head[128:begin] == before
                and head[end:stop] == behind
                and head[stop : stop + 2] not in (b"", b"\x02\x00")
            ):
                uid = head[begin:end].rstrip(b"\0 ").decode("ascii", "replace")
                if is_uid(uid):
                    return meta._replace(sop_instance_uid=uid)
        found, _ = read_meta(head)
        if found is not None:
            self._learn(head, found)
        return found

    def _learn(self, head: bytes, meta: Meta) -> None:
        stop, element = meta.dataset_offset, b"\x02\x00\x03\x00UI"
        at = head.find(element, 132, stop)
        if at < 0 or head.find(element, at + 1, stop) >= 0:
            return
        begin = at + 8
        end = begin + int.from_bytes(head[at + 6 : begin], "little")
        if end <= stop and head[begin:end].rstrip(b"\0 ") == meta.sop_instance_uid.encode("ascii", "replace"):
            if len(self._known) >= _LENGTHS:
                self._known.clear()
            self._known[head[132:144]] = (begin, end, head[128:begin], head[end:stop], meta)


def read_meta(head: bytes) -> tuple[Meta | None, list[tuple[ProblemKind, str]]]:
    """The file meta information in a file's first bytes, with all that is wrong with it. None: cannot be read on."""
    problems: list[tuple[ProblemKind, str]] = []

    def wrong(detail: str, kind: ProblemKind = ProblemKind.STRUCTURE) -> None:
        problems.append((kind, detail))

    if not is_part10(head):
        wrong("is no DICOM file: no DICM prefix after 128 bytes of preamble (PS3.10 7.1)")
        return None, problems
    values: dict[int, bytes] = {}
    offset = 132
    while offset + 8 <= len(head) and head[offset : offset + 2] == b"\x02\x00":
        if offset > _LONGEST:
            break
        element, vr, length = struct.unpack_from("<H2sH", head, offset + 2)
        start = offset + 8
        if vr in _LONG:
            if offset + 12 > len(head):
                break
            (length,) = struct.unpack_from("<L", head, offset + 8)
            start = offset + 12
        elif not (vr.isalpha() and vr.isupper()):
            wrong(f"file meta information: (0002,{element:04x}) at byte {offset} has no value representation")
            return None, problems
        tag = 0x00020000 | element
        if start + length > len(head):
            wrong(f"file meta information: (0002,{element:04x}) claims {length} bytes, more than there are")
            return None, problems
        if values and tag <= max(values):
            wrong(f"file meta information: (0002,{element:04x}) is out of order")
        values[tag] = head[start : start + length]
        offset = start + length

    group_length = values.get(0x00020000)
    if group_length is None or len(group_length) != 4:
        wrong("file meta information has no group length (0002,0000)")
    else:
        (claimed,) = struct.unpack("<L", group_length)
        if 144 + claimed != offset:
            wrong(
                f"File Meta Information Group Length (0002,0000) is {claimed}, but the group has {offset - 144} bytes"
            )
    version = values.get(0x00020001)
    if version != b"\x00\x01":
        said = "is missing" if version is None else f"is {version[:8].hex(' ')}, not 00 01"
        wrong(f"File Meta Information Version (0002,0001) {said}")
    uids = {}
    for tag, name in _NEEDED.items():
        uid = values.get(tag, b"").rstrip(b"\0 ").decode("ascii", "replace")
        if not uid:
            wrong(f"{name} (0002,{tag & 0xFFFF:04x}) is missing")
        elif not is_uid(uid):
            wrong(f"{name} (0002,{tag & 0xFFFF:04x}) is no valid UID: {uid[:70]!r}", ProblemKind.UID)
        uids[tag] = uid
    if not uids[0x00020010]:
        return None, problems
    program = values.get(0x00020013, b"").rstrip(b"\0 ").decode("ascii", "replace")[:16]
    return Meta(uids[0x00020002], uids[0x00020003], uids[0x00020010], offset, uids[0x00020012], program), problems
