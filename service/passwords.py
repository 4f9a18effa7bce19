"""Passwords: what one must be like, and Argon2id hashes of them (RFC 9106)."""

from __future__ import annotations

import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from config.worded import Worded
from service.errors import UsageError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LONGEST = 1024
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each hash takes 64 MiB for its time; many sign-ins at once must not take as many times that."""


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()  # RFC 9106, second recommended option: 3 passes, 64 MiB, 4 lanes


@cache
def _nobody() -> str:
    """A hash that no password is right for, as costly as any."""
    return _hasher().hash("")


def require_good(password: str, *, user: str, least: int) -> None:
    """Raises UsageError that says what a password lacks. The text never has the password."""
    if len(password) < least:
        words = "the password is too short: it must have {least} characters"
        raise UsageError(Worded("password_short", words, least=least), "PASSWORD")
    if len(password) > LONGEST:
        raise UsageError(f"the password is too long: it may have {LONGEST} characters", "PASSWORD")
    if not _encodable(password):
        raise UsageError("the password has characters that are none (surrogates)", "PASSWORD")
    if len(set(password)) < 5:
        words = "the password is too simple: it must have 5 different characters"
        raise UsageError(Worded("password_simple", words), "PASSWORD")
    rest = _same(password).casefold().replace(user.casefold(), "")
    if len(rest) < least // 2:
        raise UsageError(Worded("password_name", "the password is little more than the user's name"), "PASSWORD")


def hashed(password: str) -> str:
    """The Argon2id hash in PHC form."""
    with _AT_ONCE:
        return _hasher().hash(_same(password))


def verify(hash_: str | None, password: str) -> bool:
    """Whether the password is right; where there is no hash, False after as long a time."""
    from argon2.exceptions import InvalidHashError, VerificationError

    usable = 0 < len(password) <= LONGEST and _encodable(password)
    try:
        with _AT_ONCE:
            right = _hasher().verify(hash_ or _nobody(), _same(password) if usable else "-")
    except (VerificationError, InvalidHashError):
        return False
    return right and hash_ is not None and usable


def outdated(hash_: str) -> bool:
    """Whether it was made with other parameters than ours now."""
    return _hasher().check_needs_rehash(hash_)


def _encodable(password: str) -> bool:
    try:
        password.encode()
    except UnicodeEncodeError:
        return False
    return True


def _same(password: str) -> str:
    """One form of what is typed as one or several code points (RFC 8265 4.2)."""
    return unicodedata.normalize("NFC", password)
