"""What goes wrong, as one clear line for a user: the exit status of a command, the status of an HTTP answer.

Errors of other rooms are recognised by their names, so that nothing has to be imported to translate them.
"""

from __future__ import annotations

from importlib import import_module

from config.worded import words_of


class Refusal(Exception):
    """Something was not done; the text tells a user why, ``code`` tells a script."""

    exit_status = 1
    http_status = 409

    def __init__(self, text: str, code: str = "FAILED") -> None:
        super().__init__(text)
        self.code = code


class UsageError(Refusal):
    """The request itself is wrong: exit status 2."""

    exit_status = 2
    http_status = 422

    def __init__(self, text: str, code: str = "USAGE") -> None:
        super().__init__(text, code)


class NotFound(UsageError):
    """There is no such job, plan ...: exit status 2."""

    http_status = 404

    def __init__(self, text: str, code: str = "NOT_FOUND") -> None:
        super().__init__(text, code)


class NotDone(Refusal):
    """The request is right, but it cannot be done as things are: exit status 1."""


class TryLater(Refusal):
    """The service cannot do this now (spool full, shutting down): exit status 1."""

    http_status = 503

    def __init__(self, text: str, code: str = "BUSY") -> None:
        super().__init__(text, code)


_USAGE = frozenset(
    {
        "sqlalchemy.exc.DataError",
        "config.settings.SettingsError",
        "store.selection.SelectionError",
        "jobs.options.OptionsError",
        "media.profiles.ProfileError",
        "store.remotes.BadRemoteNode",
        "store.users.BadUser",
        "store.shelves.BadPlace",
        "jobs.triggers.TriggerError",
    }
)
_NOT_FOUND = frozenset(
    {
        "store.jobs.JobNotFound",
        "store.remotes.UnknownRemoteNode",
        "store.users.UnknownUser",
        "store.rereading.NoSuchDisc",
        "store.holds.NoSuchHold",
        "store.reburns.NoSuchVolume",
        "store.pools.NoSuchPool",
        "store.schedules.NoSuchSchedule",
        "store.recalls.UnknownRecall",
    }
)
_TRY_LATER = frozenset({"store.spool.SpoolFull", "store.instances.RegistrationFailed", "sqlalchemy.exc.DBAPIError"})
_NOT_DONE = frozenset(
    {
        "media.problems.MediaError",
        "jobs.preparing.PlanRefused",
        "jobs.conform_pool.Cancelled",
        "store.jobs.JobError",
        "jobs.mending.MendingRefused",
        "store.remotes.RemoteNodeError",
        "store.retention.NeededByJob",
        "store.shelves.DiscError",
        "store.reburns.ReburnError",
        "store.pools.PoolError",
        "store.schedules.ScheduleError",
        "store.recalls.RecallError",
        "store.users.UserError",
        "builtins.OSError",
    }
)


def kinds() -> list[type[Exception]]:
    """The classes of all errors that are told to users, imported."""
    found: list[type[Exception]] = [Refusal]
    for name in sorted(_USAGE | _NOT_FOUND | _TRY_LATER | _NOT_DONE):
        module, _, cls = name.rpartition(".")
        found.append(getattr(import_module(module), cls))
    return found


def as_refusal(error: BaseException) -> Refusal | None:
    """The error as a user shall see it; None for what nobody foresaw."""
    if isinstance(error, Refusal):
        return error
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    text = _text(error, names)
    code = getattr(error, "code", None)
    for known, kind in ((_USAGE, UsageError), (_NOT_FOUND, NotFound), (_TRY_LATER, TryLater), (_NOT_DONE, NotDone)):
        if known.intersection(names):
            return kind(text, code) if isinstance(code, str) and names[0][:10] != "sqlalchemy" else kind(text)
    return None


def _text(error: BaseException, names: list[str]) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if "sqlalchemy.exc.DataError" in names:
        return "a value is too long, too large, or no text that can be kept"
    if "sqlalchemy.exc.DBAPIError" in names:
        # Without the statement and details: they may hold a patient's name.
        return f"the database cannot be used: {getattr(error, 'orig', error)}".splitlines()[0]
    return words_of(error) or type(error).__name__.lower()
