"""Text of a label: patient text made harmless, and a PN's component groups as people write them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

LIMIT = 400
"""Characters of one value; what is longer is cut, with a mark."""
_MARK = "\ufffd"
_SILENT = frozenset("\u200b\u200e\u200f\u00ad\ufeff\u2060")
"""Invisible and harmless: left out without a mark."""
_JOINERS = "\u200c\u200d"
_COMBINING = 4
"""Marks on one letter; more only serve to draw over other lines."""


def clean(value: str, limit: int = LIMIT) -> str:
    """One line of printable text: control characters and bidirectional overrides become U+FFFD, blanks one blank."""
    found: list[str] = []
    marks = 0
    for character in value[: 4 * limit]:
        category = unicodedata.category(character)
        if category == "Mn":
            marks += 1
            if marks <= _COMBINING:
                found.append(character)
            continue
        marks = 0
        if character in _JOINERS or (category[0] not in "CZ" and character != "\ufffc"):
            found.append(character)
        elif category[0] == "Z" or character in "\t\r\n\f":
            found.append(" ")
        elif character not in _SILENT:
            found.append(_MARK)
    text = unicodedata.normalize("NFC", " ".join("".join(found).split()))
    if len(text) > limit or len(value) > 4 * limit:
        text = text[: limit - 1].rstrip() + "…"
    return text


@dataclass(frozen=True, slots=True)
class Name:
    """A person's name by component groups (PS3.5 6.2.1): alphabetic, ideographic, phonetic."""

    alphabetic: str = ""
    ideographic: str = ""
    phonetic: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(group for group in (self.alphabetic, self.ideographic, self.phonetic) if group)


def name_of(value: str) -> Name:
    """``Yamada^Tarou=山田^太郎=やまだ^たろう`` as people write it; what stands behind a third group is kept in it."""
    first, second, third = (*value.split("=", 2), "", "")[:3]
    return Name(_western(first), _eastern(second), _eastern(third.replace("=", " ")))


def _western(group: str) -> str:
    family, given, middle, prefix, suffix = [clean(part) for part in (*group.split("^", 4), *[""] * 5)[:5]]
    first_names = " ".join(part for part in (given, middle) if part)
    if not all(_has_commas(character) for character in group):
        return _eastern(group)
    return ", ".join(part for part in (family, first_names, prefix, suffix.replace("^", " ")) if part)


def _has_commas(character: str) -> bool:
    """Scripts in which family and given names are parted by a comma when the family name comes first."""
    return not character.isalpha() or unicodedata.name(character, "").startswith(
        ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "MODIFIER LETTER", "FEMININE", "MASCULINE")
    )


def _eastern(group: str) -> str:
    return clean(group.replace("^", " "))
