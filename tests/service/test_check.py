"""``burnish profiles`` and ``burnish check``, with and without a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from media.profiles import profiles
from service.operations import StoreOperations
from store.models_jobs import Plan, Request, RequestInstance
from tests.makers import make, study
from tests.service.conftest import write
from tests.service.test_cli import burnish


def test_profiles_tell_every_row() -> None:
    documents: Any = burnish("profiles", "--json")
    assert [one["profile"] for one in documents] == list(profiles())
    by_name = {one["profile"]: one for one in documents}
    assert by_name["STD-XA1K-CD"]["icons"] == {"size": 128, "required": True}
    assert by_name["STD-CTMR-CD"]["icons"] == {"size": 64, "required": False}
    assert by_name["STD-GEN-CD"]["icons"] is None
    assert by_name["STD-GEN-MIME"]["status"] == "coming"
    shown = burnish("profiles")
    assert "STD-US-CC-MF-DVD-RAM" in shown and "not yet: its packaging" in shown


def test_check_says_what_fits_and_why_the_rest_does_not(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, study("CT", 2, seed=1))
    write(folder, [make("MR", seed=2, BitsStored=10, HighBit=9), make("SR", seed=3)])
    make("CT", seed=4, transfer_syntax_uid="1.2.840.10008.1.2").write(folder / "implicit.dcm")
    at = ("--data", data)
    burnish("import", folder, *at)
    document: Any = burnish("check", "--all", "--profile", "STD-CTMR-CD", "--json", *at, status=1)
    assert (document["profile"], document["instances"]) == ("STD-CTMR-CD", 5)
    assert (document["fit"], document["conform"], len(document["refused"])) == (2, 1, 2)
    words = " ".join(one["reason"] for one in document["refused"])
    assert "Bits Stored (0028,0101) is 10" in words and "PS3.11 Table E.3-4" in words
    assert "is not one of STD-CTMR-CD (PS3.11 E.3.1)" in words
    shown = burnish("check", "--all", "--profile", "STD-CTMR-CD", *at, status=1)
    assert "2 fit as they are, 1 after conforming, 2 do not" in shown
    assert burnish("check", "--all", "--json", *at)["refused"] == []
    burnish("check", "--study", "1.2.3", *at, status=2)
    burnish("check", "--all", "--profile", "NONE", *at, status=2)


def test_check_leaves_nothing_behind(opened: Any, made: Path) -> None:
    operations: StoreOperations = opened()
    from service.contract import Source

    for path in sorted(made.iterdir()):
        operations.ingest(Source(path.name, path.stat().st_size, lambda path=path: path.open("rb"), path))
    assert operations.check({"all": True}, {"profile": "STD-XABC-CD"})["fit"] == 0
    with operations.context.db.read() as session:
        for table in (Request, RequestInstance, Plan):
            assert session.scalar(select(func.count()).select_from(table)) == 0
    assert not list(operations.context.settings.derived_dir.rglob("*.*"))


@pytest.mark.parametrize("word", ["check", "profiles"])
def test_they_have_help(word: str) -> None:
    assert "profile" in burnish(word, "--help").lower()
