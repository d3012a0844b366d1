"""Workflow: a graph of jobs, described step by step and submitted whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gigq.checks import JOB
from gigq.errors import InvalidJob
from gigq.job import LONGEST_NAME, Job
from gigq.queue import JobQueue
from gigq.task import Task, checked_queue
from gigq.text import printable, shown

#: What Mermaid would read as syntax inside a quoted label, as its entity codes.
_ENTITIES = {ord(each): f"#{ord(each)};" for each in '#"<>&`\\'}

Stage = Job | Sequence[Job]


class Workflow:
    """Jobs that belong together.

    Attributes:
        name: Stored with each job; `list_jobs(workflow=name)` finds them.
        jobs: In the order added, which is the order of submission.
        job_map: The same by id.
    """

    def __init__(self, name: str) -> None:
        self.name = JOB.text("name", name, LONGEST_NAME)
        self.jobs: list[Job] = []
        self.job_map: dict[str, Job] = {}

    def __repr__(self) -> str:
        return f"Workflow({shown(self.name)}, {len(self.jobs)} jobs)"

    def add_job(self, job: Job, depends_on: Iterable[Job] | None = None) -> Job:
        """Add a job, and give it back.

        Args:
            depends_on: Jobs that must complete before, of this workflow or stored already; replaces
                the job's own `dependencies`. None leaves those as they are.

        Raises:
            InvalidJob: It was added already.
        """
        if not isinstance(job, Job):
            JOB.refuse_type("job", job, "a Job; for a @task use add_task")
        if job.id in self.job_map:
            JOB.refuse("job", job, f"it is in workflow {shown(self.name)} already.")
        if depends_on is not None:
            job.dependencies = _ids(depends_on)
        job.workflow = self.name
        self.jobs.append(job)
        self.job_map[job.id] = job
        return job

    def add_task(
        self,
        task: Task[..., Any],
        params: Mapping[str, Any] | None = None,
        depends_on: Iterable[Job] | None = None,
        pass_parent_results: bool | None = None,
    ) -> Job:
        """Add one call of a `@task`, and give its Job.

        Raises:
            InvalidJobType: It is a plain function.
            InvalidJob: As in `add_job`.
        """
        if not isinstance(task, Task):
            JOB.refuse_type("task", task, "a function with @task; for others use add_job(Job(…))")
        job = task.to_job(**({} if params is None else JOB.mapping("params", params)))
        if pass_parent_results is not None:
            job.pass_parent_results = pass_parent_results
        return self.add_job(job, depends_on)

    def chain(self, *stages: Stage) -> Job | Sequence[Job]:
        """Run stages one after the other: each a Job, or a list of Jobs that run side by side.

        Each job of a stage depends on all jobs of the one before, beside what it depends on already;
        a stage without jobs is passed over. Jobs that are not in the workflow are added.

        Returns:
            The last stage, to go on from.
        """
        if not stages:
            raise InvalidJob("chain() needs at least one job.")
        before: list[Job] = []
        for stage in stages:
            now = [stage] if isinstance(stage, Job) else _jobs(stage)
            for job in now:
                self._after(job, before)
            before = now or before
        return stages[-1]

    def fan_out(self, parent: Job, children: Sequence[Job]) -> Sequence[Job]:
        """Run all of `children` after `parent`, side by side; gives the children."""
        self.chain(parent, children)
        return children

    def fan_in(self, parents: Sequence[Job], child: Job) -> Job:
        """Run `child` after all of `parents`; gives the child."""
        self.chain(parents, child)
        return child

    def submit_all(self, queue: JobQueue) -> list[str]:
        """Submit all jobs, or none; their ids in the order added.

        Raises:
            DependencyCycle: Jobs wait for each other; names them. Nothing was stored.
            UnknownDependency: A job depends on one that is neither in the workflow nor stored.
        """
        return checked_queue(queue).submit_many(self.jobs)

    def mermaid(self) -> str:
        """The graph as Mermaid text, for a README or a page. Jobs of elsewhere are drawn rounded."""
        numbers = {job_id: f"j{number}" for number, job_id in enumerate(self.job_map)}
        lines = ["flowchart TD"]
        lines += [f'    {numbers[job.id]}["{_label(job.name)}"]' for job in self.jobs]
        edges = []
        for job in self.jobs:
            for parent in _parents(job):
                if parent not in numbers:
                    numbers[parent] = f"j{len(numbers)}"
                    lines.append(f'    {numbers[parent]}(["{_label(parent)}"])')
                edges.append(f"    {numbers[parent]} --> {numbers[job.id]}")
        return "\n".join([*lines, *edges]) + "\n"

    def _after(self, job: Job, parents: Sequence[Job]) -> None:
        if job.id not in self.job_map:
            self.add_job(job)
        known = _parents(job)
        job.dependencies = known + [each.id for each in parents if each.id not in known]


def _jobs(stage: object) -> list[Job]:
    """The jobs of a stage that run side by side."""
    if not isinstance(stage, Iterable):
        JOB.refuse_type("a stage", stage, "a Job, or a list of Jobs; for a @task use task.to_job()")
    jobs = list(stage)
    for job in jobs:
        if not isinstance(job, Job):
            JOB.refuse_type("a job of the workflow", job, "a Job; for a @task use task.to_job()")
    return jobs


def _ids(parents: object) -> list[str]:
    if isinstance(parents, Job | str) or not isinstance(parents, Iterable):
        JOB.refuse_type("depends_on", parents, "a list of Jobs")
    ids = []
    for parent in parents:
        if not isinstance(parent, Job):
            JOB.refuse_type(
                "an item of depends_on", parent, "a Job; name others in dependencies=[id]"
            )
        ids.append(parent.id)
    return ids


def _parents(job: Job) -> list[str]:
    return [each.id if isinstance(each, Job) else each for each in job.dependencies]


def _label(text: str) -> str:
    return printable(text, 80).translate(_ENTITIES)


__all__ = ["Workflow"]
