"""What a turn must know when it begins, in one statement."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gigq.contracts.storage import Run, RunNumber, Session
from gigq.storages.sqlite.outcomes import COLUMNS, RunRow
from gigq.storages.sqlite.steps import bindable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gigq.storages.sqlite.steps import Tx


@dataclass(frozen=True, slots=True)
class Moment:
    """What stands around a turn.

    Attributes:
        pulse: How often something had become claimable or ended before this step.
        due_mono, due_wall: When the next delay, and the next date, is over; None for none.
        expires_mono, expires_wall: When the next job expires.
        stops: Runs of the session that somebody wishes to cancel.
        paused: Whether any queue is.
    """

    pulse: int
    due_mono: int | None
    due_wall: int | None
    expires_mono: int | None
    expires_wall: int | None
    stops: tuple[Run, ...]
    paused: bool

    def without(self, settled: set[Run]) -> tuple[Run, ...]:
        """The wishes to stop that are left when these runs have ended."""
        return tuple(run for run in self.stops if run not in settled) if settled else self.stops


#: When the next delay, and the next date, is over; and when the next job expires, by both clocks.
NEXT_DUE = """
    (SELECT min(due_mono) FROM job INDEXED BY job_delayed WHERE state = 2),
    (SELECT min(run_at) FROM job INDEXED BY job_scheduled WHERE state = 1)
"""
NEXT_EXPIRY = """
    (SELECT min(expires_mono) FROM job INDEXED BY job_expires_mono
        WHERE expires_mono IS NOT NULL AND state < 6 AND started IS NULL),
    (SELECT min(expires) FROM job INDEXED BY job_expires
        WHERE expires IS NOT NULL AND state < 6 AND started IS NULL)
"""
_MOMENT = f"""
    (SELECT n FROM counts WHERE queue = '' AND status = -1), {NEXT_DUE}, {NEXT_EXPIRY},
    EXISTS (SELECT 1 FROM paused),
    iif(EXISTS (SELECT 1 FROM job INDEXED BY job_wish WHERE wish = 1 AND session = :session),
        (SELECT json_group_array(json_array(id, run, seq)) FROM job INDEXED BY job_wish
            WHERE wish = 1 AND session = :session AND owned = 1), NULL)
"""
LOOK = f"""
    SELECT {_MOMENT}, (SELECT id FROM session WHERE key = :session),
        (SELECT json_group_array(json_array({COLUMNS}))
         FROM json_each(:keys) AS s CROSS JOIN job AS j ON j.seq = s.value)
"""
LOOK_AGAIN = f"SELECT {_MOMENT}"


def look(tx: Tx, session: Session, runs: Sequence[Run]) -> tuple[bool, dict[str, RunRow], Moment]:
    """Whether the session is alive, the jobs of these runs by id, and what stands around."""
    keys = json.dumps(_keys(tx, runs))
    *moment, session_id, found = tx.one(LOOK, {"session": session.key, "keys": keys})
    rows = [RunRow(*each) for each in json.loads(found)]
    return session_id == session.id, {row.id: row for row in rows}, _moment(moment)


def look_again(tx: Tx, session: Session) -> Moment:
    """What stands around after outcomes that set more in motion than themselves."""
    return _moment(tx.one(LOOK_AGAIN, {"session": session.key}))


def _moment(row: Sequence[Any]) -> Moment:
    pulse, due_mono, due_wall, expires_mono, expires_wall, paused, stops = row
    wishes = json.loads(stops) if stops else ()
    runs = tuple(Run(job_id, RunNumber(run), seq) for job_id, run, seq in wishes)
    return Moment(pulse, due_mono, due_wall, expires_mono, expires_wall, runs, bool(paused))


def _keys(tx: Tx, runs: Sequence[Run]) -> list[int]:
    """Row numbers of the runs; a run that came without one is looked up."""
    keys = {run.key for run in runs if run.key}
    for run in runs:
        if not run.key:
            found = tx.one("SELECT seq FROM job WHERE id = CAST(? AS TEXT)", [bindable(run.job_id)])
            keys.update(found or ())
    return list(keys)
