"""The IOD check in plans: told in a few lines, or a reason to refuse; by helpers the same as without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from jobs import iodcheck
from jobs.checking import Candidate, Checked
from jobs.conform_pool import Cancelled
from jobs.iodcheck import check_iods
from jobs.options import OptionsError, RequestOptions
from tests.jobs.conftest import House
from tests.jobs.test_unfit import planned
from tests.makers import Made, make


def packaged(name: str) -> Path:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path)


def broken(folder: Path, name: str, *removed: str) -> Path:
    dataset = dcmread(packaged(name))
    for keyword in removed:
        del dataset[keyword]
    path = folder / f"broken-{name}"
    dataset.save_as(path)
    return path


def checked_of(paths: list[Path]) -> tuple[Checked, dict[int, Path]]:
    rows: list[Any] = [SimpleNamespace(id=number, sop_instance_uid=f"1.2.{number}") for number in range(len(paths))]
    return Checked([Candidate(row, "IMAGE", None, ()) for row in rows]), dict(enumerate(paths))


def run(paths: list[Path], level: str, **more: Any) -> tuple[Checked, dict[str, Any] | None]:
    checked, by_id = checked_of(paths)
    given: dict[str, Any] = {"processes": 2, "progress": lambda *_: None, "cancelled": lambda: False} | more
    return checked, check_iods(checked, level, path_of=lambda candidate: by_id[candidate.row.id], **given)


def test_strict_refuses_by_name_what_report_only_tells(tmp_path: Path) -> None:
    paths = [packaged("CT_small.dcm"), broken(tmp_path, "CT_small.dcm", "PixelSpacing"), packaged("rtplan.dcm")]
    checked, document = run(paths, "report")
    assert document is not None
    assert (document["level"], document["checked"], document["refused"], checked.refused) == ("report", 3, 0, [])
    assert any("PixelSpacing (0028,0030) missing" in line and "PS3.3 C.7.6.2" in line for line in document["lines"])

    checked, document = run(paths, "strict")
    assert document is not None
    refused = {refusal.row.id: refusal for refusal in checked.refused}
    assert 1 in refused and document["refused"] == len(refused)
    assert refused[1].code == "IOD_CONFLICT"
    assert "PixelSpacing (0028,0030) is missing: type 1 in Image Plane (M), PS3.3 C.7.6.2" in refused[1].reason
    assert {candidate.row.id for candidate in checked.candidates} == {0, 1, 2} - refused.keys()
    assert 0 not in refused


def test_off_reads_nothing(tmp_path: Path) -> None:
    checked, document = run([tmp_path / "is not there"], "off")
    assert document is None and len(checked.candidates) == 1


def test_helpers_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable = tmp_path / "cut.dcm"
    unreadable.write_bytes(packaged("rtplan.dcm").read_bytes()[:1000])
    names = ["CT_small.dcm", "rtstruct.dcm", "rtdose.dcm", "rtplan.dcm", "MR_small.dcm"]
    paths = [*map(packaged, names), unreadable, broken(tmp_path, "CT_small.dcm", "PixelSpacing", "Rows")]
    here, said_here = run(paths, "strict")
    monkeypatch.setattr(iodcheck, "_HERE", 0)
    pooled, said_pooled = run(paths, "strict")
    assert said_here == said_pooled

    def refusals(checked: Checked) -> list[tuple[int, str, str]]:
        return [(one.row.id, one.code, one.reason) for one in checked.refused]

    assert refusals(here) == refusals(pooled)
    assert {5, 6} <= {one.row.id for one in here.refused}
    reasons = [one.reason for one in here.refused if one.row.id == 5]
    assert "cannot be checked" in reasons[0] and str(tmp_path) not in reasons[0]


@pytest.mark.parametrize("most", [0, 100])
def test_it_stops_when_asked_to(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(iodcheck, "_HERE", most)
    with pytest.raises(Cancelled):
        run([packaged("CT_small.dcm")] * 5, "report", cancelled=lambda: True)


def test_many_equal_faults_are_one_line(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = broken(tmp_path, "CT_small.dcm", "PixelSpacing")
    _, document = run([path] * 300, "report", progress=lambda *done: told.append(done))
    assert document is not None
    spacing = [line for line in document["lines"] if "PixelSpacing" in line]
    assert len(spacing) == 1 and "in 300 instances" in spacing[0] and len(document["lines"]) <= 11
    assert told[0] == (0, 300) and told[-1] == (300, 300)


@pytest.mark.parametrize("level", ["report", "strict"])
def test_the_plan_tells(house: House, level: str) -> None:
    made: list[Made] = [make("CT", number=1), make("CT", number=2, PixelSpacing=None)]
    plan = planned(house, made, iod=level)
    assert plan["iod"]["level"] == level and plan["iod"]["checked"] == 2
    assert any("PixelSpacing (0028,0030) missing" in line for line in plan["iod"]["lines"]), plan["iod"]["lines"]
    refused = [one["sop_instance_uid"] for one in plan["refused"]]
    assert (made[1].sop_instance_uid in refused) == (level == "strict")
    if level == "strict":
        assert "IOD_CONFLICT" in plan["reasons"]


def test_options(house: House) -> None:
    assert RequestOptions.from_settings(house.settings, {}).iod == "report"
    old = RequestOptions.from_settings(house.settings, {}).to_json()
    del old["iod"]
    assert RequestOptions.from_json(old).iod == "off", "requests of before that say nothing of it"
    with pytest.raises(OptionsError, match="iod is 'lax'; it may be off, report, strict"):
        RequestOptions.from_settings(house.settings, {"iod": "lax"})
    assert planned(house, [make("CT")], iod="off")["iod"] is None
