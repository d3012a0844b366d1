"""Looking at jobs: `get`, `find`, `history`, `counts`. Nothing here changes anything."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    INLINE_BYTES,
    ErrorInfo,
    ExecutionRecord,
    ExecutionStatus,
    JobFilter,
    JobRecord,
    JobStatus,
    Omitted,
    Page,
    Phase,
    RunPayload,
)
from gigq.errors import InvalidArgument
from gigq.storages.sqlite import damage
from gigq.storages.sqlite.failures import refuse_standing_still
from gigq.storages.sqlite.outcomes import HANDED_BACK
from gigq.storages.sqlite.schema import (
    COUNTED_OF,
    PARAMS,
    PARAMS_SIZE,
    PHASE,
    POLICY_OF,
    RUN_STATUS,
    STATUS,
    State,
    states_of,
    tag_from_json,
    tag_to_json,
)
from gigq.storages.sqlite.steps import bindable
from gigq.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gigq.contracts.storage import Run, Session
    from gigq.storages.sqlite.steps import Tx

_PLAIN = (
    "seq", "id", "name", "queue", "state", "priority", "function", "serializer", "attempts",
    "max_attempts", "run", "owned", "wish", "lost", "bad", "created", "updated", "started",
    "completed", "run_at", "due_mono", "retrying", "expires", "expires_mono", "worker", "dependencies",
    "on_parent_failure", "wants_parents", "unique_key", "tags", "workflow", "options", "cancelled_by",
    "error", "result_serializer",
)  # fmt: skip
_NONE = type(None)
_NUMBERS = frozenset({
    "seq", "state", "priority", "attempts", "max_attempts", "run", "owned", "wish", "lost", "bad",
    "created", "updated", "retrying", "on_parent_failure", "wants_parents",
})  # fmt: skip
_MOMENTS = frozenset({"started", "completed", "run_at", "due_mono", "expires", "expires_mono"})
_NAMES = frozenset({"id", "name", "queue", "function", "serializer", "workflow", "options"})
_KINDS: tuple[tuple[type, ...], ...] = (
    *(
        (int,) if name in _NUMBERS
        else (int, _NONE) if name in _MOMENTS
        else (str,) if name in _NAMES
        else (str, _NONE)
        for name in _PLAIN
    ),
    (int,),  # the sizes of parameters and result
    (int, _NONE),
)  # fmt: skip
_WAITING = """
    CASE WHEN job.state IN (3, 4, 5) AND job.dependencies IS NOT NULL THEN
        (SELECT json_group_array(p.id) FROM edge AS e CROSS JOIN job AS p ON p.seq = e.parent
         WHERE e.child = job.seq AND (p.state < 7 OR (p.state >= 8 AND job.on_parent_failure = 1)))
    END
"""
_SELECT = (
    f"json_array({', '.join(f'job.{column}' for column in _PLAIN)}, "
    f"{PARAMS_SIZE}, length(job.result), "
    f"iif({PARAMS_SIZE} <= {INLINE_BYTES}, hex({PARAMS}), NULL), "
    f"iif(length(job.result) <= {INLINE_BYTES}, hex(job.result), NULL), {_WAITING}, "
    "iif(job.state IN (3, 5), (SELECT json_group_array(parent) FROM awaited WHERE child = job.seq), NULL))"
)


# --- records --------------------------------------------------------------------------------------


def records(tx: Tx, source: str, parameters: Sequence[object]) -> list[tuple[int, JobRecord]]:
    """Numbers and records of the jobs that `source` (FROM …, in its order) names; one JSON value."""
    try:
        found = tx.value(f"SELECT json_group_array({_SELECT}) {source}", parameters)
        return [_record(tx, row) for row in json.loads(found)]
    except (damage.Damaged, *damage.SURPRISES) as error:
        if not damage.by_value(error):
            raise
    return _one_by_one(tx, source, parameters)


def _one_by_one(tx: Tx, source: str, parameters: Sequence[object]) -> list[tuple[int, JobRecord]]:
    """The same where one of them does not hold what it should: that one is shown as unreadable."""
    seqs = [row[0] for row in tx.run(f"SELECT job.seq {source}", parameters).fetchall()]
    return [_record(tx, _mended(seq, columns)) for seq, columns, _ in damage.rows(tx, seqs)]


def _mended(seq: int, columns: Mapping[str, Any]) -> list[Any]:
    """A row of `_SELECT` from columns that were read one by one."""
    columns = {**columns, "seq": seq}
    params, result = columns["params"] or b"", columns["result"]
    return [
        *(columns[name] for name in _PLAIN), len(params), result and len(result), params.hex(),
        None if result is None else result.hex(), None, None,
    ]  # fmt: skip


def get(tx: Tx, seqs: Sequence[int]) -> dict[int, JobRecord]:
    """The jobs with these numbers, whole."""
    found = records(
        tx,
        "FROM json_each(?) AS s CROSS JOIN job ON job.seq = s.value",
        [json.dumps(list(seqs))],
    )
    return {seq: _whole(tx, seq, record) for seq, record in found}


def statuses(tx: Tx, seqs: Sequence[int]) -> dict[int, JobStatus]:
    """The statuses of the jobs with these numbers."""
    found = tx.value(
        "SELECT json_group_array(json_array(job.seq, job.state)) "
        "FROM json_each(?) AS s CROSS JOIN job ON job.seq = s.value",
        [json.dumps(list(seqs))],
    )
    return {seq: status_of(state) for seq, state in json.loads(found)}


def status_of(state: object) -> JobStatus:
    """What users see of a state; a job whose state is none of ours has failed."""
    return STATUS.get(state, JobStatus.FAILED)  # type: ignore[call-overload, no-any-return]


def _whole(tx: Tx, seq: int, record: JobRecord) -> JobRecord:
    """With its large payloads too."""
    for field, stored in (("params", PARAMS), ("result", "result")):
        omitted = getattr(record, field)
        if isinstance(omitted, Omitted):
            data = tx.value(f"SELECT {stored} FROM job WHERE seq = ?", [seq])
            object.__setattr__(record, field, Payload(omitted.serializer, _bytes(data)))
    return record


def _record(tx: Tx, row: Sequence[Any]) -> tuple[int, JobRecord]:
    damage.refuse_misfits([row], _KINDS)
    job = dict(zip(_PLAIN, row, strict=False))
    params_size, result_size, params, result, waiting, awaited = row[len(_PLAIN) :]
    state = State(job["state"])
    dependencies = tuple(_texts(job["dependencies"]))
    keeping = {*_listed(waiting), *_listed(awaited)}
    wait_us = max((job["due_mono"] or 0) - tx.mono, (job["run_at"] or 0) - tx.wall)
    waits = state < State.RUNNING and wait_us > 0
    expires = [job["expires"]] if job["expires"] is not None else []
    if job["expires_mono"] is not None:
        expires.append(tx.wall + job["expires_mono"] - tx.mono)
    return job["seq"], JobRecord(
        id=job["id"],
        name=job["name"],
        queue=job["queue"],
        status=STATUS[state],
        phase=_phase(state, waits=waits, retrying=bool(job["retrying"])),
        priority=job["priority"],
        function=job["function"],
        params=_payload(job["serializer"], params, params_size),
        result=None
        if job["result_serializer"] is None
        else _payload(job["result_serializer"], result, result_size),
        error=None if job["error"] is None else ErrorInfo.from_json(job["error"]),
        attempts=job["attempts"],
        max_attempts=job["max_attempts"],
        run=job["run"],
        created_us=job["created"],
        updated_us=job["updated"],
        started_us=job["started"],
        completed_us=job["completed"],
        due_us=tx.wall + wait_us if waits else None,
        expires_us=min(expires, default=None),
        worker=job["worker"] if state == State.RUNNING else None,
        dependencies=dependencies,
        waiting_for=tuple(dict.fromkeys(each for each in dependencies if each in keeping)),
        on_parent_failure=POLICY_OF[job["on_parent_failure"]],
        wants_parents=bool(job["wants_parents"]),
        unique_key=job["unique_key"],
        tags=tuple(map(tag_from_json, _texts(job["tags"]))),
        workflow=job["workflow"],
        options=job["options"],
        cancelled_by=job["cancelled_by"] or "",
        cancel_wanted=bool(job["wish"]),
        stopping=bool(job["owned"]) and state != State.RUNNING,
        lost=job["lost"],
    )


def _texts(value: str | None) -> list[str]:
    return damage.texts(json.loads(value)) if value else []


def _listed(value: str | list[str] | None) -> list[str]:
    """JSON inside JSON is text or a list, as SQLite pleases."""
    found: list[str] = json.loads(value) if isinstance(value, str) else value or []
    return found


def _payload(serializer: str, data: str | None, size: int) -> Payload | Omitted:
    if data is None:
        return Omitted(serializer, size)
    return Payload(serializer, bytes.fromhex(data))


def _bytes(data: object) -> bytes:
    """A payload as it was stored; what is no bytes was damaged, and no serializer reads it."""
    return data if isinstance(data, bytes) else b"" if data is None else str(data).encode()


def _phase(state: State, *, waits: bool, retrying: bool) -> Phase:
    if state > State.RUNNING:
        return Phase.ENDED
    if state not in (State.SCHEDULED, State.DELAYED):
        return PHASE[state]
    if not waits:
        # Its time has come: the next turn would find it ready.
        return Phase.READY
    return Phase.RETRYING if retrying and state == State.DELAYED else Phase.SCHEDULED


# --- find -----------------------------------------------------------------------------------------


_STATUSES = frozenset(ExecutionStatus)
#: All numbers of so many digits fit SQLite's integers.
_DIGITS = 18


def cursor_seq(cursor: str) -> int:
    """Where a walk goes on.

    Raises:
        InvalidArgument: No cursor of this storage.
    """
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _DIGITS):
        raise InvalidArgument(
            f"cursor is {shown(cursor)}, which is none that this storage gave.\n"
            "Give the cursor of the page before, or none to begin anew."
        )
    return int(cursor)


def find(tx: Tx, where: JobFilter, *, limit: int, cursor: str | None, oldest_first: bool) -> Page:
    """See `Storage.find`. One row more than asked tells whether there is another page."""
    conditions, parameters = _conditions(where)
    if cursor is not None:
        conditions.append("seq > ?" if oldest_first else "seq < ?")
        parameters.append(cursor_seq(cursor))
    condition = " AND ".join(conditions) or "1"
    order = "ASC" if oldest_first else "DESC"
    limit = max(0, limit)
    inner = f"SELECT * FROM job {_index(where)} WHERE {condition} ORDER BY seq {order} LIMIT ?"
    found = records(tx, f"FROM ({inner}) AS job", [*parameters, limit + 1])
    page = found[:limit]
    more = len(found) > limit
    last = str(page[-1][0]) if page else cursor
    if page and cursor is not None:
        refuse_standing_still(cursor_seq(cursor), page[-1][0], descending=not oldest_first)
    return Page(tuple(record for _, record in page), last if more else None)


def next_seqs(tx: Tx, after: int, limit: int) -> list[int]:
    """The numbers of the jobs that follow one, in order."""
    seqs = [
        row[0]
        for row in tx.run("SELECT seq FROM job WHERE seq > ? ORDER BY seq LIMIT ?", [after, limit])
    ]
    if seqs:
        refuse_standing_still(after, seqs[-1])
    return seqs


def _index(where: JobFilter) -> str:
    """Rare statuses and workflows have an index; everything else is a walk by number."""
    if where.workflow:
        return "INDEXED BY job_workflow"
    if where.statuses and all(state >= State.FAILED for state in states_of(where.statuses)):
        return "INDEXED BY job_rare"
    if where.statuses == frozenset({JobStatus.RUNNING}):
        return "INDEXED BY job_owned"
    return "NOT INDEXED"


#: Where `JobFilter.text` is looked for.
_TEXTS = (
    "id", "name", "function", "coalesce(json_extract(options, '$.description'), '')",
    "coalesce(json_extract(error, '$[1]'), '')",
)  # fmt: skip


def _conditions(where: JobFilter) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    parameters: list[object] = []
    if where.statuses is not None:
        conditions += _of_statuses(where.statuses)
    if where.workflow:
        conditions.append("workflow <> ''")
    compared = (
        ("queue = CAST(? AS TEXT)", bindable(where.queue)),
        ("name = CAST(? AS TEXT)", bindable(where.name)),
        ("workflow = CAST(? AS TEXT)", bindable(where.workflow)),
        ("created >= ?", where.created_from_us),
        ("created < ?", where.created_before_us),
    )
    for condition, wanted in compared:
        if wanted is not None:
            conditions.append(condition)
            parameters.append(wanted)
    if where.tag is not None:
        conditions.append(
            "EXISTS (SELECT 1 FROM json_each(tags) AS t WHERE t.value = CAST(? AS TEXT))"
        )
        parameters.append(bindable(tag_to_json(where.tag)))
    if where.text is not None:
        conditions.append(f"({' OR '.join(f'instr({each}, CAST(? AS TEXT))' for each in _TEXTS)})")
        parameters += [bindable(where.text)] * len(_TEXTS)
    return conditions, parameters


def _of_statuses(statuses: frozenset[JobStatus]) -> list[str]:
    """The condition, and what makes the planner see that a partial index covers it."""
    states = states_of(statuses)
    conditions = [f"state IN ({', '.join(map(str, states))})"]
    if states and min(states) >= State.FAILED:
        conditions.append("state >= 8")
    if states == [State.RUNNING]:
        conditions.append("owned = 1")
    return conditions


# --- the rest -------------------------------------------------------------------------------------


def history(tx: Tx, seq: int) -> list[ExecutionRecord]:
    """All runs of a job, oldest first."""
    runs = [
        _execution(row)
        for row in tx.run(
            "SELECT run, status, worker, started, completed, result_serializer, result, error "
            "FROM execution WHERE seq = ? AND status <> ? ORDER BY run",
            [seq, HANDED_BACK],
        ).fetchall()
    ]
    row = tx.one(
        "SELECT run, state, worker, started, completed, result_serializer, result, error "
        "FROM job WHERE seq = ? AND carries = 1",
        [seq],
    )
    if row is not None:
        status = RUN_STATUS.get(row[1], ExecutionStatus.FAILED)
        runs.append(_execution((row[0], status, *row[2:])))
        if runs[-1].status is ExecutionStatus.RUNNING:
            # An error of the attempt before is the job's, not this run's.
            object.__setattr__(runs[-1], "error", None)
    return runs


def _execution(row: Sequence[Any]) -> ExecutionRecord:
    run, status, worker, started, completed, serializer, result, error = row
    unreadable = [] if status in _STATUSES else ["status"]
    for name, value, kind in (
        ("worker", worker, str), ("started", started, int), ("completed", completed, int),
        ("serializer", serializer, str), ("result", result, bytes), ("error", error, str),
    ):  # fmt: skip
        if value is not None and type(value) is not kind:
            unreadable.append(name)
    if unreadable:
        return _unreadable_run(run, unreadable)
    return ExecutionRecord(
        run,
        ExecutionStatus(status),
        worker or "",
        started or 0,
        completed,
        None if serializer is None else Payload(serializer, result or b""),
        None if error is None else _error(error),
    )


def _unreadable_run(run: object, wrong: Sequence[str]) -> ExecutionRecord:
    number = run if isinstance(run, int) else 0
    told = ErrorInfo("unreadable", f"This run's row is unreadable: {', '.join(wrong)}.")
    return ExecutionRecord(number, ExecutionStatus.FAILED, "", 0, None, None, told)


def _error(text: str) -> ErrorInfo:
    """A run's error, or one that says that it cannot be read."""
    try:
        return ErrorInfo.from_json(text)
    except (ValueError, TypeError, RecursionError):
        return ErrorInfo("unreadable", "What was recorded of this run's error cannot be read.")


def counts(tx: Tx) -> Mapping[str, Mapping[JobStatus, int]]:
    """From the table of counts; see `Tx.move`."""
    answer: dict[str, dict[JobStatus, int]] = {}
    for queue, status, number in tx.run("SELECT queue, status, n FROM counts WHERE n <> 0"):
        if status in COUNTED_OF and isinstance(number, int):
            answer.setdefault(queue, {})[COUNTED_OF[status]] = number
    return answer


def payloads(tx: Tx, session: Session, runs: Sequence[Run], most_bytes: int) -> list[RunPayload]:
    """Parameters and parents' results of claimed runs, as many as fit, at least one."""
    answer: list[RunPayload] = []
    total = 0
    for run in runs:
        row = tx.one(
            f"SELECT seq, serializer, {PARAMS}, dependencies, wants_parents FROM job "
            "WHERE id = CAST(? AS TEXT) AND run = ? AND session = ? AND owned = 1",
            [bindable(run.job_id), run.number, session.key],
        )
        if row is None:
            continue
        parents = _parents(tx, row[0], _dependencies(row[3])) if row[4] else ()
        params = _bytes(row[2])
        total += len(params) + sum(len(result.data) for _, result in parents if result)
        if answer and total > most_bytes:
            break
        answer.append(RunPayload(run, Payload(row[1], params), parents))
    return answer


def _dependencies(text: str | None) -> list[str]:
    """Ids of parents; none where they cannot be read: the function is then told of none."""
    try:
        return _texts(text)
    except (damage.Damaged, ValueError, TypeError, RecursionError):
        return []


def _parents(
    tx: Tx, seq: int, dependencies: Sequence[str]
) -> tuple[tuple[str, Payload | None], ...]:
    found = tx.value(
        f"""
        SELECT json_group_array(json_array(p.id, p.seq, p.result_serializer,
            iif(length(p.result) <= {INLINE_BYTES}, hex(p.result), NULL)))
        FROM edge AS e CROSS JOIN job AS p ON p.seq = e.parent
        WHERE e.child = ? AND p.result_serializer IS NOT NULL
        """,
        [seq],
    )
    results: dict[str, Payload] = {}
    for job_id, parent, serializer, data in json.loads(found):
        if data is None:
            large = tx.value("SELECT result FROM job WHERE seq = ?", [parent])
            results[job_id] = Payload(serializer, _bytes(large))
        else:
            results[job_id] = Payload(serializer, bytes.fromhex(data))
    return tuple((job_id, results.get(job_id)) for job_id in dependencies)
