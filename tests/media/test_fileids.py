"""File IDs are counted, conform to PS3.10 8.5, and never clash."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import records
from media.fileids import FileIds, check_component, hostile_component, length_of
from media.problems import MediaError
from tests.makers import make
from tests.media.directory import header_of_made, item_of

ITEM = item_of(header_of_made(make("CT")))


def test_names_count_within_their_folder() -> None:
    ids = FileIds()
    other = replace(ITEM, series_instance_uid="1.9")
    assert ids.allocate(ITEM) == ("DICOM", "P0000001", "ST000001", "SE000001", "IM000001")
    assert ids.allocate(ITEM) == ("DICOM", "P0000001", "ST000001", "SE000001", "IM000002")
    assert ids.allocate(other) == ("DICOM", "P0000001", "ST000001", "SE000002", "IM000001")
    assert ids.allocate(ITEM)[-2:] == ("SE000001", "IM000003")
    assert ids.allocate(replace(ITEM, study_instance_uid="1.8"))[2:4] == ("ST000002", "SE000001")
    assert ids.allocate(replace(ITEM, patient="somebody else"))[1:4] == ("P0000002", "ST000001", "SE000001")
    assert ids.allocate(replace(ITEM, record_type="RT DOSE"))[-1] == "RD000004"


def test_records_under_the_root_lie_beside_the_patients() -> None:
    ids = FileIds()
    ids.allocate(ITEM)
    assert ids.allocate(replace(ITEM, record_type="PALETTE")) == ("DICOM", "PA000002")
    assert ids.allocate(replace(ITEM, record_type="HANGING PROTOCOL")) == ("DICOM", "HP000003")


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.sampled_from(sorted(records.TYPES)[:20])),
        max_size=60,
    ),
    st.sampled_from(["", "2.25.1", "2.25.2"]),
)
def test_every_name_conforms_and_is_the_only_one(places: list[tuple[int, int, int, str]], seed: str) -> None:
    items = [
        replace(ITEM, patient=p, study_instance_uid=str(s), series_instance_uid=str(e), record_type=kind)
        for p, s, e, kind in places
        if kind not in records.LEVELS
    ]
    ids, again = FileIds(seed), FileIds(seed)
    names = [ids.allocate(item) for item in items]
    assert len(set(names)) == len(names)
    assert all(check_component(part) for name in names for part in name)
    assert [len("\\".join(name)) for name in names] == [length_of(item.record_type) for item in items]
    assert names == [again.allocate(item) for item in items]
    folders = {name[:depth] for name in names for depth in range(1, len(name))}
    assert not folders & set(names)


def test_a_folder_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = FileIds()
    for _ in range(3):
        ids.allocate(ITEM)
    place = next(place for place in ids._counts if ids._counts[place] == 3)
    ids._counts[place] = 999_998
    assert ids.allocate(ITEM)[-1] == "IM999999"
    with pytest.raises(MediaError, match="DICOM/P0000001/ST000001/SE000001"):
        ids.allocate(ITEM)


def test_random_names_are_random_and_no_two_are_equal() -> None:
    names = [FileIds(f"2.25.{number}").allocate(ITEM) for number in range(50)]
    assert len({name[-1] for name in names}) == 50
    assert len({name[1] for name in names}) == 50
    ids = FileIds("2.25.1")
    first = ids.allocate(ITEM)
    ids = FileIds("2.25.1")
    ids._taken = {first[:2]}  # the next number is taken then
    assert ids.allocate(ITEM)[1] != first[1]


@pytest.mark.parametrize("component", ["A", "IM000001", "_", "12345678"])
def test_components(component: str) -> None:
    assert check_component(component)
    assert not hostile_component(component)


@pytest.mark.parametrize("component", ["a", "IM0000001", "A.B", "A-B", "Ä", "A ", "A\n", "IMAGE.DCM"])
def test_components_that_do_not_conform(component: str) -> None:
    assert not check_component(component)


@pytest.mark.parametrize("component", ["", ".", "..", "...", ". .", "A/B", "A\\B", "C:", "A\0", "A\n", "\x85", "*"])
def test_components_that_are_hostile(component: str) -> None:
    assert hostile_component(component)
    assert not check_component(component)
