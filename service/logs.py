"""Logs on stderr by structlog, as text or JSON, those of libraries included. No patient data: names, IDs and request
bodies are never logged; what has to be named is named by its number or UID. An error that nobody foresaw is told
without its words, which may quote a value.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, TextIO

import structlog

from config import traces

_QUIET = {
    # Libraries that tell in detail what goes by, patient data included.
    "pynetdicom": logging.ERROR,
    "pydicom": logging.ERROR,
    "sqlalchemy": logging.WARNING,
    "apscheduler": logging.ERROR,
    "alembic": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
    "uvicorn.error": logging.WARNING,
    "dbos": logging.WARNING,
    "asyncio": logging.WARNING,
    "multipart": logging.WARNING,
}


def configure(*, level: str, style: Literal["text", "json"]) -> None:
    """Set logging up for this process; may be called again."""
    stamps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if style == "json":
        as_text = structlog.processors.ExceptionRenderer(traces.formatted)
        renderer: list[Any] = [as_text, structlog.processors.JSONRenderer()]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=_write_trace,
                sort_keys=False,
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=stamps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, lowest in _QUIET.items():
        logger = logging.getLogger(name)
        logger.setLevel(max(lowest, logging.getLevelName(level.upper())))
        logger.propagate = True
        logger.handlers.clear()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *stamps,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _write_trace(out: TextIO, exc_info: Any) -> None:
    out.write("\n" + traces.formatted(exc_info))


def logger(name: str) -> Any:
    """A structlog logger: ``log.info("what happened", job="J1")``."""
    return structlog.stdlib.get_logger(name)
