"""A year of an archive, seeded: whatever happens, everything acknowledged is safe, or said to be at risk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.archive.year import Clock, Year, in_haste
from tests.soak import SEED, size, told

YEARS = size(2, 40)
STEPS = size(60, 600)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(YEARS))
def test_a_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    clock = Clock()
    clock.install(monkeypatch)
    in_haste(monkeypatch)
    year = Year(tmp_path, clock, random.Random(SEED + number))
    try:
        for step in range(STEPS):
            try:
                year.step()
            except Exception as error:
                error.add_note(f"seed {SEED + number}, step {step}, {dict(year.happened)}")
                raise
        year.end()
    finally:
        year.close()
    told("a year", f"{STEPS} steps, {dict(year.happened)}", seed=SEED + number)
    assert year.happened["disc"] and year.happened["purged"] + year.happened["kill"]
