"""Every text of the page, in one file for each language: ``texts/en.toml`` is complete, others say the same.

A key is the path in the file (``board.title``). Values have ``{names}`` that are filled in. A text that depends on a
number is a table with ``one`` and ``other``. Texts under ``said`` are what other rooms say in English; in other
languages, what that means.
"""

from __future__ import annotations

import functools
import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from config.worded import Worded, words_of

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

    def worded(self, text: str) -> str:
        """A text of other rooms: in this language where it tells which one it is, else as it was made."""
        if not isinstance(text, Worded):
            return text
        if text.key == "said":
            return self.said(text)
        values = {name: self.worded(one) if isinstance(one, str) else one for name, one in text.values.items()}
        known = self.known(f"refused.{text.key}", "")
        return known.format_map(values) if known else text

    def refusal(self, error: BaseException) -> str:
        """Why something was not done."""
        return self.worded(words_of(error))

    def said(self, text: str | None) -> str:
        """What the service says in English (what a burner waits for, why a job failed) in this language, as far as the
        texts under ``said`` know it; the rest is as it was."""
        return _said(self.language, text[:_LONGEST_SAID]) + text[_LONGEST_SAID:] if text else ""


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


_LONGEST_SAID = 600
_DEEPEST = 4
_NAMED = re.compile(r"([^\s:;]{1,64}): (.+)", re.DOTALL)


@functools.lru_cache(maxsize=2000)
def _said(language: str, text: str, depth: int = 0) -> str:
    texts = texts_of(language)
    if texts.language == DEFAULT or depth > _DEEPEST:
        return text
    for pattern, key in _patterns():
        if (match := pattern.fullmatch(text)) is not None:
            return texts(key, **{name: _said(language, value, depth + 1) for name, value in match.groupdict().items()})
    if "; " in text:
        return "; ".join(_said(language, part, depth + 1) for part in text.split("; "))
    if (named := _NAMED.fullmatch(text)) is not None:
        return f"{named[1]}: {_said(language, named[2], depth + 1)}"
    return text


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The English texts under ``said`` as what they match, those that say most first."""
    found = []
    for key, text in read(DEFAULT).items():
        if key.startswith("said."):
            parts = list(string.Formatter().parse(text))
            source = "".join(
                re.escape(words) + (f"(?P<{name}>.{{1,200}}?)" if name else "") for words, name, _, _ in parts
            )
            found.append((sum(len(words) for words, *_ in parts), re.compile(source, re.DOTALL), key))
    return [(pattern, key) for _, pattern, key in sorted(found, key=lambda one: -one[0])]


def preferred(accept_language: str) -> str:
    """The first of a browser's languages that we have; English where there is none."""
    for part in accept_language.split(","):
        language = part.split(";")[0].strip().lower().split("-")[0]
        if language in LANGUAGES:
            return language
    return DEFAULT
