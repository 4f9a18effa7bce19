"""The manifest of a medium against its files, the medium's files against the manifest, and who signed it."""

from __future__ import annotations

import re
from collections.abc import Callable

from media import signing
from media.manifest import FILE_NAME, Manifest, parse
from media.problems import MediaError, ProblemKind
from media.trees import FileTree, canonical_path
from media.verify_read import Digests, reason
from media.verify_values import quoted

Report = Callable[[ProblemKind, str, str], None]

_LIMIT = 64 * 1024 * 1024
"""Bytes: the manifest of half a million files with long names."""
_KEY_LIMIT = 64 * 1024
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
        if name not in listed and name not in (FILE_NAME, signing.SIGNATURE_FILE):
            report(ProblemKind.MANIFEST, name, "The manifest does not list it.")


def signer(tree: FileTree, report: Report) -> bytes | None:
    """The public key (PEM) that signed the manifest; None: it is not signed, or wrongly, which is said."""
    names = (FILE_NAME, signing.SIGNATURE_FILE, signing.KEY_FILE)
    there = [name for name in names[1:] if name in tree.files]
    if not there or FILE_NAME not in tree.files:
        return None
    if len(there) == 1:
        (absent,) = set(names[1:]) - set(there)
        report(ProblemKind.SIGNATURE, absent, f"It is not there, and {there[0]} is: the signature cannot be checked.")
        return None
    limits = (_LIMIT, signing.SIGNATURE_BYTES, _KEY_LIMIT)
    parts = []
    for name, limit in zip(names, limits, strict=True):
        size = tree.files[name].size
        if size > limit or (name == signing.SIGNATURE_FILE and size != limit):
            report(ProblemKind.SIGNATURE, name, f"It has {size} bytes; that is no Ed25519 signature or key.")
            return None
        try:
            with tree.open(name) as stream:
                parts.append(stream.read(size))
        except OSError as error:
            report(ProblemKind.UNREADABLE, name, f"It cannot be read: {reason(error)}.")
            return None
    manifest, signature, key = parts
    try:
        if signing.is_signed(manifest, signature, key):
            return key
    except MediaError as error:
        report(ProblemKind.SIGNATURE, signing.KEY_FILE, f"It {error}.")
        return None
    detail = f"The key in {signing.KEY_FILE} did not sign this manifest: one of the three was changed."
    report(ProblemKind.SIGNATURE, signing.SIGNATURE_FILE, detail)
    return None
