"""Searching for people by name: wildcards, without regard to case and accents."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from sqlalchemy import ColumnElement, or_

from store.models import Patient

# Letters that people type without their stroke or ligature but that Unicode does not decompose.
_PLAIN = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})


def folded(name: str) -> str:
    """A person name (all component groups, joined by ``=``) as it is searched: ``=doe john=山田 太郎=``.

    Lower case, without the accents of Latin, Greek and Cyrillic letters, ``^`` and runs of blanks as one blank, each
    component group between two ``=``.
    """
    groups = [folded_text(group) for group in name.split("=")]
    return "=" + "".join(f"{group}=" for group in groups if group)


def further_groups(name_search: str) -> tuple[str | None, str | None]:
    """Second and third component group of a folded name."""
    groups = name_search.strip("=").split("=")
    return groups[1] if len(groups) > 1 else None, groups[2] if len(groups) > 2 else None


def folded_text(text: str) -> str:
    """One component group, or a pattern for one, as it is searched."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f").translate(_PLAIN)
    return " ".join(re.split(r"[\s^]+", unicodedata.normalize("NFC", plain))).strip()


def name_matches(pattern: str, column: ColumnElement[Any] | None = None) -> ColumnElement[bool]:
    """Patients with this name: ``*`` any text, ``?`` any character (PS3.4 C.2.2.2.4).

    ``column``: where folded names stand, if they are others than those of patients.

    Without a wildcard the pattern is a whole component group or its first components, so that ``doe`` finds
    ``DOE^JOHN``.
    """
    text = folded_text(pattern.replace("=", " "))
    names = Patient.name_search if column is None else column
    like = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    if "*" in text or "?" in text:
        return names.like(f"%={like.replace('*', '%').replace('?', '_')}=%", escape="\\")
    return or_(names.like(f"%={like}=%", escape="\\"), names.like(f"%={like} %", escape="\\"))
