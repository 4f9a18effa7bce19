"""Makers of disc files and images for the tests of this folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from media.encoding import encode
from media.iso9660 import IsoImage
from media.items import DiscFile, Header, Item, Supplied

CREATED = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def disc_file(path: str, data: bytes) -> DiscFile:
    return DiscFile(tuple(path.split("/")), len(data), hashlib.sha256(data).hexdigest(), data)


def disc_file_from(path: str, source: Path) -> DiscFile:
    data = source.read_bytes()
    return DiscFile(tuple(path.split("/")), len(data), hashlib.sha256(data).hexdigest(), source)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def image_of(files: Mapping[str, bytes] | Iterable[DiscFile], volume_id: str = "DISC_0001") -> IsoImage:
    if isinstance(files, Mapping):
        files = [disc_file(path, data) for path, data in files.items()]
    return IsoImage(tuple(files), volume_id, CREATED)


def written(image: IsoImage) -> bytes:
    out = io.BytesIO()
    image.write(out)
    return out.getvalue()


def contents(seed: int, instances: int, *, per_series: int = 60) -> dict[str, bytes]:
    """Files as on a disc of ours: awkward sizes, several directories of more than one sector."""
    files = {"DICOMDIR": b"\x00" * 128 + b"DICM", "README.TXT": b"Read me.\r\n" * seed, "MANIFEST.TXT": b""}
    for number in range(instances):
        series, instance = divmod(number, per_series)
        size = (seed * 7919 + number * 2047) % 9000
        name = f"DICOM/P0000001/ST000001/SE{series + 1:06}/IM{instance + 1:06}"
        files[name] = hashlib.sha256(f"{seed} {number}".encode()).digest() * (size // 32) + b"x" * (size % 32)
    return files


def keys(**values: str) -> bytes:
    """Directory keys by keyword, sorted by tag."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    pairs = sorted((tag_for_keyword(keyword) or 0, keyword) for keyword in values)
    return b"".join(
        encode(tag, dictionary_VR(keyword).encode(), values[keyword].encode("utf-8")) for tag, keyword in pairs
    )


def entry(
    number: int,
    *,
    patient: int = 1,
    study: int = 1,
    series: int = 1,
    size: int = 1000,
    patient_id: str | None = None,
    name: str = "Doe^John",
    description: str = "CT Abdomen",
    record_type: str = "IMAGE",
    supplied: tuple[Supplied, ...] = (),
    source: Path = Path("absent"),
    sha256: str = "a" * 64,
) -> tuple[Item, Header]:
    """An instance that needs no file unless an image of it is written."""
    patient_id = f"ID{patient}" if patient_id is None else patient_id
    study_uid, series_uid, uid = f"1.2.{patient}.{study}", f"1.2.{patient}.{study}.{series}", f"1.2.3.{number}"
    header = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        patient_name=name,
        patient_birth_date="19700131",
        study_date=f"202401{study % 28 + 1:02}",
        study_description=description,
        modality="CT",
        series_number=series,
        instance_number=number,
    )
    item = Item(
        key=number,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        study_instance_uid=study_uid,
        series_instance_uid=series_uid,
        patient=patient,
        patient_id=patient_id,
        record_type=record_type,
        directory_keys=keys(
            SpecificCharacterSet="ISO_IR 192",
            PatientName=name,
            PatientID=patient_id,
            StudyDate=header.study_date,
            StudyTime="120000",
            StudyDescription=description,
            StudyInstanceUID=study_uid,
            StudyID="1",
            AccessionNumber="",
            Modality="CT",
            SeriesInstanceUID=series_uid,
            SeriesNumber=str(series),
            InstanceNumber=str(number),
        ),
        source=source,
        size=size,
        sha256=sha256,
        supplied=supplied,
    )
    return item, header
