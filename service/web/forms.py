"""Forms that make or change something: read as people fill them in, and given back with what is wrong beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from jobs.context import Context
from media import mediatypes, profiles
from service.errors import NotDone, UsageError, as_refusal
from service.web.pages import language_of
from service.web.texts import Texts, texts_of

_LONGEST = 10_000
_MOST_FIELDS = 100


async def _posted(request: Request) -> dict[str, str]:
    form = await request.form(max_files=0, max_fields=_MOST_FIELDS)
    return {name: str(value).replace("\r\n", "\n")[:_LONGEST].strip() for name, value in form.items()}


Fields = Annotated[dict[str, str], Depends(_posted)]
"""What was filled in, by the names of the fields; of several with one name the last."""


class Reader:
    """Values of a form. Each raises UsageError naming the field as the page calls it."""

    def __init__(self, fields: Mapping[str, str], texts: Texts) -> None:
        self._fields = fields
        self._texts = texts

    def text(self, name: str) -> str:
        return self._fields.get(name, "")

    def ticked(self, name: str) -> bool:
        return self._fields.get(name, "") == "true"

    def lines(self, name: str) -> list[str]:
        """One value in each line."""
        return [line.strip() for line in self.text(name).splitlines() if line.strip()]

    def words(self, name: str) -> list[str]:
        """Values with commas between them."""
        return [word.strip() for word in self.text(name).replace("\n", ",").split(",") if word.strip()]

    def number(self, name: str, label: str) -> float | None:
        """None where it is left empty. A comma is as good as a point."""
        text = self.text(name).replace(",", ".")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not abs(value) < 1e9:
            raise UsageError(self._texts("forms.number", field=self._texts(label), value=self.text(name)[:40]))
        return int(value) if value == int(value) else value

    def whole(self, name: str, label: str) -> int | None:
        value = self.number(name, label)
        if isinstance(value, float):
            raise UsageError(self._texts("forms.whole", field=self._texts(label), value=self.text(name)[:40]))
        return value

    def options(self, names: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
        """What was chosen; what is left empty is as the settings say, what the form does not have as before."""
        found = dict(before)
        for name in names:
            if name in self._fields:
                found.pop(name, None)
                if self._fields[name]:
                    found[name] = self._fields[name]
        return found


def version(row: Any, columns: Sequence[str]) -> str:
    """Stands in a form for what it was filled with, so that nobody undoes unseen what another has changed. ``""`` for
    what is not there yet."""
    if row is None:
        return ""
    values = {column: getattr(row, column) for column in columns}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def require_unchanged(texts: Texts, fields: Mapping[str, str], row: Any, columns: Sequence[str]) -> None:
    """Raises NotDone (CHANGED) where somebody has changed it since the form was shown."""
    if fields.get("version", "") != version(row, columns):
        raise NotDone(texts("forms.changed"), "CHANGED")


def refused(
    request: Request, error: Exception, fields: dict[str, str], as_it_is: dict[str, str]
) -> tuple[dict[str, str], str, int]:
    """How a form is given back: what it is filled with, why it was not taken, and the status of the answer.

    It stays as it was filled in; where somebody has changed the same thing meanwhile it is ``as_it_is`` now. Raises
    what is not for people.
    """
    refusal = as_refusal(error)
    if refusal is None:
        raise error
    why = texts_of(language_of(request)).refusal(refusal)
    return as_it_is if refusal.code == "CHANGED" and as_it_is else fields, why, refusal.http_status


def disc_choices(ctx: Context) -> dict[str, Any]:
    """What a form offers of how discs are made."""
    return {
        "profiles": [one for one in profiles.profiles().values() if one.status == "ready"],
        "media": list(mediatypes.media_types().values()),
        "settings": ctx.settings,
        "burner_names": list(ctx.settings.burners),
    }
