"""What an operator does at night: look, mend what is safe, and go back to bed."""

from __future__ import annotations

import os
import re
import time

from click.testing import CliRunner

from gigq.cli.root import gigq
from gigq.job import Job
from tests.faults import load_jobs, operator_jobs, witness
from tests.support import eventually


def gigq_on(path, *typed):
    return CliRunner().invoke(gigq, ["--db", str(path), *typed])


class TestTheDoctorAfterKilledWorkers:
    def test_mends_what_they_left_and_finds_nothing_of_it_again(
        self, queue, spawn_worker, tmp_path, sized, fault_case
    ):
        """P3: where no worker lives that would notice, `--fix` releases their jobs, and does no more."""
        rounds = sized(short=1, full=3, nightly=20)
        db, log = tmp_path / "jobs.db", tmp_path / "witness"
        ids = queue.submit_many(
            [Job(f"j{n}", load_jobs.work, {"log": str(log)}) for n in range(20)]
        )
        slowest = 0.0

        for number in range(rounds):
            name = f"hangs-{number}"
            ids.append(
                queue.submit(
                    Job(name, operator_jobs.hang_in_first_run, {"log": str(log)}, priority=9)
                )
            )
            worker = spawn_worker(worker_id=f"victim-{number}")
            eventually(lambda: any(line["job"] == ids[-1] for line in witness.read(log)), 20)
            worker.kill()
            assert "its process is gone" in gigq_on(db, "doctor").stdout
            began = time.monotonic()
            fixed = gigq_on(db, "doctor", "--fix")
            slowest = max(slowest, time.monotonic() - began)
            assert re.search(
                rf"Declared worker 'victim-{number}' .* Released \d+ jobs?\.", fixed.stdout
            ), fixed.stdout  # with what it had claimed ahead
            assert "victim" not in gigq_on(db, "doctor").stdout
            shown = gigq_on(db, "show", ids[-1]).stdout
            assert re.search(
                rf"worker 'victim-{number}' \(process {worker.pid} on .*its process is gone.*last seen "
                rf"\d{{4}}-.*before; declared dead by process {os.getpid()} on", " ".join(shown.split()),
            ), shown  # fmt: skip
        spawn_worker()
        eventually(lambda: queue.stats()["completed"] == len(ids), 60)

        ended, completed = witness.ends(queue)
        told = witness.tally(log, ids, ended, completed)
        fault_case.record(
            "doctor --fix after killed workers", "P3", faults=rounds, jobs=told.jobs, lost=told.lost,
            doubled=told.doubled, overlapping=told.overlapping, refused=None, recovery_s=slowest,
        )  # fmt: skip
        assert (told.lost, told.doubled, told.overlapping) == (0, 0, 0)
        assert told.repeated == rounds
