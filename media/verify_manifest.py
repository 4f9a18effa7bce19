"""The manifest of a medium against its files, and the medium's files against the manifest."""

from __future__ import annotations

import re
from collections.abc import Callable

from media.manifest import FILE_NAME, Manifest, parse
from media.problems import MediaError, ProblemKind
from media.trees import FileTree, canonical_path
from media.verify_read import Digests, reason
from media.verify_values import quoted

Report = Callable[[ProblemKind, str, str], None]

_LIMIT = 64 * 1024 * 1024
"""Bytes: the manifest of half a million files with long names."""
_TRACE_OF_OURS = re.compile(rb"^[0-9a-f]{64} [ *]\S|# sha256 of the lines above", re.MULTILINE | re.IGNORECASE)


def load(tree: FileTree, ours: bool, report: Report) -> Manifest | None:
    """Read the manifest strictly. None: there is none, or it cannot be believed, which is said.

    ``ours``: the disc was made by us, so there must be one. A file of the same name without a single line in our form
    on a disc of another maker is left alone.
    """
    if FILE_NAME not in tree.files:
        if ours:
            report(ProblemKind.MANIFEST, FILE_NAME, "It is not there; every disc of this maker has one.")
        return None
    size = tree.files[FILE_NAME].size
    if size > _LIMIT:
        report(ProblemKind.MANIFEST, FILE_NAME, f"It has {size} bytes; more than {_LIMIT} are not read.")
        return None
    try:
        with tree.open(FILE_NAME) as stream:
            data = stream.read(size)
    except OSError as error:
        report(ProblemKind.UNREADABLE, FILE_NAME, f"It cannot be read: {reason(error)}.")
        return None
    if not ours and not _TRACE_OF_OURS.search(data):
        return None
    try:
        manifest = parse(data)
    except MediaError as error:
        report(ProblemKind.MANIFEST, FILE_NAME, str(error))
        return None
    return manifest


def check(manifest: Manifest | None, tree: FileTree, digests: Digests, report: Report) -> None:
    """Every file that the manifest lists is there with its digest; every file that is there is listed."""
    if manifest is None:
        return
    listed = set()
    for path, digest in manifest.digests.items():
        if path != canonical_path(path) or {"", ".", ".."} & {*path.split("/")} or path == FILE_NAME:
            report(ProblemKind.MANIFEST, FILE_NAME, f"It lists {quoted(path)}, which is no name of a file on a disc.")
            continue
        listed.add(path)
        if path not in tree.files:
            report(ProblemKind.MISSING, path, "It is not there; the manifest lists it.")
        elif path in digests.files and digests.files[path] != digest:
            report(ProblemKind.DIGEST, path, f"Its SHA-256 is {digests.files[path]}; the manifest says {digest}.")
    for name in tree.files:
        if name not in listed and name != FILE_NAME:
            report(ProblemKind.MANIFEST, name, "The manifest does not list it.")
