"""Reading a disc again and saying what is lost of it: by the catalogue where it knows the disc, else by the disc alone.

Nothing is written here; a result is recorded only by who asks for that (``record``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from media import dvdisaster
from media.ecc import Layout
from media.identity import Identity, identify
from media.loss import Lost, lost_by_catalogue
from media.problems import FileSetInvalid, MediaError, Problem, ProblemKind
from media.protection import protection_of
from media.signing import SIGNATURE_FILE, fingerprint
from media.trees import IsoTree, open_tree
from media.verify import NO_DIRECTORY, Expected, VerifyResult, verify_tree
from media.verify_directory import DICOMDIR
from service.contract import Document
from service.errors import UsageError

if TYPE_CHECKING:
    from media.trees import FileTree

SECTOR = 2048
_LOSS = (
    ProblemKind.UNREADABLE,
    ProblemKind.MISSING,
    ProblemKind.DIGEST,
    ProblemKind.MANIFEST,
    ProblemKind.SIGNATURE,
    ProblemKind.PROTECTION,
)
"""Problems of a medium that is not as it was made, or not all there."""


class Catalogue(Protocol):
    """What is asked of the catalogue: a part of ``service.contract.Operations``."""

    def medium(self, *, file_set_uid: str, file_set_id: str) -> Document: ...

    def record_check(self, disc: str, *, good: bool, how: str, detail: Document) -> Document: ...


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found on one medium."""

    path: Path
    kind: str
    """``image``, ``drive`` or ``folder``; empty: it is no medium."""
    identity: Identity
    result: VerifyResult
    problems: tuple[Problem, ...]
    lost: tuple[Lost, ...]
    known: Document | None = None
    """What the catalogue has of it; None: it was not asked, or knows no such disc."""
    asked: bool = False
    """Whether the catalogue was asked."""
    recorded: str = ""
    """The disc that the result was recorded for."""
    notes: tuple[str, ...] = field(default=())
    protection: Layout | None = None
    """The error-correction data that lies behind its file system."""
    seconds: float | None = None
    """That reading it took."""

    @property
    def state(self) -> str:
        """``GOOD``; ``DAMAGED``: something is lost or changed; ``FAULTY``: it has problems, but all of it can be read
        and nothing says that it was ever otherwise; ``NO DISC``: nothing that could be read as one; ``NOT DICOM``: a
        disc without DICOMDIR that the catalogue does not know either."""
        if not self.kind:
            return "NO DISC"
        if self.known is None and Problem(ProblemKind.MISSING, DICOMDIR, NO_DIRECTORY) in self.problems:
            return "NOT DICOM"
        if not self.problems:
            return "GOOD"
        damaged = self.lost or (self.known is not None and not self.sound)
        return "DAMAGED" if damaged or any(problem.kind in _LOSS for problem in self.problems) else "FAULTY"

    @property
    def sound(self) -> bool:
        """Whether all of its bytes are as they were made, whatever else there is to say of it."""
        if self.known is not None and self.known["image_sha256"] and self.result.image_sha256:
            return bool(self.known["image_sha256"] == self.result.image_sha256)
        return bool(self.kind) and all(problem.kind is ProblemKind.PROFILE for problem in self.problems)

    @property
    def whose(self) -> str:
        """Whose disc it is, for people."""
        if self.known is not None:
            discs = ", ".join(disc["disc"] for disc in self.known["discs"]) or "no disc"
            return f"volume {self.known['volume']} of {self.known['of']}, {discs}"
        if self.identity.ours:
            return "made by Burnish, not in this catalogue" if self.asked else "made by Burnish"
        if self.identity.maker:
            return f"made by another: {self.identity.maker}"
        return "nobody knows whose it is"

    @property
    def signed_by(self) -> str:
        """Fingerprint of the key that rightly signed the manifest."""
        return fingerprint(self.result.signer) if self.result.signer else ""

    def as_json(self) -> Document:
        return {
            "path": str(self.path),
            "medium": self.kind,
            "result": self.state,
            "file_set_id": self.identity.file_set_id,
            "file_set_uid": self.identity.file_set_uid,
            "maker": "Burnish" if self.identity.ours else self.identity.maker,
            "known": (self.known is not None) if self.asked else None,
            "discs": [disc["disc"] for disc in self.known["discs"]] if self.known else [],
            "problems": [problem.as_json() for problem in self.problems],
            "lost": [lost.as_json() for lost in self.lost],
            "instances": len(self.known["instances"]) if self.known else len(self.result.instances),
            "protection": self.protection.method if self.protection else None,
            "redundancy": round(self.protection.redundancy, 1) if self.protection else None,
            "unreadable_sectors": [list(stretch) for stretch in self.result.unreadable],
            "signed_by": self.signed_by,
            "recorded": self.recorded or None,
            "notes": list(self.notes),
        }


def examine(
    path: Path,
    catalogue: Catalogue | None = None,
    *,
    profile: str | None = None,
    key: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
    before: Callable[[Document | None], None] = lambda _known: None,
) -> Examined:
    """Read all of a medium once and compare it with the catalogue (None: with what the medium itself says).

    ``key``: the public key (PEM) that must have signed it. ``before`` is told what the catalogue knows before the
    reading begins, and may raise. Raises MediaError for an unknown ``profile``; what is wrong with the medium is told.
    """
    try:
        tree = open_tree(path)
    except FileSetInvalid as error:
        problem = Problem(ProblemKind.STRUCTURE, path.name, str(error))
        result = VerifyResult(str(path), (problem,), "", "", profile, (), None)
        return Examined(path, "", Identity(), result, (problem,), ())
    with tree:
        kind = _kind(tree)
        identity = identify(tree)
        known, notes = _ask(catalogue, identity)
        before(known)
        expect = _expected(known, kind) if known is not None else Expected()
        judged = profile or (known["profile"] if known is not None else None)
        protection = protection_of(tree.volume) if isinstance(tree, IsoTree) else None
        begun = time.monotonic()
        result = verify_tree(tree, profile=judged, expect=expect, progress=progress)
        seconds = round(time.monotonic() - begun, 3)
    faults: list[Problem] = []
    if protection is not None and not _is_the_image(result, known):
        faults, note = _tested(path, kind, protection)
        notes = (*notes, note) if note else notes
    lost = result.lost
    if known is not None:
        lost = lost_by_catalogue(known["instances"], result.digests, result.problems)
    return Examined(
        path=path,
        kind=kind,
        identity=identity,
        result=result,
        problems=(*result.problems, *signed_by_another(result, key), *faults),
        lost=lost,
        known=known,
        asked=catalogue is not None,
        notes=notes,
        protection=protection,
        seconds=seconds,
    )


def _is_the_image(result: VerifyResult, known: Document | None) -> bool:
    """Whether each bit is as the catalogue has it; the error-correction data was tested when the image was made."""
    return known is not None and bool(known["image_sha256"]) and known["image_sha256"] == result.image_sha256


def _tested(path: Path, kind: str, layout: Layout) -> tuple[list[Problem], str]:
    """What dvdisaster finds wrong with an image; or why it was not asked."""
    if kind != "image":
        return [], f"{layout.text}: not tested in a drive; `burnish repair` reads the disc into an image and tests it"
    if dvdisaster.installed() is None:
        return [], f"{layout.text}: not tested, dvdisaster is not installed here"
    try:
        tested = dvdisaster.test(path)
    except MediaError as error:
        return [Problem(ProblemKind.PROTECTION, "", f"The error-correction data cannot be tested: {error}")], ""
    if tested.good:
        return [], f"{layout.text}, tested"
    hope = "all of it can be repaired" if tested.recoverable else "not all of it can be repaired"
    detail = f"{layout.text}: dvdisaster says {'; '.join(tested.faults)}. It expects that {hope} (`burnish repair`)."
    return [Problem(ProblemKind.PROTECTION, "", detail)], ""


def _kind(tree: FileTree) -> str:
    if isinstance(tree, IsoTree):
        return "drive" if tree.volume.device.is_drive else "image"
    return "folder"


def _ask(catalogue: Catalogue | None, identity: Identity) -> tuple[Document | None, tuple[str, ...]]:
    if catalogue is None or not (identity.file_set_uid or identity.file_set_id):
        return None, ()
    known = catalogue.medium(file_set_uid=identity.file_set_uid, file_set_id="")
    if not known["known"] and not identity.file_set_uid:
        # Its directory cannot be read any more; the volume identifier of a disc of ours says which one it was.
        known = catalogue.medium(file_set_uid="", file_set_id=identity.file_set_id)
        if known["known"]:
            by = "its volume identifier or README.TXT"
            return known, (f"its DICOMDIR cannot be read; taken for {identity.file_set_id} by {by}",)
    return (known, ()) if known["known"] else (None, ())


def _expected(known: Document, kind: str) -> Expected:
    image = kind != "folder"
    return Expected(
        image_sha256=known["image_sha256"] if image else None,
        image_bytes=known["sectors"] * SECTOR if image else None,
        file_set_id=known["file_set_id"],
        file_set_uid=known["file_set_uid"],
        files={instance["file"]: instance["sha256"] for instance in known["instances"]},
    )


def signed_by_another(result: VerifyResult, key: bytes | None) -> list[Problem]:
    """A medium that is signed wrongly has had its problem already."""
    if key is None or any(problem.kind is ProblemKind.SIGNATURE for problem in result.problems):
        return []
    if result.signer is None:
        return [Problem(ProblemKind.SIGNATURE, SIGNATURE_FILE, "The medium is not signed.")]
    if result.signer.split() != key.split():
        detail = f"It is signed with another key, that with the fingerprint {fingerprint(result.signer)}."
        return [Problem(ProblemKind.SIGNATURE, SIGNATURE_FILE, detail)]
    return []


def disc_read(known: Document, path: Path, wanted: str = "") -> str:
    """Which of a volume's discs (copies are equal) is the one that is read, so that a result can be recorded for it.

    ``wanted``: as a person says; else the disc whose image or folder lies at ``path``; else the only one that was
    verified and whose place is not on this machine. Raises UsageError that names the discs there are.
    """
    discs: list[dict[str, Any]] = known["discs"]
    if wanted:
        for disc in discs:
            if wanted.upper() in (disc["disc"], disc["disc"][1:]):
                return str(disc["disc"])
        raise UsageError(f"{wanted} is no disc of {known['file_set_id']}; they are {_named(discs)}")
    here = str(path.resolve())
    for disc in discs:
        if disc["location"] and str(Path(disc["location"]).resolve()) == here:
            return str(disc["disc"])
    candidates = [disc for disc in discs if disc["state"] == "VERIFIED"]
    if len(candidates) == 1 and not (candidates[0]["location"] and Path(candidates[0]["location"]).exists()):
        return str(candidates[0]["disc"])
    raise UsageError(
        f"which disc of {known['file_set_id']} is it? Copies are equal; say --disc with one of {_named(discs)}"
    )


def _named(discs: list[dict[str, Any]]) -> str:
    named = (f"{disc['disc']} (copy {disc['copy']}, {disc['location'] or disc['state']})" for disc in discs)
    return ", ".join(named) or "none"


def record(examined: Examined, catalogue: Catalogue, disc: str) -> Document:
    """Have the catalogue keep what was found, with an Event; a disc that is not sound is flagged."""
    what = f"{examined.kind} {examined.path}"
    detail = {
        "problems": len(examined.problems),
        "lost": len(examined.lost),
        "first": [problem.as_json() for problem in examined.problems[:5]],
        "unreadable_sectors": sum(last - first + 1 for first, last in examined.result.unreadable),
        "sectors": examined.known["sectors"] if examined.known and examined.kind != "folder" else None,
        "seconds": examined.seconds,
    }
    return catalogue.record_check(disc, good=examined.sound, how=what, detail=detail)
