"""Parents and children: a job starts after all that it depends on (P6)."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import RESULT, Hand, bring_to, job, one, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import Completed, JobStatus, ParentFailure, Phase, Storage

BAD_ENDS = [JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED]


class DependencyCases(StorageCases):
    """Edges that close."""

    @promise("P6")
    def test_a_child_is_blocked_until_its_parent_completed(
        self, storage: Storage, door: Storage
    ) -> None:
        """P6: not while the parent is pending or runs; and it says for whom it waits."""
        storage.add([job("parent"), job("child", "parent", priority=99)])
        hand = Hand(storage)
        assert one(door, "child").phase is Phase.BLOCKED
        assert one(door, "child").waiting_for == ("parent",)
        claim = hand.claim_one()
        assert claim.run.job_id == "parent"
        assert hand.claim() == []

        hand.complete(claim)

        assert (one(door, "child").phase, one(door, "child").waiting_for) == (Phase.READY, ())
        assert hand.claim_ids() == ["child"]

    @promise("P6")
    def test_a_completion_and_its_release_are_one_step(self, storage: Storage) -> None:
        """P6: the very turn that completes a parent may claim its child."""
        storage.add([job("parent"), job("child", "parent")])
        hand = Hand(storage)
        claim = hand.claim_one()

        turn = hand.turn(Completed(claim.run, RESULT), slots=1)

        assert [each.run.job_id for each in turn.claims] == ["child"]

    @promise("P6")
    def test_a_parent_that_is_tried_again_keeps_its_child_waiting(self, storage: Storage) -> None:
        """P6: only the end of the parent counts."""
        storage.add([job("parent"), job("child", "parent")])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=0)

        assert one(storage, "child").phase is Phase.BLOCKED
        assert hand.run_all() == ["parent", "child"]

    @promise("P6")
    def test_a_parent_that_is_named_twice_counts_once(self, storage: Storage) -> None:
        """P6: its one end is enough; its result comes where it was named."""
        storage.add([job("parent"), job("child", "parent", "parent", wants_parents=True)])
        hand = Hand(storage)
        hand.complete(hand.claim_one())

        claim = hand.claim_one()
        (payload,) = storage.payloads(hand.session, [claim.run])
        assert dict(payload.parents) == {"parent": RESULT}

    @promise("P6")
    def test_several_parents_may_finish_in_one_turn(self, storage: Storage) -> None:
        """P6: the child is released once, when the last of them is through."""
        storage.add([job("a"), job("b"), job("c"), job("child", "a", "b", "c")])
        hand = Hand(storage, slots=3)
        a, b, c = hand.claim()
        hand.complete(a)
        assert one(storage, "child").waiting_for == ("b", "c")

        hand.complete(c, b)

        assert hand.claim_ids() == ["child"]

    @promise("P6")
    def test_a_diamond_joins_after_both_arms(self, storage: Storage) -> None:
        """P6: top, arms, bottom; the bottom once."""
        storage.add([job("top"), job("l", "top"), job("r", "top"), job("bottom", "l", "r")])
        hand = Hand(storage)

        assert hand.run_all() == ["top", "l", "r", "bottom"]

    @promise("P6")
    def test_a_parent_may_stand_in_an_earlier_call(self, storage: Storage, door: Storage) -> None:
        """P6: children may come later, and while the parent runs."""
        storage.add([job("parent")])
        hand = Hand(storage)
        claim = hand.claim_one()
        door.add([job("child", "parent")])
        assert hand.claim() == []

        hand.complete(claim)

        assert hand.claim_ids() == ["child"]

    @promise("P6")
    def test_a_completed_parent_leaves_the_others_to_be_waited_for(self, storage: Storage) -> None:
        """P6: a child that comes later waits for the parent that is unfinished, and for it alone."""
        storage.add([job("done"), job("open")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        storage.add([job("child", "done", "open")])

        assert one(storage, "child").waiting_for == ("open",)
        assert hand.run_all() == ["open", "child"]

    @promise("P6")
    def test_a_thousand_children_are_released_at_once(self, storage: Storage) -> None:
        """P6: fan-out in one step, in order."""
        children = [f"c{number}" for number in range(1_000)]
        storage.add([job("parent"), *(job(name, "parent") for name in children)])
        hand = Hand(storage)
        hand.complete(hand.claim_one())

        assert hand.claim_ids(1_000) == children

    @promise("P6")
    def test_a_thousand_parents_release_one_child(self, storage: Storage) -> None:
        """P6: fan-in, the last of them counts."""
        parents = [f"p{number}" for number in range(1_000)]
        storage.add([*(job(name) for name in parents), job("child", *parents)])
        hand = Hand(storage)
        claims = hand.claim(1_000)
        hand.complete(*claims[:-1])
        assert one(storage, "child").phase is Phase.BLOCKED
        hand.complete(claims[-1])

        assert hand.claim_ids() == ["child"]

    def test_a_blocked_job_keeps_its_own_delay(self, storage: Storage, clock: ManualClock) -> None:
        """Both have to be over; the delay counts from the submit."""
        storage.add([job("parent"), job("child", "parent", delay_us=us(60))])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        assert one(storage, "child").phase is Phase.SCHEDULED
        clock.advance(61)

        assert hand.claim_ids() == ["child"]


class ParentFailureCases(StorageCases):
    """What a parent's bad end makes of its children: `on_parent_failure`."""

    @promise("P6")
    @pytest.mark.parametrize("end", BAD_ENDS)
    def test_a_bad_end_cancels_the_whole_branch(
        self, storage: Storage, door: Storage, end: JobStatus
    ) -> None:
        """P6: in the same step, all the way down; each names the parent that ended it."""
        storage.add([job("top"), job("a", "top"), job("b", "a"), job("c", "b"), job("free")])
        free = storage.get(["free"])
        bring_to(storage, "top", end)

        assert status(door, "top", "a", "b", "c") == [end] + [JobStatus.CANCELLED] * 3
        assert [one(door, name).cancelled_by for name in "abc"] == ["top", "a", "b"]
        error = one(door, "a").error
        assert error is not None
        assert error.type == "parent"
        assert "'top' (top)" in error.message
        said = {"failed": "failed", "timeout": "timed out", "cancelled": "was cancelled"}
        assert said[end] in error.message
        assert one(door, "c").completed_us is not None
        assert door.get(["free"]) == free

    @promise("P6")
    @pytest.mark.parametrize("end", BAD_ENDS)
    def test_hold_waits_and_shows(self, storage: Storage, end: JobStatus) -> None:
        """P6: pending, held, and nobody claims it."""
        storage.add([job("parent"), job("child", "parent", on_parent_failure=ParentFailure.HOLD)])
        bring_to(storage, "parent", end)

        record = one(storage, "child")
        assert (record.status, record.phase) == (JobStatus.PENDING, Phase.HELD)
        assert record.waiting_for == ("parent",)
        assert Hand(storage).claim() == []

    @pytest.mark.parametrize("end", BAD_ENDS)
    def test_run_runs_all_the_same(self, storage: Storage, end: JobStatus) -> None:
        """Once all parents have ended, well or badly."""
        fields = {"on_parent_failure": ParentFailure.RUN}
        storage.add([job("parent"), job("other"), job("child", "parent", "other", **fields)])
        bring_to(storage, "parent", end)

        assert one(storage, "child").waiting_for == ("other",)
        assert Hand(storage).run_all() == ["other", "child"]

    @promise("P6")
    def test_one_bad_parent_is_enough(self, storage: Storage) -> None:
        """P6: the branch ends at once, and the other parent goes on."""
        storage.add([job("bad"), job("good"), job("child", "good", "bad")])
        storage.cancel(["bad"])

        assert status(storage, "child", "good") == [JobStatus.CANCELLED, JobStatus.PENDING]
        assert one(storage, "child").cancelled_by == "bad"
        assert Hand(storage).run_all() == ["good"]
        assert status(storage, "child") == [JobStatus.CANCELLED]

    @promise("P6")
    def test_a_held_child_stays_held_when_its_other_parents_complete(
        self, storage: Storage
    ) -> None:
        """P6: one bad parent holds it, however many good ones there are and whoever comes last."""
        hold = {"on_parent_failure": ParentFailure.HOLD}
        storage.add(
            [job("good"), job("bad"), job("last"), job("child", "good", "bad", "last", **hold)]
        )
        bring_to(storage, "good", JobStatus.COMPLETED)
        bring_to(storage, "bad", JobStatus.FAILED)
        bring_to(storage, "last", JobStatus.COMPLETED)

        assert one(storage, "child").phase is Phase.HELD
        assert one(storage, "child").waiting_for == ("bad",)
        assert Hand(storage).claim() == []

    @promise("P6")
    def test_a_held_child_holds_its_own_children(self, storage: Storage) -> None:
        """P6: it has not ended."""
        hold = {"on_parent_failure": ParentFailure.HOLD}
        storage.add([job("a"), job("b", "a", **hold), job("c", "b")])
        storage.cancel(["a"])

        assert one(storage, "c").phase is Phase.BLOCKED

    @promise("P6")
    def test_a_wide_and_deep_branch_ends_in_one_step(self, storage: Storage) -> None:
        """P6: neither depth nor width is a limit."""
        chain = [job("0"), *(job(str(n), str(n - 1)) for n in range(1, 1_500))]
        fan = [job(f"f{n}", "0") for n in range(1_500)]
        storage.add(chain + fan)
        storage.cancel(["0"])

        assert storage.counts() == {"default": {JobStatus.CANCELLED: 3_000}}

    @promise("P6")
    @pytest.mark.parametrize("end", BAD_ENDS)
    def test_a_job_added_late_changes_nothing_for_its_siblings(
        self, storage: Storage, end: JobStatus
    ) -> None:
        """P6: they have been told of that end, and wait for their other parent as before."""
        storage.add([job("bad"), job("open", priority=-1)])
        policies = [ParentFailure.RUN, ParentFailure.HOLD]
        storage.add([job(each, "bad", "open", on_parent_failure=each) for each in policies])
        bring_to(storage, "bad", end)
        before = storage.get(policies)
        storage.add([job("late", "bad", on_parent_failure=ParentFailure.RUN)])

        assert storage.get(policies) == before
        assert Hand(storage).run_all() == ["late", "open", "run"]
        assert one(storage, "hold").phase is Phase.HELD

    @promise("P6")
    @pytest.mark.parametrize("end", [*BAD_ENDS, JobStatus.COMPLETED])
    def test_a_job_added_late_is_what_the_end_would_have_made_of_it(
        self, storage: Storage, end: JobStatus
    ) -> None:
        """P6: under an ended parent `add` does at once what that end would have done."""
        storage.add([job("parent")])
        bring_to(storage, "parent", end)

        policies = list(ParentFailure)
        storage.add([job(each, "parent", on_parent_failure=each) for each in policies])
        storage.add([job("grandchild", "cancel")])

        phases = {each: one(storage, each).phase for each in policies}
        if end is JobStatus.COMPLETED:
            assert set(phases.values()) == {Phase.READY}
            return
        assert phases == {"cancel": Phase.ENDED, "hold": Phase.HELD, "run": Phase.READY}
        assert one(storage, "cancel").cancelled_by == "parent"
        assert status(storage, "cancel", "grandchild") == [JobStatus.CANCELLED] * 2
        assert one(storage, "grandchild").cancelled_by == "cancel"
