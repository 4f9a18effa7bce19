"""What the rules of archive schedules mean: studies as a whole, by what is in the spool."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from store import copies
from store.archiving import ArchiveRules, meant, not_requested_by, without_conflicts
from store.db import Database
from store.models import Instance, Series
from store.models_base import now
from store.models_jobs import Disc, Request, RequestInstance, Volume, VolumeInstance
from tests.rows import add_disc, add_instance


@pytest.fixture
def filled(database: Database) -> Database:
    """Studies 1 to 4: CT with a report, MR of another AE and station, an old CT, a CT that was purged."""
    with database.begin() as session:
        of_1 = {"study": "1.1", "patient_id": "P1", "study_date": "20260110"}
        add_instance(session, "1", series="1.1.1", **of_1)
        add_instance(session, "2", series="1.1.2", modality="SR", calling_ae="PACS", **of_1)
        of_2 = {"study": "1.2", "patient_id": "P2", "study_date": "20260220"}
        add_instance(session, "3", series="1.2.1", modality="MR", calling_ae="MR_1", called_ae="ARCHIVE", **of_2)
        add_instance(session, "4", series="1.3.1", study="1.3", patient_id="P3", study_date="20200101")
        add_instance(session, "5", series="1.4.1", study="1.4", patient_id="P4", in_spool=False)
        session.execute(update(Series).where(Series.series_instance_uid == "1.2.1").values(station_name="MR9"))
        session.execute(update(Instance).where(Instance.id == 4).values(received_at=now() - timedelta(days=400)))
    return database


def chosen(database: Database, **rules: Any) -> list[int]:
    with database.read() as session:
        return sorted(session.scalars(meant(ArchiveRules.from_json(rules), now())))


def test_rules_mean_whole_studies_in_the_spool(filled: Database) -> None:
    for rules, ids in (
        ({}, [1, 2, 3, 4]),
        ({"modality": ["CT"]}, [1, 2, 4]),
        ({"modality": ["SR"]}, [1, 2]),
        ({"modality": ["SR", "MR"]}, [1, 2, 3]),
        ({"calling_ae": ["PACS"]}, [1, 2]),
        ({"calling_ae": ["PACS"], "modality": ["SR"]}, [1, 2]),
        ({"calling_ae": ["PACS"], "modality": ["CT"]}, []),
        ({"called_ae": ["ARCHIVE"]}, [3]),
        ({"station": ["MR9"]}, [3]),
        ({"date_range": "20260101-20260131"}, [1, 2]),
        ({"date_range": "-20251231"}, [4]),
        ({"date_range": "20260220"}, [3]),
        ({"min_age_hours": 24}, [4]),
        ({"max_age_days": 300}, [1, 2, 3]),
        ({"max_age_days": 500}, [1, 2, 3, 4]),
        ({"min_age_hours": 24, "max_age_days": 300}, []),
    ):
        assert chosen(filled, **rules) == ids, rules


def test_one_late_instance_makes_a_study_young_again(filled: Database) -> None:
    with filled.begin() as session:
        session.execute(update(Instance).values(received_at=now() - timedelta(days=3)))
        session.execute(update(Instance).where(Instance.id == 2).values(received_at=now() - timedelta(hours=1)))
    assert chosen(filled, min_age_hours=24) == [3, 4]
    assert chosen(filled, max_age_days=1) == [1, 2]


def test_what_is_on_enough_discs_is_not_meant(filled: Database) -> None:
    with filled.begin() as session:
        instances = [session.get_one(Instance, number) for number in (1, 2, 3)]
        add_disc(session, instances[:2], state="VERIFIED")
        add_disc(session, instances[1:], state="VERIFIED")
        for volume in session.query(Volume):
            copies.recount(session, volume.id)
        session.add(_again(session, 1))
    assert chosen(filled, not_on_discs=1) == [4]
    assert chosen(filled, not_on_discs=2) == [1, 3, 4], "the second is on two"
    assert chosen(filled, not_on_discs=3) == [1, 2, 3, 4]
    with filled.begin() as session:
        session.execute(update(Disc).where(Disc.id == 1).values(marked="LOST"))
        copies.recount(session, 1)
    assert chosen(filled, not_on_discs=1) == [1, 4], "a lost disc counts no more"


def _again(session: Session, volume_id: int) -> VolumeInstance:
    """The first file of a volume once more, under another name, as some makers' discs have them."""
    first = session.get_one(VolumeInstance, (volume_id, 1))
    values = {"instance_id": first.instance_id, "size": 1, "sha256": first.sha256, "supplied": []}
    return VolumeInstance(volume_id=volume_id, position=99, file_id="AGAIN", **values)


def test_what_a_source_has_requested_and_what_conflicts(filled: Database) -> None:
    with filled.begin() as session:
        request = Request(created_at=now(), source="schedule:a", selection={}, options={})
        session.add(request)
        session.flush()
        session.add(RequestInstance(request_id=request.id, instance_id=1))
        session.execute(update(Instance).where(Instance.id == 3).values(conflict_of=4))
    with filled.read() as session:

        def ids(also: Any) -> list[int]:
            return sorted(session.scalars(meant(ArchiveRules(), now(), also=also)))

        assert ids(not_requested_by("schedule:a")) == [2, 3, 4]
        assert ids(not_requested_by("schedule:b")) == [1, 2, 3, 4]
        assert ids(without_conflicts("first")) == [1, 2, 4]
        assert ids(without_conflicts("keep-both")) == [1, 2, 3, 4]


def test_rules_are_kept_as_they_were_given() -> None:
    rules = {"modality": ["CT", "MR"], "min_age_hours": 24, "not_on_discs": 2}
    assert ArchiveRules.from_json(rules).to_json() == rules
    assert ArchiveRules.from_json({}).to_json() == {}
