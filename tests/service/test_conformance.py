"""The conformance statement against what the code does: it says no more than is true, and nothing is left out."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from config.settings import load
from media.encoders import encoders, lossy_encoders
from media.profiles import profiles
from media.records import TYPES
from media.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp.identifier import FIND, GET, MOVE, sop_classes
from scp.statuses import QUERY_ANSWERS, TABLE
from scp.storage import storage_classes, transfer_syntaxes
from service.cli import app
from service.conformance import shipped, statement
from store.query_keys import KEYS

TEXT = statement(shipped())


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table behind a text."""
    behind = TEXT.partition(heading)[2]
    assert behind
    found = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n?)*)", behind, re.MULTILINE)
    assert found
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]


def test_every_sop_class_and_transfer_syntax_that_is_accepted() -> None:
    assert {row[1] for row in rows("Table 4.2-1.")} == storage_classes()
    assert {row[1] for row in rows("Table 4.2-2.")} == transfer_syntaxes()
    assert not [row for row in rows("Table 4.2-1.") if row[0].startswith("1.2.840")]
    encoded = {row[1] for row in rows("Table 4.2-2.") if row[3].startswith("yes")}
    made = {encoder.syntax for encoder in (*encoders().values(), *lossy_encoders())}
    assert encoded == made | {"1.2.840.10008.1.2.1"}


def test_every_status() -> None:
    said = {row[0].strip("| ") for row in rows("#### 4.2.3")}
    assert said == {f"{answer.status:04X}H" for answer in TABLE.values()} | {"0000H", "0110H"}


def test_query_retrieve() -> None:
    assert {row[1] for row in rows("#### 4.2.6")} == sop_classes(FIND, MOVE, GET)
    assert {(row[0].strip("| "), row[1]) for row in rows("Table 4.2-6.")} == {
        (key.level, key.keyword) for key in KEYS.values()
    }
    said = {(row[0].strip("| "), row[1]) for row in rows("Table 4.2-7.")}
    assert said == {
        (service, f"{answer.status:04X}H") for service, answers in QUERY_ANSWERS.items() for answer in answers
    }


def test_every_profile_with_its_roles() -> None:
    said = {row[0].strip("|` "): row for row in rows("#### 5.2.2")}
    assert said.keys() == profiles().keys()
    for identifier, profile in profiles().items():
        ready = profile.status == "ready"
        assert [cell == "yes" for cell in said[identifier][2:5]] == [
            ready and role in profile.roles for role in ("FSC", "FSR", "FSU")
        ]
        assert (re.search(rf"^##### .*\b{identifier}(,|$)", TEXT, re.MULTILINE) is not None) == ready


def test_every_type_1_key_of_the_directory() -> None:
    said = {(row[0].strip("| "), row[1]) for row in rows("#### 5.3.1") if row[3] == "1"}
    assert said == {
        (name, key.keyword) for name, row in TYPES.items() if name != "PRIVATE" for key in row.keys if key.type == "1"
    }


@pytest.mark.parametrize("text", [IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME])
def test_what_it_must_name(text: str) -> None:
    assert text in TEXT


def test_it_is_plain_markdown() -> None:
    widths = [
        {line.count(" | ") for line in block.splitlines() if not line.startswith("|--")}
        for block in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE)
    ]
    assert len(widths) > 10
    assert all(len(width) == 1 for width in widths)
    assert not re.search(r"[ \t]$|\n{3}|\bNone\b(?! )", TEXT, re.MULTILINE)


def test_the_one_of_a_site_has_its_settings() -> None:
    settings = load(
        overrides={"dicom": {"ae_title": "SITE1", "calling_ae_titles": ["CT1"], "private_sop_classes": ["1.2.3.4"]}}
    )
    text = statement(settings.model_dump(), site=True)
    assert "| AE title | SITE1 |" in text
    assert "| Calling AE titles accepted | CT1 |" in text
    assert "Private storage SOP classes that are accepted, too: 1.2.3.4." in text
    assert "do not edit" not in text


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_DICOM__AE_TITLE", "SITE2")
    done = CliRunner().invoke(app, ["conformance"])
    assert done.exit_code == 0
    assert done.stdout.startswith("# DICOM Conformance Statement: Burnish ")
    assert "| AE title | SITE2 |" in done.stdout
