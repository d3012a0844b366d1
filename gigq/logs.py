"""Logging: silent until somebody asks, and structured when they do.

Everything that gigq has to say goes to loggers under `gigq`, with its facts as fields of the record
(`job_id`, `run`, `queue`, `worker_id`). A library does not write to a terminal of its own accord, so
importing gigq adds a `NullHandler` only, and nothing is passed on to the root logger: a program that
configures both would see every line twice.
"""

from __future__ import annotations

import logging
import sys
from typing import IO, Any, Literal

from gigq.errors import ConfigError
from gigq.text import printable_lines, shown

LOGGER = logging.getLogger("gigq")

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
#: Before each line of a record but the first, so that no text in it passes for a record of its own.
_GOES_ON = "    "
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message", "asctime", "taskName",
}  # fmt: skip


def get_logger(name: str) -> logging.Logger:
    """The logger of a module, `gigq.…`; silent until somebody configures logging."""
    keep_quiet()
    return logging.getLogger(name)


def keep_quiet() -> None:
    """Add the handler that says nothing, and pass nothing on to the root; done once on import."""
    LOGGER.propagate = False
    if not any(isinstance(handler, logging.NullHandler) for handler in LOGGER.handlers):
        LOGGER.addHandler(logging.NullHandler())


def setup_logging(
    level: int | str = logging.INFO, *, log_format: Literal["text", "json"] = "text"
) -> None:
    """Show what gigq says on standard error; calling it again changes level and format.

    Args:
        level: A number or name of the `logging` module.
        log_format: `text` for people, `json` for one object per line with all fields.

    Raises:
        ConfigError: A level or format that does not exist.
    """
    number = _level(level)
    if log_format not in ("text", "json"):
        raise ConfigError(f"log_format is {shown(log_format)}: it must be 'text' or 'json'.")
    handler = next((each for each in LOGGER.handlers if isinstance(each, _Stderr)), None)
    if handler is None:
        handler = _Stderr()
        LOGGER.addHandler(handler)
    handler.setFormatter(_JsonLines() if log_format == "json" else _Lines(_TEXT))
    LOGGER.setLevel(number)


def _level(level: object) -> int:
    """The number of a level, given as a number or by name in any case."""
    if isinstance(level, int) and not isinstance(level, bool) and level >= 0:
        return level
    names = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in names:
        return names[level.upper()]
    raise ConfigError(
        f"The log level is {shown(level)}: it must be a number of the logging module, or one of "
        f"{', '.join(sorted(names, key=names.__getitem__))}."
    )


class _Stderr(logging.StreamHandler[IO[str]]):
    """Writes to whatever standard error is at that moment, also after somebody redirected it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:  # type: ignore[override]
        return sys.stderr


class _Lines(logging.Formatter):
    """For people; what a job put into a message cannot move the cursor, nor begin a record."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record)).replace("\n", f"\n{_GOES_ON}")


class _JsonLines(logging.Formatter):
    """For programs: one JSON object per line, the record's own fields included."""

    def format(self, record: logging.LogRecord) -> str:
        import json  # only for who asks for it: importing gigq imports this module

        line: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
