"""All that the command line prints, and nothing else does.

Three kinds of text never mix: answers go to stdout, as lines for people or as one JSON document
(`--json`); errors and notes go to stderr. Whatever came from a queue passes `printable`, because a
job's name is written by somebody else and a terminal obeys control characters.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from datetime import date, datetime
from typing import IO, TYPE_CHECKING, Any, Protocol

from gigq.text import printable, shown

if TYPE_CHECKING:
    from rich.console import Console

_PIECE = 16_384
#: Larger whole numbers are written in hexadecimal: Python itself reads no more digits than 4,300.
_MOST_BITS = 14_000
_DEEPEST = 250
_STYLES = {
    "completed": "green",
    "failed": "red",
    "timeout": "red",
    "lost": "red",
    "cancelled": "yellow",
    "running": "cyan",
}


class NobodyReads(Exception):
    """The reader of stdout is gone, as in `gigq list | head`.

    Not an `OSError`: click ends the process by itself for a broken pipe, with a code of its own.
    """


class Progress(Protocol):
    """How far a long piece of work has come."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""

    def reached(self, count: int, total: int) -> None:
        """So many of so many are done."""

    def say(self, text: str) -> None:
        """What it is doing now."""


class _Silent:
    """Progress where nobody watches: not on a terminal, or `--quiet`."""

    def advance(self, count: int = 1) -> None:
        pass

    def reached(self, count: int, total: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Output:
    """Where a command's answers go.

    Args:
        as_json: One JSON document instead of lines for people.
        quiet: No notes; answers and errors remain.
        documents: Where JSON documents go, when that is not stdout as it is now.
    """

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, documents: IO[str] | None = None
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._documents = documents

    # --- answers ------------------------------------------------------------------------------

    def answer(self, document: object, lines: Callable[[], None]) -> None:
        """The command's one answer: the document with `--json`, else what `lines` prints."""
        if self.as_json:
            self.document(document)
        else:
            lines()

    def document(self, value: object, *, one_line: bool = False) -> None:
        """A JSON document on stdout, on a line of its own where several follow each other."""
        text = json.dumps(jsonable(value), indent=None if one_line else 2, allow_nan=False)
        _write(self._documents or sys.stdout, text + "\n")

    def line(self, text: str = "") -> None:
        """One line for people; a line break inside is data and is shown as an escape."""
        _write(sys.stdout, printable(text) + "\n")

    def block(self, text: str, indent: str = "  ") -> None:
        """Text of several lines, such as a traceback, each line indented."""
        for line in text.splitlines():
            self.line(indent + line)

    def raw(self, text: str) -> None:
        """Text that is ours to the last character: scripts, exports."""
        _write(sys.stdout, text, flush=False)

    def field(self, name: str, value: object) -> None:
        """`name: value`."""
        self.line(f"{name}: {value}")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A boxed table. On a terminal it fits the width and only its first column is never wrapped;
        elsewhere nothing is wrapped or cut."""
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        if self.on_terminal:
            self._table_on_terminal(headers, cells)
        else:
            _write(sys.stdout, _drawn([list(headers), *cells], unicode=_speaks_unicode(sys.stdout)))

    def _table_on_terminal(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.ROUNDED if _speaks_unicode(sys.stdout) else box.ASCII)
        for number, header in enumerate(headers):
            table.add_column(header, no_wrap=number == 0, overflow="fold")
        for row in rows:
            table.add_row(*[Text(cell, style=_STYLES.get(cell, "")) for cell in row])
        console = self._console(sys.stdout)
        with console.capture() as drawn:
            console.print(table)
        _write(sys.stdout, drawn.get())

    # --- beside the answer --------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something worth knowing that is not the answer."""
        if not self.quiet:
            self._stderr_lines(text)

    def error(self, text: str, code: int) -> None:
        """Why the command failed: `Error: …`, or a document on stderr with `--json`."""
        if self.as_json:
            _write(sys.stderr, json.dumps({"error": text, "exit_code": code}) + "\n")
        else:
            self._stderr_lines(f"Error: {text}")

    def trace(self, text: str) -> None:
        """A traceback of our own, for `--verbose`."""
        self._stderr_lines(text)

    @property
    def on_terminal(self) -> bool:
        """Whether a person is likely to read stdout."""
        return sys.stdout.isatty()

    @property
    def shows_progress(self) -> bool:
        """Whether `progress` draws anything."""
        return sys.stderr.isatty() and not self.quiet and not self.as_json

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Progress]:
        """A progress bar on stderr, where that is a terminal and nobody asked for quiet."""
        if not self.shows_progress:
            yield _Silent()
            return
        yield from self._bar(title, total)

    def _bar(self, title: str, total: int | None) -> Iterator[Progress]:
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        # Lines that are printed meanwhile go above the bar, unless stdout leads elsewhere than it.
        drawn = progress.Progress(
            *columns, console=self._console(sys.stderr), transient=True,
            redirect_stdout=self.on_terminal,
        )  # fmt: skip
        with drawn as bar:
            task = bar.add_task(printable(title), total=total)

            class Bar:
                def advance(self, count: int = 1) -> None:
                    bar.advance(task, count)

                def reached(self, count: int, total: int) -> None:
                    bar.update(task, completed=count, total=total or None)

                def say(self, text: str) -> None:
                    bar.update(task, description=printable(text))

            yield Bar()

    @contextmanager
    def live(self) -> Iterator[Callable[[str], None]]:
        """Show a text that changes: in place on a terminal, else a line for each change."""
        if self.as_json:
            yield lambda _text: None
        elif self.on_terminal:
            yield from self._live_on_terminal()
        else:
            yield from self._live_as_lines()

    def _live_on_terminal(self) -> Iterator[Callable[[str], None]]:
        from rich.live import Live
        from rich.text import Text

        def lines(text: str) -> Text:
            return Text("\n".join(printable(line) for line in text.split("\n")))

        with Live(console=self._console(sys.stdout), transient=True, auto_refresh=False) as live:
            yield lambda text: live.update(lines(text), refresh=True)

    def _live_as_lines(self) -> Iterator[Callable[[str], None]]:
        last = ""

        def show(text: str) -> None:
            nonlocal last
            if text != last:
                self.line(text.replace("\n", ", "))
                last = text

        yield show

    def _stderr_lines(self, text: str) -> None:
        lines = "\n".join(printable(line) for line in text.split("\n"))
        _write(sys.stderr, lines + "\n")

    def _console(self, stream: IO[str]) -> Console:
        from rich.console import Console

        return Console(file=stream, markup=False, highlight=False, emoji=False)


def prepare_streams() -> None:
    """Let no character that the terminal's encoding lacks end a command, nor streams that whoever
    started it had closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest free number is its own: no other file may become what children print to.
            opened = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r"))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextmanager
def stdout_apart() -> Iterator[IO[str]]:
    """Stdout as it was; whatever is printed meanwhile, by jobs in threads or in processes that are
    started, goes to stderr."""
    stdout = sys.stdout
    with ExitStack() as stack:
        with suppress(OSError, ValueError):  # not a real file, so no process can print there
            number, saved = stdout.fileno(), os.dup(stdout.fileno())
            stack.callback(os.close, saved)
            stdout = stack.enter_context(os.fdopen(os.dup(saved), "w", encoding=stdout.encoding))
            os.dup2(sys.stderr.fileno(), number)
            stack.callback(os.dup2, saved, number)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield stdout


def abandon_stdout() -> None:
    """Nobody reads any more (`gigq list | head`): let the interpreter's last flush go nowhere."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a real file: nothing will be flushed into a pipe
        return


def jsonable(value: object, depth: int = _DEEPEST) -> Any:
    """A value as JSON can say it, for reading; `gigq export` is the form that loses nothing.

    Tuples and sets become lists, times ISO 8601, bytes base64, keys text, and whatever else JSON
    lacks its `str`. Below `depth` levels there is text alone: JSON's own writer knows no end.
    """
    if depth <= 0:
        return said(value)
    plain: Any
    match value:
        case None | bool() | str():
            plain = value
        case int():
            plain = value if value.bit_length() <= _MOST_BITS else hex(value)
        case float() if math.isfinite(value):
            plain = value
        case Mapping():
            plain = {said(key): jsonable(item, depth - 1) for key, item in value.items()}
        case bytes() | bytearray() | memoryview():
            plain = base64.b64encode(value).decode()
        case datetime() | date():
            plain = value.isoformat()
        case Sequence() | Set():
            plain = [jsonable(item, depth - 1) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in dataclasses.fields(value)]
            plain = {name: jsonable(getattr(value, name), depth - 1) for name in names}
        case _:
            plain = said(value)
    return plain


def said(value: object) -> str:
    """The text of any value, also of one that has none: a `__str__` can raise, and whole numbers of
    some thousand digits have no `str`."""
    try:
        return str(value)
    except Exception:
        return hex(value) if isinstance(value, int) else shown(value)


def local_time(text: str | None) -> str:
    """A time of our dictionaries as `YYYY-MM-DD HH:MM:SS` here, or `-`."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def many(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _drawn(rows: Sequence[Sequence[str]], *, unicode: bool) -> str:
    """A boxed table, the first row being its head, as wide as it must be."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    top, middle, bottom, bar = ("╭─┬╮", "├─┼┤", "╰─┴╯", "│") if unicode else ("+-++",) * 3 + ("|",)
    head, *body = [bar + bar.join(map(_cell, row, widths)) + bar for row in rows]
    lines = [_edge(top, widths), head, _edge(middle, widths), *body, _edge(bottom, widths)]
    return "\n".join([*lines, ""])


def _edge(shape: str, widths: Sequence[int]) -> str:
    """A horizontal line: `shape` has its left end, its line, its crossing and its right end."""
    return shape[0] + shape[2].join(shape[1] * (width + 2) for width in widths) + shape[3]


def _cell(text: str, width: int) -> str:
    return f" {text}{' ' * (width - _width(text))} "


def _width(text: str) -> int:
    """Columns that a text takes: wide characters of East Asia two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def _speaks_unicode(stream: IO[str]) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().startswith("utf")


def _write(stream: IO[str], text: str, *, flush: bool = True) -> None:
    try:
        # In pieces: an unbuffered stream (PYTHONUNBUFFERED) says nothing when only the beginning of a
        # large text went through before the reader left; the next piece meets the broken pipe.
        for start in range(0, len(text), _PIECE):
            stream.write(text[start : start + _PIECE])
        if flush:
            stream.flush()
    except BrokenPipeError as error:
        raise NobodyReads from error
