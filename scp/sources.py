"""The bytes of an instance that is to be sent: from the spool, as a disc gave it back, or from the image of a disc."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from media.part10 import file_meta, locate, locate_in
from media.problems import MediaError
from media.trees import FileTree, canonical_path, open_tree
from scp.conversion import ConversionFailed, Converter
from scp.sending import Stream
from store.retrieval import Held, Place
from store.spool import Spool

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20


RENAMED = "it is there only under another patient's name or number, and not sent"


class NotThere(Exception):
    """The bytes of an instance cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set, ready to be read."""

    stream: Stream
    length: int
    transfer_syntax_uid: str


class Sources:
    """Opens instances for one retrieve; images that were opened stay open until its end."""

    def __init__(self, spool: Spool, derived_dir: Path) -> None:
        self._spool = spool
        self._derived_dir = derived_dir
        self._converter = Converter()
        self._images: dict[Path, FileTree] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        self._converter.close()

    @contextmanager
    def open(self, instance: Held) -> Iterator[Source]:
        """Raises NotThere."""
        if instance.spool_path is not None:
            path = self._spool.path_of(instance.spool_path)
            try:
                file = path.open("rb", buffering=0)
            except OSError as error:
                raise NotThere(f"{path.name} cannot be read from the spool: {error.strerror or error}") from error
            with file:
                if os.fstat(file.fileno()).st_size != instance.file_bytes:
                    raise NotThere(
                        f"{path.name} in the spool has not the {instance.file_bytes} bytes that were received"
                    )
                file.seek(instance.file_bytes - instance.dataset_bytes)
                yield Source(file, instance.dataset_bytes, instance.transfer_syntax_uid)
            return
        restored = self._restored_path(instance)
        if restored is not None:
            try:
                file = restored.open("rb", buffering=0)
            except OSError as error:
                raise NotThere(f"{restored.name} cannot be read: {error.strerror or error}") from error
            with file:
                yield _positioned(file, restored)
            return
        if instance.only_renamed:
            raise NotThere(RENAMED)
        if not instance.file_sets:
            raise NotThere("it is neither in the spool nor on a verified disc")
        if not instance.places:
            raise NotThere(f"it is only on discs: {', '.join(instance.file_sets[:3])}")
        reasons = []
        for place in instance.places:
            try:
                stream, source = self._on_disc(instance, place)
            except (MediaError, OSError, KeyError, NotThere) as error:
                reasons.append(f"{place.image.name}: {error}")
                continue
            with stream:
                yield source
            return
        raise NotThere("; ".join(reasons))

    @contextmanager
    def plain(self, instance: Held, source: Source) -> Iterator[Source]:
        """The same instance in Explicit VR Little Endian. Raises NotThere where it cannot be decoded."""
        with ExitStack() as files:

            def scratch() -> Path:
                path = self._spool.scratch()
                files.callback(path.unlink, missing_ok=True)
                return path

            try:
                if instance.spool_path is not None:
                    path = self._spool.path_of(instance.spool_path)
                elif (restored := self._restored_path(instance)) is not None:
                    path = restored
                else:
                    path = scratch()
                    _write(path, instance, source)
                target = scratch()
                self._converter.convert(path, target)
                file = files.enter_context(target.open("rb", buffering=0))
                plain = _positioned(file, target)
            except (ConversionFailed, MediaError, NotThere, OSError) as error:
                raise NotThere(f"it cannot be made Explicit VR Little Endian: {error}") from error
            yield plain

    def _restored_path(self, instance: Held) -> Path | None:
        """Its conformed file, where that is still whole."""
        if instance.spool_path is not None or instance.restored is None:
            return None
        path = self._derived_dir / instance.restored.path
        try:
            return path if path.stat().st_size == instance.restored.size else None
        except OSError:
            return None

    def _on_disc(self, instance: Held, place: Place) -> tuple[BinaryIO, Source]:
        """The file in an image, once it was read and its digest compared."""
        if place.image not in self._images:
            tree = open_tree(place.image)
            self._stack.callback(tree.close)
            self._images[place.image] = tree
        stream = self._images[place.image].open(canonical_path(place.file_id))
        try:
            digest, size = hashlib.sha256(), 0
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
            if digest.hexdigest() != place.sha256:
                raise NotThere(f"{place.file_id} differs from the catalogue's digest")
            part = locate_in(stream, place.file_id)
            if part.sop_instance_uid != instance.sop_instance_uid:
                raise NotThere(f"{place.file_id} is another instance")
            stream.seek(part.dataset_offset)
        except BaseException:
            stream.close()
            raise
        return stream, Source(stream, size - part.dataset_offset, part.transfer_syntax_uid)  # type: ignore[arg-type]


def _positioned(file: FileIO, path: Path) -> Source:
    """A PS3.10 file's data set. Raises NotThere."""
    try:
        part = locate(path)
        size = os.fstat(file.fileno()).st_size
        file.seek(part.dataset_offset)
    except (MediaError, OSError) as error:
        raise NotThere(f"{path.name} cannot be read: {error}") from error
    return Source(file, size - part.dataset_offset, part.transfer_syntax_uid)


def _write(path: Path, instance: Held, source: Source) -> None:
    """An instance of a disc's image as a file of its own."""
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("wb") as out:
        out.write(file_meta(instance.sop_class_uid, instance.sop_instance_uid, source.transfer_syntax_uid))
        while count := source.stream.readinto(buffer):
            out.write(buffer[:count])
