"""@task: the function stays what it is, and knows how to become a job."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle

import pytest

from gigq import (
    InvalidArgumentType,
    InvalidFunction,
    InvalidJob,
    InvalidParameters,
    Job,
    JobQueue,
    Retry,
    task,
)
from tests.unit import jobs


@pytest.fixture
def queue():
    with JobQueue("memory://test-task") as queue:
        yield queue


class TestATask:
    def test_is_called_as_ever(self):
        assert jobs.double(4) == 8
        assert jobs.greet("Ada", greeting="Hi") == "Hi, Ada"
        assert asyncio.run(jobs.later(3)) == 3

    def test_keeps_name_signature_and_documentation(self):
        assert jobs.double.__name__ == "double"
        assert jobs.double.__doc__ == "Twice the number."
        assert jobs.double.__module__ == "tests.unit.jobs"
        assert inspect.signature(jobs.double) == inspect.signature(jobs.double.__wrapped__)

    def test_has_the_function_behind_it(self):
        assert inspect.isfunction(jobs.double.__wrapped__)
        assert jobs.double.to_job(number=1).function is jobs.double.__wrapped__

    def test_is_pickled_by_name_as_functions_are(self):
        assert pickle.loads(pickle.dumps(jobs.double)) is jobs.double

    def test_can_be_decorated_with_empty_parentheses(self):
        assert task()(jobs.add)(1) == 3


class TestToJob:
    def test_has_the_options_of_the_task(self):
        job = jobs.greet.to_job(name="Ada")

        assert (job.name, job.priority, job.max_attempts, job.timeout) == ("greeter", 7, 5, 12.5)
        assert (job.retry_delay, job.description, job.params) == (3, "says hi", {"name": "Ada"})

    def test_is_named_after_the_function_by_default(self):
        assert jobs.double.to_job().name == "double"

    def test_needs_no_parameters_yet(self, queue):
        """They may follow until the submit, where they are compared with the signature."""
        job = jobs.double.to_job()

        with pytest.raises(InvalidParameters, match="missing 'number'"):
            queue.submit(job)
        job.params["number"] = 3
        assert queue.submit(job) == job.id

    def test_gives_a_new_job_each_time(self):
        assert jobs.double.to_job().id != jobs.double.to_job().id

    def test_takes_a_parameter_of_any_name(self):
        made = task(jobs.takes_anything)

        assert made.to_job(self=1, queue=2, name=3).params == {"self": 1, "queue": 2, "name": 3}


class TestSubmit:
    def test_gives_the_id(self, queue):
        job_id = jobs.double.submit(queue, number=3)

        assert queue.get_status(job_id)["params"] == {"number": 3}
        assert queue.get_status(job_id)["function_name"] == "double"

    def test_takes_parameters_of_the_same_name_as_its_own(self, queue):
        job_id = task(jobs.takes_anything).submit(queue, queue="mail", self=1)

        assert queue.get_status(job_id)["params"] == {"queue": "mail", "self": 1}

    def test_takes_arguments_by_position_too(self, queue):
        job_id = jobs.greet.submit(queue, "Ada", greeting="Hi")

        assert queue.get_status(job_id)["params"] == {"name": "Ada", "greeting": "Hi"}

    @pytest.mark.parametrize(
        ("args", "kwargs"), [((), {}), ((1, 2), {}), ((), {"numbr": 1}), ((1,), {"number": 1})]
    )
    def test_refuses_what_does_not_fit(self, queue, args, kwargs):
        with pytest.raises(InvalidParameters, match="double"):
            jobs.double.submit(queue, *args, **kwargs)
        assert queue.stats()["total"] == 0


class TestSubmitMany:
    def test_gives_one_id_per_mapping(self, queue):
        ids = jobs.double.submit_many(queue, [{"number": number} for number in range(3)])

        assert [queue.get_status(each)["params"]["number"] for each in ids] == [0, 1, 2]

    def test_stores_all_or_none(self, queue):
        with pytest.raises(InvalidParameters):
            jobs.double.submit_many(queue, [{"number": 1}, {"nmber": 2}])
        assert queue.stats()["total"] == 0

    def test_takes_an_empty_list(self, queue):
        assert jobs.double.submit_many(queue, []) == []

    @pytest.mark.parametrize("params", [{"number": 1}, "number", 5, [1]])
    def test_refuses_what_is_no_list_of_mappings(self, queue, params):
        with pytest.raises(InvalidArgumentType):
            jobs.double.submit_many(queue, params)


class TestDecorating:
    @pytest.mark.parametrize(
        ("function", "said"),
        [
            (lambda: 1, "lambda"), (jobs.generator, "generator"), (jobs.Owner.method, "method"),
            (staticmethod(jobs.add), "method"), (classmethod(jobs.add), "method"),
            (jobs.Owner, "class"), (jobs.double, "task already"), (5, "callable"),
            ("name", "callable"), (jobs.Caller(), "not a function"),
            (functools.partial(jobs.add, 1), "partial"),
        ],
    )  # fmt: skip
    def test_refuses_what_cannot_be_a_task(self, function, said):
        """A TypeError that says why, when the module is imported and not when a job runs."""
        with pytest.raises(InvalidFunction, match=said) as refusal:
            task(name="a")(function)
        assert isinstance(refusal.value, TypeError)

    def test_refuses_a_closure(self):
        def closure():
            return None

        with pytest.raises(InvalidFunction, match="cloudpickle"):
            task(closure)

    def test_refuses_methods_in_their_class(self):
        with pytest.raises(InvalidFunction):

            class Owner:
                @task
                @staticmethod
                def method():
                    return None

    def test_refuses_an_option_that_does_not_exist(self):
        with pytest.raises(TypeError, match="Did you mean 'priority'"):
            task(priorty=5)

    @pytest.mark.parametrize("option", ["params", "dependencies", "function", "run_at"])
    def test_refuses_what_belongs_to_one_call(self, option):
        with pytest.raises(TypeError, match=option):
            task(**{option: None})

    def test_checks_values_at_once(self):
        with pytest.raises(InvalidJob, match="priority"):
            task(priority="high")
        with pytest.raises(InvalidJob, match="retry= says it already"):
            task(retry=Retry(3), max_attempts=3)


def test_a_job_may_be_made_of_a_task_directly():
    assert Job("x", jobs.double).function is jobs.double.__wrapped__
