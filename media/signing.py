"""The signature of a disc's manifest, so that a stranger can see that nothing was changed since the site made it.

Ed25519 (RFC 8032): the same key and manifest give the same 64 bytes, so every copy of a volume is equal. The disc has
MANIFEST.SIG (the bare signature), SITEKEY.PEM (the public key, SubjectPublicKeyInfo) and VERIFY.TXT (how to check with
``sha256sum`` and ``openssl``). The key on the disc proves only that one hand made all of it; whose hand that was, is
proved by comparing its fingerprint with the one that the site tells.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from media.problems import MediaError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_FILE = "MANIFEST.SIG"
KEY_FILE = "SITEKEY.PEM"
HELP_FILE = "VERIFY.TXT"
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 113
"""Of an Ed25519 key as PEM: planned before the key is looked at."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What a volume is signed with: a site key, or the signature that was made when it was planned."""

    public_key: bytes
    """PEM, as it lies on the disc."""
    sign: Callable[[bytes], bytes]
    """The signature of the manifest; raises MediaError where there is none for it."""


@dataclass(frozen=True, slots=True)
class SiteKey:
    """The key of a site. The private half stays in its file."""

    path: Path
    public_key: bytes

    @classmethod
    def open(cls, path: Path) -> SiteKey:
        """Read the key at ``path``, or make one there (mode 0600) where there is no file yet.

        Raises MediaError for a file that is no Ed25519 key, or that others may read.
        """
        try:
            if not path.exists():
                _make(path)
            if path.stat().st_mode & 0o077:
                raise MediaError(f"Others may read the signing key {path}: chmod 600 {path}")
            return cls(path, _public(_private(path)))
        except OSError as error:
            raise MediaError(f"The signing key {path} cannot be read or made: {error.strerror or error}") from error

    def sign(self, manifest: bytes) -> bytes:
        """64 bytes."""
        return bytes(_private(self.path).sign(manifest))

    @property
    def seal(self) -> Seal:
        return Seal(self.public_key, self.sign)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public_key)


def kept(public_key: bytes, signature: bytes) -> Seal:
    """A seal that was made before; it signs no other manifest than that one."""

    def sign(manifest: bytes) -> bytes:
        if not is_signed(manifest, signature, public_key):
            raise MediaError("The volume's signature does not fit its manifest: it was planned otherwise; plan it anew")
        return signature

    return Seal(public_key, sign)


def is_signed(manifest: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether this key signed these bytes. MediaError for what is no Ed25519 public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key)
    except Exception as error:  # what a mutilated key raises is not promised
        raise MediaError("is no public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise MediaError("is no Ed25519 public key")
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of SITEKEY.PEM as it lies on a disc, in groups of eight hex digits: what sites tell each other."""
    digest = hashlib.sha256(public_key).hexdigest()
    return " ".join(digest[at : at + 8] for at in range(0, 64, 8))


@cache
def help_bytes() -> bytes:
    """VERIFY.TXT: one page, the same on every disc. ASCII, CR LF."""
    text = resources.files("config").joinpath("disc-verify.txt").read_text("ascii")
    return text.replace("\n", "\r\n").encode("ascii")


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # the first of several threads or processes wins
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise MediaError(f"{path} holds no signing key (an unencrypted PKCS #8 PEM)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise MediaError(f"{path} holds no Ed25519 key")
    return key


def _public(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
