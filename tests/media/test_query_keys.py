"""What is kept of an instance for queries alone: never a reason to refuse it, never in a directory."""

from __future__ import annotations

from media.attributes import parse
from media.encoding import EXPLICIT_LE, encode, encode_item
from media.records import QUERY_KEYS, TYPES
from tests.media.test_header import UIDS, element, header_of

_PROCEDURE_CODES, _REQUESTS = 0x00081032, 0x00400275


def test_only_what_can_be_asked_for_is_kept_of_a_sequence() -> None:
    item = encode(0x00080100, b"SH", b"C1") + encode(0x00080104, b"LO", b"Chest") + encode(0x0008010B, b"CS", b"N")
    keys = parse(header_of(UIDS + element(_PROCEDURE_CODES, b"SQ", encode_item(item) * 2)).directory_keys, EXPLICIT_LE)
    items = keys[_PROCEDURE_CODES].value
    assert isinstance(items, tuple) and len(items) == 2
    assert {tag: attribute.value for tag, attribute in items[0].items()} == {0x00080100: "C1", 0x00080104: "Chest"}


def test_a_malformed_one_refuses_nothing() -> None:
    for tag in (_PROCEDURE_CODES, _REQUESTS):
        header = header_of(UIDS + element(tag, b"SQ", b"\x01\x02\x03\x04\x05\x06\x07\x08"))
        assert tag not in parse(header.directory_keys, EXPLICIT_LE)


def test_they_are_no_keys_of_records() -> None:
    records = {key.tag for row in TYPES.values() for key in row.keys}
    assert {_PROCEDURE_CODES, _REQUESTS} & {key.tag for key in QUERY_KEYS} == {_PROCEDURE_CODES, _REQUESTS}
    assert not {_PROCEDURE_CODES, _REQUESTS} & records
