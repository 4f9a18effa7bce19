"""User Identity Negotiation (PS3.7 D.3.3.7): user names and passcodes, kept as scrypt digests in a file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

USERNAME, PASSCODE = 1, 2
"""User Identity Types that we understand; Kerberos, SAML and JWT (3, 4, 5) we do not."""
_N, _R, _P = 1 << 14, 8, 1
_LENGTH = 32


class IdentityError(Exception):
    """The file of users cannot be used."""


def digest(passcode: str) -> str:
    """What is kept of a passcode."""
    salt = os.urandom(16)
    made = hashlib.scrypt(passcode.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=_LENGTH)
    return "scrypt$" + base64.b64encode(salt).decode() + "$" + base64.b64encode(made).decode()


def read_users(path: Path) -> dict[str, str]:
    """User names and digests: a TOML file of lines ``name = "scrypt$..."``. Raises IdentityError."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise IdentityError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    wrong = [name for name, kept in found.items() if not isinstance(kept, str) or _parts(kept) is None]
    if wrong:
        raise IdentityError(f"{path}: {', '.join(wrong)}: not made by `burnish passcode`")
    return found


def is_known(users: Mapping[str, str], kind: int, name: bytes, passcode: bytes, *, names_suffice: bool = False) -> bool:
    """Whether somebody is who he says. A name alone (type 1) proves nothing, unless ``names_suffice``."""
    try:
        kept = users.get(name.decode("utf-8"))
    except UnicodeDecodeError:
        return False
    if kind == USERNAME:
        return names_suffice and kept is not None
    parts = _parts(kept or digest(""))
    if kind != PASSCODE or parts is None:
        return False
    salt, wanted = parts
    made = hashlib.scrypt(passcode, salt=salt, n=_N, r=_R, p=_P, dklen=_LENGTH)
    return hmac.compare_digest(made, wanted) and kept is not None


def _parts(kept: str) -> tuple[bytes, bytes] | None:
    kind, _, rest = kept.partition("$")
    salt, _, made = rest.partition("$")
    try:
        found = base64.b64decode(salt, validate=True), base64.b64decode(made, validate=True)
    except ValueError:
        return None
    return found if kind == "scrypt" and len(found[0]) == 16 and len(found[1]) == _LENGTH else None
