"""Order of mixed text: known cases, and the same as another implementation of UAX #9."""

from __future__ import annotations

import random

import pytest

from media.labelbidi import base_level, isolated, visual_runs

POOL = "abc ABC 123 45.6,7-8/+%()[]: אבגדה محمدعلي ٣٤٥ ·"


def seen(text: str, base: int | None = None) -> str:
    """From left to right, as on paper; brackets as they are in memory."""
    return "".join(run[::-1] if level % 2 else run for run, level in visual_runs(text, base))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Doe, Jane", "Doe, Jane"),
        ("שלום 12-34", "12-34 םולש"),
        ("CT שלום MR", "CT םולש MR"),
        ("ID 7: שלום (כהן)", "ID 7: )ןהכ( םולש"),
        ("محمد 123", "123 دمحم"),
        ("", ""),
    ],
)
def test_known_cases(text: str, shown: str) -> None:
    assert seen(text) == shown


def test_values_that_are_isolated_keep_their_places() -> None:
    first, second = isolated("שלום"), isolated("כהן")
    assert seen(f"{first} · 12 · {second}") == "םולש · 12 · ןהכ"
    assert seen("שלום · 12 · כהן") != seen(f"{first} · 12 · {second}")


def test_text_of_one_direction_needs_no_isolation() -> None:
    assert isolated("Doe 12") == "Doe 12"
    assert (base_level("12 שלום"), base_level("12 abc שלום"), base_level(isolated("שלום") + " abc")) == (1, 0, 0)


@pytest.mark.parametrize(
    "odd", ["\u2068", "\u2069", "\u2068\u2068a\u2069", "a\u2069b", "\ufffc", "\u2068ש\u2069\u2069"]
)
def test_stray_marks(odd: str) -> None:
    assert len(seen(odd)) <= len(odd)


def test_as_another_implementation_has_it() -> None:
    bidi = pytest.importorskip("bidi")
    rng = random.Random(5)
    for _ in range(3000):
        text = "".join(rng.choice(POOL) for _ in range(rng.randint(1, 14)))
        for base, side in ((0, "L"), (1, "R")):
            assert seen(text, base) == bidi.get_display(text, base_dir=side), ascii(text)
