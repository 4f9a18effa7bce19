"""What a request may say about how its discs are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from config.settings import Settings
from config.worded import Worded
from jobs.compression import Compression
from media import coercion
from media.ecc import METHODS
from media.iod import Level
from media.labelcodes import SYMBOLOGIES, symbology_of
from media.recipes import COMPRESS

PRIORITIES = {"high": 1, "med": 2, "low": 3}
"""Request Priority (2200,0020) as the number that queues sort by."""


PURPOSES = ("archive", "backup", "handout")
"""``archive``: a place where the catalogue finds what is on the disc. ``backup``: the same disc, but no such place.
``handout``: it leaves the house."""

AUTO = "auto"
"""As a request's profile: the one that suits best is chosen when it is planned (``jobs.choosing``)."""


_LABEL_TEXTS = {
    "label_text": 10_240,
    "label_style_selection": 64,
    "media_disposition": 10_240,
    "barcode_value": 1024,
    "barcode_symbology": 64,
}
"""Options for labels with their most characters: of their VR, or what fits on a disc at all."""


class OptionsError(Exception):
    """An option has a value that makes no sense; the text names both."""


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options of one request, each with a value (see ``from_settings`` for what a request leaves open)."""

    profile: str
    """Identifier, or ``AUTO``."""
    medium: str
    """``""``: the profile's own default."""
    capacity_sectors: int | None
    """Usable size as given, instead of the medium's own size less the reserve."""
    burner: str
    copies: int
    priority: str
    patients_per_disc: str
    conflicts: str
    skip_refused: bool
    allow_splitting: bool
    file_set_prefix: str
    compress: str = ""
    """One of ``media.recipes.COMPRESS``; ``""``: the settings' policy decides (``jobs.compression``)."""
    allow_lossy: bool = False
    """Whether instances may be compressed lossily, where ``compress`` or the policy wants that."""
    coerce: list[dict[str, Any]] = field(default_factory=list)
    """Rules by which attributes are corrected, as documents for ``media.coercion.rules_of``."""
    coerce_catalogue: bool = False
    """Whether patient and study attributes become those of the catalogue."""
    iod: str = "off"
    """What is done with the IOD check: one of ``media.iod.Level``."""
    protect: str = "none"
    """Error-correction data: ``none`` or one of ``media.ecc.METHODS``."""
    protect_percent: float = 33.0
    """Its least redundancy, percent of the data."""
    pull_from: str = ""
    """A remote node that the studies of the selection are fetched from before they are planned."""
    label_text: str = ""
    """Label Text (2200,0002), as the next ones of PS3.3 C.22.1."""
    label_using_information_extracted_from_instances: bool = True
    label_style_selection: str = ""
    """A layout of ``config/labels.toml``; another one is told of and not used."""
    media_disposition: str = ""
    barcode_value: str = ""
    barcode_symbology: str = ""
    """One of ``media.labelcodes.SYMBOLOGIES``, however it is spelt; ``""``: CODE128."""
    purpose: str = "archive"
    """What the discs are for: one of ``PURPOSES``."""
    pool: str = ""
    """The pool whose discs are made."""

    def compression(self, settings: Settings) -> Compression:
        """What is compressed and how."""
        return Compression(settings.compress, self.compress, self.allow_lossy)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RequestOptions:
        return cls(**values)

    @classmethod
    def from_settings(cls, settings: Settings, given: Mapping[str, Any]) -> RequestOptions:
        """Options of a request that says ``given``; absent or None values are filled from the settings.

        Raises ``OptionsError`` naming the option that is wrong.
        """
        values: dict[str, Any] = {
            "profile": settings.plan.profile,
            "medium": "",
            "capacity_sectors": None,
            "burner": settings.burn.burner,
            "copies": settings.burn.copies,
            "priority": settings.burn.priority,
            "patients_per_disc": settings.plan.patients_per_disc,
            "conflicts": settings.plan.conflicts,
            "skip_refused": False,
            "compress": "",
            "allow_lossy": settings.compress.allow_lossy,
            "coerce_catalogue": settings.coerce.catalogue,
            "iod": settings.plan.iod,
            "protect": settings.plan.protect,
            "protect_percent": settings.plan.protect_percent,
            "allow_splitting": True,
            "file_set_prefix": settings.plan.file_set_prefix,
            "purpose": "archive",
        }
        unknown = set(given) - {one.name for one in fields(cls)}
        if unknown:
            raise OptionsError(f"unknown option {', '.join(sorted(unknown))}")
        values |= {key: value for key, value in given.items() if value is not None}
        _require_types(cls, values)
        if values["profile"].lower() == AUTO:
            values["profile"] = AUTO
            if given.get("compress") is None:  # the profile that changes least is wanted
                values["compress"] = "keep"
        # The default medium belongs to the default profile; another profile has its own.
        if not values["medium"] and values["profile"] == settings.plan.profile:
            values["medium"] = settings.plan.medium
        for option, longest in _LABEL_TEXTS.items():
            if len(values.get(option, "")) > longest:
                raise OptionsError(f"{option} has {len(values[option])} characters; it may have {longest}")
        if not symbology_of(values.get("barcode_symbology", "")):
            raise OptionsError(
                f"barcode_symbology is {values['barcode_symbology']!r}; it may be {', '.join(SYMBOLOGIES)}"
            )
        for option, allowed in (
            ("priority", tuple(PRIORITIES)),
            ("patients_per_disc", ("one", "many")),
            ("conflicts", ("first", "latest", "refuse", "keep-both")),
            ("compress", ("", *COMPRESS)),
            ("iod", tuple(level.value for level in Level)),
            ("protect", ("none", *METHODS)),
            ("purpose", PURPOSES),
        ):
            if values[option] not in allowed:
                raise OptionsError(f"{option} is {values[option]!r}; it may be {', '.join(allowed)}")
        if values["burner"] not in settings.burners:
            raise OptionsError(
                Worded(
                    "no_burner",
                    "there is no burner {burner!r}; there are {known}",
                    burner=values["burner"],
                    known=", ".join(settings.burners),
                )
            )
        values["coerce"] = _rules(settings, given.get("coerce"))
        if values["compress"] == "lossy" and not values["allow_lossy"]:
            raise OptionsError("compress is 'lossy', and lossy compression is not allowed: allow_lossy must say so")
        if not 3.3 <= values["protect_percent"] <= 200:
            raise OptionsError(f"protect-percent is {values['protect_percent']}; it may be 3.3 to 200")
        if not 1 <= values["copies"] <= 99:
            raise OptionsError(Worded("copies", "copies is {copies}; it may be 1 to 99", copies=values["copies"]))
        if values["capacity_sectors"] is not None and values["capacity_sectors"] < 1:
            raise OptionsError(f"capacity-sectors is {values['capacity_sectors']}; it must be positive")
        if not re.fullmatch(r"[A-Z0-9_]{0,9}", values["file_set_prefix"]):
            raise OptionsError("file_set_prefix may have up to 9 characters A-Z 0-9 _")
        return cls(**values)


def _require_types(cls: type[RequestOptions], values: Mapping[str, Any]) -> None:
    """Whoever says ``allow_lossy`` is ``"no"`` does not mean that it is true."""
    for one in fields(cls):
        value = values.get(one.name)
        if value is None or one.type not in _TYPES:
            continue
        types, words = _TYPES[one.type]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise OptionsError(f"{one.name} is {value!r:.60}; it must be {words}")


_TYPES: dict[Any, tuple[Any, str]] = {
    "str": (str, "text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float": ((int, float), "a number"),
}
"""Of the fields of ``RequestOptions``, as they are annotated."""


def _rules(settings: Settings, given: Any) -> list[dict[str, Any]]:
    """The site's rules and then the request's own."""
    try:
        rules = coercion.read_rules(settings.data / settings.coerce.rules) if settings.coerce.rules else []
        if given:
            coercion.rules_of(given)
            rules = [*rules, *given]
    except coercion.RulesError as error:
        raise OptionsError(f"coerce: {error}") from error
    return rules
