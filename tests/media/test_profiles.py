"""Every row of config/profiles.toml, and which profile goes with which medium."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest

from media.profile_keys import key_sets
from media.profiles import ProfileError, check_pair, profile, profiles, profiles_for
from media.records import record_type
from media.syntaxes import transfer_syntaxes

MEDIA = tomllib.loads(resources.files("config").joinpath("mediatypes.toml").read_text("utf-8"))
EXPLICIT = "1.2.840.10008.1.2.1"
XA, US = "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.6.1"
CT, SC = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
CODECS = ("JPEG", "J2K")
CD, DVD = ("CD-R-74", "CD-R-80"), ("DVD-R", "DVD+R", "DVD-R-DL", "DVD+R-DL")
BD = ("BD-25", "BD-50", "BD-100", "BD-128")


@pytest.mark.parametrize("identifier", list(profiles()))
def test_row_is_complete_and_refers_to_what_exists(identifier: str) -> None:
    row = profiles()[identifier]
    assert row.identifier == identifier
    assert row.identifier.startswith(("STD-", "AUG-"))
    assert set(row.media) <= set(MEDIA)
    assert row.default_medium in row.media or (row.status == "coming" and not row.media)
    assert (row.status, bool(row.reason)) in (("ready", False), ("coming", True))
    assert row.status == "coming" or not row.security, "a profile that demands security is not written plainly"
    assert row.writes and set(row.writes) <= set(row.reads), "a creator writes only what readers read"
    assert set(row.reads) <= set(transfer_syntaxes())
    assert set(row.by_class) <= (row.sop_classes or set(row.by_class))
    for syntaxes in row.by_class.values():
        assert syntaxes and set(syntaxes) <= set(transfer_syntaxes())
    assert all(record_type(uid) for uid in row.sop_classes), "each has a directory record"
    assert row.directory_keys in key_sets()
    assert "FSC" in row.roles and set(row.roles) <= {"FSC", "FSR", "FSU"}
    assert set(row.clauses) == {"identification", "syntaxes", "medium", "directory"}
    assert all(clause.startswith(f"{row.annex}.") for clause in row.clauses.values())


def test_the_identifiers_are_those_of_ps3_11() -> None:
    """Annex C's class, use and medium written out; the others as the annexes list them, and two augmented ones."""
    cards = ("USB", "MMC", "CF", "SD")
    video = ("MPEG2-MPML", "MPEG2-MPHL", "MPEG4-HPLV41", "MPEG4-HPLV41BD")
    video = (*video, "MPEG4-HPLV42-2D", "MPEG4-HPLV42-3D", "MPEG4-SHPLV42")
    general = ["CD", "DVD-RAM", "BD", *(f"{medium}-{codec}" for medium in ("DVD", *cards, "BD") for codec in CODECS)]
    general += [f"BD-{codec}" for codec in video]
    expected = {f"STD-GEN-{one}" for one in general} | {f"STD-GEN-SEC-{one}" for one in general}
    expected |= {"STD-XABC-CD", "STD-XA1K-CD", "STD-XA1K-DVD", "STD-DEN-CD"}
    expected |= {f"STD-CTMR-{one}" for one in ("MOD41", "CD", "DVD-RAM", "DVD")}
    expected |= {"STD-DVD-MPEG2-MPML", "STD-DVD-SEC-MPEG2-MPML", "STD-GEN-MIME"}
    expected |= {"STD-GEN-ZIP-MAIL", "STD-GEN-SEC-ZIP-MAIL", "STD-DTL-SEC-ZIP-MAIL"}
    expected |= {
        f"STD-US-{use}-{frames}-{medium}"
        for use in ("ID", "SC", "CC")
        for frames in ("SF", "MF")
        for medium in ("MOD23-90", "CDR", "DVD-RAM", "DVD")
    }
    expected |= {"AUG-GEN-DRS-CD", "AUG-GEN-DRS-DVD-RAM"}
    assert set(profiles()) == expected
    coming = {name for name, row in profiles().items() if row.status == "coming"}
    assert coming == {name for name in expected if "-SEC-" in name or "MAIL" in name or "MIME" in name}


def test_media_of_the_classes() -> None:
    media = {
        "STD-XA1K-DVD": DVD,
        "STD-US-CC-MF-DVD": DVD,
        "STD-DVD-MPEG2-MPML": DVD,
        "STD-US-ID-SF-CDR": CD,
        "STD-US-SC-MF-MOD23-90": ("MOD-2.3GB",),
        "STD-CTMR-MOD41": ("MOD-4.1GB",),
        "STD-CTMR-DVD-RAM": ("DVD-RAM",),
        "STD-GEN-BD-MPEG4-SHPLV42": BD,
        "STD-GEN-SD-J2K": ("SD",),
        "AUG-GEN-DRS-CD": CD,
    }
    assert {name: profile(name).media for name in media} == media


@pytest.mark.parametrize("identifier", [name for name, row in profiles().items() if row.status == "coming"])
def test_what_is_coming_is_refused_with_the_reason(identifier: str) -> None:
    row = profile(identifier)
    with pytest.raises(ProfileError, match="is not written yet"):
        check_pair(identifier, row.default_medium or "CD-R-80")


@pytest.mark.parametrize(
    ("identifier", "sop_class", "writes", "holds"),
    [
        ("STD-XABC-CD", XA, [".70"], [".70"]),
        ("STD-XA1K-CD", XA, [".70"], [".70"]),
        ("STD-XA1K-CD", SC, [EXPLICIT], [EXPLICIT]),
        ("STD-XA1K-DVD", XA, [".70", ".50", ".51"], [".70", ".50", ".51"]),
        ("STD-US-ID-SF-CDR", US, [EXPLICIT], [EXPLICIT, "1.2.840.10008.1.2.5", ".50"]),
        ("STD-CTMR-CD", CT, [EXPLICIT], [EXPLICIT, ".70"]),
        ("STD-DEN-CD", "1.2.840.10008.5.1.4.1.1.1.3", [EXPLICIT], [EXPLICIT]),
        ("STD-GEN-BD-MPEG4-HPLV41", "1.2.840.10008.5.1.4.1.1.77.1.1.1", [".102"], [".102"]),
        ("AUG-GEN-DRS-CD", "1.2.840.10008.5.1.4.1.1.104.1", [EXPLICIT], [EXPLICIT]),
    ],
)
def test_syntaxes_by_class(identifier: str, sop_class: str, writes: list[str], holds: list[str]) -> None:
    row = profile(identifier)
    full = {short: f"1.2.840.10008.1.2.4{short}" if short[0] == "." else short for short in {*writes, *holds}}
    assert row.may_write(sop_class) == tuple(full[one] for one in writes)
    assert row.may_hold(sop_class) == tuple(full[one] for one in holds)


def test_other_classes_are_refused_with_the_clause() -> None:
    assert profile("STD-GEN-CD").class_violation(CT) is None
    for identifier, clause in (("STD-XABC-CD", "A.3.1"), ("STD-US-ID-SF-DVD", "C.3.1"), ("STD-DEN-CD", "K.3.1")):
        found = profile(identifier).class_violation(CT)
        assert found is not None and CT in found and f"PS3.11 {clause}" in found
    multi_frame = "1.2.840.10008.5.1.4.1.1.3.1"
    assert profile("STD-US-SC-SF-CDR").class_violation(multi_frame) is not None
    assert profile("STD-US-SC-MF-CDR").class_violation(multi_frame) is None


def test_dvd_jpeg_readers_read_what_table_h_3_1_says() -> None:
    assert set(profile("STD-GEN-DVD-JPEG").reads) == {
        EXPLICIT,
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.70",
    }


@pytest.mark.parametrize(
    ("identifier", "medium"),
    [(name, medium) for name, row in profiles().items() if row.status == "ready" for medium in row.media],
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
    for row in (profile(identifier), *(one for one in profiles_for(medium) if one.status == "ready")):
        assert f"{row.identifier} with {', '.join(row.media)}" in str(caught.value)
    assert medium in str(caught.value) and "PS3.11" in str(caught.value)


def test_an_unknown_profile_is_told_with_those_like_it() -> None:
    with pytest.raises(ProfileError, match=r"'STD-GEN-DVD'; like it are STD-GEN-.*`burnish profiles`"):
        profile("STD-GEN-DVD")
    with pytest.raises(ProfileError, match="no application profile 'tape'; `burnish profiles` lists all"):
        profile("tape")


def test_violations_name_the_clause() -> None:
    row = profile("STD-GEN-CD")
    assert row.violations("1.2.840.10008.5.1.4.1.1.2", EXPLICIT) == ()
    (words,) = row.violations("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.70")
    assert "1.2.840.10008.1.2.4.70" in words and "PS3.11 D.3.1" in words
    assert profile("STD-GEN-DVD-JPEG").violations("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.70") == ()
    assert len(row.violations("1.2.840.10008.1.3.10", "")) == 2
