"""`gigq plugins`: what is installed, what is wrong with it, and whether it keeps its promises."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gigq.cli.command import Group, Shell, pass_shell
from gigq.cli.exits import DONE, FAILED, NOT_FOUND, CommandFailed
from gigq.cli.finding import look_in_the_present_folder

if TYPE_CHECKING:
    from gigq.plugins import PluginInfo

_HEADERS = ("Name", "Kind", "Status", "Distribution", "Summary")


@click.group("plugins", cls=Group, short_help="List and check plugins.")
def plugins() -> None:
    """List storages, serializers, executors and other plugins, and check them."""


@plugins.command("list", short_help="List what is installed.")
@click.option("--kind", type=click.Choice(["storage", "serializer", "executor", "plugin"]))
@pass_shell
def list_plugins(shell: Shell, kind: str | None) -> None:
    """List what is installed, with whatever is wrong with it."""
    from gigq.plugins import listing

    found = [info for info in listing() if kind in (None, info.kind)]
    rows = [(i.name, i.kind, i.status, f"{i.distribution} {i.version}", i.summary) for i in found]

    def lines() -> None:
        shell.out.table(_HEADERS, rows)
        for info in found:
            if info.problem:
                shell.out.line()
                shell.out.block(info.problem, indent="")

    shell.out.answer({"plugins": [asdict(info) for info in found]}, lines)


@plugins.command("info", short_help="Show all about one.")
@click.argument("name")
@pass_shell
def info(shell: Shell, name: str) -> int:
    """Show all about the plugins of this name; ends with 1 when one cannot be used."""
    from gigq.plugins import listing

    known = listing()
    wanted = name.removesuffix("://")
    found = [each for each in known if wanted in (each.name, each.distribution)]
    if not found:
        raise CommandFailed(_unknown(name, known), NOT_FOUND)
    shell.out.answer({"plugins": [asdict(each) for each in found]}, lambda: _describe(shell, found))
    return DONE if all(each.status == "ok" for each in found) else FAILED


def _describe(shell: Shell, found: Sequence[PluginInfo]) -> None:
    for number, each in enumerate(found):
        if number:
            shell.out.line()
        shell.out.field("Name", each.name)
        shell.out.field("Kind", each.kind)
        shell.out.field("Status", each.status)
        shell.out.field("Distribution", f"{each.distribution} {each.version}")
        shell.out.field("Class" if each.kind != "plugin" else "Module", each.target)
        shell.out.field("Summary", each.summary or "-")
        if each.problem:
            shell.out.line("Problem:")
            shell.out.block(each.problem)


def _unknown(name: str, known: Sequence[PluginInfo]) -> str:
    from difflib import get_close_matches

    names = sorted({each.name for each in known})
    near = get_close_matches(name, names, n=2)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"No plugin is called {name!r}.{guess}\nKnown are {', '.join(names)}."


@plugins.command("check", short_help="Run the conformance suite on one.")
@click.argument("target", metavar="NAME_OR_URL")
@click.option("--case", metavar="NAME", help="This case alone, as a report names it.")
@pass_shell
def check(shell: Shell, target: str, case: str | None) -> int:
    """Run the conformance suite on a storage (by URL), a serializer or an executor (by name).

    Prints which promises it keeps; ends with 1 when one is broken. A storage's cases make fresh places
    beside the one that the URL names; that one is not touched.
    """
    try:
        from gigq.conformance.check import check_plugin, suite_for
        from gigq.conformance.guard import cases_of
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "gigq":
            raise
        raise CommandFailed(
            f"The conformance suite needs {error.name}, which is not installed.\n"
            'Install it: pip install "gigq[conformance]"'
        ) from error
    look_in_the_present_folder()
    if case is not None:
        _refuse_unknown_case(case, cases_of(suite_for(target)))
    shell.out.note(f"Checking {target}; this takes a while.")
    with shell.out.progress("Cases") as progress:
        checked = check_plugin(target, case=case, watch=progress.reached)
    document = {
        "target": target,
        "passed": checked.passed,
        "cases": [asdict(result) for result in checked.results],
    }

    def lines() -> None:
        shell.out.block(checked.table(), indent="")
        if not checked.passed:
            shell.out.line()
            shell.out.block(checked.traces(), indent="")

    shell.out.answer(document, lines)
    return DONE if checked.passed else FAILED


def _refuse_unknown_case(case: str, known: Collection[str]) -> None:
    from difflib import get_close_matches

    name = case.partition("[")[0]
    if name in known:
        return
    near = get_close_matches(name, known, n=2)
    guess = f"\nDid you mean {' or '.join(near)}?" if near else ""
    raise CommandFailed(f"The suite has no case {case!r}.{guess}", NOT_FOUND)
