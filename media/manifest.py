"""MANIFEST.TXT: SHA-256 of every file of a disc, in the form that ``sha256sum -c`` reads.

    <64 lower-case hex digits><two blanks><path><LF>            one line a file, the manifest itself left out
    # supplied <path> <record type> (gggg,eeee) = <value>       keys in the DICOMDIR that the instance lacks
    # sha256 of the lines above: <64 lower-case hex digits>     the last line

``sha256sum`` skips lines that begin with ``#``. Since the length of each line is known beforehand, so is the file's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from media.items import DiscFile, Supplied
from media.problems import MediaError

FILE_NAME = "MANIFEST.TXT"
LIMIT = 256 << 20
"""A manifest of more bytes is not read."""

_SEAL = "# sha256 of the lines above: "
_FILE_LINE = re.compile(r"([0-9a-f]{64})  ([^\x00-\x1f\x7f#/\\][^\x00-\x1f\x7f\\]*)")
_SUPPLIED_LINE = re.compile(r"# supplied (\S+) ([A-Z][A-Z0-9 ]*) (\([0-9a-f]{4},[0-9a-f]{4}\)) = (.*)")


@dataclass(frozen=True, slots=True)
class SuppliedKey:
    """A key of a directory record that the file at ``path`` does not have."""

    path: str
    record_type: str
    tag: str
    """``(gggg,eeee)``, lower-case hex."""
    value: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read and whose own sum was right."""

    digests: dict[str, str]
    """Lower-case hex SHA-256 by path."""
    supplied: tuple[SuppliedKey, ...]


def file_line_length(path_length: int) -> int:
    """Bytes of the line of a file whose path has so many characters."""
    return 64 + 2 + path_length + 1


def supplied_line_length(path_length: int, supplied: Supplied) -> int:
    """Bytes of the line of a supplied key."""
    return len(_supplied_line("", supplied).encode("utf-8")) + path_length


def sealed_length() -> int:
    """Bytes of the last line."""
    return len(_SEAL) + 64 + 1


def manifest_bytes(files: Iterable[DiscFile], supplied: Iterable[tuple[str, Supplied]]) -> bytes:
    """The manifest of ``files`` (which must have their digests), in their order, and of the supplied keys by path."""
    lines = []
    for file in files:
        if len(file.sha256) != 64:
            raise MediaError(f"{file.path}: its SHA-256 is not known; it cannot stand in a manifest.")
        lines.append(f"{file.sha256}  {file.path}\n")
    lines.extend(_supplied_line(path, key) for path, key in supplied)
    body = "".join(lines).encode("utf-8")
    return body + f"{_SEAL}{hashlib.sha256(body).hexdigest()}\n".encode("ascii")


def _supplied_line(path: str, supplied: Supplied) -> str:
    value = "".join(character if character.isprintable() else " " for character in supplied.value)
    return f"# supplied {path} {supplied.record_type} {supplied.tag.lower()} = {value}\n"


def parse(data: bytes) -> Manifest:
    """Read a manifest strictly. Raises MediaError that names the first line that is wrong."""
    if len(data) > LIMIT:
        raise MediaError(f"{FILE_NAME} has {len(data)} bytes; more than {LIMIT} are not read.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MediaError(f"{FILE_NAME}: byte {error.start} is no UTF-8.") from error
    if not text.endswith("\n"):
        raise MediaError(f"{FILE_NAME} does not end with a line feed: it is cut off or was changed.")
    lines = text[:-1].split("\n")
    seal = lines.pop()
    body = data[: len(data) - len(seal.encode("utf-8")) - 1]
    if not re.fullmatch(re.escape(_SEAL) + "[0-9a-f]{64}", seal):
        raise MediaError(f"{FILE_NAME} does not end with the SHA-256 of its own lines.")
    if seal[len(_SEAL) :] != hashlib.sha256(body).hexdigest():
        raise MediaError(f"{FILE_NAME}: its lines do not have the SHA-256 that its last line says.")

    digests: dict[str, str] = {}
    supplied: list[SuppliedKey] = []
    for number, line in enumerate(lines, start=1):
        if found := _FILE_LINE.fullmatch(line):
            digest, path = found.groups()
            if path in digests:
                raise MediaError(f"{FILE_NAME}, line {number}: {path} stands there twice.")
            digests[path] = digest
        elif found := _SUPPLIED_LINE.fullmatch(line):
            supplied.append(SuppliedKey(*found.groups()))
        else:
            raise MediaError(f"{FILE_NAME}, line {number} is no line of a manifest: {line[:100]!r}.")
    return Manifest(digests, tuple(supplied))
