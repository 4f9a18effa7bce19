"""The ISO export driver: names, durability, what a crash leaves, what it never touches."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burners import publish as publishing
from burners.base import BurnerOptionsError, BurnRefused, BurnState, DriverState, Outcome
from burners.iso_export import IsoExport
from tests.burners.orders import SlowImage, an_image, ended, files, order
from tests.waiting import wait_for


def iso(data: Path, **options: Any) -> IsoExport:
    return IsoExport("iso", {"folder": "discs", **options}, data=data)


def burnt(burner: IsoExport, **more: Any) -> tuple[dict[str, Any], Path]:
    given = order(**more)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.BURNT, report.message
    assert report.image is not None
    return ticket, report.image


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"folder": ""}, "folder"),
        ({"pattern": "{file_set_id}.iso"}, "{copy} is missing"),
        ({"pattern": "{copy}.iso"}, "volumes would have one name"),
        ({"pattern": "{file_set_id}_{copy}_{nonsense}.iso"}, "{nonsense}"),
        ({"pattern": "{file_set_id}/{copy}.iso"}, "slash"),
        ({"pattern": ".{file_set_id}{copy}"}, "dot"),
        ({"pattern": "{file_set_id}{copy:05}"}, "plain"),
        ({"pattern": "{file_set_id}{copy!r}"}, "plain"),
        ({"pattern": "{file_set_id.__class__}{copy}"}, "unknown field"),
        ({"pattern": "{file_set_id}{copy"}, "pattern"),
        ({"pattern": "{file_set_id}{copy}" + "x" * 200}, "too long"),
        ({"pattern": 5}, "no text"),
        ({"slots": 0}, "slots"),
        ({"slots": True}, "slots"),
        ({"slots": "many"}, "slots"),
        ({"color": "red", "colour": "red"}, "'colour'"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(BurnerOptionsError) as caught:
        iso(tmp_path, **options)
    assert fault in str(caught.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(BurnerOptionsError) as caught:
        iso(tmp_path, pattern="{x}", slots=-1, colour="red")
    assert all(word in str(caught.value) for word in ("{x}", "slots", "colour"))


def test_names(tmp_path: Path) -> None:
    burner = iso(tmp_path, pattern="{job} {file_set_id} v{volume}of{volumes} c{copy}.iso")
    _, first = burnt(burner)
    assert first == tmp_path / "discs" / "J3 BURNISH_0000001 v1of2 c1.iso"
    _, second = burnt(burner, copy=2, disc="D13")
    _, retry = burnt(burner, attempt=2, disc="D14")
    assert (second.name, retry.name) == (
        "J3 BURNISH_0000001 v1of2 c2.iso",
        "J3 BURNISH_0000001 v1of2 c1-a2.iso",
    )


def test_each_copy_is_a_file_of_its_own(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    paths = [burnt(burner, copy=copy, disc=f"D{copy}")[1] for copy in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len({path.stat().st_ino for path in paths}) == 2
    assert all(path.stat().st_nlink == 1 for path in paths)
    assert files(tmp_path / "discs") == sorted(path.name for path in paths)


def test_a_name_that_is_taken_is_refused_and_kept(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    (tmp_path / "discs").mkdir()
    taken = tmp_path / "discs" / "BURNISH_0000001_1.iso"
    taken.symlink_to("/nowhere")
    with pytest.raises(BurnRefused, match="not ours"):
        burner.prepare(order())
    assert taken.is_symlink()


def test_a_name_taken_between_ticket_and_publication_is_kept(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    image = SlowImage(an_image())
    given = order(image)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    wait_for(image.started.is_set, "the writer")
    foreign = Path(ticket["final"])
    foreign.write_bytes(b"somebody else's")
    image.go.set()
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and "overwritten" in report.message
    assert burner.finish(ticket, Outcome.BAD) == ""
    assert foreign.read_bytes() == b"somebody else's"
    assert files(tmp_path / "discs") == [foreign.name]
    assert iso(tmp_path).poll(ticket).state is BurnState.FAILED  # after a restart, too


def test_an_image_of_another_volume_is_not_ours(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    ticket = burner.prepare(order())
    other = an_image("BURNISH_0000009")
    chunks: list[bytes] = []
    other.write(lambda data: chunks.append(bytes(data)))
    Path(ticket["final"]).write_bytes(b"".join(chunks))
    assert Path(ticket["final"]).stat().st_size == ticket["size"]
    assert burner.poll(ticket).state is BurnState.FAILED


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    burner = iso(tmp_path)
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(BurnRefused, match="1000 bytes free"):
        burner.prepare(order())


def test_a_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    burner = iso(tmp_path)
    given = order()
    ticket = burner.prepare(given)

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("burners.iso_export.os.write", full)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and "is full" in report.message
    wait_for(lambda: files(tmp_path / "discs") == [], "the temporary file to go")


def test_what_a_crash_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    given = order()
    ticket = burner.prepare(given)
    folder = tmp_path / "discs"
    mine = folder / f".{Path(ticket['final']).name}.{ticket['mark']}.3.part"
    others = [folder / ".BURNISH_0000001_1.iso.aaaa-D12.3.part", folder / ".x.part", folder / "x.iso"]
    for path in (mine, *others):
        path.write_bytes(b"half an image")
    burner.submit(given, ticket)
    assert ended(burner, ticket).state is BurnState.BURNT
    wait_for(lambda: not mine.exists(), "the leftover to go")
    assert files(folder) == sorted([Path(ticket["final"]).name, *(path.name for path in others)])


def test_cancel_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    image = SlowImage(an_image())
    given = order(image)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    wait_for(image.started.is_set, "the writer")
    report = burner.poll(ticket)
    assert not report.state.ended and not report.device_free
    burner.cancel(ticket)
    assert ended(burner, ticket).state is BurnState.CANCELLED
    assert burner.finish(ticket, Outcome.CANCELLED) == ""
    wait_for(lambda: files(tmp_path / "discs") == [], "the temporary file to go")


def test_a_service_that_stops_leaves_nothing_half(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    image = SlowImage(an_image())
    given = order(image)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    wait_for(image.started.is_set, "the writer")
    burner.close()
    assert files(tmp_path / "discs") == []
    assert iso(tmp_path).poll(ticket).state is BurnState.UNKNOWN


def test_a_newer_claim_in_the_same_process_begins_anew(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    image = SlowImage(an_image())
    given = order(image, mine=lambda: False)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    wait_for(image.started.is_set, "the writer")
    burner.submit(order(epoch=8), ticket)
    assert ended(burner, ticket).state is BurnState.BURNT
    wait_for(lambda: files(tmp_path / "discs") == [Path(ticket["final"]).name], "the temporary files to go")


def test_two_nodes_at_once_make_one_file(tmp_path: Path) -> None:
    """A node that was stopped and goes on after its disc was made by another finds the same image there: no harm."""
    stopped, other = iso(tmp_path), iso(tmp_path)
    image = SlowImage(an_image())
    given = order(image)
    ticket = stopped.prepare(given)
    stopped.submit(given, ticket)
    wait_for(image.started.is_set, "the writer")
    other.submit(order(epoch=8), ticket)
    made = ended(other, ticket)
    assert made.state is BurnState.BURNT and made.image is not None
    before = made.image.stat()
    image.go.set()
    ended(stopped, ticket)
    after = made.image.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    wait_for(lambda: files(tmp_path / "discs") == [made.image.name], "the temporary files to go")


def test_a_bad_disc_is_kept_under_another_name(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    ticket, path = burnt(burner)
    (path.parent / f"{path.name}.bad").write_bytes(b"an older one")
    where = burner.finish(ticket, Outcome.BAD)
    assert where == f"{path}.bad2" and not path.exists() and Path(where).exists()
    assert (path.parent / f"{path.name}.bad").read_bytes() == b"an older one"


def test_a_disc_that_nobody_wants_any_more_is_removed(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    ticket, path = burnt(burner)
    assert burner.finish(ticket, Outcome.CANCELLED) == ""
    assert not path.exists()
    assert burner.poll(ticket).state is BurnState.UNKNOWN


def test_the_digest_is_told_before_publication(tmp_path: Path) -> None:
    burner = iso(tmp_path)
    seen: list[tuple[str | None, bool]] = []
    final = tmp_path / "discs" / "BURNISH_0000001_1.iso"

    def may_publish(sha256: str | None) -> bool:
        seen.append((sha256, final.exists()))
        return True

    _, path = burnt(burner, may_publish=may_publish)
    import hashlib

    assert seen == [(hashlib.sha256(path.read_bytes()).hexdigest(), False)]


def test_an_image_unlike_its_other_copy_fails(tmp_path: Path) -> None:
    burner = iso(tmp_path)

    def other(sha256: str | None) -> bool:
        raise BurnRefused("the image became other than its copies")

    given = order(may_publish=other)
    ticket = burner.prepare(given)
    burner.submit(given, ticket)
    report = ended(burner, ticket)
    assert report.state is BurnState.FAILED and "other than its copies" in report.message
    wait_for(lambda: files(tmp_path / "discs") == [], "the temporary file to go")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "discs").write_text("a file")
    burner = iso(tmp_path)
    assert burner.probe().state is DriverState.OFFLINE
    with pytest.raises(BurnRefused, match="discs"):
        burner.prepare(order())


@pytest.fixture(params=["renameat2", "link"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "link":  # as on NFS

        def refuses(source: Path, target: Path) -> int:
            return errno.EINVAL

        monkeypatch.setattr(publishing, "_rename_noreplace", refuses)
    return str(request.param)


def test_publication_never_replaces(tmp_path: Path, way: str) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    publishing.publish(source, target)
    assert files(tmp_path) == ["b"] and target.read_text() == "new" and target.stat().st_nlink == 1
    source.write_text("newer")
    with pytest.raises(FileExistsError):
        publishing.publish(source, target)
    assert target.read_text() == "new" and source.read_text() == "newer"


def test_publication_of_what_is_gone_raises(tmp_path: Path, way: str) -> None:
    with pytest.raises(FileNotFoundError):
        publishing.publish(tmp_path / "a", tmp_path / "b")


def test_a_hint_to_the_kernel_is_only_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none: Callable[..., None] = lambda *args: None  # noqa: E731
    monkeypatch.setattr(publishing, "_c_function", none)
    with (tmp_path / "a").open("wb") as file:
        publishing.start_writing_back(file.fileno(), 0, 10)
    (tmp_path / "c").write_text("x")
    publishing.publish(tmp_path / "c", tmp_path / "d")  # by a link, where the C library lacks the call
    assert files(tmp_path) == ["a", "d"]
