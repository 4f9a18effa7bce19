"""Rules by which attributes are corrected on their way to a disc (config/coercion.toml says which can be).

A rule looks at the values as they were received, whatever rules before it have set; where two set one attribute, the
later one counts. What a rule takes from the catalogue is the caller's to look up.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from media.edits import Edit
from media.problems import MediaError

_LIMIT = 1 << 20
_MANY = 1000
_KEYS = ("name", "when", "set", "empty", "remove", "from_catalogue")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_FORMS = {
    "AS": r"[0-9]{3}[DWMY]",
    "CS": r"[A-Z0-9_ ]{1,16}",
    "DA": r"[0-9]{4}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])",
    "DS": r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?",
    "IS": r"[+-]?[0-9]{1,10}",
    "TM": r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?",
}
_LENGTHS = {"DS": 16, "LO": 64, "SH": 16, "ST": 1024, "LT": 10240, "PN": 64}
"""Characters of a value (PS3.5 6.2); of a person name in each component group."""


class RulesError(MediaError):
    """A file of rules, or a rule, is wrong; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row of config/coercion.toml."""

    keyword: str
    level: str
    tag: int
    vr: str
    needed: int = 0
    many: bool = False
    catalogue: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is set where: see docs/coercion.md."""

    name: str
    when: tuple[tuple[int, tuple[str, ...]], ...]
    """Tags, and patterns of which one must match the value."""
    values: tuple[tuple[Attribute, str | None], ...]
    """What each attribute becomes; None: it is taken out."""
    from_catalogue: tuple[Attribute, ...]

    def holds(self, values: Mapping[int, str]) -> bool:
        """``values`` are the instance's as text, by tag."""
        return all(any(_matches(pattern, values.get(tag, "")) for pattern in patterns) for tag, patterns in self.when)


@cache
def attributes() -> Mapping[str, Attribute]:
    """What may be corrected, by keyword."""
    rows = tomllib.loads(resources.files("config").joinpath("coercion.toml").read_text("utf-8"))
    return {keyword: Attribute(keyword, **{**row, "tag": int(row["tag"], 16)}) for keyword, row in rows.items()}


def read_rules(path: Path) -> list[dict[str, Any]]:
    """The rules of a file (TOML, ``[[rule]]`` tables) as documents for ``rules_of``; RulesError names what is wrong."""
    try:
        if path.stat().st_size > _LIMIT:
            raise RulesError(f"{path} is longer than {_LIMIT} bytes")
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RulesError(f"{path} cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RulesError(f"{path} is no TOML: {error}") from None
    documents = document.pop("rule", [])
    if document or not isinstance(documents, list):
        raise RulesError(f"{path} may hold [[rule]] tables only, and has {', '.join(document) or 'a table [rule]'}")
    try:
        rules_of(documents)
    except RulesError as error:
        raise RulesError(f"{path}: {error}") from None
    return documents


def rules_of(documents: Iterable[Any]) -> tuple[Rule, ...]:
    """Rules from their JSON documents. RulesError names the rule and what is wrong with it."""
    documents = list(documents)
    if len(documents) > _MANY:
        raise RulesError(f"there are {len(documents)} rules; {_MANY} are the most")
    return tuple(_rule(number, document) for number, document in enumerate(documents, 1))


def condition_of(name: str, when: Mapping[str, Any]) -> Rule:
    """A rule that changes nothing: whether it ``holds`` is what is asked. RulesError as above."""
    return Rule(name, tuple((_tag(name, key), _patterns(name, key, value)) for key, value in when.items()), (), ())


def looked_at(rules: Iterable[Rule]) -> frozenset[int]:
    """Tags whose values a rule's condition or an edit's effect depends on."""
    found = set()
    for rule in rules:
        found |= {tag for tag, _ in rule.when}
        found |= {attribute.tag for attribute, _ in rule.values} | {one.tag for one in rule.from_catalogue}
    return frozenset(found)


def corrections(
    rules: Sequence[Rule], values: Mapping[int, str], catalogue: Mapping[str, str], *, everything: bool
) -> dict[int, Edit]:
    """What rules and catalogue change in an instance, by tag; what they leave as it is is not here.

    ``catalogue`` has, by keyword, what is known of the instance's patient and study; ``everything``: all of that which
    is not empty is taken, before any rule. Attributes that rules take from the catalogue are not looked up here.
    """
    found: dict[int, Edit] = {}
    if everything:
        for attribute in attributes().values():
            value = catalogue.get(attribute.keyword, "") if attribute.catalogue else ""
            if value:
                found[attribute.tag] = Edit(attribute.tag, attribute.vr, value, "as in the catalogue")
    for rule in rules:
        if rule.holds(values):
            for attribute, new in rule.values:
                vr = attribute.vr.split(" ")[0]
                found[attribute.tag] = Edit(attribute.tag, vr, new, f"rule {rule.name}")
    return {tag: edit for tag, edit in found.items() if not _is_already(edit, values.get(tag))}


def _is_already(edit: Edit, value: str | None) -> bool:
    if value is None:
        return not edit.value  # what is absent has no value, and is not put there for that
    if edit.value is None:
        return False
    return edit.value.strip() == value.strip()


def _matches(pattern: str, value: str) -> bool:
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return any(re.fullmatch(expression, one.strip(), re.DOTALL) for one in (value, *value.split("\\")))


def _rule(number: int, document: Any) -> Rule:
    if not isinstance(document, Mapping):
        raise RulesError(f"rule {number} is no table")
    name = document.get("name", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RulesError(f"rule {number} needs a name of 1 to 32 characters A-Z a-z 0-9 _ . -")
    if unknown := sorted(set(document) - set(_KEYS)):
        raise RulesError(f"rule {name} has {', '.join(map(str, unknown))}; it may have {', '.join(_KEYS)}")
    values: list[tuple[Attribute, str | None]] = [
        (attribute, _value(name, attribute, value))
        for attribute, value in ((_attribute(name, key), value) for key, value in _table(name, document, "set").items())
    ]
    for attribute in _listed(name, document, "empty"):
        if attribute.needed == 1:
            raise RulesError(f"rule {name}: {attribute.keyword} must not be empty")
        _value(name, attribute, "")
        values.append((attribute, ""))
    for attribute in _listed(name, document, "remove"):
        if attribute.needed:
            raise RulesError(f"rule {name}: {attribute.keyword} must not be taken out")
        values.append((attribute, None))
    taken = _listed(name, document, "from_catalogue")
    if wrong := [one.keyword for one in taken if one.catalogue != "patient"]:
        known = ", ".join(one.keyword for one in attributes().values() if one.catalogue == "patient")
        raise RulesError(f"rule {name}: from_catalogue may name {known}, not {', '.join(wrong)}")
    if not values and not taken:
        raise RulesError(f"rule {name} changes nothing; it needs set, empty, remove or from_catalogue")
    tags = [attribute.tag for attribute, _ in values] + [attribute.tag for attribute in taken]
    if len(tags) != len(set(tags)):
        raise RulesError(f"rule {name} says two things of one attribute")
    when = tuple(
        (_tag(name, key), _patterns(name, key, value)) for key, value in _table(name, document, "when").items()
    )
    return Rule(name, when, tuple(values), taken)


def _table(name: str, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, Mapping):
        raise RulesError(f"rule {name}: {key} is no table of keywords and values")
    return value


def _listed(name: str, document: Mapping[str, Any], key: str) -> tuple[Attribute, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RulesError(f"rule {name}: {key} is no list of keywords")
    return tuple(_attribute(name, one) for one in value)


def _attribute(name: str, keyword: Any) -> Attribute:
    found = attributes().get(keyword) if isinstance(keyword, str) else None
    if found is None:
        raise RulesError(f"rule {name}: {keyword!r} is not corrected by rules; these are: {', '.join(attributes())}")
    return found


def _tag(name: str, keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None:
        raise RulesError(f"rule {name}: {keyword!r} is no keyword of PS3.6")
    return int(tag)


def _patterns(name: str, keyword: str, value: Any) -> tuple[str, ...]:
    patterns = list(value) if isinstance(value, list | tuple) else [value]
    if not patterns or not all(isinstance(one, str | int) and not isinstance(one, bool) for one in patterns):
        raise RulesError(f"rule {name}: the condition on {keyword} is no text, number or list of them")
    return tuple(str(one) for one in patterns)


def _value(name: str, attribute: Attribute, value: Any) -> str:
    """The value as text; RulesError where it is none of its VR (PS3.5 6.2)."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if isinstance(text, list):
        text = "\\".join(str(one) for one in text)
    if not isinstance(text, str):
        raise RulesError(f"rule {name}: the value of {attribute.keyword} is no text, number or list of them")
    if " or " in attribute.vr:
        raise RulesError(f"rule {name}: {attribute.keyword} can only be taken out (remove)")
    if not text and attribute.needed == 1:
        raise RulesError(f"rule {name}: {attribute.keyword} must not be empty")
    parts = text.split("\\") if attribute.many else [text]
    lines = attribute.vr in ("ST", "LT")
    for part in parts if text else ():
        form, limit = _FORMS.get(attribute.vr), _LENGTHS.get(attribute.vr, 64)
        pieces = part.split("=") if attribute.vr == "PN" else [part]
        bad = any(len(piece) > limit for piece in pieces) or (attribute.vr == "PN" and len(pieces) > 3)
        bad |= form is not None and not re.fullmatch(form, part)
        bad |= not all(c.isprintable() or (lines and c in "\r\n\t") for c in part) or ("\\" in part and not lines)
        if bad:
            raise RulesError(f"rule {name}: {text!r} is no value of {attribute.keyword} (VR {attribute.vr}, PS3.5 6.2)")
    return text
