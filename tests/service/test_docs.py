"""What users can set, say, ask for or plug in is named in docs/."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer.main

from config.sections import Prefetch, Rule, Watch
from config.settings import Settings
from service import conformance
from service.cli import app

DOCS = Path(__file__).parents[2] / "docs"


def text(*names: str) -> str:
    return "\n".join((DOCS / name).read_text() for name in names)


def sections(page: str) -> dict[str, str]:
    """The page's sections (``##``) by their first word in backquotes."""
    found = {}
    for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0]
        for name in re.findall(r"`([^`]+)`", heading):
            found[name] = part
    return found


def settings() -> Iterator[tuple[str, str]]:
    """(section heading, key) of every setting."""
    defaults = tomllib.loads(resources.files("config").joinpath("defaults.toml").read_text())
    for section, value in defaults.items():
        if section == "burners":
            yield from (("[burners.NAME]", key) for burner in value.values() for key in burner)
        elif isinstance(value, dict):
            yield from ((f"[{section}]", key) for key in value)
        else:
            yield "", section
    yield from (("[[rules]]", key) for key in Rule.model_fields)
    yield from (("[[prefetch]]", key) for key in Prefetch.model_fields)
    yield from (("[[watch]]", key) for key in Watch.model_fields)


@pytest.mark.parametrize(("section", "key"), list(settings()))
def test_every_setting(section: str, key: str) -> None:
    page = text("settings.md")
    where = sections(page)[section] if section else page
    assert f"| `{key}` |" in where


def test_every_section_of_the_settings() -> None:
    named = set(sections(text("settings.md")))
    for field in Settings.model_fields:
        assert field in ("data", "burners") or f"[{field}]" in named or f"[[{field}]]" in named


def commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option(name: str) -> None:
    page = text("cli.md")
    assert re.search(rf"^## .*`burnish {name}\b", page, flags=re.MULTILINE)
    for parameter in commands()[name].params:
        for option in getattr(parameter, "opts", []):
            if option.startswith("--"):
                assert re.search(rf"`{option}[ `]", page), option


def test_every_route() -> None:
    from service.api.application import build
    from service.shutdown import Stopping

    guard = build(None, token="", hosts=(), stopping=Stopping())  # type: ignore[arg-type]
    page = text("api.md")
    paths = guard.app.openapi()["paths"]  # type: ignore[attr-defined]
    assert len(paths) > 10
    for path, methods in paths.items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page, (method, path)


def test_every_driver() -> None:
    page = text("settings.md")
    for driver in entry_points(group="burnish.burners"):
        assert f"### Driver `{driver.name}`" in page


def test_every_profile_and_medium() -> None:
    page = text("cli.md")
    for table in ("profiles.toml", "mediatypes.toml"):
        for name in tomllib.loads(resources.files("config").joinpath(table).read_text()):
            assert f"`{name}`" in page, name


def test_the_conformance_statement_is_up_to_date() -> None:
    made = conformance.statement(conformance.shipped())
    same = text("conformance.md") == made
    assert same, f"docs/conformance.md is out of date; make it anew: {conformance.COMMAND}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
