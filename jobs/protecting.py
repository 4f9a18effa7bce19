"""Error-correction data in plans: what it takes of a medium, where it cannot be had, and the image that carries it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from burners.registry import families
from jobs.context import Context
from jobs.options import RequestOptions
from media import dvdisaster, ecc
from media.ecc import Layout
from media.mediatypes import MediaType
from media.problems import MediaError
from media.protection import ProtectedImage, forget
from store.models_jobs import Disc, Volume
from store.states import DISC_FINAL

if TYPE_CHECKING:
    from config.settings import Settings
    from media.iso9660 import IsoImage

NONE = "none"
_FOLDER = "FOLDER"


class ProtectionRefused(MediaError):
    """Error-correction data cannot be had as asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What a request wants of error-correction data, settled for its medium."""

    method: str
    percent: float
    capacity_sectors: int
    """Sectors of a volume with its correction data."""
    iso_sectors: int
    """Sectors that its file system may have at most."""

    def layout(self, iso_sectors: int) -> Layout:
        """Of a volume. Raises MediaError where it leaves less redundancy than is asked for."""
        return ecc.layout(self.method, iso_sectors, self.percent)

    @property
    def note(self) -> str:
        """For README.TXT: what to do when the disc is damaged."""
        return (
            f"This disc has error-correction data ({self.method.upper()} of the free program dvdisaster, at least "
            f"{self.percent:g} % redundancy) behind its file system. If files cannot be read, read the whole disc "
            "into an image file with that program and let it repair the image."
        )

    def as_json(self) -> dict[str, object]:
        return {"method": self.method, "percent": self.percent}


def protection_of(options: RequestOptions, medium: MediaType, settings: Settings, usable: int) -> Protection | None:
    """What a request wants; None: no error-correction data. ``usable``: sectors of the medium less the reserve.

    Raises ProtectionRefused where the program is not installed, the medium or burner takes files and no images, or
    nothing would be left of the medium.
    """
    if options.protect == NONE:
        return None
    method = options.protect
    if medium.family == _FOLDER:
        raise ProtectionRefused(
            f"{medium.name} takes files, not an image, and error-correction data lies behind the file system of an "
            "image: plan for it without (--protect none)"
        )
    section = settings.burners.get(options.burner)
    if section is not None and not takes_images(families(section.driver)):
        raise ProtectionRefused(unsuitable(options.burner))
    try:
        dvdisaster.require()
        # RS03 fills its medium to the end, so there is no reserve to keep.
        full = options.capacity_sectors or (medium.sectors if method == ecc.RS03 else usable)
        room = ecc.room(method, full, options.protect_percent)
    except MediaError as error:
        raise ProtectionRefused(str(error)) from error
    if room < 1:
        least = ecc.RS03_MEDIA[0] // 255 * 255 if method == ecc.RS03 else 1
        raise ProtectionRefused(
            f"{method.upper()} needs a medium of at least {least} sectors; there are {full} (RS02 takes any size)"
        )
    return Protection(method, options.protect_percent, full, room)


def takes_images(made: frozenset[str]) -> bool:
    """Whether a driver of these families of media takes images at all."""
    return made != frozenset((_FOLDER,))


def unsuitable(burner: str) -> str:
    """Why a burner cannot make a protected volume."""
    return (
        f"burner {burner} writes files, not an image, so it cannot hold error-correction data; use another burner, or "
        "plan without (--protect none)"
    )


def layout_of(volume: Volume) -> Layout | None:
    """The layout that a volume was planned with; None: it has no error-correction data."""
    if not volume.protection or volume.iso_sectors is None or volume.protection_roots is None:
        return None
    return Layout(volume.protection, volume.iso_sectors, volume.protection_roots, volume.sectors)


def protection_document(volume: Volume) -> dict[str, object]:
    """For the documents of plans and jobs; empty where there is none."""
    layout = layout_of(volume)
    if layout is None:
        return {}
    return {
        "protection": layout.method,
        "redundancy": round(layout.redundancy, 1),
        "iso_sectors": layout.iso_sectors,
    }


def protected(ctx: Context, volume: Volume, image: IsoImage, layout: Layout) -> ProtectedImage:
    """The image of a volume with its error-correction data; made when it is first written."""
    return ProtectedImage(image, layout, staging_of(ctx), f"{volume.file_set_id}-V{volume.id}")


def staging_of(ctx: Context) -> Path:
    return ctx.settings.data / ctx.settings.spool.staging


def tidy(ctx: Context) -> None:
    """Remove staged images that no disc needs any more."""
    if not staging_of(ctx).is_dir():
        return
    with ctx.db.read() as session:
        needed = set(
            session.scalars(
                select(Disc.volume_id)
                .join(Volume, Volume.id == Disc.volume_id)
                .where(Disc.state.not_in(DISC_FINAL), Volume.protection.is_not(None))
            )
        )

    def keep(key: str) -> bool:
        found = re.search(r"-V(\d+)$", key)
        return found is not None and int(found[1]) in needed

    forget(staging_of(ctx), keep)
