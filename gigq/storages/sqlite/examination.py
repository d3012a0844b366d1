"""What is wrong inside a database: damage, counters that are off, runs that nobody owns, odd rows.

The cost is bounded whatever is stored: what is large is looked at in part, and `deep` looks at all of
it. `repair` cures what says `fixable`, and leaves every job what it is.
"""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

from typing import TYPE_CHECKING

from gigq.contracts.findings import Finding, Repair
from gigq.contracts.storage import ErrorInfo, Session, WorkerInfo
from gigq.storages.sqlite import damage, maintenance
from gigq.storages.sqlite.outcomes import RunRow, hand_over, lose, owned_rows
from gigq.text import printable, shown, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gigq.storages.sqlite.outcomes import Change
    from gigq.storages.sqlite.steps import Tx

#: Bytes of a file whose pages and counters are looked at: a second or so.
WHOLE = 128 * 1024 * 1024
#: Rows that are read one by one, at each end of the table.
ROWS = 1_000
_MOST_NAMED = 5
_RESTORE = "Restore a backup; save what can be read with: gigq export"
#: Runs whose session is not there: nobody can end them. `job_owned` holds what runs or stops, alone.
_ORPHANS = """
    FROM job INDEXED BY job_owned WHERE owned = 1
    AND (session IS NULL OR session NOT IN (SELECT key FROM session))
"""
#: No session ever has this key.
_NOBODY = -1
_LOST = ErrorInfo(
    "lost",
    "The session that ran it was not there any more, and nobody knows why: something else changed the "
    "file. gigq doctor took the run for lost.",
)


def examine(tx: Tx, *, deep: bool) -> Iterator[Finding]:
    """Everything that the file itself tells."""
    yield from orphans(tx)
    if deep:
        for sentence in maintenance.damages(tx):
            yield Finding("damage", printable(sentence, 500), _RESTORE)
        yield from counters(tx)
        return
    yield from unreadable(tx)
    bytes_ = int(tx.value("PRAGMA page_count") * tx.value("PRAGMA page_size"))
    if bytes_ <= WHOLE:
        yield from pages(tx)
        yield from counters(tx)
    else:
        yield Finding(
            "looked-in-part",
            f"The file has {size(bytes_)}: its pages and counters were not checked, and of its rows the "
            f"{ROWS:,} oldest and newest.",
            "gigq doctor --deep looks at all of it.", wrong=False, facts={"size": bytes_},
        )  # fmt: skip


def needs_repair(tx: Tx) -> bool:
    """Whether there is anything to write; whoever only reads keeps no worker waiting."""
    return any(maintenance.wrong_counts(tx)) or tx.value(f"SELECT count(*) {_ORPHANS}") > 0


def repair(tx: Tx) -> Iterator[Repair]:
    """Count anew, and give back the runs that nobody owns."""
    wrong = len(list(maintenance.wrong_counts(tx)))
    if wrong:
        damage.recount(tx)
        yield Repair("counters-wrong", f"Counted all jobs anew; counters that were off: {wrong}.")
    yield from _give_back_orphans(tx)


def pages(tx: Tx) -> Iterator[Finding]:
    """Whether SQLite finds the file sound, as far as it looks quickly."""
    for (line,) in tx.run(f"PRAGMA quick_check({_MOST_NAMED})").fetchall():
        if line != "ok":
            yield Finding("damage", f"SQLite finds: {printable(line, 300)}", _RESTORE)


def counters(tx: Tx) -> Iterator[Finding]:
    """Whether the counters that `stats` shows are what counting gives."""
    for each in list(maintenance.wrong_counts(tx))[:_MOST_NAMED]:
        yield Finding(
            "counters-wrong", str(each),
            "gigq doctor --fix counts anew. Something else wrote into the file: find out what.",
            fixable=True, facts={
                "queue": each.queue, "status": each.status, "counted": each.counted,
                "there": each.there,
            },
        )  # fmt: skip


def orphans(tx: Tx) -> Iterator[Finding]:
    """Runs that are nobody's: their jobs would wait for ever."""
    count = tx.value(f"SELECT count(*) {_ORPHANS}")
    if not count:
        return
    rows = tx.run(f"SELECT id {_ORPHANS} LIMIT {_MOST_NAMED}").fetchall()
    ids = [row[0] for row in rows]
    yield Finding(
        "jobs-unowned",
        f"Jobs that run or stop, and whose session is not there, so that nobody will end them "
        f"({count:,}): {_listed(ids, count)}.",
        "gigq doctor --fix takes the runs for lost: the jobs are tried again while attempts are left.",
        fixable=True, facts={"count": count, "jobs": ids},
    )  # fmt: skip


def _give_back_orphans(tx: Tx) -> Iterator[Repair]:
    tx.run("UPDATE job SET session = ? WHERE owned = 1 AND session IS NULL", [_NOBODY])
    given_back = 0
    for (key,) in tx.run(f"SELECT DISTINCT session {_ORPHANS}").fetchall():
        rows = owned_rows(tx, key)
        given_back += len(rows)
        hand_over(tx, Session("", WorkerInfo("", lease_us=0), key), rows, _lose)
    if given_back:
        yield Repair("jobs-unowned", f"Took runs for lost that nobody owned: {given_back:,}.")


def _lose(row: RunRow) -> Change:
    return lose(row, _LOST)


def unreadable(tx: Tx) -> Iterator[Finding]:
    """Rows that hold what no gigq wrote, among the oldest and the newest."""
    seqs: dict[int, None] = {}
    for order in ("ASC", "DESC"):
        for (seq,) in tx.run(f"SELECT seq FROM job ORDER BY seq {order} LIMIT {ROWS}").fetchall():
            seqs[seq] = None
    for seq, columns, wrong in damage.rows(tx, list(seqs)):
        if wrong:
            yield Finding(
                "row-unreadable", damage.told_of(seq, columns, wrong),
                "A worker that cannot run such a job for it sets it aside as failed; gigq clear removes it "
                "when it has ended otherwise. Find out what else writes into the file, or restore a backup.",
                facts={"row": seq, "columns": wrong},
            )  # fmt: skip


def _listed(ids: Sequence[str], count: int) -> str:
    more = f" and {count - len(ids):,} more" if count > len(ids) else ""
    return ", ".join(map(shown, ids)) + more
