"""Read a medium like a stranger and say everything that is wrong with it: disc images, mounted discs, copied file-sets.

Nothing is taken from a database. The DICOMDIR says what should be there, the files say what they are, and the manifest,
where there is one, says what they were when the disc was made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from media import dicomdir_reader, verify_manifest, verify_profile, verify_set
from media.dicomdir_reader import Directory
from media.loss import Lost, lost_by_directory, lost_by_list
from media.manifest import FILE_NAME as MANIFEST
from media.manifest import Manifest
from media.problems import FileSetInvalid, MediaError, Problem, ProblemKind
from media.readme import FILE_NAME as README
from media.trees import FileTree, IsoTree, canonical_path, open_tree
from media.uids import IMPLEMENTATION_CLASS_UID
from media.verify_directory import DICOMDIR, DirectoryCheck
from media.verify_image import check_image
from media.verify_instance import dataset_values
from media.verify_meta import is_part10, read_meta
from media.verify_read import HEAD, Digests, FileRead, Pass, VerifyCancelled, read_tree, reason
from media.verify_values import quoted

__all__ = [
    "NO_DIRECTORY",
    "Expected",
    "VerifiedInstance",
    "VerifyCancelled",
    "VerifyResult",
    "verify_path",
    "verify_tree",
]

NO_DIRECTORY = "There is no DICOMDIR in the root of the medium."
PROBLEM_LIMIT = 10_000
"""Problems that are kept: a medium made to annoy shall not fill the memory."""
_README_PROFILE = re.compile(rb"^Profile: +([A-Z0-9-]{1,40})\r?$", re.MULTILINE)


class VerifiedInstance(NamedTuple):
    """A referenced instance that could be read."""

    sop_instance_uid: str
    file: str
    """Canonical name."""
    sha256: str
    """Of the whole file, lower-case hex."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the caller knows of the medium and a stranger would not; None and empty: not compared."""

    image_sha256: str | None = None
    image_bytes: int | None = None
    """Length of the image that was burnt; a drive may show some blocks more."""
    file_set_id: str | None = None
    file_set_uid: str | None = None
    instances: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the file by SOP Instance UID; each must be on the medium."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The same by File ID, joined by slashes: what can be compared where the DICOMDIR cannot be read any more."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was found on one medium."""

    medium: str
    problems: tuple[Problem, ...]
    file_set_id: str
    file_set_uid: str
    profile: str | None
    """Application profile by whose rules it was judged; None: by those that all profiles share."""
    instances: tuple[VerifiedInstance, ...]
    image_sha256: str | None
    """Of the image, where the medium is one and all of it could be read."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 in lower-case hex of each file that could be read whole, by canonical name, whether referenced or not."""
    lost: tuple[Lost, ...] = ()
    """What of that which the medium itself names is not on it, or not as it was; see ``media.loss``."""
    unreadable: tuple[tuple[int, int], ...] = ()
    """Sectors of an image, first and last of each stretch, that could not be read or were not tried any more."""
    signer: bytes | None = None
    """Public key (PEM, as on the medium) that rightly signed the manifest; whose key that is, is for others to say."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "problems": [problem.as_json() for problem in self.problems]}


def verify_path(
    path: Path,
    *,
    profile: str | None = None,
    expect: Expected | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    drop_cache: bool = False,
) -> VerifyResult:
    """``verify_tree`` for a disc image, a device, a folder or a DICOMDIR; what cannot be opened is a result, too."""
    try:
        tree = open_tree(path)
    except FileSetInvalid as error:
        problem = Problem(ProblemKind.STRUCTURE, path.name, str(error))
        return VerifyResult(str(path), (problem,), "", "", profile, (), None)
    with tree:
        return verify_tree(
            tree, profile=profile, expect=expect, progress=progress, cancelled=cancelled, drop_cache=drop_cache
        )


def verify_tree(
    tree: FileTree,
    *,
    profile: str | None = None,
    expect: Expected | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    drop_cache: bool = False,
) -> VerifyResult:
    """Read all of a medium once, in physical order, and compare everything on it with everything else.

    ``profile``: by whose rules (config/profiles.toml); else the one that our own README.TXT names. ``progress`` is
    told (bytes read, bytes in all). ``drop_cache``: read from the device and not from the page cache. Raises
    VerifyCancelled, and MediaError for an unknown ``profile``; what is wrong with the medium is never an exception.
    """
    return _Verification(tree, profile, expect or Expected()).run(progress, cancelled, drop_cache)


class _Verification:
    """One medium being verified."""

    def __init__(self, tree: FileTree, profile: str | None, expect: Expected) -> None:
        self._tree = tree
        self._expect = expect
        self._problems: dict[Problem, None] = {}
        self._dropped = 0
        for problem in tree.problems:
            self._report(problem.kind, problem.file, problem.detail)
        self._ours = False
        self._directory: Directory | None = self._load_directory()
        self._manifest: Manifest | None = verify_manifest.load(tree, self._ours, self._report)
        self._signer = verify_manifest.signer(tree, self._report) if self._manifest is not None else None
        self._set = verify_set.load(tree, self._report) if self._ours else None
        self._rules = verify_profile.rules_for(profile or self._readme_profile())
        self._check = (
            DirectoryCheck(self._directory, self._manifest, self._report, self._rules.directory_keys)
            if self._directory
            else None
        )
        self._area = _area(self._check)
        self._instances: list[tuple[str, str]] = []
        self._unreferenced: list[tuple[str, bool]] = []
        """Files that no record references, and whether they are DICOM files."""

    def run(
        self,
        progress: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
        drop_cache: bool,
    ) -> VerifyResult:
        task = Pass(self._visit, progress, cancelled, drop_cache, self._image_bytes())
        digests = read_tree(self._tree, task)
        for problem in task.problems:
            self._report(problem.kind, problem.file, problem.detail)
        self._finish(digests)
        directory = self._directory
        if self._dropped:
            self._problems[
                Problem(ProblemKind.STRUCTURE, "", f"There are {self._dropped} further problems, not listed.")
            ] = None
        return VerifyResult(
            medium=self._tree.label,
            problems=tuple(self._problems),
            file_set_id=directory.file_set_id if directory else "",
            file_set_uid=directory.file_set_uid if directory else "",
            profile=self._rules.name,
            instances=tuple(
                VerifiedInstance(uid, name, digests.files[name])
                for uid, name in self._instances
                if name in digests.files
            ),
            image_sha256=digests.image,
            digests=digests.files,
            lost=self._lost(digests),
            unreadable=tuple(task.unreadable),
            signer=self._signer,
        )

    def _image_bytes(self) -> int | None:
        """How much of an image is read: as was planned; of a disc in a drive, as its volume says; else all of it."""
        if self._expect.image_bytes is not None or not isinstance(self._tree, IsoTree):
            return self._expect.image_bytes
        volume = self._tree.volume
        return volume.volume_size if volume.device.is_drive else None

    def _report(self, kind: ProblemKind, file: str, detail: str) -> None:
        if len(self._problems) < PROBLEM_LIMIT:
            self._problems[Problem(kind, file, detail)] = None
        else:
            self._dropped += 1

    # ------------------------------------------------------------------ before the pass

    def _load_directory(self) -> Directory | None:
        if DICOMDIR not in self._tree.files:
            self._report(ProblemKind.MISSING, DICOMDIR, NO_DIRECTORY)
            return None
        try:
            with self._tree.open(DICOMDIR) as stream:
                head = stream.read(HEAD)
                meta, complaints = read_meta(head)
                for kind, detail in complaints:
                    self._report(kind, DICOMDIR, _sentence(detail))
                stream.seek(0)
                directory = dicomdir_reader.read(stream)
        except OSError as error:
            self._report(ProblemKind.UNREADABLE, DICOMDIR, f"It cannot be read: {reason(error)}.")
            return None
        except MediaError as error:
            self._report(ProblemKind.STRUCTURE, DICOMDIR, str(error))
            return None
        for problem in directory.problems:
            self._report(problem.kind, problem.file, problem.detail)
        self._ours = meta is not None and IMPLEMENTATION_CLASS_UID.encode("ascii") in head[:1024]
        verify_profile.check_directory(directory, self._report)
        return directory

    def _readme_profile(self) -> str | None:
        """The profile that README.TXT names, on a disc of ours."""
        if not self._ours or README not in self._tree.files:
            return None
        try:
            with self._tree.open(README) as stream:
                found = _README_PROFILE.search(stream.read(HEAD))
        except OSError:
            return None
        name = found[1].decode("ascii") if found else ""
        return name if verify_profile.is_known(name) else None

    # ------------------------------------------------------------------ a file passes by

    def _visit(self, file: FileRead) -> None:
        name, head = file.name, file.head
        if name in (DICOMDIR, MANIFEST):
            return
        if self._check is None or name not in self._check.referenced:
            self._unreferenced.append((name, is_part10(head)))
            return
        if not file.size:
            self._report(ProblemKind.STRUCTURE, name, "It is empty.")
            return
        if name in self._check.native:
            if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
                self._report(ProblemKind.STRUCTURE, name, "It is referenced as an HL7 document, and is no XML.")
            return
        meta, complaints = read_meta(head)
        for kind, detail in complaints:
            self._report(kind, name, _sentence(detail))
        if meta is None:
            return
        self._rules.check_transfer_syntax(name, meta, self._report)
        wanted = self._check.wanted(name) | self._rules.wanted
        values = dataset_values(self._tree, file, meta, wanted, self._report)
        self._check.visit(name, meta, values)
        self._rules.check_attributes(self._tree, file, meta, values, self._report)
        if meta.sop_instance_uid:
            self._check.duplicate(name, meta.sop_instance_uid)
            self._instances.append((meta.sop_instance_uid, name))

    # ------------------------------------------------------------------ after the pass

    def _finish(self, digests: Digests) -> None:
        if self._check is not None:
            self._check.finish()
            for name, index in self._check.referenced.items():
                if name not in self._tree.files:
                    kind = self._check.directory.records[index].type
                    detail = f"It is not there; the {kind} record in DICOMDIR references it."
                    self._report(ProblemKind.MISSING, name, detail)
            descriptor = "/".join(self._check.directory.descriptor or ())
            if descriptor and canonical_path(descriptor) not in self._tree.files:
                detail = "It is not there; DICOMDIR names it as File-set Descriptor File."
                self._report(ProblemKind.MISSING, canonical_path(descriptor), detail)
            self._judge_unreferenced(digests, self._check)
            if self._set is not None:
                verify_set.check(self._set, self._check.directory, self._check.referenced, self._report)
        verify_manifest.check(self._manifest, self._tree, digests, self._report)
        if isinstance(self._tree, IsoTree):
            check_image(self._tree, self._check.referenced if self._check else (), self._report)
            if self._directory is not None:
                verify_profile.check_volume_id(self._tree, self._directory, self._report)
        self._compare_expected(digests)

    def _judge_unreferenced(self, digests: Digests, check: DirectoryCheck) -> None:
        """DICOM files must be referenced; other files may lie beside, not among, those of the file-set."""
        contents = {digests.files[name] for name in check.referenced if name in digests.files}
        for name, is_dicom in self._unreferenced:
            if "/" in name and name.split("/")[0] in self._area:
                what = "DICOM file" if is_dicom else "file"
                detail = f"This {what} lies among those of the file-set, but no record in DICOMDIR references it."
                self._report(ProblemKind.UNREFERENCED, name, detail)
            elif is_dicom and digests.files.get(name) not in contents:
                # The same bytes under another name are allowed outside the file-set (PS3.10 8.5).
                self._report(ProblemKind.UNREFERENCED, name, "No record in DICOMDIR references this DICOM file.")

    def _lost(self, digests: Digests) -> tuple[Lost, ...]:
        """By the directory, or, where that cannot be read, by the manifest."""
        manifest = self._manifest.digests if self._manifest is not None else {}
        if self._check is not None:
            return lost_by_directory(
                self._check.directory, self._check.referenced, manifest, digests.files, self._problems
            )
        return lost_by_list({name: manifest[name] for name in manifest if "/" in name}, digests.files, self._problems)

    def _compare_expected(self, digests: Digests) -> None:
        expect = self._expect
        if expect.image_sha256 is not None and digests.image is not None and digests.image != expect.image_sha256:
            detail = f"The image has SHA-256 {digests.image}; it should have {expect.image_sha256}."
            self._report(ProblemKind.DIGEST, "", detail)
        if expect.image_bytes is not None and digests.image_bytes < expect.image_bytes:
            detail = f"The image has {digests.image_bytes} bytes; it should have {expect.image_bytes}."
            self._report(ProblemKind.STRUCTURE, "", detail)
        if self._directory is not None:
            for what, found, wanted in (
                ("File-set ID", self._directory.file_set_id, expect.file_set_id),
                ("File-set UID", self._directory.file_set_uid, expect.file_set_uid),
            ):
                if wanted is not None and found != wanted:
                    self._report(
                        ProblemKind.UID, DICOMDIR, f"{what} is {quoted(found)}; it should be {quoted(wanted)}."
                    )
        if expect.instances:
            self._compare_instances(digests, expect.instances)
        for name, digest in expect.files.items():
            if name not in self._tree.files:
                self._report(ProblemKind.MISSING, name, "It is not there; the catalogue has it on this medium.")
            elif name in digests.files and digests.files[name] != digest:
                detail = f"Its SHA-256 is {digests.files[name]}; the catalogue says {digest}."
                self._report(ProblemKind.DIGEST, name, detail)

    def _compare_instances(self, digests: Digests, wanted: Mapping[str, str]) -> None:
        names = dict(self._instances)
        for uid, digest in wanted.items():
            name = names.get(uid)
            if name is None:
                self._report(ProblemKind.MISSING, "", f"Instance {uid} should be on the medium and is not.")
            elif name in digests.files and digests.files[name] != digest:
                detail = f"Its SHA-256 is {digests.files[name]}; instance {uid} should have {digest}."
                self._report(ProblemKind.DIGEST, name, detail)


def _sentence(complaint: str) -> str:
    """A complaint about file meta information as a sentence about the file."""
    return f"It {complaint}." if complaint.startswith("is ") else f"Its {complaint}."


def _area(check: DirectoryCheck | None) -> set[str]:
    """The top-level folders in which the file-set's files lie."""
    if check is None:
        return set()
    return {name.split("/")[0] for name in check.referenced if "/" in name}
