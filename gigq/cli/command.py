"""What all commands share: the options that may stand anywhere, and how a failure ends.

`--db`, `--json` and their like are accepted before and after the command's name. Whichever way they
came, they end in one `Shell`, which each command is given.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from gigq.cli import exits
from gigq.errors import GigqError, NotInitialized

if TYPE_CHECKING:
    from gigq.cli.output import Output
    from gigq.config import Setting
    from gigq.contracts.storage import Storage
    from gigq.queue import JobQueue

_F = TypeVar("_F", bound=Callable[..., Any])
_R = TypeVar("_R")
_T = TypeVar("_T")
_PACKAGE = Path(__file__).parents[1]
_OTHER_OPTIONS = (
    "The options of gigq itself (--db, --json, --quiet …; see gigq --help) may stand here too."
)


@dataclass
class Shell:
    """What the options that may stand anywhere said, and what commands need because of them.

    Attributes:
        threads: Set by a command that runs jobs: the threads of before. None that a job starts and
            never ends keeps the process alive.
        documents: Set by a command that runs jobs, too: where its JSON goes, apart from their prints.
    """

    db: str | None = None
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False
    log_format: str | None = None
    threads: frozenset[threading.Thread] | None = None
    documents: IO[str] | None = None

    @property
    def out(self) -> Output:
        """Where the answers go."""
        from gigq.cli.output import Output

        return Output(as_json=self.as_json, quiet=self.quiet, documents=self.documents)

    @property
    def target(self) -> Setting:
        """The path or URL of the queue, and where it was said."""
        from gigq.config import setting

        return setting("db", self.db)

    def log(self, level: int | None = None) -> None:
        """Show what gigq logs on stderr.

        Args:
            level: For a command; a worker's is the setting `log_level`.
        """
        from gigq.config import setting
        from gigq.logs import setup_logging

        chosen = setting("log_level").value if level is None else level
        chosen = logging.DEBUG if self.verbose else logging.ERROR if self.quiet else chosen
        setup_logging(chosen, log_format=setting("log_format", self.log_format).value)

    @contextmanager
    def queue(self, *, create: bool = False) -> Iterator[JobQueue]:
        """The queue, closed afterwards. Only with `create` is one made where none is."""
        from gigq.queue import JobQueue

        self.log(logging.WARNING)
        self.refuse_private()
        with JobQueue(self.target.value, initialize=create) as queue:
            yield queue

    @contextmanager
    def storage(self, *, only_looks: bool = False) -> Iterator[Storage]:
        """The storage itself, open, for what a queue has no word for.

        Args:
            only_looks: Change nothing in it, not even by opening it.
        """
        from gigq.plugins import storage

        self.log(logging.WARNING)
        opened = storage(self.target.value)
        opened.only_looks = only_looks
        _refuse_private(opened)
        opened.open()
        try:
            yield opened
        finally:
            opened.close()

    def refuse_private(self) -> None:
        """Refuse a storage that no other process could see."""
        from gigq.plugins import storage

        _refuse_private(storage(self.target.value))

    def queue_or_none(self) -> AbstractContextManager[JobQueue | None]:
        """The queue; None, and a note, where nobody has submitted anything yet: for commands whose
        honest answer is then "nothing". Nothing is made."""
        return self._or_none(self.queue())

    def storage_or_none(self) -> AbstractContextManager[Storage | None]:
        """The storage, in the same way."""
        return self._or_none(self.storage())

    @contextmanager
    def _or_none(self, place: AbstractContextManager[_T]) -> Iterator[_T | None]:
        with ExitStack() as stack:
            try:
                opened: _T | None = stack.enter_context(place)
            except NotInitialized as error:
                self.out.note(f"Note: {error}")
                opened = None
            yield opened


def _refuse_private(storage: Storage) -> None:
    """What one process keeps for itself is gone when a command ends; unless the next one finds it."""
    from gigq.contracts.storage import Capability

    outlives = {Capability.SHARED_BETWEEN_PROCESSES, Capability.DURABLE}
    if storage.capabilities.isdisjoint(outlives):
        raise exits.CommandFailed(
            f"{storage.url} lives inside one process, and each command is a process of its own.\n"
            "Name a queue that several can share: --db jobs.db",
            exits.REFUSED,
        )


def pass_shell(function: Callable[..., _R]) -> Callable[..., _R]:
    """Give the command its `Shell` as the first argument."""
    passing: Callable[[Any], Any] = click.make_pass_decorator(Shell, ensure=True)
    passed: Callable[..., _R] = passing(function)
    return passed


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    # Whatever "not given" is to a version of click: it must not undo what stood before the command.
    if value is not None and value is not False and param.name is not None:
        setattr(ctx.ensure_object(Shell), param.name, value)


def _show_version(ctx: click.Context, _param: click.Parameter, value: object) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import version

    facts = {
        "gigq": version("gigq"),
        "python": platform.python_version(),
        "system": platform.system(),
    }
    out = ctx.ensure_object(Shell).out
    out.answer(facts, lambda: out.line("gigq {gigq} (Python {python}, {system})".format_map(facts)))
    ctx.exit()


def common_options(*, hidden: bool) -> list[click.Parameter]:
    """The options that may stand before and after a command's name."""

    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(
            names, expose_value=False, callback=_remember, hidden=hidden, default=None, **settings
        )

    return [
        option("--db", metavar="PATH_OR_URL", help="The queue. [default: $GIGQ_DB, gigq.toml, gigq.db]"),
        # Eager: whatever answers knows of it, wherever it stands.
        option("--json", "as_json", is_flag=True, is_eager=True, help="Answer with a JSON document."),
        option("--verbose", "-v", is_flag=True, help="Log more; show tracebacks of gigq itself."),
        option("--quiet", "-q", is_flag=True, help="No notes and no progress, only the answer."),
        option(
            "--log-format", type=click.Choice(["text", "json"]), help="How the worker writes its log."
        ),
        click.Option(
            ("--version",), is_flag=True, expose_value=False, hidden=hidden,
            callback=_show_version, help="Show the version and exit.",
        ),
    ]  # fmt: skip


class Command(click.Command):
    """A command that also takes the options of `gigq` itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", _OTHER_OPTIONS)
        super().__init__(*args, **kwargs)
        self.params.extend(common_options(hidden=True))


class Group(click.Group):
    """A group of commands that does the same, and knows what was probably meant."""

    command_class = Command

    def __init__(self, *args: Any, hide_common: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_options(hidden=hide_common))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(name, self.list_commands(ctx), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise click.UsageError(f"No such command {name!r}.{hint}", ctx=ctx)


def command(name: str, **settings: Any) -> Callable[[_F], Command]:
    """Make a command of a function; see `click.command`."""
    return click.command(name, cls=Command, **settings)


#: A group of commands without a command: newer versions of click raise the help as an error.
_NO_ARGUMENTS: type[click.ClickException] | tuple[()] = getattr(
    click.exceptions, "NoArgsIsHelpError", ()
)


def run(group: click.Group, args: Sequence[str] | None, prog_name: str | None, **extra: Any) -> int:
    """Run a command line and say what went wrong; returns the exit code."""
    from gigq.cli.output import prepare_streams

    prepare_streams()
    shell = Shell()
    extra["obj"] = shell
    warnings.showwarning = partial(_show_warning, shell, warnings.showwarning)
    try:
        answer = click.Group.main(group, args, prog_name, standalone_mode=False, **extra)
        sys.stdout.flush()
        code = answer if isinstance(answer, int) else exits.DONE
    except (Exception, KeyboardInterrupt) as error:
        code = _tell(shell, error)
    if shell.threads is not None:
        _wait_for_no_thread(code, shell.threads)
    return code


def _show_warning(
    shell: Shell,
    usual: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    *rest: Any,
) -> None:
    """Show a warning of gigq as a note: who types a command has no line of code to look at."""
    if Path(filename).is_relative_to(_PACKAGE):
        shell.out.note(f"Warning: {message}")
    else:
        usual(message, category, filename, *rest)


def _wait_for_no_thread(code: int, before: Collection[threading.Thread]) -> None:
    """End the process at once if the interpreter would wait for a thread that a job left behind."""
    if threading.current_thread() is not threading.main_thread():
        return
    if any(not thread.daemon and thread not in before for thread in threading.enumerate()):
        logging.getLogger("gigq.cli").warning("ending although threads that jobs left behind go on")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(shell: Shell, error: BaseException) -> int:
    """Say what went wrong, in the words that fit; returns the exit code."""
    from gigq.cli.output import NobodyReads, abandon_stdout

    match error:
        case NobodyReads() | BrokenPipeError():
            abandon_stdout()
            code = exits.BROKEN_PIPE
        case click.Abort() | KeyboardInterrupt():
            code = exits.INTERRUPTED
        case click.ClickException():
            code = _misused(shell, error)
        case GigqError() | exits.CommandFailed():
            code = _fail(shell, error, str(error))
        case OSError(filename=str(name)):
            code = _fail(shell, error, f"{name}: {error.strerror}")
        case OSError():
            code = _fail(shell, error, str(error))
        case _:
            code = _fail(
                shell, error, f"{type(error).__name__}: {error}\nThis is a bug in gigq or in a plugin; "
                "please report it with the output of the same command and --verbose.",
            )  # fmt: skip
    return code


def _misused(shell: Shell, error: click.ClickException) -> int:
    out = shell.out
    if isinstance(error, _NO_ARGUMENTS):
        out.note(error.format_message())
        return error.exit_code
    if isinstance(error, click.UsageError) and error.ctx is not None and not shell.as_json:
        out.note(error.ctx.get_usage())
        out.note(f"Try '{error.ctx.command_path} --help' for help.\n")
    out.error(error.format_message().expandtabs(2), error.exit_code)
    return error.exit_code


def _fail(shell: Shell, error: BaseException, text: str) -> int:
    code = exits.code_of(error)
    if shell.verbose:
        shell.out.trace("".join(traceback.format_exception(error)))
    shell.out.error(text or type(error).__name__, code)
    return code
