"""A Job is checked at the door: when it is made, and once more when it is submitted."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import ClassVar
from uuid import RFC_4122, UUID

import pytest

from gigq import (
    GigqError,
    InvalidFunction,
    InvalidJob,
    InvalidJobType,
    InvalidParameters,
    Job,
    Retry,
    SerializationError,
    UnknownPlugin,
    plugins,
)
from gigq.contracts.serializer import Binding, Payload, Serializer
from gigq.contracts.storage import JobOptions, NewJob, ParentFailure
from gigq.job import new_id
from gigq.text import timestamp
from tests.unit import jobs

YEAR = timedelta(days=365)


def stored(job, serializer="json"):
    """The job as a storage would take it."""
    return job.to_new_job(lambda choice: plugins.serializer(choice or serializer))


class TestAJob:
    def test_takes_name_and_function_by_position_or_keyword(self):
        assert Job("a", jobs.add).function is Job(name="a", function=jobs.add).function is jobs.add

    def test_keeps_the_order_of_its_old_arguments(self):
        """Programs written for 0.5.1 pass these by position."""
        job = Job("a", jobs.add, {"a": 1}, 5, ["x"], 4, 60, "text", True, 9)

        assert vars(job).items() >= {
            "params": {"a": 1}, "priority": 5, "dependencies": ["x"], "max_attempts": 4, "timeout": 60,
            "description": "text", "pass_parent_results": True, "retry_delay": 9,
        }.items()  # fmt: skip

    def test_has_the_old_defaults(self):
        job = Job("a", jobs.add)

        assert (job.params, job.priority, job.dependencies, job.max_attempts) == ({}, 0, [], 3)
        assert (job.timeout, job.description, job.pass_parent_results) == (300, "", None)
        assert (job.retry_delay, job.queue, job.on_parent_failure) == (0, "default", "cancel")
        assert str(inspect.signature(Job)).count("max_attempts: 'int' = 3") == 1

    def test_has_an_id_that_sorts_by_time(self):
        """UUIDv7: RFC 9562 gives version and variant."""
        ids = [Job("a", jobs.add).id for _ in range(50)]

        assert len(set(ids)) == 50
        assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i)
                   for i in ids)  # fmt: skip
        assert ids[0][:8] <= ids[-1][:8]

    def test_knows_when_it_was_made(self):
        before = datetime.now(UTC)
        created = datetime.fromisoformat(Job("a", jobs.add).created_at)

        assert before - timedelta(seconds=1) <= created <= datetime.now(UTC)
        assert created.utcoffset() is not None

    def test_does_not_share_what_it_was_given(self):
        """A later change of the caller's dict does not reach into the job."""
        params, tags, parents = {"a": 1}, ["x"], ["p"]
        job = Job("a", jobs.add, params, dependencies=parents, tags=tags)

        params["a"] = 2
        tags.append("y")
        parents.append("q")

        assert (job.params, job.tags, job.dependencies) == ({"a": 1}, ["x"], ["p"])

    def test_keeps_what_is_set_later_as_it_keeps_what_it_was_made_with(self):
        """None means none of them, and a later change of the caller's own list reaches nobody."""
        changed, tags = Job("a", jobs.takes_anything), ["t"]
        changed.params = changed.metadata = changed.dependencies = None
        changed.tags = tags
        tags.append("u")

        assert (changed.params, changed.metadata, changed.dependencies) == ({}, {}, [])
        assert changed.tags == ["t"]
        changed.tags = None
        assert stored(changed).tags == ()

    def test_takes_tags_and_parents_from_any_iterable(self):
        made = Job("a", jobs.add, tags=(str(n) for n in (1, 2)), dependencies=iter(["p"]))

        assert (made.tags, made.dependencies) == (["1", "2"], ["p"])

    def test_takes_the_function_of_a_task(self):
        assert Job("a", jobs.double).function is jobs.double.__wrapped__

    def test_names_parents_by_job_or_id(self):
        parent = Job("p", jobs.add)

        assert stored(Job("a", jobs.add, {"a": 1}, dependencies=[parent, "x", parent.id])).dependencies == (
            parent.id, "x",
        )  # fmt: skip


class TestAnId:
    def test_has_the_fields_of_a_uuid_of_version_7(self):
        """RFC 9562: 48 bits of milliseconds, version, 12 bits of their fraction, variant."""
        now_us = 1_785_000_000_123_456

        made = UUID(new_id(now_us))

        assert (made.version, made.variant) == (7, RFC_4122)
        assert made.int >> 80 == now_us // 1_000
        assert made.int >> 64 & 0xFFF == 456 * 4_096 // 1_000
        assert str(made) == new_id(now_us)[:18] + str(made)[18:]

    def test_sorts_by_the_microsecond_that_it_was_made_in(self):
        ids = [new_id(1_785_000_000_123_000 + step) for step in range(2_000)]

        assert ids == sorted(ids)

    def test_is_random_in_all_that_is_left(self):
        """62 bits: each of them is 0 in some and 1 in others of two hundred."""
        made = [UUID(new_id(0)).int for _ in range(200)]

        ones, zeros = 0, 0
        for each in made:
            ones, zeros = ones | each, zeros | ~each
        assert ones & zeros & (1 << 64) - 1 == (1 << 62) - 1


class Named(dict):
    """How a refusal names each field: by its own name, unless it speaks of a part of it."""

    def __missing__(self, field):
        return rf"^Job .*: {field} is .*[:;] ."


NAMED = Named(
    tags="^Job 'a': (a tag|tags) is ", dependencies="^Job 'a': (a dependency|dependencies) is ",
    params="^Job 'a': (a key of params|params) is ", metadata="^Job 'a': (a key of metadata|metadata) is ",
    function="function", retry="^retry is 3, of type int; it must be a Retry",
)  # fmt: skip


class TestTheDoor:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""), ("name", "  "), ("name", "x" * 1_001), ("name", "nul\0"), ("name", "\ud800"),
            ("priority", 1 << 31), ("priority", -(1 << 31) - 1),
            ("max_attempts", 0), ("max_attempts", 1_001),
            ("timeout", 0), ("timeout", -1), ("timeout", float("nan")), ("timeout", float("inf")),
            ("timeout", 11 * 365 * 86_400), ("timeout", 10**400), ("timeout", YEAR * 11),
            ("timeout", -timedelta(seconds=1)), ("timeout", timedelta.min), ("timeout", timedelta.max),
            ("retry_delay", -0.1), ("retry_delay", float("nan")), ("retry_delay", YEAR * 11),
            ("delay", -1), ("delay", float("-inf")), ("description", "x" * 100_001),
            ("queue", ""), ("queue", "x" * 201), ("tags", [""]), ("tags", ["x"] * 101),
            ("tags", ["x" * 201]), ("metadata", {"a": float("nan")}), ("metadata", {"a": object()}),
            ("metadata", {"a": (1, 2)}), ("metadata", {"a": "x" * 70_000}), ("unique_key", ""),
            ("unique_key", "x" * 1_001), ("memory_limit", 64), ("memory_limit", -1),
            ("on_parent_failure", "explode"), ("expires", 0), ("expires", -5), ("expires", "tomorrow"),
            ("run_at", "soon"), ("run_at", datetime.min), ("run_at", datetime.max),
            ("run_at", "0001-01-01T00:00:00+14:00"), ("serializer", ""), ("executor", ""),
        ],
    )  # fmt: skip
    def test_refuses_a_value_that_cannot_be_meant(self, field, value):
        """The error is a ValueError that names the job, the field and the value."""
        options = {"name": "a", "function": jobs.add, field: value}

        with pytest.raises(InvalidJob) as refusal:
            Job(**options)
        assert isinstance(refusal.value, ValueError)
        assert not isinstance(refusal.value, InvalidJobType)
        assert re.search(NAMED[field], str(refusal.value)), refusal.value

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", None), ("name", b"a"), ("name", 3), ("params", [1]), ("params", "a=1"),
            ("params", {1: 2}), ("priority", True), ("priority", 1.0), ("priority", "high"),
            ("priority", None), ("dependencies", "some-id"), ("dependencies", [3]), ("dependencies", 3),
            ("max_attempts", True), ("max_attempts", 2.5), ("max_attempts", None), ("timeout", True),
            ("timeout", "60"), ("timeout", Decimal(3)), ("retry_delay", None), ("retry_delay", False),
            ("description", None), ("pass_parent_results", 1), ("pass_parent_results", "yes"),
            ("queue", None), ("run_at", 1_700_000_000), ("delay", "5"), ("delay", True), ("retry", 3),
            ("tags", "urgent"), ("tags", [1]), ("metadata", [1]), ("metadata", {1: 2}),
            ("unique_key", 5), ("expires", True), ("expires", []), ("serializer", 5), ("executor", 5),
            ("executor", dict), ("serializer", dict), ("memory_limit", 1.5), ("memory_limit", True),
            ("on_parent_failure", None), ("function", None), ("function", "module.function"),
        ],
    )  # fmt: skip
    def test_refuses_a_value_of_the_wrong_type(self, field, value):
        """The error is a TypeError, and a ValueError as well: `except ValueError` catches both."""
        options = {"name": "a", "function": jobs.add, field: value}

        with pytest.raises(InvalidJob) as refusal:
            Job(**options)
        assert isinstance(refusal.value, TypeError)
        assert re.search(NAMED[field], str(refusal.value)), refusal.value

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "世界"), ("name", "x" * 1_000), ("priority", (1 << 31) - 1), ("priority", -(1 << 31)),
            ("max_attempts", 1), ("max_attempts", 1_000), ("timeout", None), ("timeout", 0.001),
            ("timeout", timedelta(hours=1)), ("timeout", YEAR * 10), ("retry_delay", timedelta(0)),
            ("delay", 0), ("delay", timedelta(days=1)), ("run_at", datetime(2030, 1, 1)),
            ("run_at", datetime(2030, 1, 1, tzinfo=UTC)), ("run_at", "2030-01-01T10:00:00+02:00"),
            ("expires", 60), ("expires", timedelta(days=1)), ("expires", "2030-01-01"),
            ("tags", ("a", "b")), ("tags", {"a"}), ("metadata", {"a": [1, None, {"b": "c"}]}),
            ("unique_key", "k"), ("on_parent_failure", "HOLD"),
            ("on_parent_failure", ParentFailure.RUN), ("dependencies", ("a", "")),
            ("serializer", "msgpack"), ("executor", "process"), ("memory_limit", 1 << 30),
        ],
    )  # fmt: skip
    def test_lets_through_what_can_be_meant(self, field, value):
        stored(Job(**{"name": "a", "function": jobs.takes_anything, field: value}))

    def test_keeps_what_just_fits(self):
        """The bounds that the documents name are the bounds."""
        bytes_of = {"a": "x" * (64 * 1024 - len('{"a": ""}'))}
        job = Job("a", jobs.add, {"a": 1}, tags=["x" * 200] * 100, metadata=bytes_of, queue="q" * 200,
                  unique_key="k" * 1_000, description="d" * 100_000, memory_limit=1024 * 1024)  # fmt: skip

        assert len(stored(job).tags) == 100
        job.metadata["a"] += "x"
        with pytest.raises(InvalidJob, match="65537 bytes as JSON, at most 65536 are kept"):
            stored(job)

    @pytest.mark.parametrize(
        ("metadata", "said"),
        [
            ({"a": (1, 2)}, "JSON would change it: use lists for tuples, text for keys."),
            ({"a": {1: 2}}, "JSON would change it: use lists for tuples, text for keys."),
            ({"a": float("inf")}, "JSON cannot hold it (Out of range float values"),
            ({"a": {1}}, "JSON cannot hold it (Object of type set is not JSON serializable)."),
        ],
    )
    def test_says_why_metadata_cannot_be_kept(self, metadata, said):
        with pytest.raises(InvalidJob) as refusal:
            Job("a", jobs.add, metadata=metadata)
        assert said in str(refusal.value)

    def test_says_how_many_tags_there_may_be(self):
        with pytest.raises(InvalidJob, match="there are 101, at most 100 are kept"):
            Job("a", jobs.add, tags=["x"] * 101)

    def test_looks_again_at_submit(self):
        """A Job can be changed until it is submitted."""
        job = Job("a", jobs.add, {"a": 1})
        job.priority = "high"

        with pytest.raises(InvalidJobType, match="priority is 'high'"):
            stored(job)

    @pytest.mark.parametrize(
        "change",
        [
            lambda job: job.params.update({1: 2}), lambda job: job.tags.append(5),
            lambda job: job.metadata.update(a=object()), lambda job: job.dependencies.append(None),
            lambda job: setattr(job, "timeout", float("nan")), lambda job: setattr(job, "params", 5),
            lambda job: setattr(job, "tags", 0.5), lambda job: setattr(job, "function", lambda: 1),
        ],
    )  # fmt: skip
    def test_looks_again_into_what_was_changed_in_place(self, change):
        job = Job("a", jobs.add, {"a": 1})
        change(job)

        with pytest.raises(InvalidJob):
            stored(job)

    @pytest.mark.parametrize("name", ["params", "dependencies", "tags", "metadata"])
    @pytest.mark.parametrize("value", [0, "", False, b""])
    def test_refuses_what_is_empty_and_still_of_the_wrong_type(self, name, value):
        with pytest.raises(InvalidJobType, match=name):
            Job("a", jobs.add, **{name: value})

    def test_refuses_an_id_that_could_not_be_kept(self):
        job = Job("a", jobs.add)

        for value in ("", "x" * 201, "\ud800", 5):
            with pytest.raises(InvalidJob, match="id is"):
                job.id = value

    def test_says_what_was_wrong_and_what_to_do(self):
        with pytest.raises(InvalidJob) as refusal:
            Job("nightly", jobs.add, timeout=86_400_000_000)

        assert str(refusal.value) == (
            "Job 'nightly': timeout is 86400000000: it is longer than ten years. The unit is seconds."
        )

    def test_shows_a_hostile_name_harmlessly(self):
        with pytest.raises(InvalidJob) as refusal:
            Job("\x1b[2J", jobs.add, priority=1.5)

        assert "\x1b" not in str(refusal.value)

    def test_names_a_near_serializer_and_executor(self):
        """They are looked up when the Job is made, not when a worker meets it at night."""
        with pytest.raises(UnknownPlugin, match="msgpack"):
            Job("a", jobs.add, serializer="msgpak")
        with pytest.raises(UnknownPlugin, match="process"):
            Job("a", jobs.add, executor="proces")


class TestAFunction:
    @pytest.mark.parametrize(
        ("function", "said"),
        [
            (lambda: 1, "lambda"), (jobs.Owner().method, "method"), (jobs.Owner.static, "method"),
            (jobs.generator, "generator"), (jobs.Caller(), "object"), (5, "callable|called"),
            (jobs.Unhashable(), "hash|object"),
        ],
    )  # fmt: skip
    def test_that_no_worker_could_find_is_refused(self, function, said):
        """The TypeError says why, and what to do."""
        with pytest.raises(InvalidFunction, match=said) as refusal:
            Job("a", function)
        assert isinstance(refusal.value, TypeError)

    def test_inside_another_function_is_refused(self):
        def closure():
            return None

        with pytest.raises(InvalidFunction, match="cloudpickle"):
            Job("a", closure)

    def test_travels_by_value_when_the_serializer_carries_it(self):
        number = 5
        job = stored(
            Job("a", lambda factor: number * factor, {"factor": 2}, serializer="cloudpickle")
        )

        content = plugins.serializer("cloudpickle").loads(job.params.data)
        assert job.function.startswith("<value>:")
        assert content["function"](**content["params"]) == 10
        assert JobOptions.from_json(job.options).by_value

    def test_travels_by_reference_when_it_can(self):
        job = stored(Job("a", jobs.add, {"a": 1}, serializer="cloudpickle"))

        assert job.function == "tests.unit.jobs:add"
        assert not JobOptions.from_json(job.options).by_value

    def test_may_be_a_coroutine_function(self):
        assert stored(Job("a", jobs.coroutine, {"a": 1})).function == "tests.unit.jobs:coroutine"


class TestParameters:
    def test_are_not_compared_before_the_submit(self):
        Job("a", jobs.add)

    @pytest.mark.parametrize(
        ("function", "params", "said"),
        [
            (jobs.add, {}, "missing 'a'"),
            (jobs.add, {"a": 1, "bb": 2}, r"unknown 'bb' \(near: 'b'\)"),
            (jobs.by_position_only, {"a": 1, "b": 2}, "by position only"),
            (jobs.positional_default, {"a": 1}, "unknown 'a'"),
            (jobs.takes_parents, {}, "dependencies"),
        ],
    )
    def test_that_do_not_fit_are_refused_at_submit(self, function, params, said):
        """The TypeError names the job, the function with its signature, and what does not fit."""
        job = Job("odd", function, params)

        with pytest.raises(InvalidParameters, match=said) as refusal:
            stored(job)
        assert "'odd'" in str(refusal.value)
        assert function.__name__ in str(refusal.value)

    @pytest.mark.parametrize(
        ("job", "text"),
        [
            (
                Job("odd", jobs.add, {"bb": 1, "x": 2}),
                (
                    "The parameters of job 'odd' do not fit add(a, b=2): missing 'a'; unknown 'bb' "
                    "(near: 'b'); unknown 'x'.\n"
                    "Give params={…} with the names of the function's parameters."
                ),
            ),
            (
                Job("odd", jobs.by_position_only, {"b": 1}),
                (
                    "The parameters of job 'odd' do not fit by_position_only(a, /, b): missing 'a'.\n"
                    "Jobs pass parameters by name: the function must not take them by position only."
                ),
            ),
            (
                Job("odd", jobs.takes_parents, dependencies=["p", "q"], pass_parent_results=False),
                (
                    "The parameters of job 'odd' do not fit takes_parents(parent_results): missing "
                    "'parent_results'.\nParents' results are passed to a job that has dependencies, unless "
                    "pass_parent_results is False; here it is False with 2 dependencies."
                ),
            ),
            (
                Job("odd", jobs.add, {"a": 1}, dependencies=["p"], pass_parent_results=True),
                (
                    "The parameters of job 'odd' do not fit add(a, b=2): unknown 'parent_results'.\n"
                    "pass_parent_results=True: give the function a parameter 'parent_results', or leave the "
                    "option out."
                ),
            ),
        ],
    )
    def test_that_do_not_fit_are_named_with_the_cure(self, job, text):
        with pytest.raises(InvalidParameters) as refusal:
            stored(job)
        assert str(refusal.value) == text

    @pytest.mark.parametrize(
        ("function", "params"),
        [
            (jobs.add, {"a": 1}), (jobs.add, {"a": 1, "b": 2}), (jobs.takes_anything, {"x": 1}),
            (jobs.positional_default, {"b": 1}), (jobs.coroutine, {"a": 1}),
        ],
    )  # fmt: skip
    def test_that_fit_are_taken(self, function, params):
        assert stored(Job("a", function, params)).params.serializer == "json"

    def test_that_cannot_be_carried_are_named_with_their_path(self):
        job = Job("odd", jobs.add, {"a": {"rows": [1, object()]}})

        with pytest.raises(SerializationError) as refusal:
            stored(job)
        assert refusal.value.path == 'params["a"]["rows"][1]'
        assert "'odd'" in str(refusal.value)
        assert refusal.value.path in str(refusal.value)


class TestParentsResults:
    @pytest.mark.parametrize(
        ("function", "asked", "parents", "passed"),
        [
            (jobs.takes_parents, None, ["p"], True),
            (jobs.takes_anything, None, ["p"], True),
            (jobs.takes_parents, True, ["p"], True),
            (jobs.takes_anything, False, ["p"], False),
            (jobs.takes_anything, None, [], False),
            (jobs.takes_anything, True, [], False),
        ],
    )
    def test_are_passed_to_who_takes_them(self, function, asked, parents, passed):
        job = Job("a", function, dependencies=parents, pass_parent_results=asked)

        assert stored(job).wants_parents is passed

    def test_are_not_passed_over_a_parameter_of_the_users_own(self):
        job = Job("a", jobs.takes_parents, {"parent_results": {}}, dependencies=["p"])

        assert not stored(job).wants_parents

    @pytest.mark.parametrize(
        "job",
        [
            Job("a", jobs.add, {"a": 1}, dependencies=["p"], pass_parent_results=True),
            Job("a", jobs.takes_parents, dependencies=["p"], pass_parent_results=False),
            Job("a", jobs.takes_parents, {"parent_results": 1}, dependencies=["p"],
                pass_parent_results=True),
        ],
    )  # fmt: skip
    def test_that_do_not_fit_are_refused(self, job):
        with pytest.raises(InvalidParameters, match="parent_results"):
            stored(job)


class TestRetry:
    def test_sets_attempts_and_delay(self):
        job = Job("a", jobs.add, {"a": 1}, retry=Retry(7, timedelta(minutes=1), 2, 3600, 0.1))

        policy = JobOptions.from_json(stored(job).options).retry
        assert (job.max_attempts, job.retry_delay) == (7, timedelta(minutes=1))
        assert (policy.delay_us, policy.backoff, policy.max_delay_us, policy.jitter) == (
            60_000_000, 2.0, 3_600_000_000, 0.1,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "value"), [("max_attempts", 3), ("retry_delay", 0), ("max_attempts", 9)]
    )
    def test_is_refused_beside_what_it_says_already(self, name, value):
        """Also when both say the same: who reads the line must not have to know which one counts."""
        with pytest.raises(InvalidJob) as refusal:
            Job("a", jobs.add, retry=Retry(3), **{name: value})
        assert str(refusal.value) == (
            f"{name} is {value}: retry= says it already. Give one of the two."
        )

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("max_attempts", 5, "max_attempts is 5: retry says another number. Change retry."),
            ("retry_delay", 5, "retry_delay is 5: retry says another delay. Change retry."),
            ("retry", 5, "retry is 5, of type int; it must be a Retry."),
        ],
    )
    def test_is_refused_when_it_was_contradicted_later(self, name, value, said):
        job = Job("a", jobs.add, {"a": 1}, retry=Retry(3, 2))
        setattr(job, name, value)

        with pytest.raises(InvalidJob) as refusal:
            stored(job)
        assert str(refusal.value) == f"Job 'a': {said}"

    def test_may_be_set_later(self):
        job = Job("a", jobs.add, {"a": 1})
        job.retry = Retry(9, 5)

        assert stored(job).max_attempts == 9
        assert JobOptions.from_json(stored(job).options).retry.delay_us == 5_000_000

    @pytest.mark.parametrize(
        "values",
        [
            {"attempts": 0}, {"attempts": True}, {"attempts": 1_001}, {"delay": -1}, {"backoff": 0.5},
            {"backoff": float("nan")}, {"backoff": "2"}, {"backoff": 1_001}, {"jitter": 1.5},
            {"jitter": -0.1}, {"jitter": True}, {"max_delay": 5, "delay": 10}, {"max_delay": -1},
            {"max_delay": float("inf")}, {"max_delay": "5"},
        ],
    )  # fmt: skip
    def test_refuses_what_cannot_be_meant(self, values):
        name, value = next(iter(values.items()))

        with pytest.raises(InvalidJob) as refusal:
            Retry(**values)
        assert str(refusal.value).startswith(f"{name} is {value!r}")

    @pytest.mark.parametrize(
        "values",
        [
            {"attempts": 1}, {"attempts": 1_000}, {"delay": 0}, {"backoff": 1}, {"backoff": 1_000},
            {"jitter": 0}, {"jitter": 1}, {"delay": 10, "max_delay": 10}, {"max_delay": 0},
            {"max_delay": timedelta(hours=1)},
        ],
    )  # fmt: skip
    def test_lets_through_what_can_be_meant(self, values):
        policy = Retry(**values).policy()

        assert (policy.backoff, policy.jitter) == (
            values.get("backoff", 1),
            values.get("jitter", 0),
        )
        assert type(policy.backoff) is type(policy.jitter) is float


class TestValuesThatExcludeEachOther:
    def test_run_at_and_delay(self):
        with pytest.raises(InvalidJob, match="run_at is given as well"):
            Job("a", jobs.add, run_at="2030-01-01", delay=5)

    def test_a_memory_limit_on_threads(self):
        """A limit that the chosen executor cannot keep is refused, not ignored."""
        with pytest.raises(InvalidJob, match="executor='process'"):
            Job("a", jobs.add, executor="thread", memory_limit=1 << 30)

    def test_an_expiry_before_the_start(self):
        with pytest.raises(InvalidJob, match="expires"):
            Job("a", jobs.add, delay=60, expires=30)
        with pytest.raises(InvalidJob, match="expires"):
            Job("a", jobs.add, run_at="2030-01-02", expires="2030-01-01")


class TestWhatIsStored:
    def test_says_all_that_was_asked_for(self):
        job = Job(
            "a", jobs.takes_anything, {"x": 1}, 5, ["p"], queue="mail", delay=2.5, tags=["t", "u"],
            unique_key="k", expires=timedelta(hours=1), on_parent_failure="hold", timeout=1.5,
            metadata={"m": 1}, executor="process", memory_limit=1 << 30, description="d",
        )  # fmt: skip

        new = stored(job)

        options = JobOptions.from_json(new.options)
        assert (new.id, new.name, new.queue, new.priority, new.tags) == (
            job.id, "a", "mail", 5, ("t", "u"),
        )  # fmt: skip
        assert (new.delay_us, new.expires_in_us, new.unique_key) == (2_500_000, 3_600_000_000, "k")
        assert (new.run_at_us, new.expires_us) == (None, None)
        assert new.on_parent_failure is ParentFailure.HOLD
        assert (options.timeout_us, options.metadata, options.executor) == (
            1_500_000,
            {"m": 1},
            "process",
        )
        assert (options.memory_limit, options.description) == (1 << 30, "d")

    def test_reads_a_date_without_offset_as_local_time(self):
        naive = datetime(2030, 6, 1, 12)

        new = stored(Job("a", jobs.add, {"a": 1}, run_at=naive, expires=naive + timedelta(days=1)))

        assert new.run_at_us == int(naive.timestamp() * 1_000_000)
        assert new.expires_us == new.run_at_us + 86_400_000_000

    def test_keeps_no_timeout_apart_from_the_default(self):
        assert (
            JobOptions.from_json(
                stored(Job("a", jobs.add, {"a": 1}, timeout=None)).options
            ).timeout_us
            is None
        )

    def test_rounds_no_delay_down_to_nothing(self):
        assert stored(Job("a", jobs.add, {"a": 1}, delay=1e-9)).delay_us == 1


class Remembering(Serializer):
    """Notes what it was bound to, and can carry nothing that holds "bad"."""

    name = "remembering"
    safe = True
    bindings: ClassVar[list[Binding]] = []

    def dumps(self, value):
        if "bad" in value:
            raise SerializationError("too bad", '["bad"]')
        return b"bytes"

    def loads(self, data):
        return {}

    def bound(self, binding):
        self.bindings.append(binding)
        return self


class TestWhatASerializerIsTold:
    def test_is_all_that_a_signature_covers(self):
        job = Job("a", jobs.add, {"a": 1}, queue="mail", serializer=Remembering)

        new = stored(job)

        assert new.params == Payload("remembering", b"bytes")
        assert Remembering.bindings[-1] == Binding("mail", job.id, "tests.unit.jobs:add", "params")

    def test_refuses_is_told_with_job_and_path(self):
        """Whatever the serializer called the root of the value."""
        job = Job("odd", jobs.takes_anything, {"bad": 1}, serializer=Remembering())

        with pytest.raises(SerializationError) as refusal:
            stored(job)
        assert refusal.value.path == 'params["bad"]'
        assert str(refusal.value) == """Job 'odd' cannot be submitted: params["bad"]: too bad"""


class TestAPlainJob:
    def test_is_stored_with_its_defaults(self):
        job = Job("a", jobs.add, {"a": 1})
        job.workflow = "w"

        new = stored(job)

        assert new == NewJob(
            job.id, "a", "tests.unit.jobs:add", Payload("json", b'{"a":1}'), workflow="w",
            options=JobOptions(timeout_us=300_000_000).to_json(), created_us=new.created_us,
        )  # fmt: skip
        assert timestamp(new.created_us) == job.created_at

    @pytest.mark.parametrize(
        "options",
        [
            {"description": "d"}, {"metadata": {"m": 1}}, {"pass_parent_results": True},
            {"pass_parent_results": False}, {"executor": "thread"},
        ],
    )  # fmt: skip
    def test_is_stored_with_each_option_by_itself(self, options):
        found = JobOptions.from_json(stored(Job("a", jobs.add, {"a": 1}, **options)).options)

        assert found == JobOptions(timeout_us=300_000_000, **options)

    def test_with_a_date_has_no_delay(self):
        new = stored(Job("a", jobs.add, {"a": 1}, run_at="2030-01-01"))

        assert (new.delay_us, new.expires_us, new.expires_in_us) == (0, None, None)
        assert JobOptions.from_json(new.options).timeout_us == 300_000_000

    @pytest.mark.parametrize("by", ["class", "instance", "name"])
    def test_names_its_executor(self, by):
        """Only the name is stored, however it was chosen."""
        instance = plugins.executor("thread")
        choice = {"class": type(instance), "instance": instance, "name": "thread"}[by]

        job = stored(Job("a", jobs.add, {"a": 1}, executor=choice))
        assert JobOptions.from_json(job.options).executor == "thread"

    @pytest.mark.parametrize(
        ("start", "end", "fits"),
        [
            ({"delay": 60}, 60, False), ({"delay": 60}, 61, True), ({}, 1e-6, True),
            ({"run_at": "2030-01-02"}, "2030-01-02", False),
            ({"run_at": "2030-01-02"}, "2030-01-02T00:00:01", True), ({"delay": 60}, "2990-01-01", True),
        ],
    )  # fmt: skip
    def test_expires_after_its_start_or_never_starts(self, start, end, fits):
        if fits:
            stored(Job("a", jobs.add, {"a": 1}, expires=end, **start))
            return
        with pytest.raises(InvalidJob, match=r"expires is .* never could"):
            Job("a", jobs.add, expires=end, **start)


def test_every_refusal_is_an_error_of_gigq():
    assert issubclass(InvalidJob, GigqError)
