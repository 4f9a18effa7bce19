"""Settings that all robots with a hot folder have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burners.exporting import raise_faults
from burners.hotfolder_dialect import Dialect
from burners.hotfolder_paths import PathMap
from burners.hotfolder_text import check_code_page
from media.labeltables import LabelError, printer

NAMES = (
    "folder",
    "robot_path",
    "images",
    "robot_images",
    "slots",
    "discs",
    "label",
    "label_printer",
    "code_page",
    "template",
    "location",
    "stale_seconds",
    "lost_seconds",
    "stall_minutes",
    "cancel_minutes",
)
FAMILIES = ("CD", "DVD", "BD")
DRAWN, NO_LABEL = "drawn", "none"
_SECONDS = {"stale_seconds": 30.0, "lost_seconds": 120.0, "stall_minutes": 60.0, "cancel_minutes": 10.0}


@dataclass(frozen=True, slots=True)
class Options:
    folder: Path
    """The hot folder; never made, so that a share that is not mounted is noticed."""
    images: Path
    """Where images, labels and our notes go."""
    share: PathMap
    """``images`` as the robot sees it, or a folder above."""
    slots: int
    discs: tuple[str, ...]
    label: str
    """``drawn``, ``none``, or the robot's path of a design."""
    label_printer: str
    code_page: str
    template: str
    location: str
    stale_seconds: float
    lost_seconds: float
    stall_seconds: float
    cancel_seconds: float


def check(options: Mapping[str, Any], data: Path, kind: type[Dialect]) -> tuple[Options, Dialect]:
    """Check all options, the dialect's too. Raises BurnerOptionsError that lists every fault."""
    known = (*NAMES, *kind.option_names)
    faults = [f"unknown option {key!r}; known are {', '.join(known)}" for key in options if key not in known]
    text = {key: _text(options, key, faults) for key in NAMES if key not in ("slots", "discs", *_SECONDS)}
    if not text["folder"]:
        faults.append("folder: the robot's hot folder is missing")
    folder = data / Path(text["folder"] or ".").expanduser()
    images = folder / Path(text["images"] or "burnish").expanduser()
    share = _share(text, folder, images, faults)
    code_page = kind.code_page
    try:
        code_page = check_code_page(text["code_page"] or kind.code_page)
        share.robot.encode(code_page)
    except UnicodeError:
        faults.append(f"robot_path {share.robot!r} cannot be written in code page {code_page}")
    except ValueError as error:
        faults.append(f"code_page: {error}")
    slots, discs = options.get("slots", 4), options.get("discs", ["CD", "DVD"])
    if not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= 64:
        faults.append(f"slots: {slots!r} is not a number from 1 to 64")
    if not isinstance(discs, list) or not discs or any(family not in FAMILIES for family in discs):
        faults.append(f"discs: {discs!r} is not a list of {', '.join(FAMILIES)}")
    seconds = {key: _positive(options, key, default, faults) for key, default in _SECONDS.items()}
    template = _template(text["template"], data, kind, faults)
    if text["label_printer"]:
        try:
            printer(text["label_printer"])
        except LabelError as error:
            faults.append(f"label_printer: {error}")
    dialect = kind({key: options[key] for key in kind.option_names if key in options}, faults)
    raise_faults(faults)
    return Options(
        folder=folder,
        images=images,
        share=share,
        slots=slots,
        discs=tuple(discs),
        label=text["label"] or DRAWN,
        label_printer=text["label_printer"],
        code_page=code_page,
        template=template,
        location=text["location"],
        stale_seconds=seconds["stale_seconds"],
        lost_seconds=seconds["lost_seconds"],
        stall_seconds=60 * seconds["stall_minutes"],
        cancel_seconds=60 * seconds["cancel_minutes"],
    ), dialect


def _share(text: Mapping[str, str], folder: Path, images: Path, faults: list[str]) -> PathMap:
    """How the robot reaches the images."""
    if text["robot_images"]:
        return PathMap(images, text["robot_images"])
    if not images.is_relative_to(folder):
        faults.append(f"robot_images: {images} is outside of {folder}; say how the robot's computer names it")
    return PathMap(folder, text["robot_path"] or str(folder))


def _template(name: str, data: Path, kind: type[Dialect], faults: list[str]) -> str:
    if not name:
        return kind.template
    path = data / Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        faults.append(f"template {path}: {error}")
        return kind.template


def _text(options: Mapping[str, Any], key: str, faults: list[str]) -> str:
    value = options.get(key, "")
    if not isinstance(value, str | Path) or any(ord(character) < 32 for character in str(value)):
        faults.append(f"{key}: {value!r} is no text of one line")
        return ""
    return str(value)


def _positive(options: Mapping[str, Any], key: str, default: float, faults: list[str]) -> float:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1_000_000:
        faults.append(f"{key}: {value!r} is not a number above 0")
        return default
    return float(value)
