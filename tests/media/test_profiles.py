"""Every row of config/profiles.toml, and which profile goes with which medium."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest

from media.codecs import transfer_syntaxes
from media.profiles import ProfileError, check_pair, profile, profiles, profiles_for

MEDIA = tomllib.loads(resources.files("config").joinpath("mediatypes.toml").read_text("utf-8"))
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("identifier", list(profiles()))
def test_row_is_complete_and_refers_to_what_exists(identifier: str) -> None:
    row = profiles()[identifier]
    assert row.identifier == identifier
    assert row.identifier.startswith("STD-")
    assert row.media and set(row.media) <= set(MEDIA)
    assert row.writes and set(row.writes) <= set(row.reads), "a creator writes only what readers read"
    assert set(row.reads) <= set(transfer_syntaxes())
    assert row.writes[0] == EXPLICIT and EXPLICIT in row.reads
    assert row.sop_classes == "composite"
    assert "FSC" in row.roles and set(row.roles) <= {"FSC", "FSR", "FSU"}
    assert set(row.clauses) == {"identification", "syntaxes", "medium", "directory"}
    assert all(clause.startswith(f"{row.annex}.") for clause in row.clauses.values())


def test_the_profiles_and_their_media() -> None:
    dvd, bd = ("DVD-R", "DVD+R", "DVD-R-DL", "DVD+R-DL"), ("BD-25", "BD-50", "BD-100", "BD-128")
    assert {name: row.media for name, row in profiles().items()} == {
        "STD-GEN-CD": ("CD-R-74", "CD-R-80"),
        "STD-GEN-BD": bd,
        "STD-GEN-DVD-RAM": ("DVD-RAM",),
        **{f"STD-GEN-DVD-{codec}": dvd for codec in ("JPEG", "J2K")},
        **{f"STD-GEN-{card}-{codec}": (card,) for card in ("USB", "MMC", "CF", "SD") for codec in ("JPEG", "J2K")},
        **{f"STD-GEN-BD-{codec}": bd for codec in ("JPEG", "J2K")},
    }


def test_dvd_jpeg_readers_read_what_table_h_3_1_says() -> None:
    assert set(profile("STD-GEN-DVD-JPEG").reads) == {
        EXPLICIT,
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.70",
    }


@pytest.mark.parametrize(
    ("identifier", "medium"), [(name, medium) for name, row in profiles().items() for medium in row.media]
)
def test_allowed_pairs(identifier: str, medium: str) -> None:
    assert check_pair(identifier, medium).identifier == identifier
    assert check_pair(identifier.lower(), medium).identifier == identifier
    assert identifier in [row.identifier for row in profiles_for(medium)]


@pytest.mark.parametrize(
    ("identifier", "medium"),
    [("STD-GEN-CD", "DVD-R"), ("STD-GEN-CD", "BD-25"), ("STD-GEN-BD", "CD-R-80"), ("STD-GEN-DVD-JPEG", "DVD-RAM")],
)
def test_other_pairs_are_refused_with_the_allowed_ones(identifier: str, medium: str) -> None:
    with pytest.raises(ProfileError) as caught:
        check_pair(identifier, medium)
    for row in (profile(identifier), *profiles_for(medium)):
        assert f"{row.identifier} with {', '.join(row.media)}" in str(caught.value)
    assert medium in str(caught.value) and "PS3.11" in str(caught.value)


def test_unknown_profile_lists_the_known() -> None:
    with pytest.raises(ProfileError, match="STD-GEN-CD, STD-GEN-BD, STD-GEN-DVD-JPEG"):
        profile("STD-GEN-TAPE")


def test_violations_name_the_clause() -> None:
    row = profile("STD-GEN-CD")
    assert row.violations("1.2.840.10008.5.1.4.1.1.2", EXPLICIT) == ()
    (words,) = row.violations("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.70")
    assert "1.2.840.10008.1.2.4.70" in words and "PS3.11 D.3.1" in words
    assert profile("STD-GEN-DVD-JPEG").violations("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.70") == ()
    assert len(row.violations("1.2.840.10008.1.3.10", "")) == 2
