"""Volume sets of which not every disc is at hand: which are missing, and what is on them as far as the others tell."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from media.discread import DiscFound
from media.problems import MediaError
from media.setcatalogue import SetStudy, SetVolume
from media.setcatalogue_read import parse
from store.models_jobs import Volume

_NUMBER = re.compile(r"(\d{7})$")
"""The running number of a File-set ID (``store.plans.take_file_set_ids``)."""


def number_of(file_set_id: str) -> int | None:
    """The running number of a File-set ID of ours."""
    match = _NUMBER.search(file_set_id)
    return int(match[1]) if match else None


def set_names(file_set_id: str, number: int, of: int) -> list[str]:
    """File-set IDs of the volumes 1 to ``of`` of a set, as a plan gives them, by that of volume ``number``."""
    match = _NUMBER.search(file_set_id)
    if match is None:
        return []
    prefix, first = file_set_id[: match.start()], int(match[1]) - number + 1
    return [f"{prefix}{first + offset:07}" for offset in range(of)] if first > 0 else []


class Sighted:
    """Volumes that a run has seen, for one that enters nothing."""

    def __init__(self) -> None:
        self._there: dict[tuple[str, ...], dict[int, str]] = {}
        self._sets: dict[tuple[str, ...], tuple[int, dict[int, SetVolume], list[SetStudy]]] = {}

    def see(self, found: DiscFound) -> None:
        """This medium is there."""
        if not found.identity.ours or found.of == 1:
            return
        catalogue = found.set_catalogue
        key = (
            tuple(catalogue.volumes[number].file_set_uid for number in sorted(catalogue.volumes))
            if catalogue is not None
            else tuple(set_names(found.identity.file_set_id, found.number, found.of))
        )
        self._there.setdefault(key, {})[found.number] = found.identity.file_set_id
        known = (found.of, catalogue.volumes, catalogue.studies) if catalogue is not None else (found.of, {}, [])
        self._sets.setdefault(key, known)

    def missing(self, session: Session) -> list[dict[str, Any]]:
        """As ``missing_volumes``."""
        told = []
        for key, (of, volumes, studies) in self._sets.items():
            there = dict(self._there[key])
            rows = session.execute(
                select(Volume.number, Volume.file_set_id).where(
                    (Volume.file_set_uid if volumes else Volume.file_set_id).in_(key), Volume.origin != "foreign"
                )
            )
            there |= dict(rows.tuples().all())
            if absent := [number for number in range(1, of + 1) if number not in there]:
                names = () if volumes else key
                described = [_missing(number, volumes.get(number), names, studies) for number in absent]
                told.append({"of": of, "there": [there[number] for number in sorted(there)], "missing": described})
        return told


def missing_volumes(session: Session, volume_ids: Collection[int]) -> list[dict[str, Any]]:
    """Sets of these volumes of which some are not in the catalogue: which, and what is on them as far as is known."""
    told: list[dict[str, Any]] = []
    seen: set[int] = set()
    for volume_id in sorted(volume_ids):
        volume = session.get_one(Volume, volume_id)
        if volume.plan_id in seen or volume.of == 1 or volume.origin == "foreign":
            continue
        seen.add(volume.plan_id)
        rows = session.execute(select(Volume.number, Volume.file_set_id).where(Volume.plan_id == volume.plan_id))
        there = dict(rows.tuples().all())
        absent = [number for number in range(1, volume.of + 1) if number not in there]
        if absent:
            told.append(
                {
                    "of": volume.of,
                    "there": [there[number] for number in sorted(there)],
                    "missing": _described(volume, absent),
                }
            )
    return told


def _described(volume: Volume, absent: Sequence[int]) -> list[dict[str, Any]]:
    volumes: Mapping[int, SetVolume] = {}
    studies: Sequence[SetStudy] = ()
    if volume.set_catalogue is not None:
        try:
            catalogue = parse(volume.set_catalogue)
            volumes, studies = catalogue.volumes, catalogue.studies
        except MediaError:
            pass
    names = set_names(volume.file_set_id, volume.number, volume.of)
    return [_missing(number, volumes.get(number), names, studies) for number in absent]


def _missing(number: int, known: SetVolume | None, names: Sequence[str], studies: Sequence[SetStudy]) -> dict[str, Any]:
    return {
        "volume": number,
        "file_set_id": known.file_set_id if known else (names[number - 1] if names else ""),
        "file_set_uid": known.file_set_uid if known else "",
        "studies": [
            {
                "study_instance_uid": study.attributes["study_instance_uid"],
                "patient_id": study.attributes["patient_id"],
                "patient_name": study.attributes["patient_name"],
                "study_date": study.attributes["study_date"],
                "instances": study.volumes[number],
            }
            for study in studies
            if number in study.volumes
        ],
    }
