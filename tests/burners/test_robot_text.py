"""Patient text is hostile: whatever stands in a name, an order has the same lines and fields as with a harmless one."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from burners import registry
from burners.hotfolder import HotFolder
from burners.hotfolder_dialect import StatusFolder
from burners.hotfolder_options import check
from burners.hotfolder_papers import Papers
from burners.hotfolder_text import clean, patient_text, render
from tests.burners.orders import order
from tests.burners.robots import ROBOTS
from tests.soak import size

FIELDS = ("patient_name", "patient_id", "study_description")
NASTY = "\n\r\t\0\x0b\x0c\x1a\x1c\x85\u2028\u2029\u202e\u200b,;=[]<>&\"'\\/%{}$\uff0c\uff1d\uff1c\uff02\ufeff\ud800"
TEXT = st.text(st.one_of(st.sampled_from(NASTY), st.characters()), max_size=40)
CODE_PAGES = ("cp1252", "cp932", "utf-8")
INJECTED = "Doe\r\nDATA=C:\\\r\n[CANCEL]\nDeleteFiles = YES\x85MergeField=x,y\u2028IMAGE=\\\\evil\\x"


def parts(name: str, folder: Path, label: dict[str, str], code_page: str) -> dict[str, str]:
    """All text that a robot gets of an order, as it will read it: by file."""
    kind: type[HotFolder] = registry.drivers()[name].load()
    options: dict[str, Any] = kind.example(folder) | {"label": r"C:\site.design", "code_page": code_page}
    if "merge" in kind.dialect.option_names:
        options["merge"] = list(FIELDS)
    checked, dialect = check(options, folder, kind.dialect)
    papers = Papers(checked, dialect)
    place = checked.images / "J"
    place.mkdir(parents=True, exist_ok=True)
    wanted = order(label=label)
    ticket = {"mark": "J", "volume_id": wanted.file_set_id, "family": "CD"}
    text, _note = papers.order(wanted, ticket, place)
    papers.put(folder / "order", text)
    found = {path.name: path.read_bytes() for path in (folder / "order", *place.iterdir())}
    return {
        name: data.decode("utf-8-sig" if data[:3] == b"\xef\xbb\xbf" else code_page) for name, data in found.items()
    }


def shape(text: str, *, keyed: bool) -> object:
    """What a parser makes of it, without the values."""
    if text.lstrip().startswith("<"):
        without = re.sub(r"<!DOCTYPE[^>]*>", "", text)
        return [(node.tag, sorted(node.attrib)) for node in ET.fromstring(without).iter()]
    lines = re.split(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text)
    return [(line.partition("=")[0] if keyed else "", line.count("\t")) for line in lines]


@pytest.mark.parametrize("name", ROBOTS)
@settings(max_examples=size(40, 800))
@given(values=st.tuples(TEXT, TEXT, TEXT), code_page=st.sampled_from(CODE_PAGES))
@example(values=(INJECTED, INJECTED, INJECTED), code_page="cp1252")
@example(values=("表,ソ\\", "\uff0cx\uff1dy", '"><Evil a="'), code_page="cp932")
def test_no_text_can_say_more_than_it_should(
    name: str, values: tuple[str, str, str], code_page: str, tmp_path: Path
) -> None:
    # Empty values may leave lines out; that is no injection.
    hostile = {key: f"x{value}x" for key, value in zip(FIELDS, values, strict=True)}
    harmless = dict.fromkeys(FIELDS, "x")
    got = parts(name, tmp_path, hostile, code_page)
    want = parts(name, tmp_path, harmless, code_page)
    assert sorted(got) == sorted(want)
    for file, text in want.items():
        keyed = "=" in text
        assert shape(got[file], keyed=keyed) == shape(text, keyed=keyed), file
        if "," in text and not text.lstrip().startswith("<"):  # fields between commas
            assert got[file].count(",") == text.count(","), file
    for text in got.values():
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text)


@given(value=TEXT, forbidden=st.sampled_from(["", ",", ',"', "=;"]), code_page=st.sampled_from(CODE_PAGES))
def test_patient_text_is_one_plain_line_that_can_be_written(value: str, forbidden: str, code_page: str) -> None:
    text, _replaced = patient_text(value, code_page, forbidden=forbidden)
    text.encode(code_page)
    assert text == text.strip() and len(text.splitlines()) <= 1 and len(text) <= 200
    assert not set(text) & set(forbidden)
    assert clean(text, forbidden=forbidden) == text


@given(value=TEXT)
def test_a_template_never_gets_a_line_from_a_value(value: str) -> None:
    try:
        text = render("A={a}\nB={b}\nC\n", {"a": value, "b": "2"})
    except ValueError:
        assert clean(value) != value
        return
    assert len(text.splitlines()) in (2, 3) and text.endswith("B=2\nC\n")


@pytest.mark.parametrize("name", ROBOTS)
@settings(max_examples=size(30, 600))
@given(data=st.binary(max_size=400), suffix=st.sampled_from([".DON", ".INP", ".DONE", ".XYZ", ""]))
def test_rubbish_in_a_status_is_never_a_good_disc(name: str, data: bytes, suffix: str, tmp_path: Path) -> None:
    kind: type[HotFolder] = registry.drivers()[name].load()
    checked, dialect = check(kind.example(tmp_path), tmp_path, kind.dialect)
    suffixes = frozenset((suffix,) if suffix else ())
    blank = StatusFolder(tmp_path, code_page=checked.code_page)
    alone = dialect.judge("J", suffixes, dialect.status(blank)).state
    for path in ("TDBStatus.txt", "Status/SystemStatus.txt", "Status/Robot0.txt", "status/J.xml", "status/server.xml"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    status = dialect.status(StatusFolder(tmp_path, code_page=checked.code_page))
    found = dialect.judge("J", suffixes, status).state
    assert found != "GOOD" or alone == "GOOD"  # a make without any status has nothing but the file's name
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()
