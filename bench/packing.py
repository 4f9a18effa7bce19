"""Packing studies of log-normal sizes (median 60 MB) onto DVD and BD-25: how full discs get, and how time grows.

    python -m bench.packing [--studies 20000]

``at once``: one request for all studies, several patients a volume. ``as they come``: a pool that looks whenever its
studies might fill a medium, burns what is at least 97 % full, and lets the rest wait. Goals: mean fill of at least 97 %
without the last disc; four times the studies take at most 5 times as long (n log n gives 4.65).
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from media.contents import arrange
from media.encoding import encode
from media.fileset import sizing
from media.filling import fill_media
from media.items import Header, Item
from media.mediatypes import media_type
from media.readme import DiscText
from media.sizing import Sizing
from media.volumes import VolumePlan, pack

MEDIAN_BYTES = 60e6
SIGMA = 1.0
PER_STUDY = 4
MIN_FILL = 0.97
GOAL_FILL = 0.97
GOAL_GROWTH = 5.0

Study = list[tuple[Item, Header]]


def _studies(count: int) -> list[Study]:
    """Studies of as many patients, in the order of their arrival."""
    rng = random.Random(1)
    made = []
    for number in range(count):
        total = rng.lognormvariate(0, SIGMA) * MEDIAN_BYTES
        study = f"2.25.1{number:08}"
        keys = encode(0x00100020, b"LO", f"ID{number:07}".encode()) + encode(0x0020000D, b"UI", study.encode())
        header = Header("1.2.840.10008.5.1.4.1.1.2", f"{study}.1", "1.2.840.10008.1.2.1", directory_keys=keys)
        made.append(
            [
                (
                    Item(
                        key=number * PER_STUDY + order,
                        sop_class_uid=header.sop_class_uid,
                        sop_instance_uid=f"{study}.{order + 1}",
                        transfer_syntax_uid=header.transfer_syntax_uid,
                        study_instance_uid=study,
                        series_instance_uid=f"{study}.0",
                        patient=number,
                        patient_id=f"ID{number:07}",
                        record_type="IMAGE",
                        directory_keys=keys,
                        source=Path("absent"),
                        size=max(1, int(total / PER_STUDY)),
                        sha256="a" * 64,
                    ),
                    header,
                )
                for order in range(PER_STUDY)
            ]
        )
    return made


def _at_once(studies: Sequence[Study], capacity: int, sizes: Sizing) -> list[VolumePlan]:
    entries = [pair for study in studies for pair in study]
    return list(pack(arrange(entries), capacity_sectors=capacity, sizing=sizes, many_patients=True).volumes)


def _as_they_come(studies: Sequence[Study], capacity: int, sizes: Sizing) -> list[VolumePlan]:
    """What a pool does with them (jobs.pools)."""
    packer = partial(fill_media, age=lambda piece: piece.items[0].key // PER_STUDY)
    burnt: list[VolumePlan] = []
    waiting: dict[str, Study] = {}
    held, look_at = 0, MIN_FILL * capacity
    for number, study in enumerate(studies, 1):
        waiting[study[0][0].study_instance_uid] = study
        held += sum(item.size for item, _ in study) // 2048
        if held < look_at and number < len(studies):
            continue
        entries = [pair for each in waiting.values() for pair in each]
        packing = pack(arrange(entries), capacity_sectors=capacity, sizing=sizes, many_patients=True, packer=packer)
        full = [volume for volume in packing.volumes if volume.sectors >= MIN_FILL * capacity]
        if number == len(studies):
            full = list(packing.volumes)
        for volume in full:
            for uid in {item.study_instance_uid for item in volume.items}:
                held -= sum(item.size for item, _ in waiting.pop(uid)) // 2048
        burnt += full
        look_at = max(MIN_FILL * capacity, held + 0.01 * capacity)
    return burnt


def _measured(way: str, studies: Sequence[Study], capacity: int, sizes: Sizing) -> tuple[float, list[VolumePlan]]:
    gc.collect()
    start = time.process_time()  # nothing waits here: another load of the machine is not counted
    volumes = (_at_once if way == "at once" else _as_they_come)(studies, capacity, sizes)
    return time.process_time() - start, volumes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000)
    count = parser.parse_args().studies
    studies = _studies(count)
    for name in ("DVD-R", "BD-25"):
        medium = media_type(name)
        capacity = medium.usable_sectors(reserve_percent=1.0, reserve_sectors=2048)
        sizes = sizing(DiscText("Burnish", "STD-GEN-DVD", medium.name), file_set_id_length=15)
        for way in ("at once", "as they come"):
            small, _ = _measured(way, studies[: count // 4], capacity, sizes)
            large, volumes = _measured(way, studies, capacity, sizes)
            fills = sorted((volume.sectors / capacity for volume in volumes), reverse=True)[:-1]
            mean = sum(fills) / len(fills) if fills else 0.0
            print(
                f"{name:6} {way:12} {count} studies on {len(volumes)} discs, mean fill {mean:.2%} "
                f"(goal: {GOAL_FILL:.0%}), least {min(fills, default=0):.2%}; {large:.1f} s, "
                f"ratio to a quarter of them {large / small:.2f} (goal: {GOAL_GROWTH})",
                flush=True,
            )


if __name__ == "__main__":
    main()
