"""Updating an image: made anew beside the old one and renamed over it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from media.iso9660 import IsoImage
from media.items import DiscFile
from media.manifest import FILE_NAME as MANIFEST
from media.problems import MediaError
from media.protection import refuse_update
from media.readme import FILE_NAME as README
from media.trees import FileTree, IsoTree
from media.update_change import DICOMDIR, Change, Orders, changed
from media.update_files import exclusive, remove_tree, sync

_CHUNK = 1 << 20


def update_image(target: Path, orders: Orders) -> Change:
    """The image anew, with every file that stays byte for byte; free space for it twice is needed beside it."""
    work = target.with_name(f".{target.name}.update")
    try:
        with target.open("rb") as stream, IsoTree(target) as tree:
            exclusive(stream.fileno(), target)
            refuse_update(tree.volume)
            remove_tree(work)
            change = changed(tree, orders)
            if not change.replaced:
                return change
            kept = [name for name in tree.order if name not in change.removed and name not in change.replaced]
            beyond = (
                2 * sum(tree.files[name].size for name in kept) + sum(item.size for _, item in change.added) + 2**20
            )
            if shutil.disk_usage(target.parent).free < beyond:
                raise MediaError(f"{target.parent} has not the {beyond} bytes free that the new image needs.")
            work.mkdir(mode=0o700)
            files = [generated(name, data) for name, data in change.replaced.items()]
            for number, name in enumerate(kept):
                copy = work / f"{number}"
                digest = _extract(tree, name, copy)
                files.append(DiscFile(tuple(name.split("/")), tree.files[name].size, digest, copy))
            files += [
                DiscFile(tuple(path.split("/")), item.size, item.sha256, item.source) for path, item in change.added
            ]
            rank = {DICOMDIR: 0, README: 1, MANIFEST: 2}
            files.sort(key=lambda file: rank.get(file.path, 3))
            image = IsoImage(files, tree.volume_id or change.edit.directory.file_set_id, orders.now)
            fresh = work / "image"
            with fresh.open("xb") as out:
                image.write(out)
                out.flush()
                os.fsync(out.fileno())
            shutil.copymode(target, fresh)
            fresh.replace(target)
            sync(target.parent)
    finally:
        remove_tree(work)
    return change


def generated(name: str, data: bytes) -> DiscFile:
    return DiscFile((name,), len(data), hashlib.sha256(data).hexdigest(), data)


def _extract(tree: FileTree, name: str, target: Path) -> str:
    digest = hashlib.sha256()
    with tree.open(name) as stream, target.open("xb") as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()
