"""structlog for the command: off unless asked for, to stderr, stamped with virtual time."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any

__all__ = ["LogLevel", "configure_logs"]


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(level: LogLevel | None = None, *, as_json: bool = False) -> None:
    """Set structlog up for this process.

    Args:
        level: The least level to log; nothing is logged if not given.
        as_json: One JSON object a line, not coloured text.
    """
    import logging

    import structlog

    threshold = logging.getLevelNamesMapping()[(level or "critical").upper()]
    # A ReturnLogger hands lines back to the caller: what is critical and not asked for goes nowhere either.
    factory: Any = structlog.ReturnLoggerFactory() if level is None else structlog.PrintLoggerFactory(sys.stderr)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp_virtual_time,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )


def stamp_virtual_time(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add ``t``, the virtual time in seconds, to what is logged while a loop runs."""
    from simloop.clock import now

    try:
        return {"t": round(now(), 9), **event}
    except RuntimeError:  # no loop runs: before the start, after the end
        return event
