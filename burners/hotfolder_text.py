"""Text for robots: clean, in the robot's code page, and unable to say more than it should.

Patient text is hostile: a line end in a name must not become a key of an order, nor a comma a further field.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

LONGEST_VALUE = 200
_REFUSED_CODE_PAGES = re.compile(r"utf_?-?(7|16|32)|iso2022|hz|idna|punycode|unicode_escape|undefined|hex|base64|rot")
_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_SECTION = re.compile(r"\[([^\[\]]{1,200})\]\s*$")


def check_code_page(name: str) -> str:
    """The code page's own name. Raises ValueError for one that is not known, or whose text could hide a line end."""
    try:
        info = codecs.lookup(name)
        plain = "".join(map(chr, range(32, 127))) + "\t\r\n"
        same = plain.encode(info.name) == plain.encode("ascii")
    except (LookupError, UnicodeError, TypeError) as error:
        raise ValueError(f"code page {name!r} is not known") from error
    if not same or _REFUSED_CODE_PAGES.match(info.name.replace("-", "_").lower()):
        raise ValueError(f"code page {name!r} does not contain ASCII; robots take such as cp1252, cp932 or utf-8")
    return info.name


def clean(value: str, *, forbidden: str = "", longest: int = LONGEST_VALUE) -> str:
    """One line of plain text: control, format and separating characters and those of ``forbidden`` become blanks.

    Runs of blanks become one; what is longer than ``longest`` characters ends with ``...``.
    """
    kept = "".join(" " if _breaks(character) or character in forbidden else character for character in value)
    text = " ".join(kept.split())
    return text if len(text) <= longest else text[: longest - 3].rstrip() + "..."


def encodable(value: str, code_page: str) -> tuple[str, int]:
    """The text with what the code page lacks replaced, and how many characters were: a letter by that without its
    marks, where there is one, else ``?``."""
    replaced = 0
    parts: list[str] = []
    for character in unicodedata.normalize("NFC", value):
        if _fits(character, code_page):
            parts.append(character)
            continue
        replaced += 1
        bare = "".join(part for part in unicodedata.normalize("NFD", character) if not unicodedata.combining(part))
        parts.append(bare if bare and bare != character and _fits(bare, code_page) else "?")
    return "".join(parts), replaced


def patient_text(value: str, code_page: str, *, forbidden: str = "") -> tuple[str, int]:
    """``encodable`` and ``clean`` in the order that is safe: what a replacement brings in is cleaned too."""
    text, replaced = encodable(clean(value, longest=10 * LONGEST_VALUE), code_page)
    return clean(text, forbidden=forbidden), replaced


def render(
    template: str, fields: Mapping[str, str | Sequence[str]], *, escape: Callable[[str], str] = lambda value: value
) -> str:
    """Fill a template, line by line; see ``Dialect.template``. Raises ValueError for a name that no field has."""
    lines: list[str] = []
    for line in template.splitlines():
        names = _FIELD.findall(line)
        unknown = [name for name in names if name not in fields]
        if unknown:
            raise ValueError(f"unknown field {{{unknown[0]}}}; known are {', '.join(sorted(fields))}")
        values = {name: [held] if isinstance(held := fields[name], str) else list(held) for name in names}
        if names and any(not any(found) for found in values.values()):
            continue
        for number in range(max((len(found) for found in values.values()), default=1)):
            chosen = {name: found[min(number, len(found) - 1)] for name, found in values.items()}
            lines.append(_FIELD.sub(lambda match, held=chosen: escape(_one_line(held[match[1]])), line))  # type: ignore[misc]
    return "".join(f"{line}\n" for line in lines)


def read_ini(text: str) -> dict[str, dict[str, str]]:
    """Sections with their keys and values, of a status file that may be damaged: what is no such line is passed over.

    Blanks around names, keys and values do not count. Of a key that comes twice in a section the last holds.
    """
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for line in text.split("\n"):
        header = _SECTION.match(line.strip())
        if header:
            current = sections.setdefault(header[1].strip(), {})
        elif current is not None and "=" in line:
            key, _, value = line.partition("=")
            current[key.strip()] = value.strip()
    return sections


def number(value: str | None) -> int | None:
    """A decimal number as robots write it; None for anything else."""
    return int(value) if value is not None and re.fullmatch(r"[+-]?[0-9]{1,9}", value) else None


def _one_line(value: str) -> str:
    """A last guard: nothing but one line goes into an order, whoever made the value."""
    if any(_breaks(character) for character in value if character != "\t"):
        raise ValueError("a value has a control character")
    return value


def _fits(text: str, code_page: str) -> bool:
    try:
        text.encode(code_page)
    except UnicodeError:
        return False
    return True


def _breaks(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
