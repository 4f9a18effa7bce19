"""Order of mixed left-to-right and right-to-left text: the Unicode Bidirectional Algorithm (UAX #9) for single lines.

Without explicit embeddings and overrides, which label text does not have (``media.labeltext`` removes them); isolates
are those that a label's own template sets around a value (FSI ... PDI), so that two names never mix.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

FSI, PDI = "\u2068", "\u2069"
_OBJECT = "\ufffc"
_NEUTRAL = frozenset(("B", "S", "WS", "ON", "FSI", "LRI", "RLI", "PDI", "BN"))
_OPENING = {"(": ")", "[": "]", "{": "}", "<": ">", "«": "»", "「": "」", "（": "）", "［": "］"}
_CLOSING = {closing: opening for opening, closing in _OPENING.items()}


def isolated(text: str) -> str:
    """The text such that what stands around it cannot change its order, nor it theirs."""
    return f"{FSI}{text}{PDI}" if any(_type(character) in ("R", "AL", "AN") for character in text) else text


def base_level(text: str) -> int:
    """0 where the first letter outside of isolates is left-to-right or there is none, else 1 (rules P2, P3)."""
    depth = 0
    for character in text:
        if character == FSI:
            depth += 1
        elif character == PDI:
            depth = max(0, depth - 1)
        elif not depth and (kind := _type(character)) in ("L", "R", "AL"):
            return int(kind != "L")
    return 0


def visual_runs(text: str, base: int | None = None) -> list[tuple[str, int]]:
    """Pieces of a line from left to right as seen, each with its level; the text of a piece is in logical order.

    ``base`` is the level of the paragraph; None: told from the text.
    """
    outer, inner = _split(text)
    if base is None:
        base = base_level(outer)
    levels = _levels(outer, base)
    pieces: list[tuple[str, int]] = []
    isolates: dict[int, str] = {}
    contents = iter(inner)
    for character, level in zip(outer, levels, strict=True):
        if character == _OBJECT:
            isolates[len(pieces)] = next(contents)
            pieces.append(("", level))
        elif pieces and len(pieces) - 1 not in isolates and pieces[-1][1] == level:
            pieces[-1] = (pieces[-1][0] + character, level)
        else:
            pieces.append((character, level))
    found: list[tuple[str, int]] = []
    for index in _reordered([level for _, level in pieces]):
        if index in isolates:
            found += visual_runs(isolates[index])
        else:
            found.append(pieces[index])
    return found


def _split(text: str) -> tuple[str, list[str]]:
    """The text with an object character for each isolate, and what is in them; stray marks are left out."""
    outer: list[str] = []
    inner: list[str] = []
    depth, begun = 0, 0
    for index, character in enumerate(text):
        if character == FSI:
            depth += 1
            if depth == 1:
                begun = index + 1
        elif character == PDI:
            if depth == 1:
                outer.append(_OBJECT)
                inner.append(text[begun:index])
            depth = max(0, depth - 1)
        elif not depth and character != _OBJECT:
            outer.append(character)
    if depth:  # a line that ends within an isolate
        outer.append(_OBJECT)
        inner.append(text[begun:].replace(PDI, ""))
    return "".join(outer), inner


def _reordered(levels: Sequence[int]) -> list[int]:
    """Rule L2, on pieces."""
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        start = 0
        while start < len(order):
            end = start
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[start:end] = reversed(order[start:end])
            start = end + 1
    return order


def _type(character: str) -> str:
    return unicodedata.bidirectional(character) or "L"


def _levels(text: str, base: int) -> list[int]:
    """Rules W1 to W7, N0 to N2, I1, I2 and L1 on one isolating run sequence."""
    original = [_type(character) for character in text]
    types = _weak(list(original), base)
    _brackets(text, types, base)
    _neutral(types, base)
    levels = [
        base + (kind == "R" if base == 0 else kind != "R") + (base == 0 and kind in ("EN", "AN")) * 2 for kind in types
    ]
    end = len(levels)
    while end and original[end - 1] in ("WS", "S", "B"):
        end -= 1
        levels[end] = base
    return levels


def _weak(types: list[str], base: int) -> list[str]:
    start = "R" if base else "L"
    before, strong = start, start
    for index, original in enumerate(types):  # W1 to W3
        kind = before = before if original == "NSM" else original
        if kind in ("L", "R", "AL"):
            strong = kind
        types[index] = "R" if kind == "AL" else "AN" if kind == "EN" and strong == "AL" else kind
    for index in range(1, len(types) - 1):  # W4
        left, kind, right = types[index - 1 : index + 2]
        if left == right and ((kind == "ES" and left == "EN") or (kind == "CS" and left in ("EN", "AN"))):
            types[index] = left
    index = 0
    while index < len(types):  # W5, W6
        if types[index] == "ET":
            end = index
            while end < len(types) and types[end] == "ET":
                end += 1
            by_number = (index and types[index - 1] == "EN") or (end < len(types) and types[end] == "EN")
            types[index:end] = ["EN" if by_number else "ON"] * (end - index)
            index = end
        else:
            if types[index] in ("ES", "CS"):
                types[index] = "ON"
            index += 1
    strong = start
    for index, kind in enumerate(types):  # W7
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            types[index] = "L"
    return types


def _direction(kind: str) -> str:
    return "R" if kind in ("R", "EN", "AN") else kind


def _brackets(text: str, types: list[str], base: int) -> None:
    """N0: both brackets of a pair get one direction."""
    embedding = "R" if base else "L"
    stack: list[tuple[str, int]] = []
    pairs: list[tuple[int, int]] = []
    for index, character in enumerate(text):
        if types[index] != "ON":
            continue
        if character in _OPENING:
            stack.append((character, index))
        elif character in _CLOSING:
            for depth in range(len(stack) - 1, -1, -1):
                if stack[depth][0] == _CLOSING[character]:
                    pairs.append((stack[depth][1], index))
                    del stack[depth:]
                    break
    for opening, closing in sorted(pairs):
        inside = {_direction(kind) for kind in types[opening + 1 : closing]} & {"L", "R"}
        if embedding in inside:
            side = embedding
        elif inside:
            before = next((_direction(k) for k in reversed(types[:opening]) if _direction(k) in ("L", "R")), embedding)
            side = before if before in inside else embedding
        else:
            continue
        types[opening] = types[closing] = side


def _neutral(types: list[str], base: int) -> None:
    """N1, N2: what has no direction takes that of both neighbours, else the paragraph's."""
    embedding = "R" if base else "L"
    index = 0
    while index < len(types):
        if types[index] not in _NEUTRAL:
            index += 1
            continue
        end = index
        while end < len(types) and types[end] in _NEUTRAL:
            end += 1
        left = _direction(types[index - 1]) if index else embedding
        right = _direction(types[end]) if end < len(types) else embedding
        types[index:end] = [left if left == right else embedding] * (end - index)
        index = end
