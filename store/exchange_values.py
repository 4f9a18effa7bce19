"""Values of a record that anybody may have written, each checked against the column that it is for."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Float, Integer, LargeBinary, String, Text

from store.models_base import Base, UtcDateTime

Record = Mapping[str, Any]
_TEXT_LIMIT = 1 << 20
_BINARY_LIMIT = 512 << 20


class BadRecord(Exception):
    """A record is not as it must be; the text says which and why."""


def values_of(model: type[Base], number: int, record: Record, *without: str) -> dict[str, Any]:
    """The columns of a row, each of the type and length that it must have."""
    values: dict[str, Any] = {}
    for column in model.__table__.columns:
        name = column.key
        if name == "id" or name in without:
            continue
        value = record.get(name)
        if value is None:
            if not column.nullable:
                raise BadRecord(f"record {number} has no {name}")
            values[name] = None
            continue
        values[name] = _value(column.type, value, number, name)
    return values


def _value(kind: Any, value: Any, number: int, name: str) -> Any:
    if isinstance(kind, UtcDateTime):
        return moment_of(value, number, name)
    if isinstance(kind, LargeBinary):
        return _binary(value, number, name)
    if isinstance(kind, Boolean):
        good = isinstance(value, bool)
    elif isinstance(kind, Integer | BigInteger):
        good = type(value) is int and abs(value) < 1 << (63 if isinstance(kind, BigInteger) else 31)
    elif isinstance(kind, Float):
        good = type(value) in (int, float)
    elif isinstance(kind, String | Text):
        limit = kind.length or _TEXT_LIMIT
        good = isinstance(value, str) and len(value) <= limit
        value = sound_text(value) if good else value
    else:  # JSON
        good = isinstance(value, dict | list)
        value = sound(value) if good else value
    if not good:
        raise BadRecord(f"record {number}: {name} is not what it must be")
    return value


def sound(value: Any) -> Any:
    """A JSON value whose texts have nothing that a database stumbles over when it looks into them."""
    if isinstance(value, str):
        return sound_text(value)
    if isinstance(value, list):
        return [sound(one) for one in value]
    if isinstance(value, dict):
        return {sound_text(key): sound(one) for key, one in value.items()}
    return value


def sound_text(text: str) -> str:
    """Without NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _binary(value: Any, number: int, name: str) -> bytes:
    try:
        if not isinstance(value, str) or len(value) > _BINARY_LIMIT:
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise BadRecord(f"record {number}: {name} is not in base64") from None


def moment_of(value: Any, number: int, name: str) -> datetime:
    try:
        if not isinstance(value, str) or len(value) > 40:
            raise ValueError
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRecord(f"record {number}: {name} is no time with its zone") from None


def text_of(record: Record, name: str, number: int, longest: int = 255) -> str:
    value = record.get(name)
    if not isinstance(value, str) or len(value) > longest:
        raise BadRecord(f"record {number}: {name} is no text of at most {longest} characters")
    return sound_text(value)


def whole_of(record: Record, name: str, number: int, least: int, most: int) -> int:
    value = record.get(name)
    if type(value) is not int or not least <= value <= most:
        raise BadRecord(f"record {number}: {name} is no number from {least} to {most}")
    return value


def require(value: str, pattern: re.Pattern[str], number: int, name: str) -> None:
    if not pattern.fullmatch(value):
        raise BadRecord(f"record {number}: {name} is not what it must be")
