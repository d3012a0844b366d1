"""`gigq db`: looking after the storage itself, through the contract alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gigq.cli.command import Group, Shell, pass_shell
from gigq.cli.exits import DONE, FAILED, NOT_FOUND, REFUSED, CommandFailed

if TYPE_CHECKING:
    from gigq.contracts.storage import Version


@click.group("db", cls=Group, short_help="Check, copy and migrate the storage.")
def db() -> None:
    """Check, copy and migrate the place where jobs are kept."""


@db.command("check", short_help="Look for damage.")
@pass_shell
def check(shell: Shell) -> int:
    """Look for damage; ends with 1 when there is any."""
    with shell.storage() as storage, shell.out.progress("Checking") as progress:
        progress.say(f"Checking {storage.url}")
        findings = storage.check()
        url = storage.url
    shell.out.answer(
        {"url": url, "ok": not findings, "findings": findings},
        lambda: _say_findings(shell, url, findings),
    )
    return FAILED if findings else DONE


def _say_findings(shell: Shell, url: str, findings: list[str]) -> None:
    for finding in findings:
        shell.out.line(finding)
    if findings:
        shell.out.line("Restore a backup, or save what can be read with: gigq export")
    else:
        shell.out.line(f"{url}: no damage found.")


@db.command("backup", short_help="Write a consistent copy.")
@click.argument("target", metavar="TARGET")
@pass_shell
def backup(shell: Shell, target: str) -> None:
    """Write a consistent copy to TARGET, which must not exist, while the queue is in use."""
    with shell.storage() as storage, shell.out.progress(f"Copying to {target}"):
        try:
            storage.backup(target)
        except FileExistsError as error:
            raise CommandFailed(
                f"{target} exists already, and a backup replaces nothing.\nChoose another name.",
                REFUSED,
            ) from error
    shell.out.answer({"backup": target}, lambda: shell.out.line(f"Backup written to {target}."))


@db.command("vacuum", short_help="Give unused room back to the system.")
@pass_shell
def vacuum(shell: Shell) -> None:
    """Give the room that removed jobs took back to the system."""
    with shell.storage() as storage, shell.out.progress("Compacting"):
        storage.vacuum()
        url = storage.url
    shell.out.answer({"url": url}, lambda: shell.out.line(f"{url}: unused room was given back."))


@db.command("migrate", short_help="Bring the schema up to this version.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@pass_shell
def migrate(shell: Shell, dry_run: bool) -> None:
    """Bring the storage's schema up to this version of gigq.

    Take a backup first; stop workers that run an older gigq.
    """
    from gigq.plugins import storage

    found = storage(shell.target.value)
    try:
        version = found.version()
        if version.found is None:
            raise CommandFailed(
                f"{found.url} is not initialised, so there is nothing to migrate.\n"
                "The first submit or worker makes it.",
                NOT_FOUND,
            )
        needed = version.found != version.supported
        if needed and not dry_run:
            found.initialize()
        elif version.found > version.supported:
            found.open()  # refuses it, in its own words
    finally:
        found.close()
    document = {
        "url": found.url, "from": version.found, "to": version.supported,
        "needed": needed, "done": needed and not dry_run,
    }  # fmt: skip
    text = _say_migration(found.url, version, dry_run=dry_run)
    shell.out.answer(document, lambda: shell.out.line(text))


def _say_migration(url: str, version: Version, *, dry_run: bool) -> str:
    if version.found == version.supported:
        return f"{url}: the schema has version {version.found}, nothing to do."
    verb = "would be migrated" if dry_run else "was migrated"
    return f"{url}: the schema {verb} from version {version.found} to {version.supported}."
