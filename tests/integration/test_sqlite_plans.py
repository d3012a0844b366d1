"""What each statement of a turn reads: never the whole table, also after somebody ran ANALYZE."""

from __future__ import annotations

import re

import pytest

from gigq.contracts.storage import (
    Completed,
    ErrorInfo,
    Failed,
    JobFilter,
    JobStatus,
    ParentFailure,
    Started,
    Takes,
    Want,
)
from gigq.storages.sqlite import SqliteStorage, claims
from tests.integration.sqlite_kit import RESULT, claim_all, complete, job, join

#: Walks over few rows by nature: what came in as JSON, subqueries already bounded, paused queues.
SMALL = re.compile(
    r"SCAN (s|t|c|d|json_each|ready|paused|\(subquery-\d+\)|CONSTANT ROW|\d+ CONSTANT ROWS)( |$)"
)
BY_INDEX = re.compile(r"SCAN job USING (COVERING )?INDEX job_(ready|owned|wish|rare|workflow|\w+)")


#: Looks for jobs by something else than their number or id, and names no index.
UNNAMED = re.compile(r"FROM job( AS \w+)? WHERE (?!(\w+\.)?(seq|id)\b)")


@pytest.fixture(params=["fresh", "analyzed", "analyzed when empty"])
def storage(request, tmp_path):
    """A storage with jobs in every state, so that the planner has something to be wrong about."""
    storage = SqliteStorage(tmp_path / "jobs.db")
    storage.initialize()
    storage.open()
    if request.param == "analyzed when empty":
        analyze(storage)
    session = join(storage)
    storage.add([job("done", tags=("x",), workflow="w") for _ in range(300)])
    while got := claim_all(storage, session):
        complete(storage, session, *got)
    parent = job("parent", delay_us=10**12)
    storage.add([parent, *(job("child", parent.id) for _ in range(50))])
    storage.add([job("later", run_at_us=9 * 10**15) for _ in range(100)])
    storage.add([job("ready", priority=n % 3, queue=f"q{n % 4}") for n in range(200)])
    if request.param == "analyzed":
        analyze(storage)
    yield storage
    storage.close()


def analyze(storage) -> None:
    storage._database.maintain(lambda connection: connection.execute("ANALYZE").fetchall(), 5)


def statements(storage, work) -> set[str]:
    """Every statement that `work` runs on the writer."""
    writer = storage._database._open_writer()
    seen: set[str] = set()
    writer.set_trace_callback(seen.add)
    work()
    writer.set_trace_callback(None)
    return seen


def plans(storage, work) -> list[str]:
    """The plans of those."""
    writer = storage._database._open_writer()
    lines = []
    for sql in statements(storage, work):
        if sql.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH"):
            lines += [row[3] for row in writer.execute(f"EXPLAIN QUERY PLAN {sql}")]
    return lines


def wide(lines) -> list[str]:
    """Those that read a whole table."""
    scans = [line for line in lines if "SCAN" in line]
    return [line for line in scans if not SMALL.search(line) and not BY_INDEX.search(line)]


class TestATurn:
    @pytest.mark.parametrize(
        "takes",
        [
            Takes(),
            Takes(queues=("q1", "q2")),
            Takes(serializers=("json", "msgpack")),
            Takes(serializers=("json",), allow=("m",)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("most", [1, 20, 500])
    def test_claims_from_the_index_alone(self, storage, takes, most):
        """Its cost follows what is wanted, not the size of the table."""
        session = join(storage, takes=takes)
        lines = plans(storage, lambda: storage.turn(session, want=Want((), most)))
        assert wide(lines) == []
        assert any("job_ready" in line for line in lines)

    def test_sorts_numbers_and_not_payloads(self, storage):
        """Which jobs are next is read from the index without touching a row."""
        sql = claims.weights_sql("queue IN (CAST(? AS TEXT))")
        # Named, because nobody can promise what a planner does with somebody's statistics.
        assert "INDEXED BY job_ready" in sql
        writer = storage._database._open_writer()
        lines = [row[3] for row in writer.execute(f"EXPLAIN QUERY PLAN {sql}", ["q1", 5])]
        assert any("USING COVERING INDEX job_ready" in line for line in lines)

    def test_names_each_index_that_it_relies_on(self, storage):
        """What a planner would choose today is no promise; a named index that is gone is an error."""
        session, other = join(storage), join(storage)
        timely = ["delay_us", "run_at_us", "expires_us", "expires_in_us"]

        def live():
            storage.add([job(unique_key=each, **{each: 1}) for each in timely])
            storage.turn(session, want=Want((0,), 2))
            storage.turn(session, holding=[])
            storage.sessions()
            storage.recover()
            storage.leave(session)

        ran = [" ".join(sql.split()) for sql in statements(storage, live)]
        assert [sql for sql in ran if UNNAMED.search(sql)] == []
        for index in ("ready", "delayed", "scheduled", "expires", "expires_mono", "wish", "owned"):
            assert any(f"INDEXED BY job_{index} " in sql for sql in ran), index
        storage.leave(other)

    @pytest.mark.parametrize("count", [1, 30])
    def test_settles_by_number(self, storage, count):
        """Completed, failed and started runs, with children and without."""
        parents = [job("parent", priority=9) for _ in range(count)]
        children = [job("child", each.id, on_parent_failure=ParentFailure.RUN) for each in parents]
        storage.add([*parents, *children])
        session = join(storage)
        runs = [each.run for each in claim_all(storage, session, count)]
        outcomes = [
            Completed(run, RESULT) if n % 2 else Failed(run, ErrorInfo("E", "m"), None)
            for n, run in enumerate(runs)
        ]
        started = [Started(run) for run in runs]
        assert wide(plans(storage, lambda: storage.turn(session, outcomes, started))) == []

    def test_lets_time_pass_by_index(self, storage):
        """Jobs that are due, and jobs that expire."""
        storage.add([job(delay_us=1), job(run_at_us=1), job(expires_us=1), job(expires_in_us=1)])
        session = join(storage)
        assert wide(plans(storage, lambda: storage.turn(session))) == []

    def test_recovers_by_session(self, storage):
        """A dead worker's jobs are found without looking at the others."""
        session = join(storage)
        claim_all(storage, session, 20)
        assert wide(plans(storage, lambda: storage.leave(session))) == []


class TestAUser:
    def test_submits_by_index(self, storage):
        """With parents and unique keys."""
        parent = job("parent")
        lines = plans(
            storage,
            lambda: storage.add(
                [parent, *(job("c", parent.id, unique_key=f"k{n}") for n in range(9))]
            ),
        )
        assert wide(lines) == []

    def test_cancels_and_requeues_by_number(self, storage):
        """Down the branch too."""
        parent = job("parent")
        child = job("child", parent.id)
        storage.add([parent, child])

        def there_and_back():
            assert storage.cancel([parent.id]) == [True]
            assert storage.requeue([parent.id]) == [True]

        assert wide(plans(storage, there_and_back)) == []

    @pytest.mark.parametrize(
        "where",
        [
            JobFilter(),
            JobFilter(statuses=frozenset({JobStatus.FAILED, JobStatus.TIMEOUT})),
            JobFilter(statuses=frozenset({JobStatus.RUNNING})),
            JobFilter(statuses=frozenset({JobStatus.PENDING}), queue="q1", name="ready", tag="x"),
            JobFilter(workflow="w"),
            JobFilter(workflow="w", statuses=frozenset({JobStatus.COMPLETED}), text="o"),
        ],
        # Not str: the order of a set differs from process to process.
        ids=["all", "ended badly", "running", "by all", "workflow", "completed"],
    )
    @pytest.mark.parametrize("oldest_first", [False, True])
    def test_finds_a_page_in_order(self, storage, where, oldest_first):
        """By number or by the index of what is rare: every filter has a plan that works."""
        everything = [
            each.id
            for each in storage.find(limit=2_000, oldest_first=oldest_first).jobs
            if (where.statuses is None or each.status in where.statuses)
            and (where.queue is None or each.queue == where.queue)
            and (where.name is None or each.name == where.name)
            and (where.tag is None or where.tag in each.tags)
            and (where.workflow is None or each.workflow == where.workflow)
        ]
        found, cursor = [], None
        while True:
            page = storage.find(where, limit=70, cursor=cursor, oldest_first=oldest_first)
            found += [each.id for each in page.jobs]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == everything
