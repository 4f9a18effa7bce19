"""Media types and multipart bodies, read in whatever pieces they come."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dicomweb import media
from service.dicomweb.media import ANY, DICOM, OCTETS, Accepted, BadRequest, Parts, Reader, accepted
from tests.soak import size


class Dribble(io.RawIOBase):
    """Gives as few bytes at a time as it was told."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = data, step

    def read(self, _size: int = -1) -> bytes:
        piece, self._data = self._data[: self._step], self._data[self._step :]
        return piece


def parts_of(data: bytes, boundary: str, step: int = 1 << 20) -> list[tuple[dict[str, str], bytes]]:
    reader = Reader(Dribble(data, step), boundary)  # type: ignore[arg-type]
    return [(head, b"".join(content)) for head, content in reader.parts()]


@settings(max_examples=size(60, 1200))
@given(
    bodies=st.lists(
        st.binary(max_size=200) | st.sampled_from([b"", b"\r\n", b"--xyz", b"\r\n--xy", b"\r\n--"]), min_size=1
    ),
    step=st.integers(1, 50),
)
def test_parts_come_as_they_were_written(bodies: list[bytes], step: int) -> None:
    written = Parts(DICOM)
    data = b"preamble\r\n"
    for body in bodies:
        data += written.head(DICOM, "http://x/1") + body + b"\r\n"
    data += written.end + b"epilogue"
    assert parts_of(data, written.boundary, step) == [
        ({"content-type": DICOM, "content-location": "http://x/1"}, body) for body in bodies
    ]


@pytest.mark.parametrize(
    ("data", "boundary"),
    [
        (b"", "x"),
        (b"--x", "x"),
        (b"--x\r\nA: b\r\n\r\nbody", "x"),
        (b"--y\r\n\r\nbody\r\n--y--", "x"),
        (b"--x\r\n" + b"A" * 20_000, "x"),
        (b"--x--", ""),
        (b"--x--", "ü"),
        (b"--x--", "b" * 201),
    ],
)
def test_bodies_that_are_no_multipart(data: bytes, boundary: str) -> None:
    with pytest.raises(BadRequest):
        parts_of(data, boundary)


def test_a_part_that_is_not_read_is_passed_over() -> None:
    data = b"--x\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--"
    reader = Reader(io.BytesIO(data), "x")
    assert [next(content) if at else b"" for at, (_, content) in enumerate(reader.parts())] == [b"", b"two"]


def test_memory_for_a_part_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "_CHUNK", 1000)
    data = b"--x\r\n\r\n" + b"a" * 100_000 + b"\r\n--x--"
    for _, content in Reader(io.BytesIO(data), "x").parts():
        assert max(len(piece) for piece in content) <= 2000


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", [Accepted(ANY, False)]),
        ("*/*", [Accepted(ANY, False)]),
        ("application/dicom", [Accepted(DICOM, False)]),
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            [Accepted(DICOM, True, "*")],
        ),
        (
            "multipart/related;type=application/octet-stream;transfer-syntax=1.2.3;q=0.5, image/png, text/html;q=0",
            [Accepted("image/png", False), Accepted(OCTETS, True, "1.2.3", 0.5)],
        ),
        ("application/*;q=x", [Accepted(ANY, False)]),
        ('multipart/related; type="a\\"b,c"; boundary=q', [Accepted('a"b,c', True)]),
        (";;;,,,", []),
    ],
)
def test_accept(header: str, found: list[Accepted]) -> None:
    assert accepted(header) == found


@given(st.text(max_size=300))
def test_no_header_takes_long_or_breaks(header: str) -> None:
    accepted(header)


def test_the_parameter_wins_and_length_is_bounded() -> None:
    assert accepted("image/png", "application/dicom") == [Accepted(DICOM, False)]
    with pytest.raises(BadRequest):
        accepted("a" * 10_000)
    accepted("a;" * 4000)
