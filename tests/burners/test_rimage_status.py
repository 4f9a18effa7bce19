"""Rimage's documents: read without opening, expanding or holding anything that they ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burners.rimage_status import agent_status, order_status
from burners.rimage_xml import MAX_BYTES, XmlRefused, element, parse, render

STATUS = (
    b'<?xml version="1.0"?><!DOCTYPE ProductionOrderStatus SYSTEM "\\\\HOST\\Rimage\\XML\\x.dtd">'
    b'<ProductionOrderStatus OrderId="B12" ClientId="Burnish" OriginalOrder="..">'
    b'<Status State="IN_PROCESS" PercentCompleted="40" Stage="Recording" CurrentOperation="Recording disc 1"/>'
    b"</ProductionOrderStatus>"
)
AGENT = (
    b'<RimageAgent Version="1" Beat="17" Connected="true"><Bin Number="1" DiscsRemaining="45"/>'
    b'<Bin Number="2" Level="Low"/><Printer Number="1" Offline="true" RibbonPanelSetsRemaining="12"/>'
    b'<Recorder Number="1" State="Recording"/><Alert Message="Input bin empty"/></RimageAgent>'
)


def test_a_genuine_status_with_its_doctype() -> None:
    found = order_status(STATUS, "B12")
    assert found is not None
    assert (found.state, found.percent, found.stage, found.bad) == ("IN_PROCESS", 40, "Recording", None)
    assert order_status(STATUS, "B13") is None


def test_the_machine() -> None:
    found = agent_status(AGENT)
    assert found is not None
    assert (found.beat, found.connected, found.bins) == ("17", True, {"1": 45})
    assert found.alert == "Input bin empty; printer 1 is offline"
    assert found.printers == {"1": {"state": "offline", "ribbon": 12}}
    assert found.drives[0]["name"] == "recorder 1"


def test_an_unknown_word_is_no_state() -> None:
    assert getattr(order_status(STATUS.replace(b"IN_PROCESS", b"completed"), "B12"), "state", None) == ""
    assert order_status(STATUS.replace(b"</Prod", b'<Status State="COMPLETED"/></Prod'), "B12") is None


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><a>&b;</a>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:1/x">%x;]><a/>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a>&x;</a>',
        b"<!DOCTYPE a []><a/>",
        b"<a>&undeclared;</a>",
        b"<a>" * 1000,
        b"<a>" + b"<b/>" * 6000 + b"</a>",
        b"<a>" + b" " * MAX_BYTES + b"</a>",
        b'<?xml version="1.0" encoding="zork"?><a/>',
        b"",
        b"\x00\xff",
    ],
)
def test_documents_that_want_more_than_a_status(document: bytes) -> None:
    with pytest.raises(XmlRefused):
        parse(document)
    assert order_status(document, "B12") is None
    assert agent_status(document) is None


@given(st.binary(max_size=500))
def test_any_bytes_are_a_status_or_none(data: bytes) -> None:
    order_status(data, "B12")
    agent_status(data)


@given(st.integers(0, len(STATUS)))
def test_half_a_document_says_nothing(cut: int) -> None:
    assert order_status(STATUS[:cut], "B12") is None or cut == len(STATUS)


@given(st.text(), st.text())
def test_no_value_leaves_its_quotes(value: str, other: str) -> None:
    root = parse(render(element("Order", {"A": value, "B": other}, element("C", {"D": other}))).encode())
    assert (root.name, set(root.attributes), [child.name for child in root.children]) == ("Order", {"A", "B"}, ["C"])
    writable = "".join(each for each in value if each in "\t\n\r" or (each >= " " and each not in "\ufffe\uffff"))
    if not any("\ud800" <= each <= "\udfff" for each in writable):
        assert root.attributes["A"] == writable


def test_a_name_or_dtd_that_could_leave_its_place_is_refused() -> None:
    with pytest.raises(ValueError, match="name"):
        element('a b="c"')
    with pytest.raises(ValueError, match="DTD"):
        render(element("a"), dtd='x"><!ENTITY')
