"""The packages are named in plain words (``config``, ``store`` ...): a check that those which Python finds are ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("burners", "config", "jobs", "media", "migrations", "scp", "service", "store")


def foreign_packages(home: Path | None = None) -> list[str]:
    """What is found under one of our names somewhere else, one line each; empty where all is well."""
    home = home or Path(__file__).resolve().parents[1]
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        places = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec else []
        if home / name not in places[:1]:
            where = spec.origin if spec and spec.origin else ", ".join(map(str, places)) or "nowhere"
            found.append(f"the package {name!r} is found at {where} instead of {home / name}")
    return found
