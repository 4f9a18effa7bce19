"""A sentence that can be said in another language, made where the language of whoever reads it is not known."""

from __future__ import annotations

from collections.abc import Mapping


class Worded(str):
    """An English text, as the command line, programs and logs have it, that knows which text it is.

    ``key`` is that of the page's text (under ``refused`` in ``service/web/texts``), ``values`` is what it fills in,
    some of which may be Worded, too. Copied to another process it is a plain text.
    """

    key: str
    values: Mapping[str, object]

    def __new__(cls, key: str, english: str, **values: object) -> Worded:
        """``english`` has ``{names}`` as ``str.format`` takes them."""
        made = super().__new__(cls, english.format(**values))
        made.key = key
        made.values = values
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def words_of(error: BaseException) -> str:
    """The text of an error, Worded where it was made so."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, Worded) else str(error)


def field(name: str) -> Worded:
    """The name of a value, as a page calls it where that has a name for it."""
    return Worded(f"field.{name}", name)


def state(name: str) -> Worded:
    """A state of a job or disc."""
    return Worded(f"state.{name}", name)
