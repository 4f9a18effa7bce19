"""Where people at the page and programs may have the service read from its own machine.

Whoever runs the service reads what they like by the command line. Others name a path over the network, and it shall not
tell them what lies elsewhere on that machine, nor bring it in: only drives, mounted media, watched places and the
folders of burners are read for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from config.settings import Settings
from config.worded import Worded
from service.api.access import Actor, NotAllowed
from service.errors import UsageError

_DEVICES = Path("/dev")
"""Of what lies there only drives are media."""


def readable(settings: Settings, actor: Actor, given: str) -> Path:
    """The path as it may be read. UsageError for a relative one, NotAllowed for one that lies elsewhere."""
    path = Path(given.strip())
    if not path.is_absolute() or "\0" in given:
        raise UsageError(Worded("path_absolute", "path must be absolute"))
    if actor.how == "local":
        return path
    try:
        real = path.resolve()  # where it leads: a link must not lead out
    except (OSError, RuntimeError):
        real = Path("/")
    inside = any(real == place or place in real.parents for place in _places(settings))
    is_drive = _DEVICES not in real.parents or real.is_block_device()
    if not (inside and is_drive):
        words = "this is no medium, watched place or folder of a burner; see the setting http.media_folders"
        raise NotAllowed(Worded("not_readable", words))
    return path


def _places(settings: Settings) -> Iterator[Path]:
    named = [
        *settings.http.media_folders,
        *(watch.path for watch in settings.watch),
        *(burner.options.get(key) for burner in settings.burners.values() for key in ("folder", "device")),
    ]
    for one in named:
        if one and isinstance(one, (str, Path)):
            yield (settings.data / one).resolve()
