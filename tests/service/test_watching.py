"""Watched folders and drives: what comes is dealt with once, when it is whole, and nothing that comes stops it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydicom import dcmread
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import func, select

from config.sections import Watch
from config.settings import Settings, SettingsError, load
from media.iso9660 import IsoImage
from media.items import DiscFile
from service import arrivals, checks, opening, reaching
from service.api.application import build
from service.commands.watch import said
from service.contract import Document
from service.operations import StoreOperations
from service.shutdown import Stopping
from service.watching import Watcher
from store import nodes
from store.models import Instance, Patient
from store.models_archive import WatchSeen
from store.models_jobs import Disc
from store.models_nodes import Event
from tests.makers import PATIENTS, Made, make, study
from tests.service.conftest import write
from tests.service.test_cli import burnish
from tests.service.test_exchange import Node


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A watched place with a clock of its own; each ``look`` comes when everything has settled."""

    def __init__(self, operations: StoreOperations, watch: Watch) -> None:
        self.operations, self.watch, self.clock = operations, watch, Clock()
        self.watcher = Watcher(watch, operations, clock=self.clock)
        self.place = operations.context.settings.data / watch.path

    def look(self, after: float = 11.0) -> int:
        """A look now, and another after so many seconds; how many were dealt with."""
        count = self.watcher.look()
        self.clock.now += after
        return count + self.watcher.look()

    def restart(self) -> None:
        self.watcher = Watcher(self.watch, self.operations, clock=self.clock)

    @property
    def seen(self) -> list[WatchSeen]:
        with self.operations.context.db.read() as session:
            return list(session.scalars(select(WatchSeen).order_by(WatchSeen.id)))

    @property
    def held(self) -> int:
        with self.operations.context.db.read() as session:
            return len(list(session.scalars(select(Instance.id))))


@pytest.fixture
def bench(opened: Callable[[], StoreOperations], tmp_path: Path) -> Callable[..., Bench]:
    def make_one(**values: Any) -> Bench:
        (tmp_path / "inbox").mkdir(exist_ok=True)
        values = {"name": "inbox", "path": tmp_path / "inbox"} | values
        return Bench(opened(), Watch(**values))

    return make_one


def fileset(folder: Path, made: list[Made]) -> Path:
    """Another maker's patient disc, as a folder."""
    one = FileSet()
    for each in made:
        one.add(dcmread(BytesIO(each.part10())))
    one.write(folder)
    return folder


def image(path: Path, folder: Path) -> Path:
    """The same as an image."""
    files = [
        DiscFile(tuple(file.relative_to(folder).parts), len(data), hashlib.sha256(data).hexdigest(), data)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (data := file.read_bytes()) is not None
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        IsoImage(files, "THEIRS", datetime(2026, 1, 2, tzinfo=UTC)).write(out)
    return path


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """An image of another maker's disc with three CT."""
    return image(tmp_path / "theirs.iso", fileset(tmp_path / "theirs", list(study("CT", 3, seed=1, size=200_000))))


@pytest.fixture
def disc_of_ours(data: Path, tmp_path: Path) -> Path:
    """An image that this Burnish made; its three CT are purged from the spool."""
    folder = tmp_path / "ours"
    write(folder, study("CT", 3, seed=7, size=300_000))
    burnish("import", folder, "--data", data)
    job = burnish("burn", "--all", "--wait", "--data", data, "--json")
    burnish("purge", "--data", data)
    return Path(job["discs"][0]["image"])


def test_a_disc_of_another_maker_is_verified_and_taken_in_once(bench: Callable[..., Bench], disc: Path) -> None:
    place = bench()
    shutil.copy(disc, place.place / "disc.iso")
    assert place.watcher.look() == 0, "it may still be growing"
    assert place.look() == 1
    (row,) = place.seen
    result = row.result
    assert (result["imported"], result["complete"], result["known"]) == (3, True, False)
    assert result["verified"] in ("GOOD", "FAULTY"), "whatever there is to say of its maker"
    assert result["maker"] and result["file_set_uid"]
    assert place.held == 3
    assert place.look() == 0
    place.restart()
    assert place.look() == 0, "what was dealt with stands in the database"
    shutil.copy(disc, place.place / "the same by another name.iso")
    assert place.look() == 1
    assert (len(place.seen), place.seen[0].result["again"], place.held) == (1, 1, 3)


def test_what_grows_is_waited_for(bench: Callable[..., Bench], disc: Path) -> None:
    place = bench()
    whole = disc.read_bytes()
    target = place.place / "disc.iso"
    for part in range(1, 5):
        target.write_bytes(whole[: len(whole) * part // 5])
        assert place.look(after=5.0) == 0
    assert place.look(after=30.0) == 0, "it stands still, but is shorter than its volume says"
    (waiting,) = place.watcher.document()["waiting"]
    assert "its volume says" in waiting["why"]
    target.write_bytes(whole)
    assert place.look() == 1
    assert place.held == 3
    (place.place / "more.iso.part").write_bytes(whole)
    (place.place / ".hidden.iso").write_bytes(whole)
    assert place.look() == 0


def test_an_image_that_was_cut_off_is_told_in_the_end_and_what_is_whole_is_taken(
    bench: Callable[..., Bench], disc: Path
) -> None:
    place = bench()
    whole = disc.read_bytes()
    (place.place / "cut.iso").write_bytes(whole[: len(whole) // 2])
    assert place.look() == 0
    assert place.look(after=400.0) == 1
    (row,) = place.seen
    assert (row.result["verified"], row.result["complete"]) == ("DAMAGED", False)
    assert 0 < place.held < 3
    (place.place / "cut.iso").write_bytes(whole)
    assert place.look() == 1
    assert place.held == 3, "the whole one is another"


def test_texts_and_programs_on_a_disc_are_no_refused_instances(bench: Callable[..., Bench], tmp_path: Path) -> None:
    place = bench(take="all")
    theirs = fileset(place.place / "theirs", [make("MR", seed=4)])
    for name in ("README.TXT", "MANIFEST.SIG", "SITEKEY.PEM", "VERIFY.TXT", "autorun.inf"):
        (theirs / name).write_text("what stands on a disc, too\n")
    (theirs / "viewer.exe").write_bytes(b"MZ" + bytes(300))
    broken = fileset(place.place / "broken", [make("CT", seed=5)])
    (file,) = [one for one in broken.rglob("*") if one.is_file() and one.name != "DICOMDIR"]
    file.write_text("Dear Sir")  # the DICOMDIR says that it is an instance
    assert place.look() == 2
    told = {Path(row.path).name: row.result for row in place.seen}
    counted = {name: (one["imported"], one["passed_over"], one["refused"]) for name, one in told.items()}
    assert counted == {"theirs": (1, 2, 0), "broken": (0, 0, 1)}


def test_a_folder_and_loose_files_and_images_in_folders(
    bench: Callable[..., Bench], tmp_path: Path, disc: Path
) -> None:
    place = bench()
    fileset(place.place / "disc", list(study("CT", 2, seed=3)))
    write(place.place / "loose", study("MR", 2, seed=4))
    shutil.copy(disc, place.place / "loose" / "inner.iso")
    make("CT", seed=5).write(place.place / "one.dcm")
    (place.place / "notes.txt").write_text("nothing of interest")
    (place.place / "empty").mkdir()
    assert place.look() == 5
    assert place.held == 2 + 2 + 3 + 1
    assert {Path(row.path).name: row.result.get("imported") for row in place.seen} == {
        "disc": 2,
        "loose": 2,
        "inner.iso": 3,
        "one.dcm": 1,
        "notes.txt": 0,
    }
    make("MR", seed=6).write(place.place / "loose")
    assert place.look() == 1
    assert place.held == 9


@pytest.mark.parametrize("bad", ["garbage.iso", "empty.iso", "broken", "pipe", "DICOMDIR of nonsense"])
def test_what_is_broken_is_told_and_the_next_is_dealt_with(bench: Callable[..., Bench], disc: Path, bad: str) -> None:
    import os

    place = bench()
    path = place.place / bad
    if bad == "pipe":
        os.mkfifo(path)
    elif bad == "broken":
        fileset(path, list(study("CT", 1, seed=3)))
        (path / "DICOMDIR").write_bytes((path / "DICOMDIR").read_bytes()[:700])
    elif bad.startswith("DICOMDIR"):
        path.mkdir()
        (path / "DICOMDIR").write_bytes(b"\0" * 5000)
    else:
        path.write_bytes(b"" if bad.startswith("empty") else bytes(range(256)) * 400)
    shutil.copy(disc, place.place / "zz-good.iso")
    assert place.look() == (1 if bad == "pipe" else 2)
    *told, good = sorted(place.seen, key=lambda row: row.path)
    assert good.result["imported"] == 3
    for row in told:
        said = [row.result.get(key) for key in ("error", "first_problems", "first_refused")]
        assert any(said) and (bad == "broken" or not row.result["complete"])
    assert place.look() == 0, "it is told once"


def test_a_failure_of_ours_is_tried_again_and_no_loop(
    bench: Callable[..., Bench], disc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bench()
    shutil.copy(disc, place.place / "disc.iso")
    monkeypatch.setattr(arrivals, "survey", lambda *_: 1 / 0)
    assert place.look() == 0
    (waiting,) = place.watcher.document()["waiting"]
    assert "ZeroDivisionError" in waiting["why"]
    monkeypatch.undo()
    assert place.look(after=5.0) == 0, "not at once"
    assert place.look(after=31.0) == 1
    assert place.held == 3


def test_a_damaged_disc_gives_what_is_sound_or_nothing(bench: Callable[..., Bench], disc_of_ours: Path) -> None:
    place = bench(take="all")
    data = bytearray(disc_of_ours.read_bytes())
    data[-200 * 2048] ^= 0xFF
    strict = bench(name="strict", take="all", verify="require")
    (place.place / "damaged.iso").write_bytes(data)
    assert strict.look() == 1
    (row,) = strict.seen
    assert (row.result["verified"], row.result["complete"]) == ("DAMAGED", False)
    assert "imported" not in row.result and "nothing was taken in" in row.result["error"]
    assert place.look() == 1
    row = place.seen[-1]
    assert row.result["duplicates"] == 2 and not row.result["complete"]
    with place.operations.context.db.read() as session:
        back = list(session.scalars(select(Instance.id).where(Instance.spool_path.is_not(None))))
    assert len(back) == 2
    assert "when the disc was made" in json.dumps(row.result["first_refused"])


def test_a_disc_of_ours_is_not_taken_in_but_serves_recalls(
    bench: Callable[..., Bench], disc_of_ours: Path, data: Path
) -> None:
    from jobs import recalls as jobs_recalls

    place = bench()
    shutil.copy(disc_of_ours, place.place / "ours.iso")
    assert place.look() == 1
    (row,) = place.seen
    assert row.result["known"] and "imported" not in row.result
    disc_of_ours.unlink()
    with place.operations.context.db.read() as session:
        ids = list(session.scalars(select(Instance.id)))
    number = jobs_recalls.begin(place.operations.context, ids, source="cli", by="test", selection={"all": True})
    place.look()
    assert jobs_recalls.document(place.operations.context, number)["state"] == "DONE"


def test_a_damaged_disc_that_stays_is_read_once_and_taken_for_no_other_copy(
    bench: Callable[..., Bench], data: Path, tmp_path: Path
) -> None:
    from jobs import recalls as jobs_recalls

    write(tmp_path / "ours", study("CT", 3, seed=7, size=300_000))
    burnish("import", tmp_path / "ours", "--data", data)
    discs = burnish("burn", "--all", "--copies", "2", "--wait", "--data", data, "--json")["discs"]
    burnish("purge", "--data", data)
    place = bench()
    ctx = place.operations.context
    damaged = bytearray(Path(discs[0]["image"]).read_bytes())
    damaged[-200 * 2048] ^= 0xFF
    for disc in discs:
        Path(disc["image"]).unlink()
    with ctx.db.read() as session:
        ids = list(session.scalars(select(Instance.id)))
    number = jobs_recalls.begin(ctx, ids, source="cli", by="test", selection={"all": True})
    (place.place / "one.iso").write_bytes(damaged)
    for _ in range(3):
        place.look(after=31.0)
    place.restart()
    place.look(after=31.0)
    found = jobs_recalls.document(ctx, number)
    assert (found["state"], found["restored"], [ask["copy"] for ask in found["asks"]]) == ("WAITING", 2, [2])
    with ctx.db.read() as session:
        checked = list(session.scalars(select(Disc.checked_result).order_by(Disc.copy)))
        read = session.scalar(select(func.count()).where(Event.kind == "recall", Event.new == "read"))
    assert (checked[0], checked[1] in (None, "GOOD"), read) == ("DAMAGED", True, 1)


def test_a_drive_is_looked_at_when_a_disc_is_inserted(bench: Callable[..., Bench], disc: Path, tmp_path: Path) -> None:
    drive = tmp_path / "sr0"
    place = bench(path=drive, after="eject")
    assert place.look() == 0
    assert place.watcher.document()["state"] == "absent"
    shutil.copy(disc, drive)
    assert place.watcher.look() == 1, "what is in a drive does not grow"
    assert place.held == 3
    assert place.look() == 0
    drive.unlink()
    place.look()
    shutil.copy(disc, drive)
    assert place.look() == 1, "put in again it is recognised anew, for recalls, and taken in no more"
    assert (len(place.seen), place.seen[0].result["again"]) == (1, 1)
    second = fileset(tmp_path / "second", list(study("MR", 2, seed=2)))
    image(drive, second)
    assert place.look() == 1
    assert place.held == 5


def test_afterwards_things_are_moved_and_never_over_another(bench: Callable[..., Bench], disc: Path) -> None:
    place = bench(after="move")
    for _ in range(2):
        shutil.copy(disc, place.place / "disc.iso")
        assert place.look() == 1
    (place.place / "bad.iso").write_bytes(b"no image")
    assert place.look() == 1
    assert sorted(path.relative_to(place.place).as_posix() for path in place.place.rglob("*.iso")) == [
        "done/disc (2).iso",
        "done/disc.iso",
        "failed/bad.iso",
    ]
    assert place.look() == 0


def test_a_crash_before_the_move_is_made_up_for(
    bench: Callable[..., Bench], disc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bench(after="move")
    shutil.copy(disc, place.place / "disc.iso")
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "_after", lambda *_, **__: None)
        assert place.look() == 1
    place.restart()
    place.look()
    assert (place.place / "done/disc.iso").exists()


def test_only_what_a_rule_wants_corrected_and_under_an_ae_title(
    bench: Callable[..., Bench], data: Path, tmp_path: Path
) -> None:
    data.mkdir(parents=True)
    (data / "rules.toml").write_text('[[rule]]\nname = "r"\nset = { PatientID = "H-1" }\n')
    place = bench(when={"Modality": ["CT"]}, reconcile="rules.toml", calling_ae="DISCS")
    made = [*study("CT", 2, seed=3), make("MR", seed=4, patient=PATIENTS["german"])]
    image(place.place / "disc.iso", fileset(tmp_path / "x", made))
    assert place.look() == 1
    (row,) = place.seen
    assert (row.result["imported"], row.result["passed_over"], row.result["reconciled"]) == (2, 1, 2)
    assert row.result["complete"]
    with place.operations.context.db.read() as session:
        assert list(session.scalars(select(Patient.patient_id))) == ["H-1"]
        assert set(session.scalars(select(Instance.calling_ae))) == {"DISCS"}


def test_what_belongs_to_nobody_whom_the_catalogue_knows_is_not_done(
    bench: Callable[..., Bench], data: Path, tmp_path: Path
) -> None:
    data.mkdir(parents=True)
    rule = '[[rule]]\nname = "r"\nset = { PatientID = "H-1" }\nfrom_catalogue = ["PatientName"]\n'
    (data / "rules.toml").write_text(rule)
    place = bench(reconcile="rules.toml", after="move")
    make("MR", seed=4).write(place.place / "one.dcm")
    assert place.look() == 1
    (row,) = place.seen
    assert (row.result["refused"], row.result["complete"]) == (1, False)
    assert "nobody under 'H-1'" in row.result["first_refused"][0]["reason"]
    assert (place.place / "failed" / "one.dcm").is_file()


@pytest.fixture
def pacs(data: Path) -> Iterator[Node]:
    node = Node([ExplicitVRLittleEndian])
    burnish("nodes", "add", "pacs", "ARCHIVE", "127.0.0.1", node.port, "--data", data)
    yield node
    node.close()


def test_what_came_is_sent_on_until_the_node_has_it(
    bench: Callable[..., Bench], disc: Path, pacs: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "pause", lambda *_: None)
    place = bench(to="pacs", after="move")
    taken: list[str] = []

    def answer(event: Any) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA700 if len(taken) > 1 else 0

    pacs._answer = answer
    shutil.copy(disc, place.place / "disc.iso")
    assert place.look() == 1
    (row,) = place.seen
    assert (row.result["sent_on"]["sent"], len(row.result["unsent"])) == (1, 2)
    pacs._answer = lambda _: 0
    place.restart()
    place.clock.now += 100
    place.look()
    (row,) = place.seen
    assert (row.result["unsent"], len(pacs.kept)) == ([], 3)


def test_the_service_watches_and_tells_over_the_api_and_the_command_line(
    data: Path, tmp_path: Path, disc: Path, settings: Settings
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    config = tmp_path / "burnish.toml"
    config.write_text(f'data = "{data}"\n[[watch]]\nname = "inbox"\npath = "{inbox}"\nsettle_seconds = 0.0\n')
    at = ("--config", config, "--data", data)
    assert "not running" in burnish("watch", "list", *at)
    context = opening.open_context(load(config=config, data=data))
    try:
        operations = StoreOperations(context, source="cli")
        (watch,) = context.settings.watch
        watcher = Watcher(watch, operations)
        operations.watches = lambda: [watcher.document()]
        shutil.copy(disc, inbox / "disc.iso")
        watcher.look()
        app = build(operations, token="secret", hosts=(), stopping=Stopping())
        client = TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": "Bearer secret"})
        (one,) = client.get("/api/v1/watches").json()["items"]
        assert (one["state"], one["seen"], one["to_send"]) == ("watching", 1, 0)
        (seen,) = client.get("/api/v1/watches/inbox/seen").json()["items"]
        assert seen["result"]["imported"] == 3 and "signature" not in seen["result"]
        assert client.get("/api/v1/watches/other/seen").status_code == 404
    finally:
        opening.close_context(context)
    assert "THEIRS" not in burnish("watch", "list", *at)
    assert "disc.iso" in burnish("watch", "list", "inbox", *at)
    assert burnish("watch", "forget", "inbox", seen["seen"], *at, "--json") == {"forgotten": seen["seen"]}
    burnish("watch", "forget", "inbox", "999", *at, status=2)


def test_the_list_says_what_did_not_go_well() -> None:
    sent = {"node": "pacs", "failed": [{"reason": "answered with A700H"}]}
    refused = [{"path": "a", "reason": "nobody under 'H-1'"}]
    result = {"conflicts": 2, "first_refused": refused, "sent_on": sent, "recall": {"words": "no recall needs it"}}
    expected = "2 differ from what is held under their UIDs; nobody under 'H-1'; pacs: answered with A700H; "
    assert said(result) == expected + "no recall needs it"
    assert said({"error": "it is damaged"}) == "it is damaged"


def test_wrong_settings_are_told_before_the_start(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "burnish.toml"

    def wrong(text: str) -> str:
        config.write_text(f'[[watch]]\nname = "a"\npath = "{tmp_path}"\n{text}')
        return "\n".join(checks.wrong_settings(load(config=config, data=data)))

    assert "can be ejected" in wrong('after = "eject"')
    assert "no keyword" in wrong('when = { Nonsense = "1" }')
    assert "cannot be read" in wrong('reconcile = "absent.toml"')
    with pytest.raises(SettingsError, match="two of them have this name"):
        wrong(f'[[watch]]\nname = "a"\npath = "{tmp_path}"')
    with pytest.raises(SettingsError, match="no AE title"):
        wrong(f'calling_ae = "{"x" * 17}"')


def test_of_two_nodes_at_one_folder_one_deals_with_what_comes(
    bench: Callable[..., Bench], disc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench(), bench()
    for place, node in ((first, "n1"), (second, "n2")):
        place.operations.context.spool.node = node
        place.restart()
        with place.operations.context.db.begin() as session:
            nodes.acquire(session, node, 60.0)
    shutil.copy(disc, first.place / "disc.iso")
    for place in (first, second):
        assert place.watcher.look() == 0
        place.clock.now += 11.0
    deal = arrivals.Arrival.deal
    seen: list[Any] = []

    def meanwhile(arrival: arrivals.Arrival) -> Document:
        seen.append(second.watcher.look())
        seen.extend(second.watcher.document()["waiting"])
        return deal(arrival)

    monkeypatch.setattr(arrivals.Arrival, "deal", meanwhile)
    assert first.watcher.look() == 1
    assert seen == [0, {"path": str(first.place / "disc.iso"), "why": "node n1 is dealing with it"}]
    second.clock.now += 60.0
    second.watcher.look()
    (row,) = first.seen
    assert (row.result["imported"], row.result.get("again"), len(seen)) == (3, None, 2)
    assert second.watcher.document()["waiting"] == []
