"""The identifier of a query or retrieve request: parsed, and held against the rules of its model (PS3.4 C.4, C.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from media.attributes import SPECIFIC_CHARACTER_SET, Attributes, parse
from media.encoding import syntax_of
from media.problems import NotDicom
from scp.channel import Channel, Message
from scp.statuses import (
    NO_UNIQUE_KEY,
    TOO_MANY_VALUES,
    UNREADABLE_IDENTIFIER,
    WRONG_LEVEL,
    WRONG_UNIQUE_KEY,
    Answer,
)
from store.matching import has_wildcard
from store.query_keys import LEVELS, UNIQUE, Level, text_values

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.", "1.2.840.10008.5.1.4.1.2.2."
FIND, MOVE, GET = "1", "2", "3"
"""Last components of the SOP Class UIDs of a model."""
QUERY_RETRIEVE_LEVEL = 0x00080052
_VALUES_LIMIT = 10_000
"""Of one key; a database allows some 30,000 in a statement."""
_MODELS: Mapping[str, tuple[Level, ...]] = {PATIENT_ROOT: LEVELS, STUDY_ROOT: LEVELS[1:]}


def sop_classes(*services: str) -> frozenset[str]:
    """The SOP classes of these services in both models."""
    return frozenset(model + service for model in _MODELS for service in services)


class Refused(Exception):
    """A request cannot be served; ``answer`` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.comment)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Identifier:
    """What is asked for."""

    level: Level
    above: tuple[Level, ...]
    """The levels of the model above it."""
    keys: Attributes
    """Everything but level and character set."""
    character_set: str
    """That of the request."""


def read_identifier(message: Message, channel: Channel) -> Identifier:
    """Raises Refused where it cannot be read, or is not as its model demands.

    Unless relational behaviour was agreed (C.4.1.2.2.2), each level above must be named by a single value of its unique
    key.
    """
    try:
        keys = parse(message.data, syntax_of(message.transfer_syntax))
    except NotDicom:
        raise Refused(UNREADABLE_IDENTIFIER) from None
    model = _MODELS[message.abstract_syntax[:-1]]
    given = keys.pop(QUERY_RETRIEVE_LEVEL, None)
    level = next((level for level in model if given is not None and given.value == level), None)
    if level is None:
        raise Refused(WRONG_LEVEL)
    for tag, attribute in keys.items():
        if isinstance(attribute.value, str) and attribute.value.count("\\") >= _VALUES_LIMIT:
            raise Refused(TOO_MANY_VALUES.blaming(tag))
    character_set = keys.pop(SPECIFIC_CHARACTER_SET, None)
    above = model[: model.index(level)]
    relational = channel.agreed(message.abstract_syntax)[:1] == b"\x01"
    for each in above:
        values = text_values(keys[UNIQUE[each].tag]) if UNIQUE[each].tag in keys else ()
        if not relational and (len(values) != 1 or has_wildcard(values[0])):
            raise Refused(WRONG_UNIQUE_KEY.blaming(UNIQUE[each].tag))
    return Identifier(level, above, keys, str(character_set.value) if character_set is not None else "")


def check_unique_key(identifier: Identifier) -> None:
    """A retrieve names what it wants by the unique key of its level (C.4.2.2.1). Raises Refused."""
    tag = UNIQUE[identifier.level].tag
    values = text_values(identifier.keys[tag]) if tag in identifier.keys else ()
    if not values or any(has_wildcard(value) for value in values):
        raise Refused(NO_UNIQUE_KEY.blaming(tag))
