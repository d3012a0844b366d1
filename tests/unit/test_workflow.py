"""Workflow: a graph described step by step and submitted whole."""

from __future__ import annotations

import re

import pytest

from gigq import (
    DependencyCycle,
    InvalidJob,
    InvalidJobType,
    Job,
    JobQueue,
    UnknownDependency,
    Workflow,
)
from tests.unit import jobs


@pytest.fixture
def queue():
    with JobQueue("memory://test-workflow") as queue:
        yield queue


@pytest.fixture
def workflow():
    return Workflow("nightly")


def job(name):
    return Job(name, jobs.takes_anything)


class TestAddJob:
    def test_gives_the_job_back_and_keeps_it(self, workflow):
        first = job("first")

        assert workflow.add_job(first) is first
        assert workflow.jobs == [first]
        assert workflow.job_map == {first.id: first}

    def test_replaces_dependencies(self, workflow):
        first = workflow.add_job(job("first"))
        second = workflow.add_job(
            Job("second", jobs.add, dependencies=["other"]), depends_on=[first]
        )
        third = workflow.add_job(Job("third", jobs.add, dependencies=["other"]))
        fourth = workflow.add_job(Job("fourth", jobs.add, dependencies=["other"]), depends_on=[])

        assert (second.dependencies, third.dependencies, fourth.dependencies) == (
            [first.id],
            ["other"],
            [],
        )

    def test_takes_parents_that_are_stored_or_come_later(self, workflow, queue):
        """What was forgotten is refused where everything is known: at the submit."""
        stored, later, forgotten = job("stored"), job("later"), job("forgotten")
        queue.submit(stored)
        child = workflow.add_job(job("child"), depends_on=[stored, later])
        workflow.add_job(later)
        assert workflow.submit_all(queue) == [child.id, later.id]

        other = Workflow("other")
        other.add_job(job("a"), depends_on=[forgotten])
        with pytest.raises(UnknownDependency, match=forgotten.id):
            other.submit_all(queue)

    def test_refuses_the_same_job_twice(self, workflow):
        first = workflow.add_job(job("first"))

        with pytest.raises(InvalidJob, match="already"):
            workflow.add_job(first)

    @pytest.mark.parametrize("depends_on", ["id", 5, [5], ["id"]])
    def test_refuses_parents_that_are_no_jobs(self, workflow, depends_on):
        with pytest.raises(InvalidJobType):
            workflow.add_job(job("a"), depends_on=depends_on)

    def test_refuses_what_is_no_job(self, workflow):
        with pytest.raises(InvalidJobType, match="add_task"):
            workflow.add_job(jobs.double)


class TestAddTask:
    def test_gives_the_new_job(self, workflow):
        first = workflow.add_task(jobs.double, {"number": 1})
        second = workflow.add_task(
            jobs.greet, {"name": "a"}, depends_on=[first], pass_parent_results=False
        )

        assert (first.name, first.params, second.dependencies) == (
            "double",
            {"number": 1},
            [first.id],
        )
        assert (second.pass_parent_results, second.priority) == (False, 7)

    def test_refuses_a_plain_function(self, workflow):
        with pytest.raises(TypeError, match="add_job"):
            workflow.add_task(jobs.add)


class TestChain:
    def test_runs_one_after_the_other(self, workflow):
        a, b, c = job("a"), job("b"), job("c")

        assert workflow.chain(a, b, c) is c
        assert (a.dependencies, b.dependencies, c.dependencies) == ([], [a.id], [b.id])
        assert workflow.jobs == [a, b, c]

    def test_takes_stages_that_run_side_by_side(self, workflow):
        a, b, c, d = job("a"), job("b"), job("c"), job("d")

        workflow.chain(a, [b, c], d)

        assert (b.dependencies, c.dependencies, d.dependencies) == ([a.id], [a.id], [b.id, c.id])

    def test_adds_to_what_a_job_depends_on_already(self, workflow):
        a, b, c = job("a"), job("b"), job("c")
        workflow.chain(a, c)
        workflow.chain(b, c)
        workflow.chain(b, c)

        assert c.dependencies == [a.id, b.id]

    def test_spells_fan_out_and_fan_in(self, workflow):
        a, b, c, d = job("a"), job("b"), job("c"), job("d")

        assert workflow.fan_in(workflow.fan_out(a, [b, c]), d) is d

        assert (b.dependencies, c.dependencies, d.dependencies) == ([a.id], [a.id], [b.id, c.id])

    def test_goes_past_a_stage_without_jobs(self, workflow):
        """As when the list of parts happens to be empty: the last still waits for the first."""
        first, last = job("first"), job("last")

        workflow.chain(first, [], last)

        assert last.dependencies == [first.id]

    @pytest.mark.parametrize("stage", [None, jobs.double, 5, [5], "text"])
    def test_refuses_stages_that_are_none(self, workflow, stage):
        with pytest.raises(InvalidJobType, match="a Job"):
            workflow.chain(stage)

    def test_refuses_nothing_and_strangers(self, workflow):
        with pytest.raises(InvalidJob):
            workflow.chain()
        with pytest.raises(InvalidJobType, match="to_job"):
            workflow.chain(job("a"), [jobs.double])


class TestSubmitAll:
    def test_gives_ids_in_the_order_added(self, workflow, queue):
        a, b = workflow.add_job(job("a")), workflow.add_job(job("b"))
        workflow.chain(b, a)

        assert workflow.submit_all(queue) == [a.id, b.id]
        assert [each["name"] for each in queue.list_jobs(workflow="nightly")] == ["b", "a"]
        assert queue.explain(a.id).phase == "blocked"

    def test_stores_all_or_none(self, workflow, queue):
        """P2: one job that cannot be stored, and none is."""
        workflow.chain(job("a"), Job("b", jobs.add))

        with pytest.raises(InvalidJob):
            workflow.submit_all(queue)
        assert queue.stats()["total"] == 0

    def test_names_a_cycle(self, workflow, queue):
        a, b, c = job("ay"), job("bee"), job("sea")
        workflow.chain(a, b, c, a)

        with pytest.raises(DependencyCycle) as refusal:
            workflow.submit_all(queue)
        assert {"'ay'", "'bee'", "'sea'"} <= set(re.findall(r"'\w+'", str(refusal.value)))
        assert set(refusal.value.job_ids) == {a.id, b.id, c.id}
        assert queue.stats()["total"] == 0

    def test_names_a_job_that_depends_on_itself(self, workflow, queue):
        a = workflow.add_job(job("ay"))
        a.dependencies = [a.id]

        with pytest.raises(DependencyCycle, match="'ay'"):
            workflow.submit_all(queue)

    def test_refuses_a_parent_that_is_nowhere(self, workflow, queue):
        workflow.add_job(Job("a", jobs.add, {"a": 1}, dependencies=[job("forgotten")]))

        with pytest.raises(UnknownDependency):
            workflow.submit_all(queue)

    def test_of_nothing_stores_nothing(self, workflow, queue):
        assert workflow.submit_all(queue) == []


class TestMermaid:
    def test_draws_the_graph(self, workflow):
        a, b = job("load"), Job("report", jobs.takes_anything, dependencies=["0198-elsewhere"])
        workflow.chain(a, b)

        assert workflow.mermaid() == (
            "flowchart TD\n"
            '    j0["load"]\n'
            '    j1["report"]\n'
            '    j2(["0198-elsewhere"])\n'
            "    j2 --> j1\n"
            "    j0 --> j1\n"
        )

    def test_escapes_what_would_be_syntax(self, workflow):
        workflow.add_job(job('"] --> evil["<b>#amp;\n'))

        drawn = workflow.mermaid()
        assert drawn.count("-->") == 0
        assert drawn.count('"') == 2
        assert "<" not in drawn
        assert len(drawn.splitlines()) == 2


@pytest.mark.parametrize("name", ["", None, 5, "x" * 1_001])
def test_a_workflow_needs_a_name(name):
    with pytest.raises(InvalidJob):
        Workflow(name)
