"""What is checked before a start: that the packages which Python finds are ours, and that the settings fit together."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.settings import Settings

PACKAGES = ("burners", "config", "jobs", "media", "migrations", "scp", "service", "store")


def foreign_packages(home: Path | None = None) -> list[str]:
    """What is found under one of our names somewhere else, one line each; empty where all is well.

    The packages are named in plain words (``config``, ``store`` ...), so another distribution may bring the same.
    """
    home = home or Path(__file__).resolve().parents[1]
    found = []
    for name in PACKAGES:
        spec = find_spec(name)
        places = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec else []
        if home / name not in places[:1]:
            where = spec.origin if spec and spec.origin else ", ".join(map(str, places)) or "nowhere"
            found.append(f"the package {name!r} is found at {where} instead of {home / name}")
    return found


def _wrong_watches(settings: Settings) -> list[str]:
    from media.coercion import RulesError, condition_of, read_rules

    found = []
    for watch in settings.watch:
        try:
            condition_of("when", watch.when)
            if watch.reconcile:
                read_rules(settings.data / watch.reconcile)
        except RulesError as error:
            found.append(f"watch.{watch.name}: {error}")
        folder = settings.data / watch.path
        if watch.after == "eject" and folder.is_dir():
            found.append(f"watch.{watch.name}.after: {folder} is a folder; only a drive can be ejected")
    return found


def wrong_settings(settings: Settings) -> list[str]:
    """What each setting's own check cannot see: profiles, labels, rules that do not fit, one line each."""
    from jobs import compression, labelling, preparing, rules
    from jobs.options import OptionsError, RequestOptions
    from media.problems import MediaError
    from service import http, notifying, oidc
    from service.auditing import receiver_in
    from service.syslog import SyslogError

    found = []
    try:
        preparing.require_pair(RequestOptions.from_settings(settings, {}))
    except (OptionsError, MediaError) as error:
        text = str(error)
        found.append(text if text.startswith("coerce") else f"plan.profile, plan.medium: {text}")
    found += compression.problems(settings.compress) + _wrong_watches(settings)
    try:
        labelling.try_style(settings)
    except MediaError as error:
        text = str(error)
        found.append(text if text.startswith("label.") else f"label: {text}")
    found += notifying.problems(settings)
    try:
        receiver_in(settings)
    except SyslogError as error:
        found.append(f"audit.syslog: {error}")
    return found + http.wrong_settings(settings) + oidc.wrong_settings(settings) + rules.problems(settings)
