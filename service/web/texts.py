"""Every text of the page, in one file for each language: ``texts/en.toml`` is complete, others say the same.

A key is the path in the file (``board.title``). Values have ``{names}`` that are filled in. A text that depends on a
number is a table with ``one`` and ``other``.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

DEFAULT = "en"
LANGUAGES = {"en": "English", "de": "Deutsch"}
"""By the names of the files, each as its speakers call it."""


class Texts:
    """The texts of one language; what it lacks is taken from English."""

    def __init__(self, language: str, texts: Mapping[str, str], fallback: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts
        self._fallback = fallback

    def __call__(self, key: str, **values: Any) -> str:
        """The text of a key. KeyError for one that no language has: a fault in a template."""
        text = self._texts.get(key)
        if text is None:
            text = self._fallback[key]
        return text.format_map(values) if values else text

    def count(self, key: str, number: int, **values: Any) -> str:
        """The text of a key for so many; ``{n}`` is the number, with the language's thousands separators."""
        shown = f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        return self(f"{key}.{'one' if number == 1 else 'other'}", n=shown, **values)

    def known(self, key: str, fallback: str) -> str:
        """The text of a key that data made up (a state, a code), or ``fallback`` where there is none."""
        return self._texts.get(key) or self._fallback.get(key) or fallback

    def under(self, prefix: str) -> dict[str, str]:
        """All texts whose keys begin so, by the rest of the key."""
        return {key.removeprefix(prefix): self(key) for key in self._fallback if key.startswith(prefix)}


@functools.cache
def texts_of(language: str) -> Texts:
    """The texts of one of ``LANGUAGES``; English for any other."""
    chosen = language if language in LANGUAGES else DEFAULT
    return Texts(chosen, read(chosen), read(DEFAULT))


@functools.cache
def read(language: str) -> dict[str, str]:
    """One language's file as keys and texts."""
    content = tomllib.loads(resources.files("service.web").joinpath(f"texts/{language}.toml").read_text("utf-8"))
    return dict(_flat("", content))


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", str(value)


def preferred(accept_language: str) -> str:
    """The first of a browser's languages that we have; English where there is none."""
    for part in accept_language.split(","):
        language = part.split(";")[0].strip().lower().split("-")[0]
        if language in LANGUAGES:
            return language
    return DEFAULT
