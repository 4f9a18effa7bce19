"""A planned volume becomes a file-set: every file of the disc, in disc order, and the image of them.

Nothing is copied: the instances stay where they are and are read when the image is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from media import dicomdir, manifest, readme, setcatalogue, signing
from media.fileids import FileIds
from media.iso9660 import IsoImage
from media.items import DiscFile, Item, Supplied
from media.problems import MediaError
from media.profile_keys import KeySet
from media.readme import DiscText
from media.signing import Seal
from media.sizing import SetSizing, Sizing
from media.volumes import VolumePlan

DICOMDIR = "DICOMDIR"


@dataclass(frozen=True, slots=True)
class FileSet:
    """A complete file-set. Equal arguments to ``build`` give an equal one, to the byte."""

    file_set_id: str
    file_set_uid: str
    files: tuple[DiscFile, ...]
    """DICOMDIR, README.TXT, VOLUMES.TXT where there is one, MANIFEST.TXT, where it is signed MANIFEST.SIG, SITEKEY.PEM
    and VERIFY.TXT, then the instances in the order of the directory records."""
    instances: tuple[tuple[Item, DiscFile], ...]
    image: IsoImage
    signature: bytes = b""
    """Of MANIFEST.TXT."""


def sizing(
    text: DiscText,
    *,
    file_set_id_length: int,
    keys: KeySet | None = None,
    signed: bool = False,
    set_catalogue: SetSizing | None = None,
) -> Sizing:
    """What ``volumes.pack`` needs so that it counts what ``build`` will build. File-set IDs of one length, please."""
    return Sizing(
        partial(dicomdir.record_sizes, keys=keys),
        dicomdir.header_size("X" * file_set_id_length),
        text,
        unlisted=((signing.SIGNATURE_FILE, signing.SIGNATURE_BYTES),) if signed else (),
        listed=(
            ((signing.KEY_FILE, signing.PUBLIC_KEY_BYTES), (signing.HELP_FILE, len(signing.help_bytes())))
            if signed
            else ()
        ),
        set_catalogue=set_catalogue,
    )


def build(
    volume: VolumePlan,
    *,
    text: DiscText,
    file_set_id: str,
    file_set_uid: str,
    created: datetime,
    keys: KeySet | None = None,
    seal: Seal | None = None,
) -> FileSet:
    """The file-set of a volume. ``created``: UTC, from the plan, stands in README.TXT and in every date of the image.

    Raises MediaError when the image would not have exactly the size that was planned.
    """
    file_ids = FileIds()
    return assemble(
        [(item, file_ids.allocate(item)) for item in volume.items],
        overview=overview(volume, text=text, file_set_id=file_set_id, created=created),
        file_set_id=file_set_id,
        file_set_uid=file_set_uid,
        created=created,
        sectors=volume.sectors,
        keys=keys,
        seal=seal,
    )


def overview(volume: VolumePlan, *, text: DiscText, file_set_id: str, created: datetime) -> bytes:
    """README.TXT of a volume."""
    return readme.readme_bytes(
        text,
        created=created,
        file_set_id=file_set_id,
        number=volume.number,
        of=volume.of,
        contents=[
            (patient.content.facts, [(study.content.facts, study.instances) for study in patient.studies])
            for patient in volume.patients
        ],
        keys_supplied=any(item.supplied for item in volume.items),
    )


def assemble(
    items: Sequence[tuple[Item, tuple[str, ...]]],
    *,
    overview: bytes,
    file_set_id: str,
    file_set_uid: str,
    created: datetime,
    sectors: int,
    keys: KeySet | None = None,
    seal: Seal | None = None,
    set_catalogue: bytes | None = None,
) -> FileSet:
    """The file-set of instances whose File IDs and README.TXT were kept with a plan; ``sectors`` as planned.

    ``keys``: the directory keys that the profile adds (None: those that any profile does), as in ``sizing``. ``seal``:
    what signs the manifest; None: it is not signed. ``set_catalogue``: VOLUMES.TXT; None: there is none.

    Raises MediaError when the image would not have exactly that size, or the seal does not fit.
    """
    instances = tuple((item, DiscFile(file_id, item.size, item.sha256, item.source)) for item, file_id in items)
    directory = _generated(DICOMDIR, dicomdir.dicomdir_bytes(file_set_id, file_set_uid, items, keys=keys))
    about = _generated(readme.FILE_NAME, overview)
    means = _means(seal) if seal else ()
    about_set = (_generated(setcatalogue.FILE_NAME, set_catalogue),) if set_catalogue is not None else ()
    listed = (directory, about, *about_set, *means, *(file for _, file in instances))
    lines = manifest.manifest_bytes(listed, _supplied(instances))
    signature = seal.sign(lines) if seal else b""
    signed = (_generated(signing.SIGNATURE_FILE, signature), *means) if seal else ()
    sums = _generated(manifest.FILE_NAME, lines)
    files = (directory, about, *about_set, sums, *signed, *(file for _, file in instances))
    image = IsoImage(files, file_set_id, created)
    if image.sectors != sectors:
        raise MediaError(f"{file_set_id} was planned with {sectors} sectors and came out with {image.sectors}.")
    return FileSet(file_set_id, file_set_uid, files, instances, image, signature)


def _means(seal: Seal) -> tuple[DiscFile, DiscFile]:
    """What a stranger needs to check the signature."""
    return _generated(signing.KEY_FILE, seal.public_key), _generated(signing.HELP_FILE, signing.help_bytes())


def _generated(name: str, data: bytes) -> DiscFile:
    return DiscFile((name,), len(data), hashlib.sha256(data).hexdigest(), data)


def _supplied(instances: tuple[tuple[Item, DiscFile], ...]) -> Iterator[tuple[str, Supplied]]:
    for item, file in instances:
        for key in item.supplied:
            yield file.path, key
