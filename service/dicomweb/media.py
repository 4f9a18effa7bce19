"""Media types: what an Accept header asks for, and multipart/related bodies (PS3.18 8.7, RFC 9110 12.5.1, RFC 2387)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from service.errors import UsageError

DICOM, DICOM_JSON, JSON, XML = (
    "application/dicom",
    "application/dicom+json",
    "application/json",
    "application/dicom+xml",
)
OCTETS, RELATED, ANY = "application/octet-stream", "multipart/related", "*/*"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
_CHUNK = 1 << 18
_HEAD_LIMIT = 16 << 10
_HEADER_LIMIT = 8192
_BOUNDARY_LIMIT = 200
"""RFC 2046 5.1.1 allows 70 characters, Orthanc sends 73."""
_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,\s]*)')
_RANGE = re.compile(rf"\s*([^\s;,]+)\s*((?:{_PARAMETER.pattern}\s*)*)(?:,|$)")

FRAME_TYPES: Mapping[str, str] = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
}
"""The media type of a compressed frame by its transfer syntax (PS3.18 Tables 8.7.3-4 and 8.7.3-5)."""


class BadRequest(UsageError):
    """A request that DICOMweb does not know, or that contradicts itself."""

    http_status = 400

    def __init__(self, text: str, code: str = "BAD_REQUEST") -> None:
        super().__init__(text, code)


class NotAcceptable(UsageError):
    """None of the media types that are accepted can be made."""

    http_status = 406

    def __init__(self, text: str, code: str = "NOT_ACCEPTABLE") -> None:
        super().__init__(text, code)


class Unsupported(UsageError):
    """A body of a media type that is not taken."""

    http_status = 415

    def __init__(self, text: str, code: str = "MEDIA_TYPE") -> None:
        super().__init__(text, code)


@dataclass(frozen=True, slots=True)
class Accepted:
    """One media range of an Accept header."""

    media_type: str
    """Of the whole answer; of its parts where that is multipart/related."""
    multipart: bool
    """True where parts are asked for; also ``*/*`` may have them."""
    transfer_syntax: str = ""
    quality: float = 1.0


def parameters(text: str) -> dict[str, str]:
    """The parameters behind a media type; names in lower case."""
    found: dict[str, str] = {}
    for name, value in _PARAMETER.findall(text):
        found[name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    return found


def accepted(header: str, query: str | None = None) -> list[Accepted]:
    """The media ranges of an Accept header (``query``: of the parameter accept, which wins), the preferred first."""
    text = query or header or ANY
    if len(text) > _HEADER_LIMIT:
        raise BadRequest(f"Accept is longer than {_HEADER_LIMIT} characters")
    found = []
    for kind, rest, *_ in _RANGE.findall(text):
        given = parameters(rest)
        try:
            quality = min(1.0, max(0.0, float(given.get("q", "1"))))
        except ValueError:
            quality = 1.0
        multipart = kind.lower() in (RELATED, "multipart/*")
        media_type = given.get("type", ANY) if multipart else kind
        if quality:
            syntax = given.get("transfer-syntax", "")
            found.append(Accepted(media_type.lower().replace("application/*", ANY), multipart, syntax, quality))
    return sorted(found, key=lambda one: -one.quality)


# --- Writing ----------------------------------------------------------------------------------------------------------


class Parts:
    """Writes multipart/related."""

    def __init__(self, media_type: str) -> None:
        self.boundary = secrets.token_hex(16)
        self.content_type = f'{RELATED}; type="{media_type}"; boundary={self.boundary}'

    def head(self, content_type: str, location: str = "") -> bytes:
        """What stands before a part's bytes."""
        lines = [f"--{self.boundary}", f"Content-Type: {content_type}"]
        if location:
            lines.append(f"Content-Location: {location}")
        return "\r\n".join([*lines, "", ""]).encode("ascii", "replace")

    @property
    def end(self) -> bytes:
        """What stands behind the last part."""
        return f"--{self.boundary}--\r\n".encode()


# --- Reading ----------------------------------------------------------------------------------------------------------


class Reader:
    """Reads multipart/related from a stream that cannot go back; a part is read before the next one comes."""

    def __init__(self, stream: BinaryIO, boundary: str) -> None:
        if not 0 < len(boundary) <= _BOUNDARY_LIMIT or not boundary.isascii():
            raise BadRequest("the Content-Type has no boundary, or none that can be")
        self._stream = stream
        self._mark = b"\r\n--" + boundary.encode("ascii")
        self._buffer = b"\r\n"  # the first delimiter has none before it
        self._ended = False

    def parts(self) -> Iterator[tuple[dict[str, str], Iterator[bytes]]]:
        """Headers (names in lower case) and bytes of each part. BadRequest where the body is no multipart."""
        for _ in self._until_mark():  # the preamble
            pass
        while True:
            self._need(2)
            if self._buffer.startswith(b"--"):
                return
            content = self._until_mark()
            head = self._head()
            yield head, content
            for _ in content:
                pass

    def _head(self) -> dict[str, str]:
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise BadRequest(f"the head of a part is longer than {_HEAD_LIMIT} bytes")
            self._more()
        lines = self._buffer[:at].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[at + 4 :]
        pairs = (line.partition(":") for line in lines if ":" in line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _until_mark(self) -> Iterator[bytes]:
        while (at := self._buffer.find(self._mark)) < 0:
            ready = len(self._buffer) - len(self._mark)
            if ready > 0:
                yield self._buffer[:ready]
                self._buffer = self._buffer[ready:]
            self._more()
        if at:
            yield self._buffer[:at]
        self._buffer = self._buffer[at + len(self._mark) :]

    def _need(self, count: int) -> None:
        while len(self._buffer) < count:
            self._more()

    def _more(self) -> None:
        data = self._stream.read(_CHUNK)
        if not data:
            raise BadRequest("the multipart body ends before its last delimiter")
        self._buffer += data
