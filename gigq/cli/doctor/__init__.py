"""`gigq doctor`: looks at a queue as somebody would who was called at night.

Each examination is a function of what it looks at and gives findings; what only the storage can see, it
tells through `Storage.examine`. Looking changes nothing; `--fix` does what is safe and then looks again.

- `view`: what is looked at, and how much of it;
- `workers`, `jobs`, `functions`, `program`: what is wrong with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.doctor import functions, jobs, program, workers
from gigq.cli.doctor.view import View, seen, states_of
from gigq.cli.exits import DONE, FAILED, CommandFailed
from gigq.cli.output import many
from gigq.clock import SYSTEM_CLOCK
from gigq.contracts.findings import Finding, Repair
from gigq.contracts.storage import Storage
from gigq.errors import GigqError, StorageCorrupt
from gigq.liveness import OVER, who


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        facts: What it was found in, for people.
    """

    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_wrong(self) -> bool:
        return any(finding.wrong for finding in self.findings)


@command("doctor", short_help="Look for what is wrong.")
@click.option("--deep", is_flag=True, help="Also read the whole storage for damage; takes longer.")
@click.option(
    "--import",
    "imports",
    is_flag=True,
    help="Also import the modules of waiting jobs, which runs their code.",
)
@click.option("--fix", is_flag=True, help="Do what is safe about what was found, then look again.")
@pass_shell
def doctor(shell: Shell, *, deep: bool, imports: bool, fix: bool) -> int:
    """Look at the queue, its workers and its jobs for what is wrong; ends with 1 when something is.

    Nothing is changed without --fix, and no code of a job is run without --import. --fix releases the
    jobs of workers that are dead, folds a large log in, takes away rights that nobody should have, and
    counts anew; what jobs mean it never changes.
    """
    repairs = _fix(shell) if fix else []
    diagnosis = _look(shell, deep=deep, imports=imports)
    document = {
        "ok": not diagnosis.is_wrong,
        "facts": diagnosis.facts,
        "findings": [asdict(each) for each in diagnosis.findings],
        "repairs": [asdict(each) for each in repairs],
    }
    shell.out.answer(document, lambda: _tell(shell, diagnosis, repairs, fix=fix))
    return FAILED if diagnosis.is_wrong else DONE


# --- looking --------------------------------------------------------------------------------------


def _look(shell: Shell, *, deep: bool, imports: bool) -> Diagnosis:
    diagnosis = Diagnosis(program.facts())
    diagnosis.findings += program.plugins()
    try:
        with shell.storage(only_looks=True) as storage:
            diagnosis.facts |= storage.describe()
            diagnosis.facts["capabilities"] = ", ".join(sorted(storage.capabilities))
            _examine(storage, diagnosis, deep=deep, imports=imports)
    except (GigqError, CommandFailed) as error:
        diagnosis.findings.append(_unopened(error))
        diagnosis.findings += _from_outside(shell)
    return diagnosis


def _examine(storage: Storage, diagnosis: Diagnosis, *, deep: bool, imports: bool) -> None:
    """One after the other; what one of them cannot read does not keep the others from looking."""
    findings = diagnosis.findings
    findings += _asked(lambda: storage.examine(deep=deep))
    try:
        view = seen(storage, SYSTEM_CLOCK)
    except StorageCorrupt as error:
        findings.append(_unread(error))
        return
    diagnosis.facts["looked at"] = view.extent
    known = {finding.id for finding in findings}
    findings += [finding for finding in _of_view(view, imports=imports) if finding.id not in known]


def _of_view(view: View, *, imports: bool) -> Iterator[Finding]:
    yield from workers.examine(view)
    yield from jobs.examine(view)
    yield from functions.examine(view.unfinished, imports=imports)


def _asked(examination: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return examination()
    except StorageCorrupt as error:
        return [_unread(error)]


def _unread(error: GigqError) -> Finding:
    what, _, cure = str(error).partition("\n")
    return Finding("unreadable", what, cure)


def _unopened(error: GigqError | CommandFailed) -> Finding:
    what, _, cure = str(error).partition("\n")
    return Finding("not-opened", what, cure, facts={"error": type(error).__name__})


def _from_outside(shell: Shell) -> list[Finding]:
    """What can be seen of a storage that cannot be opened: it may say why."""
    from gigq.plugins import storage

    try:
        return storage(shell.target.value).examine()
    except GigqError:
        return []  # it was told already: opening raises the same


# --- fixing ---------------------------------------------------------------------------------------


def _fix(shell: Shell) -> list[Repair]:
    """What was done, and what kept it from going on."""
    done: list[Repair] = []
    try:
        with shell.storage() as storage:
            done += _recover(storage)
            done += storage.repair()
    except (GigqError, CommandFailed) as error:
        done.append(Repair("not-repaired", str(error).partition("\n")[0], done=False))
    return done


def _recover(storage: Storage) -> Iterator[Repair]:
    """Release what dead workers hold, as any living one would."""
    before = storage.sessions()
    states = states_of(before)
    lost = storage.recover()
    there = {record.session.id for record in storage.sessions()}
    for record in before:
        id_, worker = record.session.id, record.session.worker
        # Whoever left by himself meanwhile is not dead.
        if id_ in there or id_ not in states or not states[id_].is_over:
            continue
        runs = [each for each in lost if (each.worker, each.pid) == (worker.worker_id, worker.pid)]
        yield Repair(
            "worker-dead",
            f"Declared {who(worker)} dead, because {OVER[states[id_]]}. Released {many(len(runs), 'job')}.",
        )


# --- telling --------------------------------------------------------------------------------------


def _tell(shell: Shell, diagnosis: Diagnosis, repairs: Sequence[Repair], *, fix: bool) -> None:
    out = shell.out
    _tell_facts(shell, diagnosis.facts)
    for repair in repairs:
        out.line(f"{'Fixed' if repair.done else 'Not fixed'}: {repair.what}")
    if fix and not repairs:
        out.line("Nothing was left to be fixed.")
    for finding in sorted(diagnosis.findings, key=lambda each: not each.wrong):
        out.line(f"{'Problem' if finding.wrong else 'Note'}: {finding.what}")
        out.block(finding.cure, indent="    ")
    if not diagnosis.is_wrong:
        out.line("Nothing is wrong.")
    elif not fix and any(finding.fixable and finding.wrong for finding in diagnosis.findings):
        out.line("gigq doctor --fix does what is safe about this.")


def _tell_facts(shell: Shell, facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        shell.out.field(name, value)
    shell.out.line()
