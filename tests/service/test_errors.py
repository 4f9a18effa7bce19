from __future__ import annotations

import sqlalchemy.exc

from config.settings import SettingsError
from jobs.conform_pool import Cancelled
from jobs.options import OptionsError
from jobs.preparing import PlanRefused
from media.problems import InstanceRefused, MediaError, NotDicom
from media.profiles import ProfileError
from service.errors import NotFound, as_refusal
from store.instances import RegistrationFailed
from store.jobs import JobError, JobNotFound
from store.retention import NeededByJob
from store.selection import SelectionError
from store.spool import SpoolFull


def test_every_error_that_is_translated_by_name_still_has_that_name() -> None:
    expected = [
        (SettingsError("x"), 2, 422),
        (SelectionError("x"), 2, 422),
        (OptionsError("x"), 2, 422),
        (ProfileError("x"), 2, 422),
        (JobNotFound(3), 2, 404),
        (NotFound("x"), 2, 404),
        (JobError("PLAN_USED", "x"), 1, 409),
        (PlanRefused("INST_OVERSIZED", "x"), 1, 409),
        (Cancelled(), 1, 409),
        (NeededByJob("x"), 1, 409),
        (MediaError("x"), 1, 409),
        (NotDicom("x"), 1, 409),
        (InstanceRefused("CODE", "x"), 1, 409),
        (OSError(28, "No space left on device"), 1, 409),
        (SpoolFull("x"), 1, 503),
        (RegistrationFailed("x"), 1, 503),
        (sqlalchemy.exc.DatabaseError("SELECT", {}, Exception("broken")), 1, 503),
    ]
    for error, exit_status, http_status in expected:
        refusal = as_refusal(error)
        assert refusal is not None, type(error)
        assert (refusal.exit_status, refusal.http_status) == (exit_status, http_status), type(error)
        assert str(refusal), type(error)


def test_codes_are_kept_for_scripts() -> None:
    refusal = as_refusal(PlanRefused("INST_OVERSIZED", "too large"))
    assert refusal is not None and refusal.code == "INST_OVERSIZED" and str(refusal) == "INST_OVERSIZED: too large"


def test_a_database_error_does_not_tell_the_values_of_its_statement() -> None:
    error = sqlalchemy.exc.OperationalError("SELECT ?", {"name": "Doe^Jane"}, Exception("unable to open database file"))
    refusal = as_refusal(error)
    assert refusal is not None
    assert str(refusal) == "the database cannot be used: unable to open database file"


def test_an_error_that_nobody_foresaw_is_none() -> None:
    assert as_refusal(ZeroDivisionError()) is None
