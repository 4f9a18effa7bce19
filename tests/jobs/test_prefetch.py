"""Earlier studies that are recalled when a new one arrives: which, how often, and only once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from config.settings import SettingsError, load
from jobs.prefetch import Prefetching
from store import migrate
from store.db import Database
from store.models import Instance, Series
from store.models_archive import Recall
from store.models_base import now
from store.models_nodes import Counter
from tests.jobs.conftest import House
from tests.rows import add_disc, add_instance

Make = Callable[..., House]


def arrived(house: House, number: int, **more: Any) -> Instance:
    """An instance of a study of its own."""
    with house.db.begin() as session:
        given = {"study": f"1.2.{number}", "series": f"1.2.{number}.1", "patient_id": "P1"} | more
        return add_instance(session, f"1.2.{number}.1.{number}", **given)


def old(house: House, number: int, date: str, **more: Any) -> None:
    """A study that is only on a disc."""
    instance = arrived(house, number, study_date=date, in_spool=False, **more)
    with house.db.begin() as session:
        add_disc(session, [session.merge(instance)])


def recalled(house: House) -> list[str]:
    with house.db.read() as session:
        rows = session.scalars(select(Recall.selection).order_by(Recall.id))
        return [str(selection["study"][0]) for selection in rows]


def tick(house: House) -> int:
    return Prefetching(house.ctx).tick()


def started(make_house: Make, **rule: Any) -> House:
    return make_house(prefetch=[{"name": "r"} | rule])


def test_earlier_studies_of_the_patient_are_recalled_once(make_house: Make) -> None:
    house = started(make_house)
    old(house, 1, "20180101")
    old(house, 2, "20190101")
    old(house, 3, "20190101", patient_id="P2", patient_name="Roe^Jane")
    assert tick(house) == 0  # what was there before the rule is none of its business
    new = arrived(house, 4, study_date="20200101")
    working = Prefetching(house.ctx)
    assert working.tick() == 2
    assert recalled(house) == ["1.2.2", "1.2.1"]
    assert tick(house) == 0  # another node, or after a restart
    with house.db.begin() as session:
        session.execute(update(Instance).where(Instance.id == new.id).values(received_at=now() - timedelta(hours=1)))
        session.execute(update(Recall).values(state="REFUSED", finished_at=now()))
    assert tick(house) == 0
    with house.db.read() as session:
        recall = session.scalars(select(Recall)).first()
        assert recall is not None
        assert (recall.source, recall.by) == ("prefetch:r", "prefetch:r")
    arrived(house, 5, study_date="20210101")  # the next visit recalls them anew
    assert tick(house) == 2


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, ["6", "5", "4"]),
        ({"studies": 1}, ["6"]),
        ({"modalities": ["CT"], "studies": 9}, ["6", "5", "4", "3", "2"]),
        ({"modalities": ["US"]}, []),
        ({"earlier_modalities": ["MR"]}, ["5", "3"]),
        ({"same_modality": True, "studies": 9}, ["6", "4", "2"]),
        ({"body_parts": ["HEAD"]}, ["4"]),
        ({"same_body_part": True}, ["6", "2"]),
        ({"max_age_days": 1000}, ["6", "5"]),
        ({"calling_ae": "OTHER"}, []),
        ({"called_ae": "BURNISH", "studies": 2}, ["6", "5"]),
    ],
)
def test_what_a_rule_says(tmp_path: Path, rule: dict[str, Any], wanted: list[str]) -> None:
    database = Database(f"sqlite:///{tmp_path / 'burnish.db'}")
    migrate.upgrade(database)
    house = House(database, tmp_path / "data", {"prefetch": [{"name": "r"} | rule]})
    for number, (modality, part) in enumerate(
        [("CT", "CHEST"), ("MR", ""), ("CT", "HEAD"), ("MR", ""), ("CT", "CHEST")], 2
    ):
        old(house, number, f"{2012 + number}0601", modality=modality)
        _part(house, number, part)
    tick(house)
    arrived(house, 7, study_date="20200101")
    _part(house, 7, "CHEST")
    tick(house)
    assert recalled(house) == [f"1.2.{number}" for number in wanted]
    house.close()
    database.close()


def _part(house: House, number: int, part: str) -> None:
    with house.db.begin() as session:
        uid = f"1.2.{number}.1"
        session.execute(update(Series).where(Series.series_instance_uid == uid).values(body_part_examined=part))


def test_later_studies_and_those_in_the_spool_are_left(make_house: Make) -> None:
    house = started(make_house)
    old(house, 1, "20220101")
    arrived(house, 2, study_date="20190101")
    old(house, 3, "")
    tick(house)
    arrived(house, 4, study_date="20200101")
    assert tick(house) == 0


def test_the_mark_moves_on_when_all_was_looked_at(make_house: Make) -> None:
    house = started(make_house)
    old(house, 1, "20180101")
    tick(house)
    new = arrived(house, 2, study_date="20200101")

    def mark() -> int:
        with house.db.read() as session:
            return int(session.scalar(select(Counter.value).where(Counter.name == "prefetch:r")) or 0)

    assert mark() == 1
    working = Prefetching(house.ctx)
    working.tick()
    assert mark() == 1
    with house.db.begin() as session:
        session.execute(update(Instance).values(received_at=now() - timedelta(hours=1)))
    working._next = 0.0
    working.tick()
    assert mark() == new.id


def test_it_is_sent_to_a_node_where_the_rule_says_so(make_house: Make) -> None:
    house = started(make_house, to="ws")
    old(house, 1, "20180101")
    tick(house)
    arrived(house, 2, study_date="20200101")
    assert tick(house) == 1
    with house.db.read() as session:
        assert session.scalars(select(Recall.destination)).one() == "ws"


def test_two_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two rules have this name"):
        load(data=tmp_path, overrides={"prefetch": [{"name": "a"}, {"name": "a"}]})  # type: ignore[dict-item]
