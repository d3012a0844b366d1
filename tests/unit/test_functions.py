"""References to functions: what can be a job, and how it is found again."""

from __future__ import annotations

import functools
import math
import operator
import time
from pathlib import Path

import pytest

from gigq import functions
from gigq.errors import FunctionNotAllowed, FunctionNotFound, InvalidFunction
from tests.unit import jobs


def named_here():
    return "here"


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def undressed(function):
    def wrapper():
        return function()

    return wrapper


@decorated
def kept_its_name():
    return 1


@undressed
def lost_its_name():
    return 1


def replaced():
    return "old"


old_replaced = replaced


def replaced():
    return "new"


a_lambda = lambda: 1  # noqa: E731


async def numbers():
    yield 1


def make_closure():
    def inner():
        return 1

    return inner


class TestReference:
    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (named_here, "tests.unit.test_functions:named_here"),
            (jobs.add, "tests.unit.jobs:add"),
            (jobs.coroutine, "tests.unit.jobs:coroutine"),
            (kept_its_name, "tests.unit.test_functions:kept_its_name"),
            (time.sleep, "time:sleep"),
            (math.sqrt, "math:sqrt"),
            (print, "builtins:print"),
        ],
    )
    def test_leads_back_to_the_same_function(self, function, expected):
        """`module:name`, proved by following it."""
        found = functions.reference(function)

        assert found == expected
        assert functions.resolve(found) is function

    def test_of_a_tasks_own_function(self):
        """A `@task` takes the place of its function, which is still referred to by that place."""
        assert functions.reference(jobs.double.__wrapped__) == "tests.unit.jobs:double"

    @pytest.mark.parametrize(
        ("function", "why", "cure"),
        [
            (a_lambda, "lambda", 'serializer="cloudpickle"'),
            (make_closure(), "inside another function", 'serializer="cloudpickle"'),
            (jobs.Owner().method, "method", "Write a function"),
            (jobs.Owner.method, "method", "Write a function"),
            (jobs.Owner.static, "method", "Write a function"),
            ([].append, "method", "Write a function"),
            (jobs.generator, "generator", "Return a list"),
            (numbers, "generator", "Return a list"),
            (functools.partial(jobs.add, 1), "partial", "params"),
            (jobs.Caller(), "not a function", "Write a function"),
            (operator.itemgetter(1), "not a function", "Write a function"),
            (lost_its_name, "inside another function", "top level"),
            (old_replaced, "is not this function", "top level"),
            ("tests.unit.jobs:add", "must be callable", "str"),
            (None, "must be callable", "NoneType"),
        ],
    )
    def test_refuses_what_no_worker_could_find(self, function, why, cure):
        """The message says why, and what to do instead."""
        with pytest.raises(InvalidFunction) as refused:
            functions.reference(function)

        assert why in str(refused.value)
        assert cure in str(refused.value)
        assert isinstance(refused.value, TypeError)

    def test_refuses_a_function_whose_module_cannot_be_imported(self):
        """It may have been made by `exec`, or its `__module__` set by hand."""
        namespace = {"__name__": "no_such_module_anywhere"}
        exec("def made(): pass", namespace)

        with pytest.raises(InvalidFunction, match="no_such_module_anywhere"):
            functions.reference(namespace["made"])

    def test_survives_an_object_whose_repr_raises(self):
        """What is refused is named all the same."""

        class Rude:
            def __repr__(self):
                raise RuntimeError("no")

        with pytest.raises(InvalidFunction, match="repr raises RuntimeError"):
            functions.reference(Rude())


class TestResolve:
    @pytest.mark.parametrize(
        ("ref", "why"),
        [
            ("tests.unit.jobs:gone", "no function 'gone' any more"),
            ("tests.unit.no_such_module:f", "No module named"),
            ("tests.unit.jobs:Owner.static", "no reference"),
            ("tests.unit.jobs", "no reference"),
            (":f", "no reference"),
            ("", "no reference"),
            ("tests.unit.jobs:__name__", "is a str"),
            ("/nowhere/script.py:f", "cannot be read here"),
            ("script.py:f", "an absolute path"),
            ("tests.unit/../script.py:f", "an absolute path"),
            ("/srv/jobs/../../tmp/script.py:f", "without '..'"),
            ("..jobs:f", "cannot be found"),
        ],
    )
    def test_says_what_is_missing(self, ref, why):
        """The module, the name, or the shape of the reference itself."""
        with pytest.raises(FunctionNotFound, match=why) as refused:
            functions.resolve(ref)

        assert isinstance(refused.value, ImportError)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("raise SystemExit(0)", r"ended the program, as sys\.exit"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_survives_a_module_that_does_not_load(self, text, why, tmp_path, monkeypatch):
        """Not even one that ends the program: a worker would end with it."""
        (tmp_path / "does_not_load.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

        with pytest.raises(FunctionNotFound, match=why) as refused:
            functions.resolve("does_not_load:f")
        assert 'if __name__ == "__main__":' in str(refused.value)


class TestAllow:
    @pytest.mark.parametrize(
        "allow",
        [
            None,
            ["tests.unit.jobs"],
            ["tests.unit.jobs:add"],
            ["tests.unit.jobs:a*"],
            ["other", "tests.unit.*:add"],
        ],
    )
    def test_takes_what_is_named(self, allow):
        """A module stands for what it defines; a pattern follows `fnmatch`."""
        functions.check_named("tests.unit.jobs:add", allow)
        functions.check_allowed(jobs.add, "tests.unit.jobs:add", allow)

    @pytest.mark.parametrize(
        "allow", [[], ["tests.unit"], ["tests.unit.jobs:b*"], ["unit.jobs:add"]]
    )
    def test_refuses_the_rest(self, allow):
        """Before anything is imported."""
        with pytest.raises(FunctionNotAllowed, match=r"tests\.unit\.jobs:add"):
            functions.check_named("tests.unit.jobs:add", allow)

    def test_a_module_does_not_stand_for_what_it_imports(self):
        """`from x import y` in an allowed module opens nothing of x, unless y is named in full."""
        ref = "tests.unit.jobs:task"
        task = functions.resolve(ref)

        for allow in (["tests.unit.jobs"], ["tests.unit.jobs:*"]):
            with pytest.raises(FunctionNotAllowed, match="itself"):
                functions.check_allowed(task, ref, allow)
        functions.check_allowed(task, ref, [ref])

    def test_a_module_does_not_stand_for_its_classes(self):
        """Its functions are meant; a class must be named."""
        ref = "tests.unit.jobs:Owner"

        with pytest.raises(FunctionNotAllowed):
            functions.check_allowed(jobs.Owner, ref, ["tests.unit.jobs"])
        functions.check_allowed(jobs.Owner, ref, [ref])


class TestLoadingAScript:
    def test_submits_nothing(self):
        """Outside of a load nothing is refused."""
        functions.refuse_while_loading("submitting jobs")

    def test_is_a_matter_of_the_loading_thread_alone(self, monkeypatch):
        """What loads in one thread does not keep the others from submitting."""
        import threading

        functions._loading.path = Path("script.py")
        try:
            with pytest.raises(functions.ScriptActs, match=r"script\.py"):
                functions.refuse_while_loading("submitting jobs")
            passed = []
            other = threading.Thread(
                target=lambda: passed.append(functions.refuse_while_loading("submitting jobs"))
            )
            other.start()
            other.join()
        finally:
            functions._loading.path = None
        assert passed == [None]
