"""Orders for drivers, without a database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from burners.base import Burner, BurnOrder, BurnReport, BurnState, Ticket
from media.iso9660 import IsoImage
from media.items import DiscFile
from tests.waiting import wait_for


@dataclass
class SlowImage:
    """An image that is written only as far as the test lets it."""

    image: IsoImage
    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)

    @property
    def volume_id(self) -> str:
        return self.image.volume_id

    @property
    def sectors(self) -> int:
        return self.image.sectors

    @property
    def files(self) -> tuple[DiscFile, ...]:
        self.started.set()
        wait_for(self.go.is_set, "the test to let the image go")
        return self.image.files

    def write(
        self,
        out: Callable[[bytes], object] | BinaryIO,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        self.started.set()
        wait_for(lambda: self.go.is_set() or (cancelled is not None and cancelled()), "the test to let the image go")
        return self.image.write(out, progress, cancelled)


def an_image(volume_id: str = "BURNISH_0000001", size: int = 50_000) -> IsoImage:
    data = volume_id.encode() * (size // len(volume_id))
    import hashlib

    file = DiscFile(("README.TXT",), len(data), hashlib.sha256(data).hexdigest(), data)
    return IsoImage((file,), volume_id, datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC))


def order(
    image: IsoImage | SlowImage | None = None, *, mine: Callable[[], bool] = lambda: True, **more: object
) -> BurnOrder:
    image = image or an_image()
    values: dict = {
        "disc": "D12",
        "job": "J3",
        "file_set_id": image.volume_id,
        "file_set_uid": "2.25.1234567890",
        "volume": 1,
        "volumes": 2,
        "copy": 1,
        "attempt": 1,
        "sectors": image.sectors,
        "epoch": 7,
        "open_image": lambda: image,
        "may_publish": lambda sha256: mine(),
    }
    return BurnOrder(**values | more)


def ended(burner: Burner, ticket: Ticket) -> BurnReport:
    """Poll until the driver has ended. A burnt disc may keep its device until it was read back."""

    def has_ended() -> bool:
        report = burner.poll(ticket)
        return report.state.ended and (report.device_free or report.state is BurnState.BURNT)

    wait_for(has_ended, "the driver to end")
    return burner.poll(ticket)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
