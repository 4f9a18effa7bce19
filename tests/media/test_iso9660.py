"""The image writer: layout, determinism, checks of its sources, refusals."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import isolayout as layout
from media.iso9660 import IsoImage, WriteCancelled
from media.items import DiscFile
from media.problems import InstanceRefused, MediaError
from media.trees import IsoTree
from tests.media.discs import CREATED, contents, disc_file, disc_file_from, image_of, written
from tests.soak import size


def test_size_digest_and_padding_are_what_was_promised() -> None:
    image = image_of(contents(3, 130))
    out = io.BytesIO()
    digest = image.write(out)
    data = out.getvalue()
    assert len(data) == image.size == image.sectors * 2048
    assert hashlib.sha256(data).hexdigest() == digest
    assert data[-150 * 2048 :] == bytes(150 * 2048)
    volume_space_size = data[16 * 2048 + 80 : 16 * 2048 + 88]
    assert volume_space_size == image.sectors.to_bytes(4, "little") + image.sectors.to_bytes(4, "big")


def test_equal_input_gives_equal_bytes_whatever_the_time_zone() -> None:
    files = [disc_file(path, data) for path, data in contents(5, 20).items()]
    east = CREATED.astimezone(timezone(timedelta(hours=9)))
    assert written(IsoImage(files, "A", CREATED)) == written(IsoImage(files, "A", east))


def test_files_lie_in_the_order_given_and_each_starts_on_a_sector(tmp_path: Path) -> None:
    files = dict(reversed(list(contents(2, 30).items())))
    path = tmp_path / "disc.iso"
    path.write_bytes(written(image_of(files)))
    with IsoTree(path) as tree:
        filled = [name for name in files if files[name]]
        assert [name for name in tree.order if tree.files[name].size] == filled
        ends = [extent + length for name in filled for extent, length in tree.extents(name)]
        starts = [extent for name in filled for extent, _ in tree.extents(name)]
        assert all(start % 2048 == 0 for start in starts)
        assert starts[1:] == [-(-end // 2048) * 2048 for end in ends[:-1]], "contiguous"


def test_volume_descriptor_has_the_file_set_id_and_only_the_given_date() -> None:
    descriptor = written(image_of({"README.TXT": b"a"}, "DISC_0042"))[16 * 2048 :][:2048]
    assert descriptor[40:72] == b"DISC_0042".ljust(32)
    assert descriptor[8:40] == b"BURNISH".ljust(32)
    assert descriptor[813:881] == (b"2024050607080900\x002024050607080900\x000000000000000000\x002024050607080900\x00")


def test_records_are_sorted_and_none_crosses_a_sector() -> None:
    names = [f"SE{number:06}" for number in (7, 300, 12)] + ["README.TXT", "DICOMDIR", "A_1", "A.1", "AB", "A"]
    names += [f"IM{number:06}" for number in range(200, 100, -1)]
    data = written(image_of({name: name.encode() for name in names}))
    root = data[16 * 2048 + 156 :]
    start, length = int.from_bytes(root[2:6], "little") * 2048, int.from_bytes(root[10:14], "little")
    found = []
    for sector in range(start, start + length, 2048):
        position = sector
        while position < sector + 2048 and data[position]:
            record = data[position : position + data[position]]
            assert position + len(record) <= sector + 2048
            found.append(record[33 : 33 + record[32]].decode())
            position += len(record)
    assert found[:2] == ["\x00", "\x01"]
    assert length > 2048
    assert found[2:7] == ["A.;1", "A.1;1", "AB.;1", "A_1.;1", "DICOMDIR.;1"]
    assert sorted(found[2:]) == sorted(name + (";1" if "." in name else ".;1") for name in names)


@given(st.lists(st.tuples(st.sampled_from([38, 42, 44, 46, 48]), st.integers(0, 150)), max_size=5))
def test_directory_sectors_are_those_of_packing_record_by_record(runs: list[tuple[int, int]]) -> None:
    used, sectors = 68, 1
    for length in (length for length, count in runs for _ in range(count)):
        if used + length > 2048:
            used, sectors = 0, sectors + 1
        used += length
    assert layout.directory_sectors(runs) == sectors


@settings(max_examples=size(25, 500))
@given(st.integers(1, 50), st.integers(0, 120), st.integers(1, 70))
def test_size_is_known_before_writing(seed: int, instances: int, per_series: int) -> None:
    image = image_of(contents(seed, instances, per_series=per_series))
    assert len(written(image)) == image.size


def test_a_pipe_will_do() -> None:
    image = image_of(contents(4, 40))
    reading, writing = os.pipe()
    received = io.BytesIO()

    def drain() -> None:
        with open(reading, "rb") as source:
            while piece := source.read(70_000):
                received.write(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    with open(writing, "wb", buffering=0) as out:
        digest = image.write(out)
    thread.join()
    assert hashlib.sha256(received.getvalue()).hexdigest() == digest


def test_a_function_will_do() -> None:
    pieces: list[bytes] = []
    image = image_of(contents(4, 40))
    digest = image.write(pieces.append)
    assert hashlib.sha256(b"".join(pieces)).hexdigest() == digest


def test_progress_grows_to_the_size_of_the_image() -> None:
    image = image_of({"A": bytes(5_000_000)})
    seen: list[int] = []
    image.write(io.BytesIO(), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == image.size
    assert len(seen) >= 5


def test_cancelling_ends_the_writing() -> None:
    image = image_of({"A": bytes(5_000_000)})
    out = io.BytesIO()
    with pytest.raises(WriteCancelled):
        image.write(out, cancelled=lambda: len(out.getvalue()) > 2_000_000)
    assert len(out.getvalue()) < image.size
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digest")]


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_shorter, "2999999 bytes, not 3000000"),
        (_longer, "3000001 bytes"),
        (_flipped, "has changed"),
        (Path.unlink, "cannot open"),
    ],
)
def test_a_source_that_is_not_what_it_was_is_named(tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    source = tmp_path / "spooled"
    source.write_bytes(os.urandom(3_000_000))
    files = [disc_file("README.TXT", b"a"), disc_file_from("DICOM/IM000001", source), disc_file("DICOM/IM000002", b"")]
    spoil(source)
    with pytest.raises(MediaError, match=f"^DICOM/IM000001: .*{reason}") as caught:
        IsoImage(files, "A", CREATED).write(io.BytesIO())
    assert str(source) in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digest")]


def test_bytes_with_a_wrong_digest_are_named() -> None:
    file = replace(disc_file("DICOMDIR", b"abc"), sha256="0" * 64)
    with pytest.raises(MediaError, match="DICOMDIR: its source has changed"):
        IsoImage([file], "A", CREATED).write(io.BytesIO())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError()])
def test_an_error_of_the_target_comes_through(error: OSError) -> None:
    def fail(_: bytes) -> None:
        raise error

    with pytest.raises(type(error)):
        image_of({"A": b"a"}).write(fail)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("digest")]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "lower",
        "NINECHARS",
        "A-B",
        "A B",
        "A.",
        ".TXT",
        "A.TEXT",
        "A.B.C",
        "..",
        "DICOM/README.TXT",
        "DICOM//A",
        "ÄPFEL",
        "A;1",
        "A/B/C/D/E/F/G/H/I",
    ],
)
def test_a_name_beyond_level_1_is_refused(path: str) -> None:
    with pytest.raises(MediaError, match="File name"):
        image_of({path: b""})


def test_eight_levels_are_allowed() -> None:
    assert image_of({"A/B/C/D/E/F/G/H": b"deep"}).sectors > 0


@pytest.mark.parametrize("paths", [("A", "A"), ("A/B", "A"), ("A", "A/B")])
def test_a_name_used_twice_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(MediaError, match=r"twice|already"):
        image_of([disc_file(path, b"") for path in paths])


@pytest.mark.parametrize("volume_id", ["", "disc", "A" * 33, "A B", "DISC-1"])
def test_a_volume_id_beyond_d_characters_is_refused(volume_id: str) -> None:
    with pytest.raises(MediaError, match="Volume identifier"):
        image_of({"A": b""}, volume_id)


def test_a_file_too_large_for_one_extent_is_refused_by_name() -> None:
    just_fits = DiscFile(("DICOM", "IM000001"), 2**32 - 2, "0" * 64, Path("large"))
    assert IsoImage([just_fits], "A", CREATED).sectors > 2**21
    with pytest.raises(InstanceRefused, match=r"INST_OVERSIZED.*DICOM/IM000001") as caught:
        IsoImage([replace(just_fits, size=2**32 - 1)], "A", CREATED)
    assert caught.value.code == "INST_OVERSIZED"


def test_more_directories_than_a_path_table_numbers_are_refused() -> None:
    files = [DiscFile((f"D{number:07}", "A"), 0, "", b"") for number in range(65_535)]
    with pytest.raises(MediaError, match="65,535 directories"):
        IsoImage(files, "A", CREATED)
    assert IsoImage(files[:-1], "A", CREATED).sectors > 0


def test_a_year_that_no_date_field_holds_is_refused() -> None:
    with pytest.raises(MediaError, match="year 2156"):
        IsoImage([], "A", datetime(2156, 1, 1, tzinfo=UTC))
