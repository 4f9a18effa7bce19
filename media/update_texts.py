"""README.TXT and MANIFEST.TXT of a medium that is updated; those of other makers are left as they are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from media import manifest, readme
from media.items import DiscFile, Supplied
from media.readme import DiscText, PatientFacts, StudyFacts
from media.update_directory import DirectoryEdit, Node

_OURS = b"DICOM images and documents: see the file DICOMDIR.\r\n"
_TRACE = re.compile(rb"^# sha256 of the lines above: ", re.MULTILINE)


def is_our_readme(data: bytes) -> bool:
    """Whether it has the form of ours, so that it can be renewed."""
    return data.startswith(_OURS) and b"\r\nCONTENTS\r\n" in data and b"\r\nTo check that " in data


def is_our_manifest(data: bytes) -> bool:
    """Whether it is meant to be ours; ``manifest.parse`` says whether it is right."""
    return _TRACE.search(data) is not None


def renewed_readme(old: bytes, edit: DirectoryEdit, now: datetime, *, keys_supplied: bool) -> bytes:
    """The same text with the contents as they are now, and when that was. ``now``: UTC."""
    head, _, rest = old.partition(b"\r\nCONTENTS\r\n")
    head = re.sub(rb"\r\nUpdated: [^\r]*", b"", head)
    updated = f"\r\nUpdated:       {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC".encode("ascii")
    head = re.sub(rb"(\r\nCreated: [^\r]*)", lambda match: match[1] + updated, head, count=1)
    start = min(at for at in (rest.find(b"\r\nSome instances lack "), rest.find(b"\r\nTo check that ")) if at >= 0)
    old_blocks, end = rest[:start], rest[start:]
    if keys_supplied and not end.startswith(b"\r\nSome instances lack "):
        empty = readme.tail(DiscText("", "", "", disclaimer=""), keys_supplied=True)
        end = empty[: empty.find(b"\r\nTo check that ")] + end
    blocks = []
    for node in edit.roots:
        if node.type == "PATIENT":
            blocks.append(_with_missing(readme.patient_block(_patient(node)), old_blocks))
            blocks.extend(readme.study_block(_study(study), _count(study)) for study in node.below)
    return b"".join([head, b"\r\nCONTENTS\r\n", *blocks, end])


def _with_missing(block: bytes, old: bytes) -> bytes:
    """A patient's lines, with what the disc's maker said is missing of theirs."""
    at = old.find(block + b"  MISSING, ")
    if at < 0:
        return block
    rest = old[at + len(block) :]
    found = re.match(rb"(?s).*?\r\n(?=  Study: |\r\n|\Z)", rest)
    return block + (found[0] if found else b"")


def _patient(node: Node) -> PatientFacts:
    return PatientFacts(node.text(0x00100020), node.text(0x00100010), node.text(0x00100030))


def _study(node: Node) -> StudyFacts:
    modalities = sorted({series.text(0x00080060) for series in node.below} - {""})
    return StudyFacts(node.text(0x00080020), node.text(0x00081030), tuple(modalities), _count(node))


def _count(node: Node) -> int:
    """Files that a record and those below it reference."""
    return bool(node.path) + sum(_count(child) for child in node.below)


def renewed_manifest(
    old: bytes,
    *,
    changed: Mapping[str, bytes],
    added: Iterable[tuple[str, int, str, tuple[Supplied, ...]]],
    removed: set[str],
) -> bytes:
    """The same manifest with other files: ``changed`` by path with their new bytes, ``added`` with path, size, digest.

    Raises MediaError where the old one is not right: what it says of the files that stay could not be believed.
    """
    read = manifest.parse(old)
    digests = {path: digest for path, digest in read.digests.items() if path not in removed}
    digests |= {path: hashlib.sha256(data).hexdigest() for path, data in changed.items()}
    supplied = [
        (key.path, Supplied(key.record_type, key.tag, "", key.value))
        for key in read.supplied
        if key.path not in removed
    ]
    for path, _, digest, keys in added:
        digests[path] = digest
        supplied.extend((path, key) for key in keys)
    files = [DiscFile(tuple(path.split("/")), 0, digest, b"") for path, digest in digests.items()]
    return manifest.manifest_bytes(files, supplied)
