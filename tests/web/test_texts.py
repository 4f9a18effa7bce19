"""Texts: every key there is in every language, every template without a word of its own."""

from __future__ import annotations

import ast
import errno
import functools
import os
import pickle
import re
import string
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import service.web
from config.settings import load
from config.worded import Worded
from jobs import pools, triggers
from jobs.options import OptionsError
from service.errors import as_refusal
from service.web.pages import environment
from service.web.texts import DEFAULT, LANGUAGES, preferred, read, texts_of

FOLDER = Path(service.web.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").rglob("*.html"))
KEY = re.compile(r"""\bt(?:\.count|\.known)?\(\s*"([^"]+)"(\s*[+~])?""")
PYTHON_KEY = re.compile(
    r"""(?:texts|told|texts_of\([^)]*\))(?:\.count|\.known)?\(\s*(?:request,\s*)?f?"([a-z_]+\.[A-Za-z_.]+)"""
)
SPOKEN = {"alt", "title", "placeholder", "aria-label", "aria-description", "hx-confirm", "content", "data-label"}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {DEFAULT}))
def test_a_language_has_every_key_and_no_other(language: str) -> None:
    english, other = read(DEFAULT), read(language)
    assert set(english) - set(other) == set()
    assert set(other) - set(english) == set()
    for key, text in english.items():
        assert fields(text) == fields(other[key]), key


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {DEFAULT}))
def test_a_language_is_translated(language: str) -> None:
    english, other = read(DEFAULT), read(language)
    words = {
        key
        for key, text in english.items()
        if len(re.findall(r"[A-Za-z]{2,}", re.sub(r"\{\w+\}", "", text))) > 2
        and not key.endswith("_command")
        and not key.startswith(("driver.", "archive.file_set_id"))
    }
    assert {key for key in words if other[key] == english[key]} == set()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_key_of_a_template_is_there(path: Path) -> None:
    known = read(DEFAULT)
    source = path.read_text()
    for key, more in KEY.findall(source):
        if more and f't.known("{key}"' not in source:  # the rest of it is made of data
            assert any(one.startswith(key) for one in known), key
        elif f't.count("{key}"' in source:
            assert {f"{key}.one", f"{key}.other"} <= set(known), key
        elif f't.known("{key}"' not in source:
            assert key in known, key


def test_every_key_of_the_program_is_there() -> None:
    known = read(DEFAULT)
    for path in FOLDER.glob("*.py"):
        for key in PYTHON_KEY.findall(path.read_text()):
            assert any(one == key or one.startswith(key) for one in known), (path.name, key)


class Words(HTMLParser):
    """Finds text that a person would read, outside of what templates fill in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        for name, value in attrs:
            if name == "content" and names.get("name") != "description":
                continue
            if name in SPOKEN and value and re.search(r"[A-Za-z]{2}", value) and value != "/dev/sr0":
                self.found.append(f"{name}={value}")

    def handle_data(self, data: str) -> None:
        if re.search(r"[^\W\d_]{2}", data):
            self.found.append(data.strip())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_words_of_its_own(path: Path) -> None:
    source = re.sub(r"\{#.*?#\}|\{% block width %\}narrow\{% endblock %\}", "", path.read_text(), flags=re.DOTALL)
    source = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", source, flags=re.DOTALL)
    parser = Words()
    parser.feed(source)
    assert parser.found == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_inline_script_or_style(path: Path) -> None:
    source = path.read_text()
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:|hx-on", source)
    assert "|safe" not in source
    assert re.search(r"<script(?![^>]*\bsrc=)", source) is None


def test_everything_is_escaped() -> None:
    assert environment().autoescape is True
    made = environment().from_string("{{ name }}").render(name="<script>alert(1)</script>")
    assert "<script>" not in made


def test_no_file_of_the_page_comes_from_elsewhere() -> None:
    for path in [*TEMPLATES, *(FOLDER / "static").glob("*.*")]:
        found = re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}[^\s\"']*", path.read_text())
        assert [one for one in found if "www.w3.org" not in one] == [], path.name


@pytest.mark.parametrize(
    ("header", "language"),
    [("de-DE,de;q=0.9,en;q=0.8", "de"), ("fr, en;q=0.5", "en"), ("fr", "en"), ("", "en"), ("DE", "de")],
)
def test_the_browser_says_which_language(header: str, language: str) -> None:
    assert preferred(header) == language


def test_numbers_and_plurals() -> None:
    english = texts_of("en")
    assert english.count("board.discs", 1) == "1 disc"
    assert english.count("board.discs", 12000) == "12\N{NARROW NO-BREAK SPACE}000 discs"
    assert texts_of("xx").language == "en"


# -- what other rooms say ----------------------------------------------------------------------------------------------


@functools.cache
def said_elsewhere() -> list[str]:
    """The source of the rooms whose words are translated."""
    rooms = [FOLDER.parent.parent / room for room in ("burners", "jobs", "store")]
    return [path.read_text() for room in rooms for path in room.rglob("*.py")]


@pytest.mark.parametrize("key", sorted(key for key in read(DEFAULT) if key.startswith("said.")))
def test_what_is_translated_is_what_other_rooms_say(key: str) -> None:
    parts = [words for words, *_ in string.Formatter().parse(read(DEFAULT)[key]) if len(words) > 3]
    if key in ("said.no_file", "said.no_permission"):
        assert parts[0] in (os.strerror(errno.ENOENT), os.strerror(errno.EACCES))
    else:
        assert any(words in text for text in said_elsewhere() for words in parts), parts


@pytest.mark.parametrize(
    ("text", "german"),
    [
        (
            "publisher: the ink light cyan is used up; no blanks in stacker 1, 2",
            "publisher: die Tinte Hellcyan ist aufgebraucht; keine Rohlinge in Stapel 1, 2",
        ),
        (
            "please insert ABC_0042 (copy 2), shelf 3-12, checked out to Dr. Who, /dev/sr0",
            "bitte einlegen: ABC_0042 (Kopie 2), Regal 3-12, ausgeliehen an Dr. Who, /dev/sr0",
        ),
        (
            "load a blank CD of 4000 sectors or more into /dev/sr0 for A_1, volume 1 of 2, copy 1: its tray is open",
            (
                "einen Rohling (CD, mindestens 4000 Sektoren) in /dev/sr0 einlegen für A_1, Scheibe 1 von 2, Kopie 1: "
                "die Schublade ist offen"
            ),
        ),
        ("tower: folder /srv/r: No such file or directory", "tower: Ordner /srv/r: nicht vorhanden"),
        ("something <b>nobody</b> foresaw: {x}", "something <b>nobody</b> foresaw: {x}"),
        ("", ""),
    ],
)
def test_what_other_rooms_say_is_german_as_far_as_it_is_known(text: str, german: str) -> None:
    assert texts_of("de").said(text) == german
    assert texts_of("en").said(text) == text


def test_hostile_words_take_no_time() -> None:
    begun = time.thread_time()
    for text in (", copy " * 9000, "please insert " + ", shelf " * 9000, ": " * 9000, "; " * 9000, "a" * 90_000):
        assert texts_of("de").said(text)
    assert time.thread_time() - begun < 5


# -- refusals that know which text they are ----------------------------------------------------------------------------


def worded() -> Iterator[tuple[str, list[ast.expr], set[str]]]:
    """Each ``Worded(key, english, name=value)`` of the program: where, its first two arguments, the names."""
    root = FOLDER.parent.parent
    for room in ("config", "media", "store", "burners", "jobs", "scp", "service"):
        for path in sorted((root / room).rglob("*.py")):
            source = path.read_text()
            for node in ast.walk(ast.parse(source)) if "Worded(" in source else ():
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Worded":
                    yield f"{path.name}:{node.lineno}", node.args, {one.arg or "" for one in node.keywords}


def test_every_refusal_that_knows_its_text_has_one() -> None:
    known = read(DEFAULT)
    used = {"said"}
    for where, arguments, given in worded():
        key, english = (one.value if isinstance(one, ast.Constant) else None for one in arguments)
        if not isinstance(key, str) or key == "said":
            continue  # made of a name: of a field, a state
        used.add(key)
        assert f"refused.{key}" in known, where
        assert fields(known[f"refused.{key}"]) <= given, where
        if isinstance(english, str):
            assert fields(english) <= given, where
    simple = {key.removeprefix("refused.") for key in known if key.startswith("refused.") and key.count(".") == 1}
    assert simple - used == set(), "texts that nobody says any more"


def test_a_refusal_is_said_in_the_language_of_the_page_and_stays_english_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as wrong:
        pools.values_of(load(data=tmp_path), {"copies": 2, "required_copies": 5})
    english = "required_copies is 5; it may be 1 to 2, the copies that are made"
    assert str(wrong.value) == english
    refusal = as_refusal(wrong.value)
    assert refusal is not None and str(refusal) == english
    assert texts_of("de").refusal(refusal).startswith("Kopien, die gut sein müssen: 5 geht nicht")
    with pytest.raises(triggers.TriggerError) as wrong_cron:
        triggers.trigger_of({"cron": "0 {25} * * *"}, "UTC", None)
    assert str(wrong_cron.value) == "cron '0 {25} * * *': '{25}' is no hour (0-23)"
    german = texts_of("de").refusal(wrong_cron.value)
    assert german == "cron-Zeile „0 {25} * * *“: „{25}“ kann nicht für die Stunde stehen, nur 0 bis 23."


def test_a_text_that_nobody_has_translated_stays_as_it_was() -> None:
    text = Worded("never_heard_of", "{what} is not there", what=Worded("field.nobody", "it"))
    assert text == "it is not there"
    assert texts_of("de").worded(text) == "it is not there"
    assert texts_of("de").worded("plain {text}") == "plain {text}"
    assert pickle.loads(pickle.dumps(text)) == "it is not there"
