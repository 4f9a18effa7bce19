"""Transfer syntaxes as rows: config/syntaxes.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from media.problems import InstanceRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """A row of config/syntaxes.toml."""

    uid: str
    name: str
    encoding: str
    """``implicit-le``, ``explicit-le``, ``explicit-be``, ``deflated`` or ``encapsulated``."""
    codec: str = ""
    """For encapsulated ones: ``jpeg``, ``jpeg-ls``, ``jpeg2000``, ``rle``, ``deflate`` or ``none``."""
    lossless: bool = False
    refused: str = ""
    """Why its pixel data cannot be decoded; ``""`` where it can."""

    def __str__(self) -> str:
        return f"{self.name} ({self.uid})"


@cache
def transfer_syntaxes() -> Mapping[str, TransferSyntax]:
    """Every transfer syntax that we know, by UID."""
    rows = tomllib.loads(resources.files("config").joinpath("syntaxes.toml").read_text("utf-8"))["syntax"]
    return {row["uid"]: TransferSyntax(**row) for row in rows}


def transfer_syntax(uid: str) -> TransferSyntax:
    """The row of ``uid``; one that we do not know is a row that says so in ``refused``."""
    return transfer_syntaxes().get(uid) or TransferSyntax(
        uid, "unknown or private transfer syntax", "", refused="it is not a transfer syntax of the standard"
    )


def require_decodable(syntax: TransferSyntax, sop_instance_uid: str) -> None:
    """InstanceRefused, by name and with the reason, where ``syntax`` is one that we do not decode."""
    if syntax.refused:
        raise InstanceRefused(
            "INST_AP_CONFLICT", f"Instance {sop_instance_uid} is in {syntax}, which cannot be decoded: {syntax.refused}"
        )
