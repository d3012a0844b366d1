"""The life of jobs, generated (see `gigq.conformance.lifecycle`)."""

from __future__ import annotations

from typing import ClassVar

from gigq.conformance.kit import promise
from gigq.conformance.lifecycle import live
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.sessions import a_dead_process, facts_of_this_process
from gigq.liveness import this_process


class LifecycleCases(StorageCases):
    """A storage and the model, side by side through invented stories."""

    #: How many stories are invented, and how long each may be; more find more and take longer.
    stories: ClassVar[int] = 40
    steps: ClassVar[int] = 40
    #: Whether a failing story is made as short as it can be; without, it is told as it was found.
    shrinks: ClassVar[bool] = True

    @promise("P3", "P4", "P5", "P6", "P7", "P8")
    def test_the_life_of_jobs_is_that_of_the_model(self) -> None:
        """P3 to P8: after each step of each story the storage says what the document says."""
        knows_neighbours = None not in (this_process().boot_id, this_process().pid_namespace)
        dead = facts_of_this_process(pid=a_dead_process(), pid_started=1)

        live(
            self.make_storage,
            self.reopen,
            dead if knows_neighbours else None,
            stories=self.stories,
            steps=self.steps,
            shrinks=self.shrinks,
        )
