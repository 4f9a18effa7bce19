"""Folders, mounted discs and images seen as one kind of tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from media.problems import FileSetInvalid, ProblemKind
from media.trees import FolderTree, IsoTree, canonical, canonical_path, open_tree
from tests.media.discs import image_of, written


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("IM000001.;1", "IM000001"),
        ("im000001", "IM000001"),
        ("readme.txt;1", "README.TXT"),
        ("IM000001.", "IM000001"),
        ("A;12", "A"),
        ("A;B", "A;B"),
        ("dicomdir", "DICOMDIR"),
    ],
)
def test_canonical_names(raw: str, name: str) -> None:
    assert canonical(raw) == name


def test_canonical_paths() -> None:
    assert canonical_path("dicom/p1./im1.;1") == "DICOM/P1/IM1"


def _make(root: Path, names: dict[str, bytes]) -> Path:
    for name, data in names.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_a_lower_cased_folder_has_canonical_names(tmp_path: Path) -> None:
    root = _make(tmp_path, {"dicomdir": b"d", "dicom/p0000001/im000001.;1": b"i", "readme.txt;1": b"r", "B./C.": b"c"})
    with open_tree(root) as tree:
        assert isinstance(tree, FolderTree)
        assert {name: tree.open(name).read() for name in tree.order} == {
            "B/C": b"c",
            "DICOM/P0000001/IM000001": b"i",
            "DICOMDIR": b"d",
            "README.TXT": b"r",
        }
        assert tree.files["DICOM/P0000001/IM000001"].raw == "dicom/p0000001/im000001.;1"
        assert tree.files["DICOM/P0000001/IM000001"].size == 1
        assert tree.problems == []
        assert tree.volume_id is None


@pytest.mark.parametrize("clash", [("a", "A"), ("A", "A."), ("A;1", "A"), ("im1.;1", "IM1")])
def test_names_that_differ_in_nothing_else_are_refused_both(tmp_path: Path, clash: tuple[str, str]) -> None:
    with open_tree(_make(tmp_path, {f"D/{name}": b"" for name in clash} | {"OTHER": b""})) as tree:
        assert list(tree.files) == ["OTHER"]
        (problem,) = tree.problems
        assert problem.kind is ProblemKind.STRUCTURE
        assert all(repr(name) in problem.detail for name in clash)


def test_folders_that_differ_only_in_case_are_refused_with_all_below(tmp_path: Path) -> None:
    with open_tree(_make(tmp_path, {"dicom/A": b"", "DICOM/B": b"", "C": b""})) as tree:
        assert list(tree.files) == ["C"]
        assert [problem.file for problem in tree.problems] == ["DICOM"]


def test_links_and_special_files_are_reported_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "SECRET").write_bytes(b"secret")
    root = _make(tmp_path / "disc", {"A": b"a"})
    (root / "LINK").symlink_to(outside / "SECRET")
    (root / "FOLDER").symlink_to(outside)
    (root / "LOOP").symlink_to(root)
    (root / "DANGLING").symlink_to("nowhere")
    os.mkfifo(root / "PIPE")
    with open_tree(root) as tree:
        assert list(tree.files) == ["A"]
        assert sorted(problem.file for problem in tree.problems) == ["DANGLING", "FOLDER", "LINK", "LOOP", "PIPE"]


def test_a_file_replaced_by_a_link_or_pipe_is_not_opened(tmp_path: Path) -> None:
    root = _make(tmp_path / "disc", {"A": b"a", "B": b"b"})
    (tmp_path / "SECRET").write_bytes(b"secret")
    with open_tree(root) as tree:
        (root / "A").unlink()
        (root / "A").symlink_to(tmp_path / "SECRET")
        with pytest.raises(OSError, match="symbolic"):
            tree.open("A")
        with pytest.raises(KeyError):
            tree.open("../SECRET")


def test_names_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "disc").mkdir()
    with open(os.fsencode(tmp_path / "disc") + b"/caf\xe9", "wb") as file:
        file.write(b"latin")
    (tmp_path / "disc" / "new\nline").write_bytes(b"")
    with open_tree(tmp_path / "disc") as tree:
        assert list(tree.files) == ["CAF%E9"]
        assert tree.open("CAF%E9").read() == b"latin"
        assert len(tree.problems) == 1
        assert "\n" not in tree.problems[0].detail


def test_open_tree_knows_folders_images_and_a_dicomdir(tmp_path: Path) -> None:
    root = _make(tmp_path / "disc", {"dicomdir": b"d"})
    assert isinstance(open_tree(root), FolderTree)
    assert list(open_tree(root / "dicomdir").files) == ["DICOMDIR"]
    image = tmp_path / "disc.iso"
    image.write_bytes(written(image_of({"DICOMDIR": b"d"})))
    with open_tree(image) as tree:
        assert isinstance(tree, IsoTree)
        assert list(tree.files) == ["DICOMDIR"]
        assert tree.label == str(image)


def test_open_tree_says_why_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "text": "not an ISO 9660 image",
        "absent": "No such file",
        "pipe": "neither",
        "a\0b": "null",
    }.items():
        with pytest.raises(FileSetInvalid, match=reason):
            open_tree(tmp_path / name)


def test_a_folder_that_cannot_be_read_is_a_problem_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(tmp_path, {"BAD/A": b"", "GOOD/B": b""})
    real = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "BAD":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with open_tree(tmp_path) as tree:
        assert list(tree.files) == ["GOOD/B"]
        assert [(problem.kind, problem.file) for problem in tree.problems] == [(ProblemKind.UNREADABLE, "BAD")]
        assert "Input/output error" in tree.problems[0].detail
    with pytest.raises(FileSetInvalid, match="Input/output error"):
        FolderTree(tmp_path / "BAD")
