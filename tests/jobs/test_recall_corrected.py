"""What rules had corrected for its disc and a recall brought back: what it is good for, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from sqlalchemy import select, update

from jobs import recalls as work
from jobs.assemble import volume_items
from jobs.options import RequestOptions
from jobs.plandocument import plan_document
from jobs.planning import create_request, make_plan
from jobs.recalls import RecallWork, begin, document, listing, offer
from media.verify import verify_path
from scp.recalling import is_far
from scp.sources import NotThere, Sources
from store import catalogue, retrieval, studylist
from store.models import Derived, Instance
from store.models_archive import RecallInstance
from store.models_jobs import Disc, VolumeInstance
from store.selection import Selection
from tests.discs import burn, purge, put_online
from tests.jobs.conftest import House

CORRECTED = {"name": "desk", "set": {"AccessionNumber": "A-77", "StudyDescription": "Corrected"}}
RENAMED = {"name": "desk", "set": {"PatientID": "OTHER-1", "PatientName": "Other^One"}}
PACKED = {"profile": "STD-GEN-DVD-JPEG", "medium": "DVD-R", "compress": "lossless"}
PLAIN = {"profile": "STD-GEN-DVD-RAM", "medium": "DVD-RAM", "compress": "none"}


def everything(house: House) -> Selection:
    with house.db.read() as session:
        return Selection(instance=tuple(session.scalars(select(Instance.id).order_by(Instance.id))))


def recall(house: House) -> int:
    return begin(house.ctx, everything(house).instance, source="cli", by="test", selection={})


def plan(house: House, **given: Any) -> dict[str, Any]:
    with house.db.begin() as session:
        options = RequestOptions.from_settings(house.settings, given)
        request = create_request(session, selection=everything(house), options=options, source="test")
    number = make_plan(house.ctx, request)
    with house.db.read() as session:
        return plan_document(session, number)


def test_it_is_burnt_again_as_it_was_corrected(any_house: House, tmp_path: Path) -> None:
    house = any_house
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault", coerce=[CORRECTED], **PACKED)
    purge(house.ctx)
    number = recall(house)
    assert offer(house.ctx, burnt.image)["restored"] == 2
    told = document(house.ctx, number)
    assert (told["state"], told["as_on_disc"]) == ("DONE", {"instances": 2, "another_patient": 0})
    # As it came back, and decompressed: file, directory, label and catalogue tell the same.
    for given in (PACKED, PLAIN):
        (again,) = burn(house.ctx, tmp_path / given["profile"], everything(house), **given)
        assert [str(problem) for problem in verify_path(again.image).problems] == []
        for item, _ in volume_items(house.ctx, again.volume_id):
            found = pydicom.dcmread(item.source)
            assert (found.AccessionNumber, found.StudyDescription) == ("A-77", "Corrected")
            assert b"A-77" in item.directory_keys
        with house.db.read() as session:
            on_it = select(Derived).join(VolumeInstance, VolumeInstance.derived_id == Derived.id)
            rows = list(session.scalars(on_it.where(VolumeInstance.volume_id == again.volume_id)))
        assert [row.facts and row.facts["accession_number"] for row in rows] == ["A-77", "A-77"]
        assert all("(0008,0050)" in [change["tag"] for change in row.changes] for row in rows)


def test_under_another_patients_name_it_is_no_source(house: House, tmp_path: Path) -> None:
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault", coerce=[RENAMED])
    purge(house.ctx)
    number = recall(house)
    assert offer(house.ctx, burnt.image)["restored"] == 2
    told = document(house.ctx, number)
    assert (told["state"], told["as_on_disc"]) == ("DONE", {"instances": 2, "another_patient": 2})
    with house.db.read() as session:
        there = retrieval.held(session, everything(house).instance)
    assert [(one.only_renamed, one.restored, one.places, one.file_sets) for one in there] == [(True, None, [], [])] * 2
    found = plan(house)
    assert found["volumes"] == []
    assert "another patient's name or number" in found["refused"][0]["reason"]


@pytest.mark.parametrize("online", [True, False])
def test_a_file_that_names_another_patient_is_never_sent(house: House, tmp_path: Path, online: bool) -> None:
    """Whoever receives it would file it under somebody else, with the UID of the one who was examined."""
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault", coerce=[RENAMED])
    if online:
        put_online(house.ctx, burnt)
    purge(house.ctx)
    ids = everything(house).instance
    with house.db.read() as session:
        there = retrieval.held(session, ids)
    assert all(one.only_renamed and not is_far(one) and not one.places for one in there)
    with (
        Sources(house.ctx.spool, house.settings.derived_dir) as sources,
        pytest.raises(NotThere, match="another patient"),
        sources.open(there[0]),
    ):
        pass
    number = begin(house.ctx, ids, source="c-move:WS", by="WS", selection={})
    told = document(house.ctx, number)
    assert told["state"] == "FAILED" and listing(house.ctx)["asks"] == []
    with house.db.read() as session:
        reasons = set(session.scalars(select(RecallInstance.reason).where(RecallInstance.recall_id == number)))
    assert len(reasons) == 1 and "another patient's name" in str(reasons)


def test_a_disc_under_the_patients_own_name_is_read_first(house: House, tmp_path: Path) -> None:
    house.receive(2)
    (own,) = burn(house.ctx, tmp_path / "own")
    (other,) = burn(house.ctx, tmp_path / "other", coerce=[RENAMED])
    put_online(house.ctx, other)
    purge(house.ctx)
    number = recall(house)
    assert [ask["disc"] for ask in listing(house.ctx)["asks"]] == [f"D{own.disc_id}"]
    assert offer(house.ctx, other.image)["result"] == work.NOT_WANTED
    with house.db.begin() as session:
        session.execute(update(Disc).where(Disc.id == own.disc_id).values(marked="LOST"))
    RecallWork(house.ctx, lambda *_: []).once()
    assert document(house.ctx, number)["as_on_disc"] == {"instances": 2, "another_patient": 2}


def test_lists_of_studies_tell_what_is_back(house: House, tmp_path: Path) -> None:
    house.receive(2)
    (burnt,) = burn(house.ctx, tmp_path / "vault", coerce=[CORRECTED])
    purge(house.ctx)
    recall(house)
    offer(house.ctx, burnt.image)
    with house.db.read() as session:
        (listed,) = catalogue.studies(session)
        (found,) = studylist.search(session, studylist.Query())
    assert (listed["in_spool"], listed["back"], found.in_spool, found.back) == (0, 2, 0, 2)
