"""MANIFEST.TXT: written with known length, read by sha256sum, parsed strictly."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from media.items import DiscFile, Supplied
from media.manifest import (
    SuppliedKey,
    file_line_length,
    manifest_bytes,
    parse,
    sealed_length,
    supplied_line_length,
)
from media.problems import MediaError
from tests.media.discs import disc_file

FILES = [disc_file("DICOMDIR", b"directory"), disc_file("DICOM/P0000001/IM000001", b"image")]
NAME = Supplied("PATIENT", "(0010,0020)", "LO", "NOID_1")
TITLE = Supplied("ENCAP DOC", "(0020,0013)", "IS", "Ünï\r\n = 7")


def test_what_is_written_is_parsed() -> None:
    data = manifest_bytes(FILES, [("DICOM/P0000001/IM000001", NAME), ("DICOM/P0000001/IM000001", TITLE)])
    found = parse(data)
    assert found.digests == {file.path: file.sha256 for file in FILES}
    assert found.supplied == (
        SuppliedKey("DICOM/P0000001/IM000001", "PATIENT", "(0010,0020)", "NOID_1"),
        SuppliedKey("DICOM/P0000001/IM000001", "ENCAP DOC", "(0020,0013)", "Ünï   = 7"),
    )


def test_the_form_is_that_of_sha256sum_closed_by_its_own_sum() -> None:
    text = manifest_bytes(FILES[:1], [("A", NAME)]).decode()
    digest = hashlib.sha256(b"directory").hexdigest()
    above = f"{digest}  DICOMDIR\n# supplied A PATIENT (0010,0020) = NOID_1\n"
    assert text == f"{above}# sha256 of the lines above: {hashlib.sha256(above.encode()).hexdigest()}\n"


def test_length_is_the_sum_of_the_lines() -> None:
    keys = [("A", NAME), ("BC", TITLE)]
    expected = sum(file_line_length(len(file.path)) for file in FILES) + sealed_length()
    expected += sum(supplied_line_length(len(path), key) for path, key in keys)
    assert len(manifest_bytes(FILES, keys)) == expected


def test_sha256sum_checks_it_without_a_warning(tmp_path: Path) -> None:
    for file in FILES:
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(file.source, bytes)
        path.write_bytes(file.source)
    (tmp_path / "MANIFEST.TXT").write_bytes(manifest_bytes(FILES, [("DICOM/P0000001/IM000001", NAME)]))
    command = ["sha256sum", "--check", "--strict", "MANIFEST.TXT"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "DICOMDIR").write_bytes(b"dIrectory")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


def test_a_file_without_digest_cannot_stand_in_it() -> None:
    with pytest.raises(MediaError, match=r"DICOMDIR.*not known"):
        manifest_bytes([DiscFile(("DICOMDIR",), 1, "", b"a")], [])


def _sealed(body: str) -> bytes:
    return f"{body}# sha256 of the lines above: {hashlib.sha256(body.encode()).hexdigest()}\n".encode()


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"{DIGEST} DICOMDIR\n", "line 1"),
        (f"{DIGEST} *DICOMDIR\n", "line 1"),
        (f"{DIGEST.replace('0', 'A')}  DICOMDIR\n", "line 1"),
        (f"{DIGEST}0  DICOMDIR\n", "line 1"),
        (f"{DIGEST}  DICOMDIR\r\n", "line 1"),
        (f"{DIGEST}  \n", "line 1"),
        (f"{DIGEST}  /etc/passwd\n", "line 1"),
        (f"{DIGEST}  A\n\n", "line 2"),
        (f"{DIGEST}  A\n# a remark\n", "line 2"),
        (f"{DIGEST}  A\n# supplied A PATIENT (0010,002G) = x\n", "line 2"),
        (f"{DIGEST}  A\n{DIGEST}  A\n", "line 2: A stands there twice"),
    ],
)
def test_a_line_in_any_other_form_is_named(body: str, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        parse(_sealed(body))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not end with a line feed"),
        (_sealed(f"{DIGEST}  A\n")[:-1], "does not end with a line feed"),
        (_sealed(f"{DIGEST}  A\n").replace(b"  A", b"  B"), "do not have the SHA-256"),
        (f"{DIGEST}  A\n".encode(), "does not end with the SHA-256"),
        (_sealed(f"{DIGEST}  A\n") + b"# more\n", "does not end with the SHA-256"),
        (b"\xff\n", "byte 0 is no UTF-8"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(MediaError, match=reason):
        parse(data)


def test_every_flipped_bit_is_found() -> None:
    data = manifest_bytes(FILES, [("DICOM/P0000001/IM000001", NAME)])
    for position in range(len(data)):
        for bit in (1, 32, 128):
            spoilt = bytearray(data)
            spoilt[position] ^= bit
            with pytest.raises(MediaError):
                parse(bytes(spoilt))


def test_an_empty_manifest_is_one() -> None:
    assert parse(manifest_bytes([], [])).digests == {}
