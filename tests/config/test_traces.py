"""Logs tell where an error came from and of what kind it is, but not what it quotes."""

from __future__ import annotations

import json
import logging

import pytest

from config import traces
from service.logs import configure, logger

NAME = "^".join(("Doe", "Jane"))


def failed() -> BaseException:
    try:
        try:
            int(NAME)
        except ValueError as error:
            raise OSError(28, "No space left on device", NAME) from error
    except OSError as error:
        return error


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_error_is_logged_without_what_it_quotes(style: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    configure(level="info", style=style)  # type: ignore[arg-type]
    try:
        logger("service").error("it failed", exc_info=failed())
        try:
            raise KeyError(NAME)
        except KeyError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    said = capfd.readouterr().err
    if style == "json":
        lines = [json.loads(line) for line in said.splitlines()]
        said = "".join(line["exception"] for line in lines if line["logger"] in ("service", "uvicorn.error"))
    assert NAME not in said
    assert "ValueError" in said
    assert "OSError: No space left on device" in said
    assert "test_traces.py" in said


def test_who_looks_for_a_fault_is_shown_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_DEBUG", "1")
    assert "literal for int" in traces.formatted((OSError, failed(), None))
    assert traces.formatted((None, None, None)) == ""


def test_a_chain_without_an_end_is_cut() -> None:
    error = ValueError("x")
    error.__cause__ = other = KeyError("y")
    other.__cause__ = error
    assert traces.told(error).count("Traceback") == 2
