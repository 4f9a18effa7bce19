"""Filling media for pools: nothing lost, the oldest first, as full as they get."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from media import volumes
from media.contents import arrange
from media.filling import fewest, fill_media
from media.packing import pack_pieces
from media.volumes import Packing
from tests.media.discs import entry
from tests.media.test_volumes import SIZING, Entry, built_sectors, contents_of, requests
from tests.soak import SEED, size


def fill(entries: list[Entry], capacity: int) -> Packing:
    """The lower an instance's number, the older its study."""
    age: dict[str, int] = {}
    for item, _ in entries:
        age[item.study_instance_uid] = min(age.get(item.study_instance_uid, item.key), item.key)
    packer = partial(fill_media, age=lambda piece: age[piece.items[0].study_instance_uid])
    return volumes.pack(arrange(entries), capacity_sectors=capacity, sizing=SIZING, many_patients=True, packer=packer)


@pytest.mark.soak
@seeded(SEED)
@settings(max_examples=size(80, 2000))
@given(requests(), st.integers(190, 420))
def test_everything_is_on_one_medium_and_the_sizes_are_exact(entries: list[Entry], capacity: int) -> None:
    packing = fill(entries, capacity)
    refused = {refusal.item for refusal in packing.refused}
    on_discs = Counter(item.sop_instance_uid for volume in packing.volumes for item in volume.items)
    assert on_discs == Counter(item.sop_instance_uid for item, _ in entries if item not in refused)
    contents = contents_of(packing, entries)
    for volume in packing.volumes:
        assert volume.sectors <= capacity
        assert volume.sectors == built_sectors(volume.items, contents, volume.number, volume.of)
        patients = {(item.patient, item.patient_id) for item in volume.items}
        assert len({patient_id for _, patient_id in patients}) == len(patients), "nobody shares an ID on a volume"


def studies(count: int, *, seed: int, most: int = 200) -> list[Entry]:
    rng = random.Random(seed)
    return [
        entry(number, patient=number, size=rng.randint(1, most) * 2048, patient_id=f"ID{number:04}")
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_oldest_is_never_left_over_and_media_are_full(seed: int) -> None:
    entries = studies(120, seed=seed)
    order = [item.key for item, _ in entries]
    packing = fill(entries, 2200)
    media = [sorted(item.key for item in volume.items) for volume in packing.volumes]
    media.sort(key=lambda keys: keys[0])
    for keys in media:
        assert keys[0] == order[0], "whatever waits longest goes next"
        order = [key for key in order if key not in keys]
    fills = sorted(volume.sectors / 2200 for volume in packing.volumes)
    assert fills[1] > 0.97, "all but the last one"


def test_pieces_of_a_study_that_is_too_large_follow_each_other() -> None:
    entries = [entry(number, patient=1, series=number // 10, size=30 * 2048) for number in range(100)]
    entries += [
        entry(200 + number, patient=2 + number, patient_id=f"B{number}", size=100 * 2048) for number in range(9)
    ]
    packing = fill(entries, 1650)
    with_large = [volume for volume in packing.volumes if any(item.patient == 1 for item in volume.items)]
    assert len(packing.volumes) == 3 and len(with_large) == 3
    assert sorted(volume.sectors for volume in packing.volumes)[1] > 0.9 * 1650


def test_nothing_makes_no_media() -> None:
    assert fill_media([], SIZING, 1000) == []


def test_an_exchange_closes_the_gap() -> None:
    """Three of 300 and one of 350 sectors: the last does not fit behind three, but instead of one of them."""
    sizes = (300, 300, 300, 350)
    entries = [
        entry(number, patient=number, patient_id=f"ID{number}", size=sectors * 2048)
        for number, sectors in enumerate(sizes)
    ]
    whole = fill(entries, 5000).volumes[0].sectors
    packing = fill(entries, whole - 300 + 10)
    assert sorted(len(volume.items) for volume in packing.volumes) == [1, 3]
    largest = max(packing.volumes, key=lambda volume: volume.sectors)
    assert {item.key for item in largest.items} >= {0, 3}


@pytest.mark.parametrize("seed", [47, 77])
def test_what_fills_volumes_together_is_packed_into_as_few(seed: int) -> None:
    """Sizes for which first-fit-decreasing needs one volume more."""
    rng = random.Random(seed)
    entries = [
        entry(number, patient=number, patient_id=f"I{number}", size=rng.randint(100, 500) * 2048)
        for number in range(rng.randint(4, 12))
    ]
    capacity = rng.randint(900, 1400)

    def packed(packer: Any) -> Packing:
        return volumes.pack(
            arrange(entries), capacity_sectors=capacity, sizing=SIZING, many_patients=True, packer=packer
        )

    found, plain = packed(fewest), packed(pack_pieces)
    assert len(found.volumes) == len(plain.volumes) - 1
    on_discs = Counter(item.key for volume in found.volumes for item in volume.items)
    assert on_discs == Counter(item.key for item, _ in entries)
