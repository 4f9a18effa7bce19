"""Helpers of the directory tests: items as the store would make them of instances."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset

from media import records
from media.fileids import FileIds
from media.header import read_header
from media.items import Header, Item
from tests.makers import Made

EXPLICIT_LE = "1.2.840.10008.1.2.1"


def header_of(data: bytes, transfer_syntax_uid: str = EXPLICIT_LE, *, offset: int = 0) -> Header:
    """``read_header`` of an encoded data set."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_header(Path(file.name), offset=offset, transfer_syntax_uid=transfer_syntax_uid)


def header_of_made(made: Made) -> Header:
    return header_of(made.encoded, made.transfer_syntax_uid)


def keys_of(header: Header) -> Dataset:
    """``directory_keys`` as pydicom reads them."""
    return read_dataset(BytesIO(header.directory_keys), is_implicit_VR=False, is_little_endian=True)


def numbers(n: int) -> records.Numbers:
    return records.Numbers(f"NOID_{n}", f"S{n}", str(n), str(n))


def item_of(header: Header, key: int = 1, *, source: Path = Path("x"), record_type: str | None = None) -> Item:
    """The item that the planner would make, with whatever must be supplied."""
    kind = record_type or records.record_type(header.sop_class_uid)
    assert kind is not None
    return Item(
        key=key,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT_LE,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        patient=(header.patient_id, header.patient_name),
        patient_id=header.patient_id,
        record_type=kind,
        directory_keys=header.directory_keys,
        source=source,
        size=0,
        sha256="0" * 64,
        supplied=records.supply(header, kind, numbers(key)),
    )


def named(items: Iterable[Item]) -> list[tuple[Item, tuple[str, ...]]]:
    ids = FileIds()
    return [(item, ids.allocate(item)) for item in items]


def encoded(dataset: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    from pydicom.filewriter import write_dataset

    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = little, implicit
    write_dataset(out, dataset)
    return bytes(out.parent.getvalue())
