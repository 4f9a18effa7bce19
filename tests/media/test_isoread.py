"""The image reader: other makers' images and hostile ones."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pycdlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.isoread import IsoEntry, IsoVolume
from media.problems import FileSetInvalid
from media.trees import IsoTree
from tests.media.discs import contents, image_of, written
from tests.soak import size

FILES = {"README.TXT": b"read me", "DICOM/P0000001/IM000001": b"x" * 5000, "DICOM/P0000001/IM000002": b"y"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disc.iso"
    path.write_bytes(written(image_of(FILES)))
    return path


def read_all(tree: IsoTree) -> dict[str, bytes]:
    found = {}
    for name in tree.order:
        with tree.open(name) as stream:
            found[name] = stream.read()
    return found


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files = contents(9, 150)
    path = tmp_path / "disc.iso"
    path.write_bytes(written(image_of(files, "DISC_0009")))
    with IsoTree(path) as tree:
        assert read_all(tree) == files
        assert tree.volume_id == "DISC_0009"
        assert tree.problems == []


def test_a_file_is_a_seekable_stream_bounded_to_itself(image: Path) -> None:
    with IsoVolume(image) as volume, volume.open(_entry(volume, "DICOM", "P0000001", "IM000001.;1")) as stream:
        assert stream.seekable()
        assert stream.seek(-3, os.SEEK_END) == 4997
        assert stream.read() == b"xxx"
        assert stream.read() == b""
        stream.seek(4000)
        assert len(stream.read(5000)) == 1000
        assert stream.seek(9999) == 9999
        assert stream.read(1) == b""


def _entry(volume: IsoVolume, *path: str) -> IsoEntry:
    entry = volume.root
    for component in path:
        entry = next(found for found in volume.entries(entry, "") if found.identifier == component)
    return entry


def test_several_threads_read_at_a_time(tmp_path: Path) -> None:
    files = {f"F{number}": os.urandom(300_000) for number in range(4)}
    path = tmp_path / "disc.iso"
    path.write_bytes(written(image_of(files)))
    found: dict[str, bytes] = {}
    with IsoTree(path) as tree:

        def read(name: str) -> None:
            with tree.open(name) as stream:
                found[name] = b"".join(iter(lambda: stream.read(1000), b""))

        threads = [threading.Thread(target=read, args=(name,)) for name in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == files


@pytest.mark.parametrize(("level", "joliet", "rock_ridge"), [(1, None, None), (3, 3, "1.09"), (4, None, None)])
def test_images_of_pycdlib_are_read(tmp_path: Path, level: int, joliet: int | None, rock_ridge: str | None) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=level, joliet=joliet, rock_ridge=rock_ridge, vol_ident="OTHER")
    extra = {"rr_name": "dicom"} if rock_ridge else {}
    iso.add_directory("/DICOM", **extra, **({"joliet_path": "/dicom"} if joliet else {}))
    data = b"z" * 3000
    extra = {"rr_name": "im1"} if rock_ridge else {}
    extra |= {"joliet_path": "/dicom/im1"} if joliet else {}
    iso.add_fp(io.BytesIO(data), len(data), "/DICOM/IM000001.;1", **extra)
    path = tmp_path / "other.iso"
    iso.write(str(path))
    iso.close()
    with IsoTree(path) as tree:
        assert read_all(tree) == {"DICOM/IM000001": data}
        assert tree.volume_id == "OTHER"


def _patched(image: Path, patches: dict[int, bytes]) -> Path:
    data = bytearray(image.read_bytes())
    for offset, patch in patches.items():
        data[offset : offset + len(patch)] = patch
    image.write_bytes(data)
    return image


def _record(image: Path, identifier: bytes) -> int:
    """Offset of the directory record with this identifier."""
    return image.read_bytes().index(bytes((len(identifier),)) + identifier, 20 * 2048) - 32


def _both(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "no volume descriptor"),
        (lambda data: data[: 16 * 2048 + 100], "no volume descriptor"),
        (lambda data: b"\x89PNG" + bytes(100_000), "not an ISO 9660 image"),
        (lambda data: bytes(16 * 2048) + b"\x00BEA01".ljust(9000), "UDF file system without ISO 9660"),
        (lambda data: data[: 16 * 2048] + b"\x00" + data[16 * 2048 + 1 :], "no primary volume descriptor"),
        (
            lambda data: data[: 16 * 2048] + data[16 * 2048 : 17 * 2048].replace(b"\x01CD", b"\x02CD") * 99,
            "more than 64",
        ),
        (lambda data: data[: 16 * 2048 + 128] + b"\x07\x00" + data[16 * 2048 + 130 :], "blocks of 7 bytes"),
        (lambda data: data[: 16 * 2048 + 158] + b"\xff" * 8 + data[16 * 2048 + 166 :], "no root directory"),
        (lambda data: data[: 16 * 2048 + 181] + b"\x00" + data[16 * 2048 + 182 :], "no root directory"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_reason(
    image: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    image.write_bytes(spoil(image.read_bytes()))
    with pytest.raises(FileSetInvalid, match=reason) as caught:
        IsoTree(image)
    assert str(image) in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileSetInvalid):
            IsoVolume(path)


def test_a_truncated_image_says_so_and_gives_what_is_left(image: Path) -> None:
    data = image.read_bytes()
    end = data.rindex(b"x") + 1
    image.write_bytes(data[:end])
    with IsoTree(image) as tree:
        assert "DICOM/P0000001/IM000001" in tree.files
        assert "DICOM/P0000001/IM000002" not in tree.files
        details = {problem.file: problem.detail for problem in tree.problems}
        assert "cut off" in details[""]
        assert "beyond the image" in details["DICOM/P0000001/IM000002.;1"]


def test_an_image_that_shrinks_while_open_is_an_error_and_no_endless_loop(image: Path) -> None:
    with IsoTree(image) as tree, tree.open("DICOM/P0000001/IM000002") as stream:
        os.truncate(image, 20 * 2048)
        with pytest.raises(OSError, match="ends"):
            stream.read()


def test_a_directory_that_is_its_own_child_is_a_problem(image: Path) -> None:
    data = image.read_bytes()
    root = data[16 * 2048 + 158 : 16 * 2048 + 158 + 16]
    _patched(image, {_record(image, b"P0000001") + 2: root})
    with IsoTree(image) as tree:
        assert list(tree.files) == ["README.TXT"]
        assert any("loop" in problem.detail for problem in tree.problems)


def test_a_chain_of_directories_without_end_is_cut(tmp_path: Path) -> None:
    # Directory n lists directory n + 1 and so on for 5,000 levels.
    first = 100
    sectors = [bytearray(2048) for _ in range(first + 5000)]
    sectors[16:18] = [
        bytearray(written(image_of({"A": b""}))[16 * 2048 :][:2048]),
        bytearray(b"\xffCD001\x01".ljust(2048)),
    ]
    sectors[16][156 + 2 : 156 + 18] = _both(first) + _both(2048)
    for number in range(first, len(sectors) - 1):
        sectors[number][:38] = (
            bytes((38, 0))
            + _both(number + 1)
            + _both(2048)
            + bytes((124, 1, 1, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 1, 1))
            + b"D\x00\x00\x00\x00"
        )
    path = tmp_path / "deep.iso"
    path.write_bytes(b"".join(sectors))
    with IsoTree(path) as tree:
        assert not tree.files
        assert any("nested more than" in problem.detail for problem in tree.problems)


@pytest.mark.parametrize("name", [b"A/B", b"..", b".", b"A\x00B", b"A\\B", b"A\nB"])
def test_a_hostile_name_is_left_out(image: Path, name: bytes) -> None:
    position = _record(image, b"IM000002.;1")
    _patched(image, {position + 32: bytes((len(name),)) + name.ljust(11, b"\x00")})
    with IsoTree(image) as tree:
        assert sorted(tree.files) == ["DICOM/P0000001/IM000001", "README.TXT"]
        assert any("is named" in problem.detail for problem in tree.problems)


def test_two_names_that_differ_only_in_case_are_both_refused(image: Path) -> None:
    _patched(image, {_record(image, b"IM000002.;1") + 33: b"im000001.;1"})
    with IsoTree(image) as tree:
        assert list(tree.files) == ["README.TXT"]
        (problem,) = tree.problems
        assert problem.file == "DICOM/P0000001/IM000001"
        assert "'IM000001.;1' and 'im000001.;1'" in problem.detail


def test_a_record_across_a_sector_ends_the_sector(image: Path) -> None:
    _patched(image, {_record(image, b"IM000002.;1"): b"\x1f"})
    with IsoTree(image) as tree:
        assert "DICOM/P0000001/IM000002" not in tree.files
        assert any("no directory record" in problem.detail for problem in tree.problems)


def test_differing_byte_orders_are_a_problem_of_that_file(image: Path) -> None:
    _patched(image, {_record(image, b"IM000002.;1") + 10: struct.pack("<I", 2)})
    with IsoTree(image) as tree:
        assert [problem.file for problem in tree.problems] == ["DICOM/P0000001/IM000002.;1"]


def test_an_absurd_directory_is_not_read(image: Path) -> None:
    size = 200 << 20
    with image.open("r+b") as file:
        file.truncate(300 << 20)
    _patched_root = {16 * 2048 + 156 + 10: _both(size)}
    data = image.read_bytes()[: 64 * 2048]
    for offset, patch in _patched_root.items():
        data = data[:offset] + patch + data[offset + len(patch) :]
    with image.open("r+b") as file:
        file.write(data)
    with IsoTree(image) as tree:
        assert not tree.files
        assert any(f"claims {size} bytes" in problem.detail for problem in tree.problems)


def test_extents_of_one_file_are_joined_and_a_missing_last_one_is_a_problem(tmp_path: Path) -> None:
    names = {"AA": b"1" * 2048, "AB": b"2" * 2048, "AC": b"3" * 100, "B": b"whole"}
    path = tmp_path / "level3.iso"
    path.write_bytes(written(image_of(names)))
    for name in (b"AA.;1", b"AB.;1"):
        _patched(path, {_record(path, name) + 25: b"\x80"})
    for name in (b"AB.;1", b"AC.;1"):
        _patched(path, {_record(path, name) + 33: b"AA.;1"})
    with IsoTree(path) as tree:
        assert read_all(tree) == {"AA": b"1" * 2048 + b"2" * 2048 + b"3" * 100, "B": b"whole"}
        with tree.open("AA") as stream:
            stream.seek(4090)
            assert stream.read(10) == b"2" * 6 + b"3" * 4
        assert tree.problems == []
    path.write_bytes(written(image_of(names)))
    _patched(path, {_record(path, b"AC.;1") + 25: b"\x80"})
    with IsoTree(path) as tree:
        assert sorted(tree.files) == ["AA", "AB", "B"]
        assert any("last one" in problem.detail for problem in tree.problems)


@settings(max_examples=size(150, 3000))
@given(st.lists(st.tuples(st.integers(16 * 2048, 26 * 2048), st.integers(0, 255)), min_size=1, max_size=40))
def test_no_damage_to_the_structure_is_more_than_problems(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("damage") / "disc.iso"
    data = bytearray(written(image_of(FILES)))
    for offset, value in damage:
        data[offset] = value
    path.write_bytes(data)
    try:
        tree = IsoTree(path)
    except FileSetInvalid:
        return
    with tree:
        read_all(tree)
