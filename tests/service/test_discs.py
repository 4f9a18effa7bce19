"""Discs, holds and what is at risk, by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from config.settings import load
from service import opening
from service.cli import app
from store import copies
from store.db import Database
from store.models_jobs import Disc
from tests.rows import add_disc, add_instance


@pytest.fixture
def archive(data: Path) -> Path:
    """A data folder with a disc of a study that left the spool."""
    context = opening.open_context(load(data=data))
    try:
        _fill(context.db)
    finally:
        opening.close_context(context)
    return data


def _fill(db: Database) -> None:
    with db.begin() as session:
        away = add_instance(session, "1.1", in_spool=False, study="1.2.8", patient_name="Doe^[red]Jane")
        add_instance(session, "1.2", study="1.2.9", series="1.2.9.1")
        copies.recount(session, add_disc(session, [away]).volume_id)


def _run(data: Path, *words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, [*words, "--data", str(data)])
    assert result.exit_code == status, result.output
    return result.output


def _json(data: Path, *words: str, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [*words, "--json", "--data", str(data)])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def test_a_disc_goes_its_way(archive: Path) -> None:
    assert "D1 is on shelf vault/3" in _run(archive, "discs", "move", "D1", "--shelf", "vault/3")
    assert "is with Dr Green" in _run(archive, "discs", "check-out", "d1", "--to", "Dr Green")
    assert "D1 is with Dr Green" in _run(archive, "discs", "check-out", "1", "--to", "Dr Blue", status=1)
    listed = _run(archive, "discs", "list", "--out")
    assert "vault/3" in listed and "Dr Green" in listed and "TEST_0000001" in listed
    assert "back on shelf vault/3" in _run(archive, "discs", "return", "D1")
    assert "no such disc" in _run(archive, "discs", "list", "--out")
    shown = _run(archive, "discs", "show", "D1")
    assert "check-out" in shown and "1 good, 1 wanted" in shown
    assert _json(archive, "discs", "list", "--volume", "TEST_0000001")[0]["shelf"] == "vault/3"


def test_a_lost_disc_puts_a_study_at_risk(archive: Path) -> None:
    assert "nothing is at risk" in _run(archive, "at-risk")
    told = _run(archive, "discs", "lost", "D1", "--reason", "gone")
    assert "0 of 1 discs are good" in told and "1 of 1 instances at risk" in told and "[red]" in told
    assert _run(archive, "at-risk", status=1).splitlines()[0] in told
    (volume,) = _json(archive, "at-risk", status=1)
    assert (volume["gone"], volume["discs"][0]["marked"]) == (True, "LOST")
    assert "counted on again" in _run(archive, "discs", "found", "D1")
    assert _json(archive, "at-risk") == []


def test_discs_of_which_nobody_said_what_they_are_for(archive: Path) -> None:
    context = opening.open_context(load(data=archive))
    try:
        with context.db.begin() as session:
            session.execute(update(Disc).values(purpose="unknown"))
            copies.recount_all(session)
    finally:
        opening.close_context(context)
    assert "1 volumes are on discs alone of which nobody said" in _run(archive, "at-risk", status=1)
    assert "purpose unknown" in _run(archive, "find", "--sop", "1.1")
    assert "'D1' is no purpose" in _run(archive, "discs", "purpose", "D1", status=2)
    assert "say which discs" in _run(archive, "discs", "purpose", "D1", "archive", "--all-unknown", status=2)
    assert "1 disc is for archive" in _run(archive, "discs", "purpose", "archive", "--all-unknown")
    assert _json(archive, "discs", "purpose", "D1", "d1", "archive")["discs"] == ["D1"]
    assert "nothing is at risk" in _run(archive, "at-risk")


def test_what_cannot_be(archive: Path) -> None:
    assert "no disc D7" in _run(archive, "discs", "lost", "D7", status=2)
    assert "not marked" in _run(archive, "discs", "found", "D1", status=1)
    assert "cannot be printed" in _run(archive, "discs", "move", "D1", "--shelf", "a\nb", status=2)


def test_studies_are_held(archive: Path) -> None:
    assert "1 of their instances are on discs alone" in _run(
        archive, "keep", "--patient-id", "P1", "--reason", "second opinion", "--until", "2999-12-31"
    )
    held = _json(archive, "keep", "--list")
    assert [(one["study_instance_uid"], one["reason"]) for one in held] == [
        ("1.2.9", "second opinion"),
        ("1.2.8", "second opinion"),
    ]
    assert held[0]["until"].startswith(("2999-12-31", "3000-01-01"))
    assert "1 holds released" in _run(archive, "keep", "--release", "H1")
    assert "H2" in _run(archive, "keep", "--list") and "H1" not in _run(archive, "keep", "--list")
    assert len(_json(archive, "keep", "--list", "--every")) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--patient-id", "P1"), "say why"),
        (("--reason", "x"), "nothing is selected"),
        (("--list", "--reason", "x"), "stand alone"),
        (("--patient-id", "P1", "--reason", "x", "--until", "soon"), "until is 'soon'"),
        (("--patient-id", "P1", "--reason", "x", "--until", "1999-01-01"), "past"),
        (("--patient-id", "P9", "--reason", "x"), "empty"),
        (("--release", "H9"), "no hold H9"),
    ],
)
def test_holds_that_cannot_be(archive: Path, words: tuple[str, ...], told: str) -> None:
    assert told in _run(archive, "keep", *words, status=2)


def test_another_copy_is_made(data: Path, made: Path) -> None:
    _run(data, "import", str(made))
    _run(data, "burn", "--all", "--patients-per-disc", "many", "--wait")
    assert "BURNISH_0000001" in _run(data, "discs", "lost", "D1")
    told = _run(data, "at-risk", "--in-spool")
    assert "0 of 1 discs are good (in the spool)" in told and "burnish reburn BURNISH_0000001" in told
    made_again = _json(data, "reburn", "BURNISH_0000001", "--wait")
    assert made_again["state"] == "DONE" and made_again["discs"][0]["copy"] == 2
    assert _json(data, "at-risk", "--in-spool") == []
    (first, second) = _json(data, "discs", "list", "--volume", "BURNISH_0000001")
    assert (first["sha256"], first["counts"]) == (second["sha256"], False) and second["counts"]
    assert "no volume" in _run(data, "reburn", "NOWHERE", status=2)


def test_a_purge_tells_what_would_go_study_by_study(data: Path, made: Path) -> None:
    _run(data, "import", str(made))
    _run(data, "burn", "--all", "--patients-per-disc", "many", "--wait")
    _run(data, "keep", "--modality", "MR", "--reason", "second opinion")
    told = _run(data, "purge", "--dry-run")
    assert "3 instances and 0 conformed copies would be freed" in told
    (study,) = _json(data, "purge", "--dry-run")["studies"]
    assert (study["instances"], study["copies"]) == (3, 1) and study["study_instance_uid"] in told
    assert "no low-water mark" in _run(data, "purge", "--to-low-mark", status=2)
    assert _json(data, "purge", "--older-than", "1")["instances"] == 0
    assert _json(data, "purge")["kept"] == 2


def test_numbers_that_do_not_agree_are_found_and_mended(archive: Path) -> None:
    from config.settings import load
    from store.models_jobs import Volume

    context = opening.open_context(load(data=archive))
    with context.db.begin() as session:
        session.get_one(Volume, 1).good_copies = 5
    opening.close_context(context)
    assert "does not agree with the discs: TEST_0000001" in _run(archive, "doctor", status=1)
    assert "1 volumes were counted wrongly" in _run(archive, "discs", "recount")
    assert "agree with the discs" not in CliRunner().invoke(app, ["doctor", "--data", str(archive)]).output
