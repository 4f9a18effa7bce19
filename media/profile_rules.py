"""Whether an instance is as its application profile wants it: attributes by the rules of config/profile_rules.toml.

The rules judge the file that goes on the disc, by its header alone. Sentences are for an administrator: which
attribute, what it is, what it must be, and where the standard says so.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import config
from media.elements import tag_text
from media.problems import MediaError, NotDicom
from media.profile_facts import MOST_ITEMS, OVERLAYS, Facts, Values, Wanted, is_overlay, read_facts
from media.profiles import Profile

CODE = "INST_AP_CONFLICT"
"""PS3.3 C.22.2: the instance conflicts with the application profile."""
_SHOWN = 40
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_EACH_OVERLAY = 0x60FF
"""Group of a tag that is written 60xx: stands for each overlay group (and is none, since odd ones are private)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which an instance is not as the profile wants it."""

    clause: str
    """``PS3.11 Table E.3-3``"""
    tag: str
    """``(gggg,eeee)``"""
    text: str
    """A sentence without its full stop, which names the clause."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One term of a rule's ``when``; see the head of config/profile_rules.toml."""

    tag: int
    one_of: frozenset[str | int] | None
    none_of: frozenset[str | int] | None

    def holds(self, facts: Facts, group: int) -> bool:
        values = _values(facts, _in_group(self.tag, group))
        if self.one_of is None and self.none_of is None:
            return values is not None
        if not values:
            return False
        if self.one_of is not None:
            return _is_one_of(values, self.one_of)
        return self.none_of is not None and not _is_one_of(values, self.none_of)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is asked of one attribute; see the head of config/profile_rules.toml."""

    path: tuple[int, ...]
    """Sequences that it is in, and its tag."""
    name: str
    clause: str
    about: str
    when: tuple[Condition, ...] = ()
    type: str = "3"
    one_of: tuple[str | int, ...] = ()
    min: int | None = None
    max: int | None = None
    equals: int | None = None
    minus: int = 0
    times: int | None = None
    max_product: int = 0
    absent: bool = False
    items: int = 0

    @property
    def tag(self) -> int:
        return self.path[-1]

    @property
    def fixed(self) -> bool:
        """Whether it holds of a conformed instance if and only if it holds of the one that was received."""
        others = (self.equals, self.times, *(condition.tag for condition in self.when))
        return {*self.path, *(tag for tag in others if tag is not None)} <= _fixed()

    @property
    def empty_does(self) -> bool:
        """Whether an instance without the attribute is as the rule wants it once that is there without a value."""
        return self.type == "2" and len(self.path) == 1 and not self.absent and not self.items

    def violations(self, facts: Facts) -> Iterator[Violation]:
        """At most one for a data set, and one for each overlay group: what is said of further items is the same."""
        if self.tag >> 16 == _EACH_OVERLAY:
            groups = sorted({tag >> 16 for tag in facts.values if is_overlay(tag) and tag != OVERLAYS})
            for group in groups:
                if said := self._broken(facts, group):
                    yield self._violation(said, "", group)
            return
        if len(self.path) == 1:
            if said := self._broken(facts, 0):
                yield self._violation(said, "", 0)
            return
        for number, item in enumerate(facts.items.get(self.path[0], ())[:MOST_ITEMS], 1):
            if said := self._broken(item, 0):
                where = f" in item {number} of {names()[self.path[0]]} {tag_text(self.path[0])}"
                yield self._violation(said, where, 0)
                return

    def _violation(self, said: str, where: str, group: int) -> Violation:
        tag = tag_text(_in_group(self.tag, group)) if self.tag != OVERLAYS else "(60XX,EEEE)"
        text = f"{self.name} {tag}{where} {said}; {self.about} it must {self.demand()} ({self.clause})"
        return Violation(self.clause, tag, text)

    def _broken(self, facts: Facts, group: int) -> str:
        """What is wrong with the attribute, ``is 9``; empty where nothing is or the rule does not hold here."""
        if not all(condition.holds(facts, group) for condition in self.when):
            return ""
        if self.items:
            found = facts.items.get(self.tag)
            if found is not None and len(found) > MOST_ITEMS:
                return f"has more than {MOST_ITEMS} items"
            return "" if found and len(found) >= self.items else "is missing" if found is None else "has no item"
        values = _values(facts, _in_group(self.tag, group))
        if self.absent:
            return "is there" if values is not None else ""
        if values is None:
            return "is missing" if self.type in ("1", "2") else ""
        if not values:
            return "is empty" if self.type == "1" else ""
        return "" if self._fits(values, facts) else f"is {shown(values)}"

    def _fits(self, values: Values, facts: Facts) -> bool:
        if self.one_of and not _is_one_of(values, frozenset(self.one_of)):
            return False
        if self.min is None and self.max is None and self.equals is None and self.times is None:
            return True
        number = _number(values)
        if number is None:
            return False
        if not (self.min is None or number >= self.min) or not (self.max is None or number <= self.max):
            return False
        if self.equals is not None:
            other = _number(_values(facts, self.equals) or ())
            return other is None or number == other - self.minus
        if self.times is not None:
            other = _number(_values(facts, self.times) or ())
            return other is None or number * other <= self.max_product
        return True

    def demand(self) -> str:
        """What it must, after that word."""
        if self.absent:
            return "not be there"
        if self.items:
            return "have an item" if self.items == 1 else f"have {self.items} items or more"
        if self.one_of:
            return f"be {_listed(self.one_of)}"
        if self.equals is not None:
            of = f"{names()[self.equals]} {tag_text(self.equals)}"
            return f"be {of} less {self.minus}" if self.minus else f"equal {of}"
        if self.times is not None:
            of = f"{names()[self.times]} {tag_text(self.times)}"
            return f"not make more than {self.max_product} pixels with {of}"
        if self.min is not None and self.max is not None:
            return f"be from {self.min} to {self.max}"
        if self.max is not None:
            return f"be {self.max} at most"
        if self.min is not None:
            return f"be {self.min} or more"
        return "have a value" if self.type == "1" else "be there, even if it is empty"


def check(profile: Profile, facts: Facts, *, to_be_conformed: bool = False) -> tuple[Violation, ...]:
    """Every rule of the profile that the instance breaks; empty where it is as the profile wants it.

    ``to_be_conformed``: only those that it will break then, too.
    """
    rules = (rule for rule in rules_of(profile.rules) if rule.fixed or not to_be_conformed)
    return tuple({violation: None for rule in rules for violation in rule.violations(facts)})


def facts_of(path: Path) -> Facts:
    """What the rules of any profile look at in a PS3.10 file; NotDicom where it cannot be followed."""
    return read_facts(path, wanted_of(tuple(rule_sets())))


def rule_refusal(profile: Profile, path: Path, *, to_be_conformed: bool = False) -> tuple[str, str] | None:
    """Failure code and reason for a file that cannot go on a disc of this profile; None where it can.

    ``to_be_conformed``: as it is, or as conforming could make it. The file is not opened where no rule would be asked.
    """
    if not any(rule.fixed or not to_be_conformed for rule in rules_of(profile.rules)):
        return None
    try:
        violations = check(profile, read_facts(path, wanted_of(profile.rules)), to_be_conformed=to_be_conformed)
    except NotDicom as error:
        return "PROC_FAILURE", f"its attributes cannot be read: {error}"
    if not violations:
        return None
    return CODE, reason(profile, violations)


@dataclass(frozen=True, slots=True)
class Lacking:
    """An attribute of type 2 that a file lacks: it can be put there empty, which invents no value (PS3.5 7.4.3)."""

    tag: int
    vr: str
    clause: str


def judge(
    profile: Profile, path: Path, *, to_be_conformed: bool = False
) -> tuple[tuple[str, str] | None, tuple[Lacking, ...]]:
    """As ``rule_refusal``, which does not count what the file lacks and can be given empty; and that."""
    rules = rules_of(profile.rules)
    if not any(rule.fixed or rule.empty_does or not to_be_conformed for rule in rules):
        return None, ()
    try:
        facts = read_facts(path, wanted_of(profile.rules))
    except NotDicom as error:
        return ("PROC_FAILURE", f"its attributes cannot be read: {error}"), ()
    lacking: dict[int, Lacking] = {}
    violations: dict[Violation, None] = {}
    for rule in rules:
        if rule.empty_does and _values(facts, rule.tag) is None and any(rule.violations(facts)):
            lacking.setdefault(rule.tag, Lacking(rule.tag, _vr(rule.tag), rule.clause))
        elif rule.fixed or not to_be_conformed:
            violations |= dict.fromkeys(rule.violations(facts))
    found = tuple(violations)
    return (CODE, reason(profile, found)) if found else None, tuple(lacking.values())


def _vr(tag: int) -> str:
    return next(str(row["vr"]) for text, row in _table()["attribute"].items() if _tag(text) == tag)


def reason(profile: Profile, violations: Iterable[Violation]) -> str:
    """One sentence of all violations."""
    return f"it is not as {profile.identifier} wants it: " + "; and ".join(found.text for found in violations)


@functools.cache
def rule_sets() -> Mapping[str, tuple[Rule, ...]]:
    """Every set of the table by its name, with what it includes."""
    rows = _table()["set"]
    return {name: tuple(_set(name, rows)) for name in rows}


@functools.cache
def rules_of(sets: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules of some sets; MediaError for one that there is not."""
    try:
        return tuple(rule for name in sets for rule in rule_sets()[name])
    except KeyError as error:
        raise MediaError(f"There is no set {error.args[0]!r} of rules for profiles") from None


@functools.cache
def names() -> Mapping[int, str]:
    """Names of the attributes that rules look at."""
    return {_tag(tag): row["name"] for tag, row in _table()["attribute"].items()}


@functools.cache
def _fixed() -> frozenset[int]:
    return frozenset(_tag(tag) for tag, row in _table()["attribute"].items() if row.get("fixed", False))


@functools.cache
def wanted_of(sets: tuple[str, ...]) -> Wanted:
    """What the rules of some sets look at."""
    return _wanted(list(rules_of(sets)), 0)


def _wanted(rules: list[Rule], depth: int) -> Wanted:
    vrs = {_tag(tag): row["vr"] for tag, row in _table()["attribute"].items()}
    looked_at = {
        tag
        for rule in rules
        if len(rule.path) == depth + 1
        for tag in (rule.tag, rule.equals, rule.times, *(condition.tag for condition in rule.when))
        if tag is not None
    }
    below: dict[int, list[Rule]] = {tag: [] for tag in looked_at if vrs[tag] == "SQ"}
    for rule in rules:
        if len(rule.path) > depth + 1:
            below.setdefault(rule.path[depth], []).append(rule)
    return Wanted(
        vrs={tag: vrs[tag] for tag in looked_at if tag not in below and tag >> 16 != _EACH_OVERLAY},
        sequences={tag: _wanted(inner, depth + 1) for tag, inner in below.items()},
        overlay={tag & 0xFFFF: vrs[tag] for tag in looked_at if tag >> 16 == _EACH_OVERLAY},
    )


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(config.__file__).with_name("profile_rules.toml").read_text(encoding="utf-8"))


def _set(name: str, rows: Mapping[str, Any]) -> Iterator[Rule]:
    row = rows[name]
    for included in row.get("include", ()):
        for rule in _set(included, rows):
            own = rule.clause != rows[included]["clause"]
            same = rule.about == rows[included]["about"]
            yield replace(
                rule, clause=rule.clause if own else row["clause"], about=row["about"] if same else rule.about
            )
    for rule in row["rules"]:
        path = tuple(_tag(part) for part in rule["tag"].split("/"))
        yield Rule(
            path=path,
            name=names()[path[-1]],
            clause=rule.get("clause", row["clause"]),
            about=rule.get("about", row["about"]),
            when=tuple(_condition(term) for term in (*row.get("when", ()), *rule.get("when", ()))),
            one_of=tuple(rule.get("one_of", ())),
            equals=_tag(rule["equals"]) if "equals" in rule else None,
            times=_tag(rule["times"]) if "times" in rule else None,
            **{
                key: rule[key]
                for key in ("type", "min", "max", "minus", "max_product", "absent", "items")
                if key in rule
            },
        )


def _condition(row: Mapping[str, Any]) -> Condition:
    return Condition(
        tag=_tag(row["tag"]),
        one_of=frozenset(row["one_of"]) if "one_of" in row else None,
        none_of=frozenset(row["none_of"]) if "none_of" in row else None,
    )


def _tag(text: str) -> int:
    return int(text.replace("60xx", "60FF"), 16)


def _in_group(tag: int, group: int) -> int:
    """The tag in an overlay group, where it is written for any of them."""
    return group << 16 | tag & 0xFFFF if tag >> 16 == _EACH_OVERLAY else tag


def _values(facts: Facts, tag: int) -> Values | None:
    """Components of an attribute, () where it is empty, None where it is not there."""
    values = facts.values.get(tag)
    if values is None and tag in facts.items:
        return ("items",) if facts.items[tag] else ()
    return values


def _is_one_of(values: Values, allowed: frozenset[str | int]) -> bool:
    if len(values) != 1:
        return False
    return values[0] in allowed or _number(values) in allowed


def _number(values: Values) -> float | None:
    """A single number, else None. Large ones lose digits, which no rule asks for."""
    if len(values) != 1 or not _NUMBER.fullmatch(values[0]):
        return None
    return float(values[0])


def _listed(allowed: tuple[str | int, ...]) -> str:
    texts = [str(one) for one in allowed]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def shown(values: Values) -> str:
    """Foreign text made safe for a message: one line, cut, no control characters."""
    text = "\\".join(values)
    text = "".join(c if c.isprintable() else "?" for c in text[: _SHOWN + 1])
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return text if _NUMBER.fullmatch(text) else f'"{text}"'
