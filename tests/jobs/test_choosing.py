"""The automatic choice: fewest refused, then fewest changed, then fewest discs, then the order of the tables."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from burners import registry
from config.sections import Rule
from config.settings import load
from jobs.choosing import Choice, choose
from jobs.fitness import fitness
from jobs.options import RequestOptions
from jobs.preparing import PlanRefused, require_pair
from jobs.rules import options_of
from jobs.sources import has_source, source_of
from media.problems import MediaError
from media.profiles import profiles
from service.checks import wrong_settings
from store import requested
from store.models_jobs import Request
from store.requested import InstanceRow
from store.selection import Selection
from tests.jobs.conftest import House
from tests.jobs.test_unfit import planned
from tests.makers import EXPLICIT_LE, IMPLICIT_LE, make

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def rows_of(house: House) -> list[InstanceRow]:
    with house.db.read() as session:
        return requested.instances_of(session, session.scalars(select(Request.id)).one())


def chosen(house: House, rows: list[InstanceRow], **given: Any) -> Choice:
    options = RequestOptions.from_settings(house.settings, {"profile": "auto", **given})
    return choose(
        house.ctx,
        rows,
        {},
        options,
        has_source=lambda row: has_source(house.ctx, row),
        path_of=lambda row: source_of(house.ctx, row),
    )


def test_what_is_uncompressed_goes_on_a_cd(house: House) -> None:
    plan = planned(house, [make("CT", number=1), make("CT", number=2)], profile="AUTO")
    assert (plan["profile"], plan["medium"]) == ("STD-GEN-CD", "CD-R-80")
    told = plan["chosen"]
    assert told["reason"].startswith("all instances fit, none is changed, about 1 disc; the first of its equals")
    assert (told["refused"], told["changed"]) == (0, 0)
    assert 1 <= len(told["others"]) <= 5
    assert "STD-GEN-CD" not in {other["profile"] for other in told["others"]}
    assert plan["changes"] == []


def test_what_shall_be_uncompressed_is_changed(house: House) -> None:
    planned(house, [make("CT", number=1)])
    rows = [replace(rows_of(house)[0], transfer_syntax_uid=JPEG_LOSSLESS)]
    choice = chosen(house, rows, compress="none")
    assert (choice.profile.identifier, choice.document["changed"]) == ("STD-GEN-CD", 1)
    assert "1 are changed" not in choice.document["reason"] and "1 is changed" in choice.document["reason"]


def test_what_changes_least_wins_over_the_table(house: House) -> None:
    """STD-GEN-CD comes first and takes no JPEG."""
    planned(house, [make("CT", number=1)])
    rows = [replace(rows_of(house)[0], transfer_syntax_uid=JPEG_LOSSLESS)]
    kept = chosen(house, rows)
    assert (kept.document["refused"], kept.document["changed"]) == (0, 0)
    assert JPEG_LOSSLESS in kept.profile.may_hold(rows[0].sop_class_uid)
    first = next(
        row
        for row in profiles().values()
        if row.status == "ready"
        and set(row.media) & {"CD-R-80", "DVD-R", "BD-25"}
        and row.class_violation(rows[0].sop_class_uid) is None
        and JPEG_LOSSLESS in row.may_hold(rows[0].sop_class_uid)
        and not row.rules
    )
    assert list(profiles()).index(kept.profile.identifier) <= list(profiles()).index(first.identifier)


def test_many_need_fewer_of_larger_discs(house: House) -> None:
    planned(house, [make("CT", number=1)])
    (row,) = rows_of(house)
    large = [replace(row, id=row.id, sop_instance_uid=f"1.2.{n}", file_bytes=500_000_000) for n in range(9)]
    choice = choose(
        house.ctx,
        large,
        {},
        RequestOptions.from_settings(house.settings, {"profile": "auto"}),
        has_source=lambda _: True,
        path_of=lambda one: source_of(house.ctx, one),
    )
    assert (choice.document["discs"], choice.medium.family) == (1, "BD")
    on_cd = choose(
        house.ctx,
        large,
        {},
        RequestOptions.from_settings(house.settings, {"profile": "auto", "medium": "CD-R-80"}),
        has_source=lambda _: True,
        path_of=lambda one: source_of(house.ctx, one),
    )
    assert (on_cd.profile.identifier, on_cd.medium.name) == ("STD-GEN-CD", "CD-R-80")
    assert on_cd.document["discs"] > 1


def test_an_instance_larger_than_a_medium_does_not_fit_it(house: House) -> None:
    planned(house, [make("CT", number=1)])
    rows = [replace(row, file_bytes=2_000_000_000) for row in rows_of(house)]
    choice = choose(
        house.ctx,
        rows,
        {},
        RequestOptions.from_settings(house.settings, {"profile": "auto"}),
        has_source=lambda _: True,
        path_of=lambda one: source_of(house.ctx, one),
    )
    assert choice.medium.family != "CD" and choice.document["refused"] == 0


def test_the_order_of_the_rows_makes_no_difference(house: House) -> None:
    made = [make("CT", number=n, transfer_syntax_uid=IMPLICIT_LE if n % 2 else EXPLICIT_LE) for n in range(1, 7)]
    planned(house, [*made, make("US", number=9)])
    rows = rows_of(house)
    documents = []
    for seed in range(4):
        random.Random(seed).shuffle(rows)
        documents.append(chosen(house, rows).document)
    assert all(document == documents[0] for document in documents)
    assert documents[0]["changed"] == 3


def test_rules_are_asked_of_files(house: House) -> None:
    """What a bound by rows lets pass, an examination refuses: on this medium only a general profile takes it."""
    planned(house, [make("CT", number=1), make("CT", number=2, PhotometricInterpretation="MONOCHROME1")])
    choice = chosen(house, rows_of(house))
    assert (choice.profile.identifier, choice.document["refused"]) == ("STD-GEN-CD", 0)


def test_a_folder_burner_gets_media_that_take_files(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.families("folder") == {"FOLDER"}
    assert registry.families("iso") == registry.families("is not there") == {"CD", "DVD", "BD"}
    planned(house, [make("CT", number=1)])
    monkeypatch.setattr("burners.registry.families", lambda _: frozenset(("FOLDER",)))
    choice = chosen(house, rows_of(house))
    assert choice.medium.family == "FOLDER"
    with pytest.raises(MediaError, match="on medium BD-25 for burner 'iso', which makes FOLDER"):
        chosen(house, rows_of(house), medium="BD-25")
    with pytest.raises(PlanRefused, match="NOT_SUPPORTED"):
        planned_again(house, medium="BD-25")


def planned_again(house: House, **options: Any) -> None:
    from jobs.planning import create_request, make_plan

    given = RequestOptions.from_settings(house.settings, {"profile": "auto", **options})
    with house.db.begin() as session:
        request = create_request(session, selection=Selection(all=True), options=given, source="test")
    make_plan(house.ctx, request)


def test_the_medium_is_checked_before_any_work(house: House) -> None:
    for medium, reason in (("CD-R-9", "no medium"),):
        options = RequestOptions.from_settings(house.settings, {"profile": "auto", "medium": medium})
        with pytest.raises(MediaError, match=reason):
            require_pair(options)


def test_check_chooses_too(any_house: House) -> None:
    planned(any_house, [make("CT", number=1)])
    options = RequestOptions.from_settings(any_house.settings, {"profile": "auto"})
    with any_house.db.read() as session:
        before = session.scalars(select(Request.id)).all()
    document = fitness(any_house.ctx, Selection(all=True), options)
    with any_house.db.read() as session:
        assert session.scalars(select(Request.id)).all() == before, "asking leaves nothing behind"
    assert document["profile"] == document["chosen"]["profile"] == "STD-GEN-CD"


def test_ten_thousand_take_a_second_or_so(house: House) -> None:
    planned(house, [make("CT", number=1), make("MR", number=1), make("US", number=1)])
    rows = rows_of(house)
    many = [
        replace(row, id=n * 10 + k, sop_instance_uid=f"1.2.{k}.{n}", patient=n % 7)
        for n in range(3334)
        for k, row in enumerate(rows)
    ]
    begin = time.thread_time()
    choice = choose(
        house.ctx,
        many,
        {},
        RequestOptions.from_settings(house.settings, {"profile": "auto"}),
        has_source=lambda _: True,
        path_of=lambda one: Path("is not there"),
    )
    took = time.thread_time() - begin
    assert choice.profile.identifier == "STD-GEN-CD"
    assert took < 10, f"{took:.1f} s"
    print(f"{took:.2f} s for {len(many)}")


def test_check_looks_at_iods_and_keeps_nothing(house: House) -> None:
    good, bad = make("CT", number=1), make("CT", number=2, PixelSpacing=None)
    planned(house, [good, bad])
    before = rows_of(house)
    options = RequestOptions.from_settings(house.settings, {"iod": "strict"})
    document = fitness(house.ctx, Selection(all=True), options)
    assert bad.sop_instance_uid in {one["sop_instance_uid"] for one in document["refused"]}
    assert document["iod"]["level"] == "strict" and document["chosen"] is None
    assert document["fit"] + document["conform"] + len(document["refused"]) == document["instances"] == 2
    assert rows_of(house) == before, "no further request"


def test_rules_and_settings_may_say_auto(tmp_path: Path) -> None:
    settings = load(data=tmp_path, overrides={"plan": {"profile": "auto"}})
    assert wrong_settings(settings) == []
    assert RequestOptions.from_settings(settings, {}).compress == "keep"
    options = options_of(Rule(name="all", profile="AUTO", medium="DVD-R"), load(data=tmp_path))
    assert (options.profile, options.medium, options.compress) == ("auto", "DVD-R", "keep")
    with pytest.raises(MediaError, match="no medium"):
        options_of(Rule(name="all", profile="auto", medium="DVD-Q"), load(data=tmp_path))
