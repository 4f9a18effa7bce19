"""The settings in force: defaults.toml < settings file < ``BURNISH_*`` environment < command line; checked, frozen.

Parts of the program get the section that concerns them; nothing reads settings from a global.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.sections import (
    Audit,
    Burn,
    Burner,
    Coerce,
    Commitment,
    Compress,
    Database,
    Dicom,
    Http,
    Jobs,
    Label,
    Log,
    Mail,
    MailTo,
    Node,
    Oidc,
    Plan,
    Prefetch,
    Recall,
    Remote,
    Retention,
    Rule,
    Site,
    Spool,
    Tls,
    Users,
    Watch,
    Webhook,
)


class SettingsError(Exception):
    """One or more settings are wrong; the text lists every one of them."""


class Settings(BaseSettings):
    """All settings; see ``config/defaults.toml`` for what each one means."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="BURNISH_", env_nested_delimiter="__", env_ignore_empty=True
    )

    data: Path
    site: Site
    database: Database
    dicom: Dicom
    tls: Tls
    commitment: Commitment
    remote: Remote
    http: Http
    users: Users
    oidc: Oidc
    audit: Audit
    mail: Mail
    spool: Spool
    plan: Plan
    compress: Compress
    coerce: Coerce
    burn: Burn
    label: Label
    jobs: Jobs
    node: Node
    log: Log
    burners: dict[str, Burner]
    rules: tuple[Rule, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    mails: tuple[MailTo, ...] = ()
    retention: Retention
    recall: Recall
    prefetch: tuple[Prefetch, ...] = ()
    watch: tuple[Watch, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's values come as init arguments, so the environment stands before them.
        return env_settings, init_settings

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of our tables."""
        return self.database.url or f"sqlite:///{self.data / 'burnish.db'}"

    @property
    def signing_key(self) -> Path | None:
        """Where the key is that signs discs; None: they are not signed."""
        return self.data / self.site.signing_key if self.site.signing_key else None

    def in_data(self, name: str) -> str:
        """A file that a setting names, in the data folder or absolute; an empty text stays one."""
        return str(self.data / name) if name else ""

    @property
    def spool_dir(self) -> Path:
        return self.data / self.spool.folder

    @property
    def derived_dir(self) -> Path:
        return self.data / self.spool.derived


def load(
    *, config: Path | None = None, data: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Settings:
    """Read and check the settings.

    ``config`` is a TOML settings file, ``data`` the data folder, ``overrides`` what the command line says, by section.
    Raises ``SettingsError`` that lists every wrong value.
    """
    values = tomllib.loads(resources.files("config").joinpath("defaults.toml").read_text())
    if config is not None:
        try:
            values = _merged(values, tomllib.loads(config.read_text()))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{config}: {error}") from error
        if "data" in values and values["data"] and not Path(values["data"]).is_absolute():
            values["data"] = str(config.parent.absolute() / values["data"])
    folder = data or os.environ.get("BURNISH_DATA") or values["data"] or Path.home() / ".local/share/burnish"
    values["data"] = str(Path(folder).expanduser().absolute())
    try:
        settings = Settings(**values)
        # Options of the command line win over the environment, which pydantic-settings puts over our file's values.
        dumped = _merged(settings.model_dump(), dict(overrides or {}))
        dumped["data"] = values["data"]
        settings = Settings.model_construct(**_validated(dumped))
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']} (is {e.get('input')!r})" for e in error.errors()
        ]
        raise SettingsError("\n".join(["the settings are wrong:", *lines])) from error
    _check_references(settings)
    return settings


def _validated(values: dict[str, Any]) -> dict[str, Any]:
    """Validate without looking at the environment again."""
    fields = {name: (info.annotation, ...) for name, info in Settings.model_fields.items()}
    from pydantic import create_model

    model = create_model("Settings", __config__=ConfigDict(extra="forbid"), **fields)  # type: ignore[call-overload]
    checked = model(**values)
    return {name: getattr(checked, name) for name in Settings.model_fields}


def _check_references(settings: Settings) -> None:
    wrong = []
    if settings.burn.burner not in settings.burners:
        wrong.append(f"burn.burner: there is no section [burners.{settings.burn.burner}]")
    for rule in settings.rules:
        if rule.burner and rule.burner not in settings.burners:
            wrong.append(f"rules.{rule.name}.burner: there is no section [burners.{rule.burner}]")
    names = [rule.name for rule in settings.rules]
    wrong += [f"rules.{name}: two rules have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    names = [one.name for one in settings.watch]
    wrong += [f"watch.{name}: two of them have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    names = [rule.name for rule in settings.prefetch]
    wrong += [f"prefetch.{name}: two rules have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    wrong += [
        f"burners.{name}: a name is 1-32 of A-Z a-z 0-9 _ -"
        for name in settings.burners
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name)
    ]
    if wrong:
        raise SettingsError("\n".join(["the settings are wrong:", *wrong]))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid upon ``base``, table by table."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result
