"""`burnish label`, the label in a plan's document, and the routes of the API."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import Settings, load
from service.checks import wrong_settings
from tests.service.test_cli import burnish


@pytest.fixture
def imported(data: Path, made: Path) -> Path:
    burnish("import", made, "--data", data, "--json")
    return data


def test_of_a_plan(imported: Path, tmp_path: Path) -> None:
    at = ("--data", imported)
    asked = ("--label-text", "For the tumour board", "--barcode", "MCR-1", "--barcode-symbology", "CODE39")
    plan = burnish("plan", "--all", *asked, *at, "--json")
    for volume in plan["volumes"]:
        assert "For the tumour board" in volume["label"]["lines"]
        assert volume["label"]["notices"] == []
        told = burnish("label", plan["plan"], "--volume", volume["number"], *at, "--json")
        assert told["lines"] == volume["label"]["lines"]
        assert told["file_set_id"] == volume["file_set_id"]
        assert told["fields"]["barcode_value"] == "MCR-1"
        assert told["disc"] is None
    shown = burnish("label", plan["plan"], "--volume", "2", *at)
    assert shown.splitlines() == plan["volumes"][1]["label"]["lines"]
    png, pdf, svg = (tmp_path / name for name in ("l.png", "l.pdf", "any"))
    burnish("label", "P1", "--volume", 1, "--png", png, "--out", pdf, "--svg", svg, "--dpi", 100, *at)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert svg.read_text().startswith("<?xml")


def test_the_plan_shows_it(imported: Path) -> None:
    text = burnish("plan", "--all", "--label-text", "Hello there", "--data", imported)
    assert "\nlabel 1 of 2: " in text
    assert text.count("Hello there / ") == 2


def test_of_a_job_and_a_disc(imported: Path) -> None:
    at = ("--data", imported, "--json")
    burnish("burn", "--all", "--copies", "2", "--wait", *at)
    assert burnish("label", "J1", "--volume", "2", *at)["volume"] == 2
    told = burnish("label", "D2", *at)
    assert (told["disc"], told["fields"]["copy"], told["fields"]["job"]) == ("D2", "2", "J1")
    assert any("copy 2" in line for line in told["lines"])


def test_refusals(imported: Path) -> None:
    burnish("plan", "--all", "--data", imported, "--json")
    for arguments, status, said in (
        (["P9"], 2, "there is no plan P9"),
        (["J9"], 2, "there is no job J9"),
        (["D9"], 2, "there is no disc D9"),
        (["X1"], 2, "P12, J12, D12"),
        (["P1"], 2, "say which one by --volume"),
        (["P1", "--volume", "3"], 2, "no volume 3"),
        (["P1", "--volume", "1", "--printer", "toaster"], 1, "no label printer 'toaster'"),
        (["P1", "--volume", "1", "--out", "x.gif"], 2, "--out x.gif"),
        (["P1", "--volume", "1", "--png", "x.png", "--dpi", "7"], 2, "7 dpi"),
    ):
        assert said in burnish("label", *arguments, "--data", imported, status=status)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('printer = "toaster"', "label: there is no label printer 'toaster'"),
        ('layout = "own.toml"', "own.toml"),
        ('logo = "none.png"', "label.logo: "),
        ('fonts = ["none.ttf"]', "label.fonts: "),
        ("outer_mm = 30.0", "label printer generic: a ring"),
    ],
)
def test_a_wrong_setting_stops_the_start(settings: Settings, tmp_path: Path, setting: str, said: str) -> None:
    assert wrong_settings(settings) == []
    config = tmp_path / "burnish.toml"
    config.write_text(f"[label]\n{setting}\n")
    (line,) = wrong_settings(load(config=config, data=settings.data))
    assert said in line


def test_no_drawing_library_is_loaded_before_a_label_is_wanted() -> None:
    libraries = {"uharfbuzz", "jinja2", "resvg_py", "zxingcpp"}
    code = f"import sys, service.operations, jobs.dispatch; print({libraries} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
