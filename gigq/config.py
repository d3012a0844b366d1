"""Settings: what each one is, and where its present value came from.

Argument, then environment (`GIGQ_…`), then the project's file, then the user's file, then the default.
The project's file is the nearest `gigq.toml`, or `pyproject.toml` with a table `[tool.gigq]`, from the
working directory upwards; the user's is `gigq/config.toml` where the platform keeps such files.

A file is checked whole: one wrong line is an error for every command, with the file's name in it,
because a setting that is silently ignored is found much later than a typing error.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gigq.checks import Door
from gigq.clock import MICROSECONDS
from gigq.errors import ConfigError, InvalidSettingType
from gigq.text import shown

_DOOR = Door(ConfigError, InvalidSettingType)
#: Checks a value and gives it as it is used. The text says what and where, for the error.
Check = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it came from.

    Attributes:
        origin: Such as `argument`, `environment GIGQ_DB`, `/srv/app/gigq.toml` or `default`.
    """

    name: str
    value: Any
    origin: str
    secret: bool = False

    @property
    def shown(self) -> Any:
        """The value for people's eyes: a secret is `***`."""
        return "***" if self.secret and self.value is not None else self.value

    def __repr__(self) -> str:
        return f"Setting({self.name!r}, {self.shown!r}, {self.origin!r})"


@dataclass(frozen=True, slots=True)
class Option:
    """What a setting is.

    Attributes:
        check: For a value of any origin.
        parse: Makes of an environment variable's text what a file would hold.
        schema: JSON schema of the value in a file.
    """

    name: str
    help: str
    check: Check
    parse: Callable[[str], Any]
    schema: Mapping[str, Any]
    default: Any = None
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"GIGQ_{self.name.upper()}"


# --- checks -------------------------------------------------------------------------------------


def _text(what: str, value: Any) -> str:
    return _DOOR.text(what, value, 4_096)


def _part(what: str, value: Any) -> Any:
    """A name, URL or `module:Class`; an object or a class passes on to the door of the plugins."""
    return _text(what, value) if isinstance(value, str) else value


def _whole(least: int, most: int) -> Check:
    return lambda what, value: _DOOR.whole(what, value, least, most)


def _seconds(least: float = 0, *, zero: bool = False) -> Check:
    def check(what: str, value: Any) -> float:
        seconds = _DOOR.duration_us(what, value, zero=zero) / MICROSECONDS
        if seconds < least:
            _DOOR.refuse(what, value, f"it must be {least:g} s or more.")
        return seconds

    return check


def _words(what: str, value: Any) -> tuple[str, ...]:
    """Several texts; a single one counts as a list of one."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple | set | frozenset):
        _DOOR.refuse_type(what, value, "text or a list of texts")
    return tuple(_text(what, word) for word in words)


def _patterns(what: str, value: Any) -> tuple[str, ...]:
    """What `allow` takes. A pattern that can fit nothing, or not what it seems to, is refused."""
    patterns = _words(what, value)
    for pattern in patterns:
        module, colon, name = pattern.rpartition(":")
        if (
            not pattern.isprintable()
            or pattern != pattern.strip()
            or (colon and not (module and name))
        ):
            _DOOR.refuse(
                what,
                pattern,
                "a pattern is a module, or module:pattern such as myapp.tasks:send_*.",
            )
        if not colon and any(wildcard in pattern for wildcard in "*?["):
            _DOOR.refuse(
                what, pattern, f"a module has no wildcards: write {pattern}:* for all of them."
            )
    return patterns


def _key(what: str, value: Any) -> Any:
    """A signing key; never shown in a message."""
    if isinstance(value, str | bytes) or (
        isinstance(value, Mapping) and all(isinstance(key, str | bytes) for key in value.values())
    ):
        if not value or (isinstance(value, Mapping) and not all(value.values())):
            raise ConfigError(f"{what} is empty. Give a long random text, or leave it out.")
        return value
    raise InvalidSettingType(
        f"{what} is of type {type(value).__name__}; it must be text, bytes, or a mapping of key ids to"
        " keys."
    )


def _one_of(*choices: str) -> Check:
    def check(what: str, value: Any) -> str:
        chosen = _text(what, value).lower()
        if chosen not in choices:
            _DOOR.refuse(what, value, f"it must be one of {', '.join(choices)}.")
        return chosen

    return check


# --- parsing texts of the environment -----------------------------------------------------------


def _parse_number(text: str) -> float | str:
    """The number, or the text itself for the check to refuse."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parse_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parse_key(text: str) -> Any:
    """A key, or a JSON object of key ids to keys."""
    if not text.lstrip().startswith("{"):
        return text
    import json

    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(
            "GIGQ_SIGNING_KEY begins with { and is no JSON object of key ids to keys."
        ) from None


_STRING = {"type": "string", "minLength": 1}
_WORDS = {"anyOf": [_STRING, {"type": "array", "items": _STRING}]}
_LEVELS = ("debug", "info", "warning", "error", "critical")

OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("db", "Where jobs are kept: a path, relative to this file, or a URL",
               _part, str, _STRING, "gigq.db"),
        Option("serializer", "How parameters and results are written: json, msgpack, cloudpickle …",
               _part, str, _STRING, "json"),
        Option("accept", "Serializers that are read beside that one; default: all safe built-in ones",
               _words, _parse_words, _WORDS),
        Option("signing_key", "Signs payloads: a key, or key ids to keys, of which the first signs",
               _key, _parse_key,
               {"anyOf": [_STRING, {"type": "object", "additionalProperties": _STRING,
                                    "minProperties": 1}]},
               secret=True),
        Option("executor", "Where jobs run: thread, process, or what a plugin brings",
               _part, str, _STRING, "thread"),
        Option("worker_id", "The worker's name; default: a random one", _text, str, _STRING),
        Option("polling_interval", "Seconds that an idle worker waits at most",
               _seconds(), _parse_number, {"type": "number", "exclusiveMinimum": 0}, 5.0),
        Option("concurrency", "How many jobs a worker runs at once",
               _whole(1, 10_000), _parse_number,
               {"type": "integer", "minimum": 1, "maximum": 10_000}, 1),
        Option("lease", "Seconds after which a silent worker may be declared dead",
               _seconds(1), _parse_number, {"type": "number", "minimum": 1}, 30.0),
        Option("queues", "Names of the queues that a worker serves; default: all",
               _words, _parse_words, _WORDS),
        Option("allow", "Modules, or module:pattern, whose functions a worker may run; default: any",
               _patterns, _parse_words, _WORDS),
        Option("grace", "Seconds that a stopping worker gives its jobs; default: no limit",
               _seconds(zero=True), _parse_number, {"type": "number", "minimum": 0}),
        Option("block", "Plugins, distributions or names that are not to be loaded",
               _words, _parse_words, _WORDS, ()),
        Option("log_level", "What the command line logs",
               _one_of(*_LEVELS), str, {"enum": list(_LEVELS)}, "info"),
        Option("log_format", "How the command line logs",
               _one_of("text", "json"), str, {"enum": ["text", "json"]}, "text"),
    )
}  # fmt: skip


# --- looking up ---------------------------------------------------------------------------------


def setting(name: str, given: object | None = None) -> Setting:
    """A setting's value and origin.

    Args:
        given: What the caller was given as an argument; None when nothing was.

    Raises:
        ConfigError: The value cannot be used, or a file has a mistake; says which and where.
    """
    option = OPTIONS[name]
    if given is not None:
        return _made(option, given, "argument")
    text = os.environ.get(option.variable, "")
    if text:  # an empty variable is how shells unset one for a single command
        return _made(option, option.parse(text), f"environment {option.variable}")
    for path, table in _tables():
        if name in table:
            return _made(option, table[name], str(path))
    return Setting(name, option.default, "default", option.secret)


def settings() -> list[Setting]:
    """All settings as they are now, in the order of the documentation."""
    return [setting(name) for name in OPTIONS]


def files() -> list[Path]:
    """The files that are read here, the strongest first."""
    return [path for path, _ in _tables()]


def schema() -> dict[str, Any]:
    """JSON schema of `gigq.toml` and of `[tool.gigq]`; `gigq/config.schema.json` holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gigq.toml, or [tool.gigq] in pyproject.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            option.name: {"description": option.help, **option.schema}
            for option in OPTIONS.values()
        },
    }


def _made(option: Option, value: Any, origin: str) -> Setting:
    what = f"{option.name} ({origin})" if origin != "argument" else option.name
    return Setting(option.name, option.check(what, value), origin, option.secret)


# --- files --------------------------------------------------------------------------------------


def _tables() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The checked tables of the project's file and of the user's, where there are such files."""
    project = _project_table()
    if project is not None:
        yield project
    user = _user_file()
    if user is not None and _is_there(user):
        yield user, _table(user)


def _project_table() -> tuple[Path, Mapping[str, Any]] | None:
    try:
        here = Path.cwd()
    except OSError:
        return None  # the working directory was removed under us
    for folder in (here, *here.parents):
        for file_name in ("gigq.toml", "pyproject.toml"):
            path = folder / file_name
            try:
                table = _table(path) if path.is_file() and _is_trusted(path) else None
            except OSError as error:
                raise ConfigError(
                    f"{path} cannot be looked for: {error.strerror}.\nIn the working directory and above "
                    "it there may be settings: start in a folder that this user may enter."
                ) from error
            if table is not None:
                return path, table
    return None


def _is_there(path: Path) -> bool:
    """Whether the user has this file: in a home that this user may not enter, such as one that
    `sudo` left in `HOME`, they have none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _user_file() -> Path | None:
    """Where the platform keeps a user's settings."""
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE")
    if sys.platform == "win32":
        base = os.environ.get("APPDATA")
    elif sys.platform == "darwin":
        base = home and f"{home}/Library/Application Support"
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or (home and f"{home}/.config")
    return Path(base, "gigq", "config.toml") if base else None


def _is_trusted(path: Path) -> bool:
    """Whether a project's file may be believed: it can name code to import.

    In a folder where everybody may write (`/tmp`), a file of somebody else's is passed over: they
    need not have meant well.
    """
    if sys.platform == "win32":
        return True
    folder, found, name = path.parent.stat(), path.stat(), path.lstat()
    everybody_writes = folder.st_mode & 0o002 or found.st_mode & 0o002
    # Of a link, both: whoever made it chose which file of ours is believed here.
    if not everybody_writes or {found.st_uid, name.st_uid} <= {os.geteuid(), 0}:
        return True
    import logging

    logging.getLogger("gigq.config").warning(
        "%s is not read: it belongs to another user, and everybody may write there", path
    )
    return False


#: No file of settings is larger; a reader of TOML may take its time for one that is.
_MOST_BYTES = 256 * 1024
#: Every way in which TOML can spell a table `tool.gigq`.
_MAY_CONFIGURE = re.compile(
    rb"""^[ \t]*(\[[ \t]*["']?tool["']?[ \t]*(\]|\.[ \t]*["']?gigq)|["']?tool["']?[ \t]*[.=])""", re.MULTILINE
)  # fmt: skip
_read: dict[Path, tuple[tuple[int, int, int], Mapping[str, Any] | None]] = {}


def _table(path: Path) -> Any:
    """The checked table of one file, read again only when the file has changed; None when it is a
    `pyproject.toml` without one."""
    found = path.stat()
    stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
    known = _read.get(path)
    if known is None or known[0] != stamp:
        known = _read[path] = (stamp, _load(path))
    return known[1]


def _load(path: Path) -> Mapping[str, Any] | None:
    data = _bytes_of(path)
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"{path} has {path.stat().st_size} bytes, and a file of settings at most {_MOST_BYTES}."
        )
    in_pyproject = path.name == "pyproject.toml"
    if in_pyproject and not _MAY_CONFIGURE.search(data):
        return None  # nothing for us, and reading TOML costs as much as importing gigq
    document = _parsed(path, data)
    table: Any = document
    if in_pyproject:
        tool = document.get("tool")
        table = tool.get("gigq") if isinstance(tool, dict) else None
        if table is None:
            return None
    return _checked(path, table)


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # TOMLDecodeError, and a number of thousands of digits
        raise ConfigError(f"{path} is not valid TOML: {error}.\nCorrect that line.") from error


def _checked(path: Path, table: Any) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"[tool.gigq] in {path} is {shown(table)}; it must be a table.")
    for name, value in table.items():
        option = OPTIONS.get(name)
        if option is None:
            raise ConfigError(_unknown(path, name))
        what = f"{name} ({path})"
        option.check(what, value)
        if not _is_toml_kind(option, value):
            _DOOR.refuse_type(what, value, "text")
    checked = dict(table)
    if "db" in checked:
        checked["db"] = _beside(path, checked["db"])
    return checked


def _is_toml_kind(option: Option, value: Any) -> bool:
    """Objects pass the check of an argument; in a file there are only texts in their place."""
    return option.check is not _part or isinstance(value, str)


def _beside(path: Path, db: str) -> str:
    """A relative path counts from the file that it stands in, wherever the command was started."""
    if "://" not in db:
        return str(path.parent / db)
    prefix = "sqlite:///"
    if db.startswith(prefix) and not db.startswith("/", len(prefix)):
        return f"{prefix}{quote(path.parent.as_posix())}/{db.removeprefix(prefix)}"
    return db


def _unknown(path: Path, name: str) -> str:
    near = get_close_matches(name, OPTIONS, n=2)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"{path} sets {shown(name)}, which gigq does not know.{guess}\n"
        f"Known are {', '.join(OPTIONS)}."
    )


__all__ = ["OPTIONS", "Option", "Setting", "files", "schema", "setting", "settings"]
