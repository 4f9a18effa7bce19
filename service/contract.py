"""What can be asked of Burnish, whether its service runs or not: one set of operations, two ways to have them done.

``service.operations`` does them on the open store, ``service.client`` asks a running service to. All take and return
JSON documents (the CLI's contract), and raise ``service.errors.Refusal``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

Document = dict[str, Any]
OnProgress = Callable[[Document], None]
"""Is told ``{"phase", "done", "total", "unit"}`` now and then."""

TERMINAL = frozenset({"DONE", "FAILED", "CANCELLED"})
"""Job states in which nothing more happens by itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to import: on a disk, or on a medium."""

    shown: str
    """How it is called in messages."""
    size: int
    open: Callable[[], BinaryIO]
    path: Path | None = None
    """Where it lies, if it is a file of its own."""


class Operations(Protocol):
    """Everything that the CLI asks for and the HTTP API offers."""

    def studies(self) -> list[Document]:
        """What was received, a study each."""

    def ingest(self, source: Source, *, reconcile: str = "") -> Document:
        """Take one file through the door: ``{"outcome": "stored" | "duplicate" | "conflict", "sop_instance_uid",
        "instance"}``. ``reconcile``: digest of a kept rule set that corrects it first; then also ``changes``."""

    def plan(self, selection: Mapping[str, Any], options: Mapping[str, Any], progress: OnProgress) -> Document:
        """Make a plan and tell all about it; nothing is burnt."""

    def check(self, selection: Mapping[str, Any], options: Mapping[str, Any]) -> Document:
        """Which instances can be on a disc of the profile, and why the others cannot; nothing is conformed or kept."""

    def plan_document(self, plan: str) -> Document:
        """A plan that was made before."""

    def burn(
        self,
        *,
        selection: Mapping[str, Any] | None,
        plan: str | None,
        options: Mapping[str, Any],
        idempotency_key: str | None = None,
    ) -> Document:
        """Make a job of a selection or of a plan, and queue it: its document."""

    def job(self, job: str) -> Document:
        """A job with its discs, progress and report."""

    def jobs(self) -> list[Document]:
        """All jobs, newest first."""

    def cancel(self, job: str) -> Document:
        """Ask a job to stop; its document at this moment."""

    def retry(self, job: str, *, burner: str = "", skip_refused: bool = False) -> Document:
        """Let a failed job make again what failed, on another ``burner`` or without its refused instances."""

    def find(self, criteria: Mapping[str, str]) -> list[Document]:
        """Which discs hold what is looked for."""

    def medium(self, *, file_set_uid: str, file_set_id: str) -> Document:
        """What the catalogue has of a medium, by File-set UID or, where that is empty, File-set ID: ``known`` (bool),
        digests, discs, and each file with patient, study and series."""

    def record_check(self, disc: str, *, good: bool, how: str, detail: Document) -> Document:
        """Keep what came of reading a disc again, with an Event; a bad result flags the disc."""

    def purge(self, *, min_copies: int, dry_run: bool) -> Document:
        """Free the spool of what is on enough verified discs."""

    def delete(self, selection: Mapping[str, Any]) -> Document:
        """Remove instances from the spool for good."""

    def nodes(self) -> list[Document]:
        """The remote nodes."""

    def add_node(self, values: Mapping[str, Any]) -> Document:
        """Enter one: ``name``, ``ae_title``, ``host``, ``port``, ``retrieve``, ``tls``."""

    def remove_node(self, name: str) -> Document:
        """Forget one."""

    def echo_node(self, name: str) -> Document:
        """C-ECHO: its document with the ``seconds`` that the answer took."""

    def pull(self, name: str, criteria: Mapping[str, Any], progress: OnProgress, *, by: str | None = None) -> Document:
        """Fetch studies from a node; what came, by study, and what did not, by instance."""

    def send(self, name: str, selection: Mapping[str, Any], progress: OnProgress, *, commit: bool = False) -> Document:
        """Send instances to a node; what it did not take, by instance."""

    def label(self, of: str, *, volume: int | None, printer: str) -> Document:
        """What stands on the label of a disc, or of a volume of a plan or job."""

    def label_picture(
        self, of: str, kind: str, *, volume: int | None, printer: str, dpi: int | None, guides: bool
    ) -> bytes:
        """The label as a ``png``, ``pdf`` or ``svg`` file."""

    def burners(self) -> list[Document]:
        """The burners of the settings, and how each stands now."""

    def doctor(self) -> Document:
        """Settings in force, state of everything, what is wrong and how to mend it."""

    def close(self) -> None:
        """Give back what was opened."""


def number(letter: str, text: str) -> int:
    """The number in a public ID: ``J12``, ``j12`` or ``12``; raises ``UsageError``."""
    from service.errors import UsageError

    digits = text.strip()
    if digits[:1].upper() == letter:
        digits = digits[1:]
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:19]) < 1 << 62:
        kind = {"J": "job", "P": "plan", "D": "disc", "H": "hold", "T": "token"}.get(letter, "")
        raise UsageError(f"{text!r} is no {kind} ID; they look like {letter}12")
    return int(digits)
