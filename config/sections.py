"""Each section of the settings as a model; docs/settings.md and defaults.toml tell what values mean."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Priority = Literal["high", "med", "low"]
PatientsPerDisc = Literal["one", "many"]
Conflicts = Literal["first", "latest", "refuse", "keep-both"]
CompressMode = Literal["none", "lossless", "lossy", "keep"]
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_AE_TITLE = re.compile(r"^(?=.*\S)[\x20-\x5b\x5d-\x7e]{1,16}$")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Site(_Section):
    institution: str
    contact: str
    signing_key: Path | Literal[""]
    timezone: str

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(f"{value!r} is no time zone; IANA names are wanted, e.g. Europe/Berlin") from None
        return value


class Database(_Section):
    url: str


class Dicom(_Section):
    host: str
    port: int = Field(ge=0, le=65535)
    ae_title: str
    called_ae_titles: tuple[str, ...]
    calling_ae_titles: tuple[str, ...]
    max_pdu: int = Field(ge=4096, le=16 << 20)
    max_associations: int = Field(ge=1)
    acse_timeout: float = Field(gt=0)
    dimse_timeout: float = Field(gt=0)
    network_timeout: float = Field(gt=0)
    acceptors: int = Field(ge=1, le=64)
    private_sop_classes: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    associations_per_address: int = Field(ge=0)
    connections_per_minute: int = Field(ge=0)
    user_identity: Literal["ignore", "optional", "required"]
    users_file: Path

    @field_validator("allowed_addresses")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text, strict=False)
        return value

    @field_validator("ae_title", "called_ae_titles", "calling_ae_titles")
    @classmethod
    def _ae_titles(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for title in (value,) if isinstance(value, str) else value:
            if not _AE_TITLE.match(title):
                raise ValueError(f"{title!r} is no AE title (1-16 printable characters without backslash, PS3.5 6.2)")
        return value


class Tls(_Section):
    enabled: bool
    port: int = Field(ge=0, le=65535)
    only: bool
    certificate: str
    key: str
    ca: str
    client_certificates: Literal["required", "optional", "none"]
    check_host: bool


class Commitment(_Section):
    discs: int = Field(ge=0, le=99)
    wait_hours: float = Field(ge=0)
    give_up_hours: float = Field(gt=0)


class Remote(_Section):
    connect_timeout: float = Field(gt=0)
    answer_timeout: float = Field(gt=0)
    commit_timeout: float = Field(ge=0)
    retries: int = Field(ge=0, le=20)
    convert: bool


class Http(_Section):
    host: str
    port: int = Field(ge=0, le=65535)
    allowed_hosts: tuple[str, ...]
    certificate: str
    key: str
    behind_proxy: bool
    trusted_proxies: tuple[str, ...]
    cors_origins: tuple[str, ...]
    media_folders: tuple[str, ...]

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ip_network(text, strict=False)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _ORIGIN.fullmatch(text):
                raise ValueError(
                    f"{text!r} is no origin: https://HOST or https://HOST:PORT, in lower case, without a path"
                )
        return value


class Users(_Section):
    session_hours: float = Field(gt=0, le=168)
    idle_minutes: float = Field(ge=1)
    password_length: int = Field(ge=8, le=128)
    failures_per_user: int = Field(ge=2, le=100)
    failures_per_address: int = Field(ge=2, le=10_000)
    lock_minutes: float = Field(gt=0, le=60)
    token_days: int = Field(ge=1, le=3660)


class Oidc(_Section):
    issuer: str = Field(max_length=512)
    client_id: str
    client_secret: str
    ca: str
    label: str
    scopes: tuple[str, ...]
    name_claim: str = Field(min_length=1)
    role_claim: str = Field(min_length=1)
    roles: dict[str, str]
    default_role: str


class Audit(_Section):
    syslog: str
    ca: str
    certificate: str
    key: str
    check_host: bool


Notices = Literal["done", "failed", "needs-person", "damaged"]


class Mail(_Section):
    host: str
    port: int = Field(ge=1, le=65535)
    security: Literal["starttls", "tls", "none"]
    ca: str
    user: str
    password: str
    sender: str
    give_up_hours: float = Field(gt=0)


class MailTo(_Section):
    """People who are told by e-mail."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,25}$")
    to: tuple[str, ...] = Field(min_length=1)
    events: tuple[Notices, ...] = ("failed", "needs-person", "damaged")


class Webhook(_Section):
    """A program that is told by HTTP."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,25}$")
    url: str
    events: tuple[Notices, ...] = ("done", "failed", "needs-person", "damaged")
    secret: str = ""
    ca: str = ""


class Spool(_Section):
    folder: Path
    derived: Path
    staging: Path
    high_water_percent: float = Field(gt=0, le=100)
    max_bytes: int = Field(ge=0)


class Plan(_Section):
    profile: str
    medium: str
    reserve_percent: float = Field(ge=0, lt=100)
    reserve_sectors: int = Field(ge=0)
    file_set_prefix: str = Field(pattern=r"^[A-Z0-9_]{0,9}$")
    patients_per_disc: PatientsPerDisc
    conflicts: Conflicts
    iod: Literal["off", "report", "strict"]
    protect: Literal["none", "rs02", "rs03"]
    protect_percent: float = Field(ge=3.3, le=200)
    tell_corrected: bool


class CompressQuality(_Section):
    """How much lossy compression may lose in images of one modality; None: as in all."""

    jpeg: int | None = Field(default=None, ge=50, le=100)
    ratio: int | None = Field(default=None, ge=2, le=100)


class Compress(_Section):
    default: CompressMode
    profiles: dict[str, CompressMode]
    modalities: dict[str, CompressMode]
    sop_classes: dict[str, CompressMode]
    allow_lossy: bool
    lossy_again: bool
    protected_modalities: tuple[str, ...]
    protected_sop_classes: tuple[str, ...]
    jpeg_quality: int = Field(ge=50, le=100)
    j2k_ratio: int = Field(ge=2, le=100)
    quality: dict[str, CompressQuality]


class Coerce(_Section):
    rules: Path | Literal[""]
    catalogue: bool


class Burn(_Section):
    burner: str
    copies: int = Field(ge=1, le=99)
    priority: Priority


class Label(_Section):
    printer: str
    layout: str
    patient: Literal["name", "id", "none"]
    logo: Path | Literal[""]
    dpi: Literal[300, 600]
    outer_mm: float = Field(ge=0, le=120)
    inner_mm: float = Field(ge=0, le=120)
    fonts: tuple[Path, ...]


class Jobs(_Section):
    conform_processes: int = Field(ge=0)
    conform_memory_mb: int = Field(ge=0)
    prepare_concurrency: int = Field(ge=1)
    keep_plans_days: int = Field(ge=1)


class Node(_Section):
    name: str
    lease_seconds: float = Field(ge=0.5)


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


class Burner(BaseModel):
    """A burner: its driver's name; all other keys belong to the driver, which checks them."""

    model_config = ConfigDict(extra="allow", frozen=True)
    driver: str

    @property
    def options(self) -> dict[str, Any]:
        """The driver's own settings."""
        return dict(self.model_extra or {})


class Rule(_Section):
    """An auto-burn rule: studies that arrive under these AE titles are burnt after a quiet period."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    called_ae: str = ""
    calling_ae: str = ""
    profile: str = ""
    medium: str = ""
    burner: str = ""
    copies: int = Field(default=1, ge=1, le=99)
    priority: Priority = "med"
    patients_per_disc: PatientsPerDisc = "one"
    protect: Literal["", "none", "rs02", "rs03"] = ""
    compress: CompressMode | Literal[""] = ""
    allow_lossy: bool | None = None
    coerce: Path | Literal[""] = ""
    quiet_seconds: float = Field(default=60.0, ge=0)


class Retention(_Section):
    min_copies: int = Field(ge=1, le=99)
    count_robots: bool
    high_percent: float = Field(ge=0, le=100)
    low_percent: float = Field(ge=0, le=100)
    check_seconds: float = Field(ge=1)

    @field_validator("low_percent")
    @classmethod
    def _low(cls, value: float, info: ValidationInfo) -> float:
        high = info.data.get("high_percent")
        if high is not None and value > high:
            raise ValueError(f"the low mark {value:g} is above the high one, {high:g}")
        return value


class Recall(_Section):
    network: Literal["wait", "start", "no"]
    network_seconds: float = Field(gt=0)
    pending_seconds: float = Field(ge=0.1, le=30)
    timeout_hours: float = Field(ge=0)
    keep_hours: float = Field(ge=0)
    nearest: tuple[str, ...]
    drive: str


class Prefetch(_Section):
    """When a patient's new study arrives, earlier ones are recalled from discs."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    called_ae: str = ""
    calling_ae: str = ""
    modalities: tuple[str, ...] = ()
    earlier_modalities: tuple[str, ...] = ()
    same_modality: bool = False
    same_body_part: bool = False
    body_parts: tuple[str, ...] = ()
    max_age_days: int = Field(default=0, ge=0)
    studies: int = Field(default=3, ge=1, le=100)
    to: str = ""


class Watch(_Section):
    """A folder or drive: what is put there is recognised, verified, and taken in by these rules."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")
    path: Path
    recalls: bool = True
    verify: Literal["off", "report", "require"] = "report"
    take: Literal["all", "foreign", "none"] = "foreign"
    when: dict[str, str | tuple[str, ...]] = {}
    reconcile: Path | Literal[""] = ""
    calling_ae: str = ""
    to: str = ""
    after: Literal["leave", "move", "eject"] = "leave"
    settle_seconds: float = Field(default=10.0, ge=0, le=86_400)

    @field_validator("calling_ae")
    @classmethod
    def _ae_title(cls, value: str) -> str:
        if value and not _AE_TITLE.match(value):
            raise ValueError(f"{value!r} is no AE title (1-16 printable characters without backslash, PS3.5 6.2)")
        return value
