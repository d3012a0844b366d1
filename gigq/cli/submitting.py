"""`gigq submit`: from a command line to a stored job."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.exits import NOT_FOUND, CommandFailed
from gigq.cli.finding import found, look_in_the_present_folder
from gigq.cli.values import By, Bytes, Duration, Pair, When, words
from gigq.errors import FunctionNotFound

_RETRY_ONLY = ("backoff", "max_delay", "jitter")


@command("submit", short_help="Submit a job.")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option(
    "--name", help="The job's name. [default: the function's; required for module.function]"
)
@click.option(
    "-p",
    "--param",
    "params",
    type=Pair(),
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter; the value is JSON, or else text. Repeatable.",
)
@click.option("--priority", type=int, help="Higher runs first. [default: 0]")
@click.option("--queue", metavar="NAME", help="[default: default]")
@click.option("--description", help="For people.")
@click.option("--tag", "tags", multiple=True, help="Repeatable.")
@click.option("--metadata", type=Pair(), multiple=True, metavar="KEY=VALUE", help="Repeatable.")
@click.option(
    "--depends-on",
    "dependencies",
    multiple=True,
    metavar="ID",
    help="Run after this job has completed. Repeatable.",
)
@click.option(
    "--on-parent-failure",
    type=click.Choice(["cancel", "hold", "run"]),
    help="What becomes of the job when a parent ends badly. [default: cancel]",
)
@click.option(
    "--pass-parent-results/--no-parent-results",
    default=None,
    help="Give the function the parents' results. [default: if it takes them]",
)
@click.option("--delay", type=Duration(), help="Not before this much time has passed.")
@click.option("--run-at", type=When(), help="Not before this date.")
@click.option("--expires", type=By(), help="Cancel it when it has not started by then.")
@click.option("--timeout", type=Duration(none=True), help="Stop a run after this. [default: 300]")
@click.option("--max-attempts", type=int, help="[default: 3]")
@click.option("--retry-delay", type=Duration(), help="Before the next attempt. [default: 0]")
@click.option("--backoff", type=float, help="Each retry delay is this many times the last one.")
@click.option("--max-delay", type=Duration(), help="No retry delay is longer.")
@click.option("--jitter", type=float, help="Spread retry delays by this fraction, 0 to 1.")
@click.option("--unique-key", help="At most one unfinished job with this key; else that one's id.")
@click.option("--serializer", help="How parameters and result are stored: json, msgpack, …")
@click.option("--executor", help="Where it runs: thread, process, …")
@click.option("--memory-limit", type=Bytes(), help="Of a run; needs an executor that keeps it.")
@pass_shell
def submit(shell: Shell, function: str, **given: Any) -> None:
    """Submit a job that calls FUNCTION of MODULE, and print its id.

    MODULE:FUNCTION is looked for as Python would from the present folder; module.function and
    path/to/script.py:function are accepted as well. The function is imported here, so that a wrong
    name or parameter is told now and not by a worker at night.

        gigq submit reports:build --param month=5 --param "title=All of May" --timeout 10m
    """
    reference = _reference(function)
    if given["name"] is None and ":" not in function:
        raise click.UsageError("Missing option '--name'. It is needed with module.function.")
    called = _resolve(reference)
    with shell.queue(create=True) as queue:
        job = _job(called, options(given))
        job_id = queue.submit(job)
        document = {"id": job_id, "name": job.name, "existing": job_id != job.id}
        shell.out.answer(document, lambda: shell.out.line(f"Job submitted: {job_id}"))
        if job_id != job.id:
            shell.out.note("Note: an unfinished job has this unique key; the id above is its.")


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `Job` that a command line gave, without those that it did not."""
    chosen = {key: value for key, value in given.items() if value is not None and value != ()}
    for name in ("params", "metadata"):
        if name in chosen:
            chosen[name] = dict(chosen[name])
    if chosen.get("timeout") == "none":
        chosen["timeout"] = None
    if "dependencies" in chosen:
        chosen["dependencies"] = list(words(chosen["dependencies"]))
    if any(name in chosen for name in _RETRY_ONLY):
        chosen["retry"] = _retry(chosen)
    return chosen


def _retry(chosen: dict[str, Any]) -> object:
    from gigq.job import Retry

    fields = {name: chosen.pop(name) for name in _RETRY_ONLY if name in chosen}
    if "max_attempts" in chosen:
        fields["attempts"] = chosen.pop("max_attempts")
    if "retry_delay" in chosen:
        fields["delay"] = chosen.pop("retry_delay")
    return Retry(**fields)


def _job(called: Callable[..., Any], chosen: dict[str, Any]) -> Any:
    """A task brings options of its own; the command line's stand above them."""
    from gigq.job import Job
    from gigq.task import Task

    if not isinstance(called, Task):
        chosen.setdefault("name", called.__name__)
        return Job(function=called, **chosen)
    job = called.to_job(**chosen.pop("params", {}))
    for name, value in chosen.items():
        setattr(job, name, value)
    return job


def _reference(text: str) -> str:
    """`module:function` from any of the accepted spellings."""
    module, colon, name = text.rpartition(":")
    if colon and module and name:
        return f"{Path(module).resolve()}:{name}" if module.endswith(".py") else text
    module, dot, name = text.rpartition(".")
    if colon or not dot or not module or not name or name == "py":
        raise click.BadParameter(
            f"{text!r} names no function; write MODULE:FUNCTION, module.function "
            "or path/to/script.py:function.",
            param_hint="MODULE:FUNCTION",
        )
    return f"{module}:{name}"


def _resolve(reference: str) -> Callable[..., Any]:
    look_in_the_present_folder()
    try:
        return found(reference)
    except FunctionNotFound as error:
        raise CommandFailed(
            f"Could not import {reference}: {_why_not_found(reference, error)}\n"
            f"Modules are looked for in {Path.cwd()} first.",
            NOT_FOUND,
        ) from error


def _why_not_found(reference: str, error: FunctionNotFound) -> str:
    """In the words of somebody who types a name, not of a worker that meets an old job."""
    where, _, name = reference.rpartition(":")
    module = sys.modules.get(where)
    if module is None or hasattr(module, name):
        return str(error).partition("\n")[0]
    callables = [each for each, value in vars(module).items() if callable(value)]
    near = difflib.get_close_matches(name, callables, n=2)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{where} has no function {name!r}.{guess}"
