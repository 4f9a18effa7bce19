"""Another copy of a volume: from the spool where all of it is there, else from another disc, image or folder of it.

The new disc is equal to the others, byte by byte: the image must have the digest that the volume's first image had. An
image that is there is copied as it is. From a drive or folder, from a damaged image, and for a burner that takes files,
what the spool lacks is read back file by file, each against its digest, and the image is made from the spool anew; what
one source does not give is taken from the next.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burners.base import ImageSource
from burners.registry import families
from config.worded import Worded
from jobs import restoring
from jobs.conforming import is_whole
from jobs.context import Context
from jobs.iconing import restore as restore_icons
from jobs.iconing import unpinned
from jobs.options import PRIORITIES, OptionsError
from jobs.protecting import staging_of, takes_images
from jobs.restoring import Wanted
from media.copied import CopiedImage
from media.problems import MediaError
from media.recognise import NOTHING, recognise
from media.trees import open_tree
from store import reburns
from store.models_jobs import Volume
from store.reburns import Meant, ReburnError
from store.recall_sources import Candidate, Rank, candidates

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Progress = Callable[[dict[str, Any]], None]
_TOLD_BYTES = 8 << 20
_COPIES = "copies"
_UNCLAIMED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Ordered:
    """A job that makes copies, and what they are made from."""

    job_id: int
    source: str
    """``spool``, or the image that is copied."""
    restored: int
    """Files that were read back into the spool for it."""


def order(
    ctx: Context,
    of: str,
    *,
    copies: int | None = None,
    burner: str = "",
    path: Path | None = None,
    priority: str = "med",
    by: str = "cli",
    idempotency_key: str | None = None,
    progress: Progress = lambda _told: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Ordered:
    """Order new discs of the volume that ``of`` names (a disc, a File-set ID or UID).

    ``copies`` None: as many as are wanted and neither good nor being made, at least one. ``path``: an image, a folder,
    a drive on this machine to make it from. Reads what it takes before it orders. Raises NoSuchDisc, NoSuchVolume,
    OptionsError, ReburnError, SpoolFull.
    """
    with ctx.db.read() as session:
        what = reburns.meant(session, of)
        online = candidates(session, [what.volume.id]).get(what.volume.id, [])
    burner = _burner(ctx, what, burner)
    if priority not in PRIORITIES:
        raise OptionsError(f"priority is {priority!r}; it may be {', '.join(PRIORITIES)}")
    count = _count(what, copies)
    work = _Source(ctx, what.volume, takes_images(families(ctx.settings.burners[burner].driver)), progress, cancelled)
    source = work.find(path, online)
    with ctx.db.begin() as session:
        job_id = reburns.order(
            session,
            _again(session, of, what, copies),
            copies=count,
            burner=burner,
            priority=priority,
            source=source,
            by=by,
            idempotency_key=idempotency_key,
        )
    return Ordered(job_id, source or "spool", work.restored)


def _again(session: Session, of: str, seen: Meant, copies: int | None) -> Meant:
    """As it is now: somebody may have ordered the same while we read."""
    what = reburns.meant(session, of)
    if copies is None and {disc.id for disc in what.coming} - {disc.id for disc in seen.coming}:
        _count(what, copies)
    return what


def _count(what: Meant, copies: int | None) -> int:
    if copies is not None:
        if not 1 <= copies <= 99:
            raise OptionsError(Worded("copies", "copies is {copies}; it may be 1 to 99", copies=copies))
        return copies
    lacking = what.volume.wanted_copies - what.volume.good_copies
    if what.coming and lacking <= len(what.coming):
        discs = ", ".join(f"D{disc.id} (J{disc.job_id})" for disc in what.coming)
        raise ReburnError(
            "COMING",
            Worded(
                "coming",
                "{volume} is being made already: {discs}; --copies makes more",
                volume=what.volume.file_set_id,
                discs=discs,
            ),
        )
    return max(1, lacking - len(what.coming))


def _burner(ctx: Context, what: Meant, wanted: str) -> str:
    """As said; else the one that made the disc before, if there still is one of that name; else the settings'."""
    known = ctx.settings.burners
    if wanted:
        if wanted not in known:
            raise OptionsError(f"there is no burner {wanted!r}; there are {', '.join(known)}")
        return wanted
    before = what.pattern.burner if what.pattern else ""
    return before if before in known else ctx.settings.burn.burner


class _Source:
    """Finds what a volume can be made from, and brings what is missing into the spool."""

    def __init__(
        self, ctx: Context, volume: Volume, takes_images: bool, progress: Progress, cancelled: Callable[[], bool]
    ) -> None:
        self.restored = 0
        self._ctx = ctx
        self._volume = volume
        self._takes_images = takes_images
        self._progress = progress
        self._cancelled = cancelled
        self._tried: list[str] = []
        self._can_assemble = volume.origin == "own"
        """Of another's disc, or one that was entered from itself, the rows do not tell every byte."""

    def find(self, path: Path | None, online: Iterable[Candidate]) -> str:
        """The image to be copied; ``""``: all is in the spool. Raises ReburnError where there is nothing."""
        if path is not None:
            self._require_this(path)
            if (image := self._from(path)) is not None:
                return image
        elif self._can_assemble and not self._lacking():
            return ""
        for one in online:
            if one.image is None or one.image == path:
                continue
            if (image := self._from(one.image, f"D{one.disc_id}")) is not None:
                return image
        raise self._nothing(online)

    def _from(self, path: Path, name: str = "") -> str | None:
        """The image to be copied, ``""`` where all is in the spool now, None where this does not do."""
        name = f"{name} ({path})" if name else str(path)
        if self._takes_images and self._volume.image_sha256 and not path.is_dir():
            try:
                return self._image(path)
            except MediaError as error:
                self._tried.append(str(error))
        if not self._can_assemble:
            return None
        lacking = self._lacking()
        if lacking:
            self._restore(path, name, lacking)
            lacking = self._lacking()
        return None if lacking else ""

    def _image(self, path: Path) -> str:
        """An image with the right digest: the file itself, or of a drive what was read of it."""
        sha256 = self._volume.image_sha256
        assert sha256 is not None
        image = CopiedImage(path, volume_id=self._volume.file_set_id, sectors=self._volume.sectors, sha256=sha256)
        told = _Teller(self._progress, f"reading {path.name}", self._volume.sectors * 2048)
        if not stat.S_ISBLK(path.stat().st_mode):
            image.write(lambda _piece: None, told, self._cancelled)
            return str(path.resolve())
        folder = staging_of(self._ctx) / _COPIES
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self._volume.file_set_id}-V{self._volume.id}.iso"
        part = target.with_suffix(".part")
        try:
            with part.open("wb") as out:
                image.write(out, told, self._cancelled)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        return str(target)

    def _lacking(self) -> list[Wanted]:
        """Files of the volume that are not there."""
        found, icons = [], []
        with self._ctx.db.read() as session:
            for row in reburns.files(session, self._volume.id):
                path = self._path(row)
                if path is None or not is_whole(path, row.size):
                    found.append(
                        Wanted(
                            row.instance_id,
                            row.sop_instance_uid,
                            row.digest,
                            row.derived_id,
                            row.file_id,
                            row.size,
                            row.sha256,
                        )
                    )
                _, icon = unpinned(
                    row.supplied,
                    digest=row.digest,
                    sop_instance_uid=row.sop_instance_uid,
                    spool_path=row.spool_path,
                )
                if icon is not None:
                    icons.append(icon)
        if not found and icons:
            try:
                restore_icons(self._ctx, icons, cancelled=self._cancelled)
            except MediaError as error:
                self._tried.append(str(error))
                self._can_assemble = False
        return found

    def _path(self, row: Any) -> Path | None:
        if row.derived_path is not None:
            return self._ctx.derived_path(row.derived_path)
        return self._ctx.spool.path_of(row.spool_path) if row.spool_path is not None else None

    def _restore(self, path: Path, name: str, lacking: list[Wanted]) -> None:
        """Read files back into the spool, as far as they can be read here."""
        try:
            with open_tree(path) as tree:
                reading = restoring.restore(
                    self._ctx,
                    tree,
                    lacking,
                    entered=lambda _session, _ids: None,
                    still_there=lambda: recognise(path).kind != NOTHING,
                    progress=lambda done, total: self._progress(
                        {"phase": f"reading {path.name}", "done": done, "total": total, "unit": "files"}
                    ),
                    cancelled=self._cancelled,
                )
        except (MediaError, restoring.DiscGone) as error:
            self._tried.append(f"{name}: {error}")
            return
        self.restored += reading.restored
        if reading.failed:
            first = next(iter(reading.failed.values()))
            self._tried.append(f"{name}: {len(reading.failed)} files cannot be had, e.g. {first}")

    def _require_this(self, path: Path) -> None:
        if not path.exists():
            raise OptionsError(Worded("no_path", "there is no {path}", path=path))
        found = recognise(path)
        if found.file_set_uid == self._volume.file_set_uid:
            return
        if not found.file_set_uid and found.file_set_id in ("", self._volume.file_set_id) and found.kind != NOTHING:
            return  # its directory cannot be read: the digests decide
        raise ReburnError(
            "WRONG_DISC",
            Worded(
                "wrong_disc",
                "{path} is not {volume}: {found}",
                path=path,
                volume=self._volume.file_set_id,
                found=found.says,
            ),
        )

    def _nothing(self, discs: Iterable[Candidate]) -> ReburnError:
        if self._cancelled():
            return ReburnError("CANCELLED", Worded("cancelled", "cancelled"))
        lacking = len(self._lacking()) if self._can_assemble else 0
        tried = f" ({'; '.join(self._tried[:3])})" if self._tried else ""
        away = [one for one in discs if one.image is None]
        if away:
            asked = Worded("said", " or ".join(one.words() for one in away[:3]).replace("{", "{{").replace("}", "}}"))
            how = Worded("then_from", "{discs}; then say --from with the drive, image or folder", discs=asked)
        else:
            how = Worded("no_other_disc", "there is no other disc of it that could be read")
        missing = (
            Worded(
                "files_nowhere",
                "{n} of its files are neither in the spool nor on a disc that could be read here",
                n=lacking,
            )
            if lacking
            else Worded("no_sound_image", "no image of it that is as it was made could be read here")
        )
        return ReburnError(
            "NO_SOURCE",
            Worded(
                "no_source",
                "{volume}: {missing}{tried}: {how}",
                volume=self._volume.file_set_id,
                missing=missing,
                tried=tried,
                how=how,
            ),
        )


class _Teller:
    """Progress in bytes, not all the time."""

    def __init__(self, progress: Progress, phase: str, total: int) -> None:
        self._progress, self._phase, self._total, self._next = progress, phase, total, 0

    def __call__(self, done: int) -> None:
        if done >= self._next or done == self._total:
            self._next = done + _TOLD_BYTES
            self._progress({"phase": self._phase, "done": done, "total": self._total, "unit": "bytes"})


def volume_image(ctx: Context, volume_id: int) -> ImageSource:
    """The image of a volume for a disc that is to be made: the one that was chosen to be copied, else from the spool.

    Raises MediaError naming what is not there any more.
    """
    from jobs import assemble

    with ctx.db.read() as session:
        path = reburns.image_wanted(session, volume_id)
        volume = session.get_one(Volume, volume_id)
        if path is not None and not path.is_file():  # it was moved since; another copy does as well
            online = candidates(session, [volume_id]).get(volume_id, [])
            sound = (one.image for one in online if one.rank is Rank.ONLINE and one.image is not None)
            path = next((image for image in sound if image.is_file()), path)
    if path is None or not path.exists() or volume.image_sha256 is None:
        return assemble.volume_image(ctx, volume_id)
    return CopiedImage(path, volume_id=volume.file_set_id, sectors=volume.sectors, sha256=volume.image_sha256)


def tidy(ctx: Context) -> None:
    """Remove what was read of drives and no disc needs any more."""
    folder = staging_of(ctx) / _COPIES
    if not folder.is_dir():
        return
    with ctx.db.read() as session:
        needed = reburns.images_wanted(session)
    oldest = time.time() - _UNCLAIMED_SECONDS  # one that was read just now, its job is not entered yet
    for path in folder.glob("*.iso"):
        with suppress(FileNotFoundError):
            if str(path) not in needed and path.stat().st_mtime < oldest:
                path.unlink()
