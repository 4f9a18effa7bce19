"""One view of a file-set, be it a folder, a mounted disc or a disc image: canonical names and the bytes behind them.

Linux shows level 1 names in lower case, other makers' tools show ``;1`` or a trailing dot. Here every name is upper
case without either, and two names that differ in nothing else are both refused: a File ID could mean either.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Protocol, Self, TypeVar

from media.device import Device
from media.isoread import IsoEntry, IsoVolume
from media.problems import FileSetInvalid, Problem, ProblemKind

_DEPTH_LIMIT = 32
_ENTRY_LIMIT = 500_000
_BUFFER = 256 << 10

_OF_THE_SYSTEM = re.compile(
    r"SYSTEM VOLUME INFORMATION|LOST\+FOUND|\$RECYCLE\.BIN|\.SPOTLIGHT-V100|\.FSEVENTSD|\.TRASH.*"
)
"""Folders that operating systems put into the root of every writable medium; they are no part of a file-set."""

_VERSION = re.compile(r";[0-9]*$")
_HOSTILE = re.compile(r"[\x00-\x1f\x7f/\\]")


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a tree."""

    name: str
    """Canonical: from the root, with slashes, upper case, no ``;1``, no trailing dot."""
    size: int
    raw: str
    """The name as the medium has it, from the root, with slashes."""


class FileTree(Protocol):
    """What import and verification know of a medium. ``close`` it, or use it as a context manager."""

    @property
    def label(self) -> str:
        """Names the medium in messages."""

    @property
    def volume_id(self) -> str | None:
        """Volume identifier, where there is one."""

    @property
    def files(self) -> Mapping[str, TreeFile]:
        """Every file by its canonical name."""

    @property
    def problems(self) -> list[Problem]:
        """What was wrong with the tree itself: clashing, hostile or unreadable names, links, broken directories."""

    @property
    def order(self) -> Iterable[str]:
        """Canonical names in physical order, for reading without seeks."""

    def open(self, name: str) -> BinaryIO:
        """The file's bytes, seekable. KeyError for a name not in ``files``, OSError when it cannot be read."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def of_the_system(name: str) -> bool:
    """Whether a folder of this name in the root of a writable medium is the operating system's own."""
    return _OF_THE_SYSTEM.fullmatch(name.upper()) is not None


def canonical(component: str) -> str:
    """A name's component without case, version and trailing dot."""
    return _VERSION.sub("", component).removesuffix(".").upper()


def canonical_path(path: str) -> str:
    """A path with slashes, component by component."""
    return "/".join(canonical(component) for component in path.split("/"))


Node = TypeVar("Node")


@dataclass(frozen=True, slots=True)
class _Found(Generic[Node]):
    """A name in a directory, and how to come to what it names."""

    raw: str
    is_directory: bool
    size: int
    node: Node


class _Tree(ABC, Generic[Node]):
    """The walk that both kinds of tree share: canonical names, clashes, limits."""

    def __init__(self, label: str, root: Node) -> None:
        self.label = label
        self.problems: list[Problem] = []
        self.files: dict[str, TreeFile] = {}
        self._nodes: dict[str, Node] = {}
        self._entries = 0
        self._walk(root)

    @abstractmethod
    def _list(self, node: Node, name: str) -> Iterator[_Found[Node]]:
        """The entries of a directory; what is wrong with them goes to ``problems``."""

    def _problem(self, name: str, detail: str) -> None:
        self.problems.append(Problem(ProblemKind.STRUCTURE, name, detail))

    def _walk(self, root: Node) -> None:
        pending: list[tuple[Node, str, str, int]] = [(root, "", "", 0)]
        while pending:
            directory, name, raw, depth = pending.pop()
            if depth > _DEPTH_LIMIT:
                self._problem(name, f"Directories nested more than {_DEPTH_LIMIT} deep are not read.")
                continue
            below = []
            for found in self._distinct(directory, name):
                child = f"{name}/{canonical(_printable(found.raw))}".lstrip("/")
                child_raw = f"{raw}/{found.raw}".lstrip("/")
                if found.is_directory:
                    below.append((found.node, child, child_raw, depth + 1))
                else:
                    self.files[child] = TreeFile(child, found.size, child_raw)
                    self._nodes[child] = found.node
            if self._entries > _ENTRY_LIMIT:
                self._problem("", f"More than {_ENTRY_LIMIT} files and directories; the rest is not read.")
                return
            pending.extend(reversed(below))

    def _distinct(self, directory: Node, name: str) -> Iterable[_Found[Node]]:
        """The entries of a directory that have a name of their own."""
        by_name: dict[str, list[_Found[Node]]] = {}
        for found in self._list(directory, name):
            self._entries += 1
            if self._entries > _ENTRY_LIMIT:
                break
            shown = _printable(found.raw)
            component = canonical(shown)
            if component in ("", ".", "..") or _HOSTILE.search(shown):
                self._problem(name, f"A file or directory is named {shown!r}; it is not read.")
                continue
            by_name.setdefault(component, []).append(found)
        for component, same in by_name.items():
            if len(same) > 1:
                names = " and ".join(repr(_printable(found.raw)) for found in same)
                self._problem(
                    f"{name}/{component}".lstrip("/"),
                    f"The names {names} differ in nothing but case, version or trailing dot; none of them is read.",
                )
        return [same[0] for same in by_name.values() if len(same) == 1]

    def close(self) -> None:
        """Let go of the medium."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class FolderTree(_Tree[Path]):
    """A folder or mounted disc. Symbolic links and special files are reported and never followed."""

    volume_id: str | None = None

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileSetInvalid(f"{path}: is not a folder")
        super().__init__(str(path), path)

    @property
    def order(self) -> Iterable[str]:
        return sorted(self.files)

    def _list(self, node: Path, name: str) -> Iterator[_Found[Path]]:
        try:
            with os.scandir(node) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not name:
                raise FileSetInvalid(f"{node}: cannot be read: {error.strerror or error}") from error
            self._unreadable(name, error)
            return
        for entry in entries:
            path = node / entry.name
            shown = f"{name}/{canonical(_printable(entry.name))}".lstrip("/")
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._unreadable(shown, error)
                continue
            if stat.S_ISDIR(status.st_mode):
                if not name and of_the_system(entry.name):
                    continue
                yield _Found(entry.name, True, 0, path)
            elif stat.S_ISREG(status.st_mode):
                yield _Found(entry.name, False, status.st_size, path)
            elif stat.S_ISLNK(status.st_mode):
                self._problem(shown, "It is a symbolic link; links are not followed.")
            else:
                self._problem(shown, "It is neither a file nor a folder.")

    def _unreadable(self, name: str, error: OSError) -> None:
        self.problems.append(Problem(ProblemKind.UNREADABLE, name, f"It cannot be read: {error.strerror or error}."))

    def open(self, name: str) -> BinaryIO:
        # O_NOFOLLOW: it was no link when it was listed. O_NONBLOCK: nor a pipe that would wait for a writer.
        descriptor = os.open(self._nodes[name], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        return os.fdopen(descriptor, "rb", buffering=_BUFFER)


class IsoTree(_Tree[IsoEntry]):
    """The primary tree of an ISO 9660 image or device."""

    def __init__(self, path: Path, device: Device | None = None) -> None:
        self.volume = IsoVolume(path, device)
        self.volume_id: str | None = self.volume.volume_id
        self._seen: set[int] = set()
        try:
            super().__init__(str(path), self.volume.root)
        except BaseException:
            self.volume.close()
            raise
        self.problems[:0] = self.volume.problems

    @property
    def order(self) -> Iterable[str]:
        return sorted(self.files, key=lambda name: (self.extents(name) or ((0, 0),))[0])

    def extents(self, name: str) -> tuple[tuple[int, int], ...]:
        """(byte offset in the image, length) of each piece of a file."""
        return self._nodes[name].extents

    def _list(self, node: IsoEntry, name: str) -> Iterator[_Found[IsoEntry]]:
        for offset, _ in node.extents:
            if offset in self._seen:
                self._problem(name, "Its directory is another one's too: the tree runs in a loop.")
                return
            self._seen.add(offset)
        for entry in self.volume.entries(node, name):
            yield _Found(entry.identifier, entry.is_directory, entry.size, entry)

    def open(self, name: str) -> BinaryIO:
        return self.volume.open(self._nodes[name])

    def close(self) -> None:
        self.volume.close()


def open_tree(path: Path) -> FolderTree | IsoTree:
    """The tree of a folder, a mounted disc, a disc image or a device; a DICOMDIR stands for the folder around it.

    Raises FileSetInvalid with the reason when it is none of these.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise FileSetInvalid(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        return FolderTree(path)
    if stat.S_ISREG(mode) and canonical(path.name) == "DICOMDIR":
        return FolderTree(path.parent)
    return IsoTree(path)


def _printable(raw: str) -> str:
    """A name without the surrogates by which Python carries bytes that are no UTF-8."""
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\\x", "%")
