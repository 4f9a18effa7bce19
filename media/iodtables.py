"""What an IOD asks of an instance (PS3.3): the module tables that come with highdicom and the rows of config/iod.toml.

highdicom is not imported: its tables are JSON, of which only the modules of the IODs met are read (a few ms each).
"""

from __future__ import annotations

import json
import mmap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources, util
from pathlib import Path
from typing import Any

from media.problems import MediaError

STANDARD = "PS3.3"
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


class TablesMissing(MediaError):
    """The tables of highdicom are not where they were in the versions that we know, or our own rows miss them."""


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison of a condition."""

    path: tuple[int, ...]
    """Tags from the data set, or the item, down to the attribute."""
    from_root: bool
    how: str
    """``present``, ``absent``, ``equals``, ``differs`` or ``above``."""
    values: frozenset[str] = frozenset()
    limit: float = 0

    def holds(self, texts: Sequence[str]) -> bool:
        """For the values of the attribute wherever it is; those of an absent or empty one are left out."""
        if self.how in ("present", "absent"):
            return bool(texts) == (self.how == "present")
        components = {part.strip() for text in texts for part in text.split("\\")}
        if self.how == "above":
            return any(_number(part) > self.limit for part in components)
        return bool(texts) and (not self.values.isdisjoint(components)) == (self.how == "equals")


def _number(text: str) -> float:
    try:
        return float(text[:64])
    except ValueError:
        return float("-inf")


Condition = tuple[Term, ...]
"""All of them hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """A module as an IOD uses it."""

    key: str
    name: str
    clause: str
    """``PS3.3 C.7.1.1``; ``PS3.3`` where our table does not have it."""
    usage: str
    """``M``, ``C`` or ``U``."""
    triggers: frozenset[int]
    """Of a module of usage C or U: tags whose presence tells that it is there."""
    presence: tuple[Condition, ...]
    """Any of them tells that it is there or required; none: no program can tell but by the triggers."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """What one module, or one reader, asks of one attribute."""

    module: Module
    tag: int
    keyword: str
    path: tuple[int, ...]
    """The sequences that it is in."""
    type: str
    """``1``, ``1C``, ``2`` or ``2C``; ``""`` for a rule on the value only."""
    clause: str
    may_lack: bool
    """Whether absence is no finding: type 1C and 2C without a condition that a program can decide."""
    conditions: tuple[Condition, ...] = ()
    """Any of them makes it required; none: always."""
    allowed: frozenset[str] = frozenset()
    by_standard: bool = True


@dataclass(slots=True, eq=False)
class Node:
    """A data set, or the items of one sequence."""

    rules: dict[int, list[Rule]] = field(default_factory=dict)
    values: dict[int, list[Rule]] = field(default_factory=dict)
    children: dict[int, Node] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    """Tags whose values conditions of the same item look at."""
    noted: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Tags, with their paths, whose values conditions of other items look at."""
    known: frozenset[int] = frozenset()
    """All that is not to be passed over."""


@dataclass(frozen=True, slots=True, eq=False)
class Iod:
    """Everything that is asked of an instance of one IOD."""

    key: str
    name: str
    modules: tuple[Module, ...]
    root: Node


@cache
def _folder() -> Path:
    found = util.find_spec("highdicom")
    if found is None or not found.submodule_search_locations:
        raise TablesMissing("The IOD check needs highdicom, which is not installed")
    return Path(found.submodule_search_locations[0]) / "_standard"


@cache
def _json(name: str) -> Any:
    try:
        return json.loads((_folder() / name).read_bytes())
    except (OSError, ValueError) as error:
        raise TablesMissing(f"The table {name} of highdicom cannot be read: {error}") from error


@cache
def _rows() -> dict[str, Any]:
    return tomllib.loads(resources.files("config").joinpath("iod.toml").read_text("utf-8"))


def iod_key(sop_class_uid: str) -> str | None:
    """Which IOD instances of a SOP class have; None for private and retired SOP classes."""
    found = _json("sop_class_iod_map.json").get(sop_class_uid)
    return str(found) if found else None


def sop_classes() -> Mapping[str, str]:
    """Every SOP class UID that can be checked, with the key of its IOD."""
    return dict(_json("sop_class_iod_map.json"))


@lru_cache(maxsize=64)
def iod(key: str) -> Iod:
    """The compiled tables of an IOD. KeyError where there is none of this key."""
    uses = _json("iod_module_map.json")[key]
    tables = _attributes([use["key"] for use in uses])
    owned = {
        _tag(row["keyword"]) for use in uses if use["usage"] == "M" for row in tables[use["key"]] if not row["path"]
    }
    modules = tuple(_module(key, use["key"], use["usage"], tables[use["key"]], owned) for use in uses)
    compiled = Iod(key, key.replace("-", " "), modules, Node())
    for module in modules:
        for row in tables[module.key]:
            _add_attribute(compiled, module, row)
    by_key = {module.key: module for module in modules}
    for row in _rows()["value"]:
        if key in row["iods"]:
            _add_value(compiled, by_key[row["module"]], row)
    for row in _rows()["requirement"]:
        if key in row["iods"]:
            _add_requirement(compiled, by_key[row["module"]], row)
    _finish(compiled)
    return compiled


def _attributes(keys: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The attributes of some modules: cut out of the 22 MB of all of them, which take 100 MB when parsed whole."""
    name = "module_attribute_map.json"
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        with (_folder() / name).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for key in keys:
                at = data.find(f'\n  "{key}": ['.encode())
                end = data.find(b"\n  ]", at)
                if at >= 0 and end >= 0:
                    found[key] = json.loads(data[data.find(b"[", at) : end + 4])
            if not found and keys:
                found = json.loads(data[:])  # laid out otherwise, by another version
    except (OSError, ValueError) as error:
        raise TablesMissing(f"The table {name} of highdicom cannot be read: {error}") from error
    # Some modules have no table there (functional groups of real-time video, for one): nothing is asked of them.
    return {key: found.get(key, []) for key in keys}


@lru_cache(maxsize=8192)
def _tag(keyword: str) -> int:
    """0 for what the data dictionary does not have. Overlay and curve groups: the first of them."""
    from pydicom.datadict import repeater_has_keyword, tag_for_keyword

    tag = tag_for_keyword(keyword)
    if tag is None and repeater_has_keyword(keyword):
        from pydicom._dicom_dict import RepeatersDictionary

        mask = next(mask for mask, row in RepeatersDictionary.items() if row[4] == keyword)
        return int(mask.replace("x", "0"), 16)
    return int(tag or 0)


def _path(text: str) -> tuple[int, ...]:
    tags = tuple(_tag(keyword) for keyword in text.strip("/").split("/"))
    if not all(tags):
        raise TablesMissing(f"config/iod.toml names an attribute that there is not: {text}")
    return tags


def _condition(row: Mapping[str, Any]) -> Condition:
    terms = []
    for term in row.get("when", ()):
        ((how, operand),) = term.items()
        name, *rest = [operand] if isinstance(operand, str) else operand
        limit = float(rest[0]) if how == "above" else 0
        terms.append(Term(_path(name), name.startswith("/"), how, frozenset(map(str, rest)), limit))
    return tuple(terms)


def _module(iod: str, key: str, usage: str, table: Sequence[Mapping[str, Any]], owned: set[int]) -> Module:
    name, clause = _rows()["modules"].get(key, (key.replace("-", " ").title(), ""))
    presence = tuple(
        _condition(row) for row in _rows()["presence"] if iod in row.get("iods", (iod,)) and key in row["modules"]
    )
    own = [row for row in table if not row["path"] and _tag(row["keyword"]) not in owned]
    demanded = [row for row in own if row["type"] in ("1", "2")]
    triggers = frozenset(_tag(row["keyword"]) for row in demanded or own) if usage != "M" else frozenset[int]()
    return Module(key, name, f"{STANDARD} {clause}".strip(), usage, triggers, presence)


def _add_attribute(iod: Iod, module: Module, row: Mapping[str, Any]) -> None:
    """One line of a module table."""
    tag, path = _tag(row["keyword"]), tuple(_tag(keyword) for keyword in row["path"])
    if row["type"] not in ("1", "1C", "2", "2C") or not tag or not all(path):
        return
    full = "/".join((*row["path"], row["keyword"]))
    conditions = tuple(
        _condition(line)
        for line in _rows()["included"]
        if module.key in line["modules"]
        and row["keyword"] in line["attributes"]
        and set(row["path"]) <= {*line["within"]}
    )
    if conditions:
        may_lack = False
    elif row["type"].endswith("C"):
        conditions = tuple(
            _condition(line)
            for line in _rows()["condition"]
            if line["module"] == module.key and full in line["attributes"] and iod.key in line.get("iods", (iod.key,))
        )
        may_lack = not conditions
    else:
        # Which functional group stands in which of the two sequences is the instance's choice (PS3.3 C.7.6.16).
        may_lack = len(path) == 1 and row["path"][0] in _FUNCTIONAL_GROUPS
    rule = Rule(module, tag, row["keyword"], path, row["type"], module.clause, may_lack, conditions)
    if not (may_lack and row["type"].startswith("2")):
        _node(iod, path).rules.setdefault(tag, []).append(rule)


def _add_value(iod: Iod, module: Module, row: Mapping[str, Any]) -> None:
    *path, tag = _path(row["attribute"])
    keyword, clause = row["attribute"].rpartition("/")[2], f"{STANDARD} {row['clause']}"
    rule = Rule(module, tag, keyword, tuple(path), "", clause, True, (), frozenset(row["allowed"]))
    _node(iod, path).values.setdefault(tag, []).append(rule)


def _add_requirement(iod: Iod, module: Module, row: Mapping[str, Any]) -> None:
    conditions = (_condition(row),) if "when" in row else ()
    for type_ in ("1", "2"):
        for attribute in row.get(f"type{type_}", ()):
            *path, tag = _path(attribute)
            keyword, clause = attribute.rpartition("/")[2], f"{row['source']} Table {row['table']}"
            said = f"{type_}C" if conditions else type_
            rule = Rule(module, tag, keyword, tuple(path), said, clause, False, conditions, by_standard=False)
            _node(iod, path).rules.setdefault(tag, []).append(rule)


def _node(iod: Iod, path: Sequence[int]) -> Node:
    node = iod.root
    for tag in path:
        node = node.children.setdefault(tag, Node())
    return node


def _finish(iod: Iod) -> None:
    """Note which values conditions look at, and what there is to see in each item."""
    nodes = [iod.root]
    terms = [term for module in iod.modules for condition in module.presence for term in condition]
    for node in nodes:
        nodes.extend(node.children.values())
        for rules in node.rules.values():
            for term in (term for rule in rules for condition in rule.conditions for term in condition):
                if term.from_root:
                    terms.append(term)
                else:
                    node.wanted.add(term.path[0])
        node.wanted |= node.values.keys()
    for term in terms:
        _node(iod, term.path[:-1]).noted[term.path[-1]] = term.path
    for node in nodes:
        node.known = frozenset({*node.rules, *node.children, *node.wanted, *node.noted})
    iod.root.known |= {tag for module in iod.modules for tag in module.triggers}
