"""What a robot gets: the image, the label, further files and the order's text."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from burners.base import BurnerOptionsError, BurnOrder, BurnRefused, Ticket
from burners.exporting import SECTOR, Sink, Writer, planned_image
from burners.hotfolder_dialect import Dialect, RobotOrder
from burners.hotfolder_options import DRAWN, NO_LABEL, Options
from burners.hotfolder_paths import OutsideShare
from burners.hotfolder_text import clean, patient_text, render
from burners.publish import sync_folder
from media.mediatypes import media_type
from media.problems import MediaError

_CD_SECTORS = 360_000
_DVD_SECTORS = 4_171_712
_NO_KEY = re.compile(r"[^A-Za-z0-9_]")


class Papers:
    """Made once for each burner; writes where it is told to."""

    def __init__(self, options: Options, dialect: Dialect) -> None:
        self._options = options
        self._dialect = dialect

    def check(self) -> None:
        """Try the template and the path mapping. Raises BurnerOptionsError."""
        try:
            place = self._options.images / "SAMPLE"
            image, folder = self._options.share.to_robot(place / "image.iso"), self._options.share.to_robot(place)
            sample = RobotOrder("SAMPLE", image, folder, "SAMPLE", "CD", 1)
            render(self._options.template, self._dialect.fields(sample), escape=self._dialect.escape)
        except (ValueError, KeyError) as error:
            raise BurnerOptionsError(f"template: {error}") from error

    def family(self, order: BurnOrder) -> str:
        """Kind of disc that the order needs: CD, DVD or BD. Raises BurnRefused where the robot has none."""
        if order.medium:
            try:
                family = media_type(order.medium).family
            except MediaError as error:
                raise BurnRefused(str(error)) from error
        else:
            family = "CD" if order.sectors <= _CD_SECTORS else "DVD" if order.sectors <= _DVD_SECTORS else "BD"
        if family not in self._options.discs:
            what = order.medium or f"{order.sectors} sectors"
            raise BurnRefused(f"the volume needs a {family} ({what}); the robot has {', '.join(self._options.discs)}")
        return family

    def image(self, order: BurnOrder, ticket: Ticket, place: Path, writer: Writer) -> str:
        """Write the image beside its final name, then give it that; returns its SHA-256."""
        final = place / "image.iso"
        part = final.with_name(f"image.{order.epoch}.part")
        size: int = ticket["size"]
        image = planned_image(order, size // SECTOR, ticket["volume_id"])
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
        try:
            digest = image.write(Sink(descriptor).write, writer.progress, writer.abandon.is_set)
            os.fsync(descriptor)
            written = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if not writer.abandon.is_set():
            if written != size:
                raise BurnRefused(f"{part} has {written} bytes; {size} were written")
            part.replace(final)
            sync_folder(final.parent)
        return digest

    def order(self, order: BurnOrder, ticket: Ticket, place: Path) -> tuple[str, str]:
        """Write label and further files; returns the order's text, and what people must know of it."""
        label, design = self._label(order, place)
        fields, note = self._label_fields(order)
        given = RobotOrder(
            job_id=ticket["mark"],
            image=self._reach(place / "image.iso"),
            folder=self._reach(place),
            volume_id=clean(ticket["volume_id"], longest=32),
            family=ticket["family"],
            sectors=order.sectors,
            label=label,
            label_is_design=design,
            label_fields=fields if design else {},
        )
        files: dict[str, str] = {}
        for paper in self._dialect.companions(given):
            self.put(place / paper.name, paper.text, paper.encoding)
            files[paper.name] = self._reach(place / paper.name)
        given = replace(given, files=files)
        text = render(self._options.template, self._dialect.fields(given), escape=self._dialect.escape)
        return text, note if design else ""

    def put(self, path: Path, text: str, encoding: str = "") -> None:
        """Write a text file for the robot, fsynced. What the code page lacks becomes ``?``: never a failure."""
        data = text.replace("\n", self._dialect.line_end).encode(encoding or self._options.code_page, "replace")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)

    def _label(self, order: BurnOrder, place: Path) -> tuple[str, bool]:
        """The label as the robot names it, and whether it is the site's design."""
        wanted = self._options.label
        if wanted == NO_LABEL:
            return "", False
        if wanted != DRAWN:
            return clean(wanted), True
        if order.write_label is None or not self._dialect.label_suffix:
            return "", False
        drawn = place / ("label.pdf" if self._dialect.label_suffix == ".pdf" else "label.png")
        order.write_label(drawn, self._options.label_printer)
        return self._reach(self._dialect.adapt_label(drawn)), False

    def _label_fields(self, order: BurnOrder) -> tuple[dict[str, str], str]:
        """Clean text for the design's fields, and a word on what could not be written in the code page."""
        fields: dict[str, str] = {}
        lost = 0
        for key, value in order.label.items():
            text, replaced = patient_text(value, self._options.code_page, forbidden=self._dialect.forbidden)
            fields[_NO_KEY.sub("_", key)[:64]] = text
            lost += replaced
        if not lost:
            return fields, ""
        return fields, f"{lost} characters of the label's text are not in {self._options.code_page} and were replaced"

    def _reach(self, path: Path) -> str:
        try:
            return self._options.share.to_robot(path)
        except OutsideShare as error:
            raise BurnRefused(str(error)) from error
