"""The contract between the workflow and whatever makes a disc: an ISO folder, a drive, a robot.

A driver knows nothing of SQL, jobs or the DICOM network. It is made once for each ``[burners.NAME]`` section and lives
as long as the service. One ``BurnOrder`` is one physical copy. The workflow goes through these calls:

1. ``prepare(order)`` gives the ``Ticket``: the driver's own durable handle, a JSON object. It is stored before
   anything else happens, so that after any crash the driver can find out by the ticket alone what became of the disc.
2. ``submit(order, ticket)`` starts the work and returns at once.
3. ``poll(ticket)`` tells how it stands, again and again, for seconds (ISO folder) or hours (robot), until it reports an
   end (``BURNT``, ``FAILED``, ``CANCELLED``).
4. The workflow reads back and verifies what ``BurnReport.image`` names.
5. ``finish(ticket, outcome)`` tells the driver what the verification found and lets it put the disc away.

The device slot is freed when a report says ``device_free``, never before.

A driver
- SHALL write nothing that outlives a crash in ``prepare``, and SHALL raise ``BurnRefused`` there when it can see that
  the order cannot be done (no space, name taken, wrong medium);
- SHALL make at most one disc for one ticket: ``submit`` with a ticket that is being worked on, or has ended, changes
  nothing, except that work which cannot publish any more because its claim is old may begin anew under the new one;
- SHALL return from ``submit``, ``poll``, ``cancel`` and ``finish`` within about a second: long work is done elsewhere;
- SHALL answer ``poll`` for any ticket it ever gave, in another process and after a restart too. ``UNKNOWN`` means that
  nothing of the disc exists, nothing is at work on it, and it may be submitted again; a driver that cannot be sure
  reports ``FAILED`` and says why (a blank that may be spoilt is never burnt again unasked);
- SHALL call ``order.may_publish(sha256)`` right before the act that cannot be undone (publishing a file, handing an
  order to a robot), and give up with no trace (``UNKNOWN``) when it returns False: another claim on this disc has come.
  It raises ``BurnRefused`` when the image is not the one that other copies of the volume have;
- SHALL never overwrite anything that it did not make itself;
- SHALL treat ``cancel`` as a wish: the work ends at the next moment that leaves the device in a sane state, and
  ``poll`` tells how it ended (``BURNT`` when it was too late);
- SHALL NOT report ``device_free`` while the device, or a thread of its own, still works on the disc;
- SHALL check its options when it is made, unknown keys too, and raise ``BurnerOptionsError`` that lists all faults;
- SHOULD report ``progress`` and a ``message`` that a person at the device understands;
- SHOULD report ``WAITING`` while a person must do something (load blanks, change ink) and go on by itself afterwards;
- MAY say by a class attribute ``families`` which families of media types it makes (``CD``, ``DVD``, ``BD``, ``FOLDER``;
  without it the three kinds of discs): the automatic choice of a profile takes no others;
- MAY name by a class attribute ``programs`` the programs that its ``example`` needs on PATH;
- MAY keep its device until a burnt disc was read back: ``BURNT`` without ``device_free``, which ``finish`` ends;
- MAY report ``supplies`` (ink, blanks, bins) in reports and in ``probe``;
- MAY be called from several threads at once, for different discs; ``probe`` by one thread at a time, which may take its
  time (what was known last is shown meanwhile, with its age).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

if TYPE_CHECKING:
    from media.items import DiscFile

Ticket = dict[str, Any]
"""A driver's durable handle of one order, JSON."""


class BurnerOptionsError(Exception):
    """The settings of a burner are wrong; the text lists every fault."""


class BurnRefused(Exception):
    """The order cannot be done; the text tells a person why."""


class BurnState(StrEnum):
    """What a driver knows of a ticket."""

    UNKNOWN = "UNKNOWN"
    """Nothing of it exists and nothing is at work on it: it may be submitted."""
    QUEUED = "QUEUED"
    """Accepted by the device, not begun."""
    WAITING = "WAITING"
    """A person is needed; the message says what for."""
    BURNING = "BURNING"
    BURNT = "BURNT"
    """Made, not yet read back by us."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    """Ended as asked; no disc came of it."""

    @property
    def ended(self) -> bool:
        """Nothing more will change by itself."""
        return self in (BurnState.BURNT, BurnState.FAILED, BurnState.CANCELLED)


class Outcome(StrEnum):
    """What the workflow decided about a burnt disc."""

    GOOD = "GOOD"
    BAD = "BAD"
    """Read-back found problems: kept, but marked so that nobody takes it for good."""
    CANCELLED = "CANCELLED"
    """Nobody wants it any more."""


class ImageSource(Protocol):
    """An image that can be streamed, in sequence, as often as wanted (``media.iso9660.IsoImage`` is one)."""

    @property
    def volume_id(self) -> str: ...

    @property
    def sectors(self) -> int:
        """Of 2048 bytes."""
        ...

    @property
    def files(self) -> Sequence[DiscFile]:
        """Every file in disc order, for a device that is written file by file."""
        ...

    def write(
        self,
        out: Callable[[bytes], object] | BinaryIO,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> str:
        """Write all bytes; return their SHA-256. ``progress`` hears the bytes so far. Raises MediaError, OSError."""
        ...


@dataclass(frozen=True)
class BurnOrder:
    """One physical copy of a volume."""

    disc: str
    """Public ID of the Disc row, e.g. ``D12``."""
    job: str
    file_set_id: str
    file_set_uid: str
    volume: int
    volumes: int
    copy: int
    attempt: int
    """1, and one more for each retry of this copy."""
    sectors: int
    epoch: int
    """Number of the claim under which this order is given; a higher one comes after a take-over or restart."""
    open_image: Callable[[], ImageSource] = field(repr=False)
    """Makes the image's description; may take a while for very many files, so call it where the work is done."""
    may_publish: Callable[[str | None], bool] = field(repr=False)
    """True while the claim on this disc holds; asks the database, and notes the digest of the image there, so that it
    is known even if the next thing that happens is a crash. None: the driver does not know the digest."""
    label: Mapping[str, str] = field(default_factory=dict)
    """Text for the disc's label: patient names, dates ... by the names of ``media.labelfacts.merge_fields``, one line
    each, without control characters. What a robot's language gives a meaning is the driver's to remove."""
    medium: str = ""
    """Media type that the volume was planned for, a name of ``config/mediatypes.toml``; empty: not known."""
    write_label: Callable[[Path, str], None] | None = field(default=None, repr=False)
    """Draws the disc's label into a file (``.pdf`` or ``.png``, by its suffix) for a printer, a row of
    ``config/labels.toml`` (``""``: the site's own); None where there is nothing to draw. Raises OSError."""


@dataclass(frozen=True, slots=True)
class BurnReport:
    """What a driver says of a ticket, now."""

    state: BurnState
    progress: float = 0.0
    """0 to 1 within the state."""
    message: str = ""
    image: Path | None = None
    """What is to be read back: the published image, a folder that holds the files, a device. None: cannot be read
    back here."""
    sha256: str | None = None
    """Digest of the bytes as they were written, where the driver saw them; of a folder, that of its MANIFEST.TXT, which
    has the digest of every other file."""
    device_free: bool = False
    """The device can take another disc."""
    supplies: Mapping[str, Any] = field(default_factory=dict)
    undecided: bool = False
    """Nobody can say for certain how it ended: if the disc is not good, its job waits until a person has looked."""


class DriverState(StrEnum):
    READY = "READY"
    WAITING = "WAITING"
    """Reachable, but a person must do something first (ink, blanks, a lid): the reason says what."""
    OFFLINE = "OFFLINE"
    """Set up rightly, but not reachable now."""
    UNUSABLE = "UNUSABLE"
    """Unknown driver or wrong options; needs a change of the settings and a restart."""


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """How a burner stands, for people: ``burnish doctor`` shows it."""

    name: str
    driver: str
    state: DriverState
    reason: str = ""
    supplies: Mapping[str, Any] = field(default_factory=dict)
    drives: Sequence[Mapping[str, Any]] = ()
    """Of a device with drives, each as ``{"name", "state", "medium"}`` and what else the driver knows of it."""
    age_seconds: float = 0.0
    """For so long the device has said nothing newer; 0: it has just said so. Not the driver's to set."""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "driver": self.driver,
            "state": self.state.value,
            "reason": self.reason,
            "supplies": dict(self.supplies),
            "drives": [dict(drive) for drive in self.drives],
            "age_seconds": round(self.age_seconds, 1),
        }


class Burner(Protocol):
    """A driver with its options; see the module's text for what each call shall do.

    Registered as an entry point of the group ``burnish.burners``: a class that is called with the burner's name, its
    options and the data folder from which relative folders are taken.
    """

    name: str
    slots: int
    """Discs that the device makes at the same time."""
    shared: bool
    """Every node that has this burner in its settings reaches the same device (a shared folder, a robot)."""
    verified_by: ClassVar[str]
    """Who vouches for a disc that this driver made: ``read-back``, or ``robot`` where it cannot be read back."""

    def __init__(self, name: str, options: Mapping[str, Any], *, data: Path) -> None: ...

    @classmethod
    def example(cls, folder: Path) -> dict[str, Any]:
        """Options with which the driver works in ``folder`` without any device; the contract suite uses them."""
        ...

    def probe(self) -> DriverStatus: ...

    def prepare(self, order: BurnOrder) -> Ticket: ...

    def submit(self, order: BurnOrder, ticket: Ticket) -> None: ...

    def poll(self, ticket: Ticket) -> BurnReport: ...

    def cancel(self, ticket: Ticket) -> None: ...

    def finish(self, ticket: Ticket, outcome: Outcome) -> str:
        """Put the disc away; returns where it is now (a path, a shelf), ``""`` when it is no more."""
        ...

    def close(self) -> None:
        """The service stops: end or abandon work of this process so that ``poll`` tells the truth after a restart."""
        ...
