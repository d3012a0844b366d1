"""What is run while the wall clock jumps; and, as a program, somebody who submits it by another clock.

`python -m tests.faults.clock_jobs DB JSON` submits what the JSON lists (name, function, params, options)
and prints the ids. Everything here is timed by CLOCK_MONOTONIC, which no shim moves.
"""

from __future__ import annotations

import json
import sys
import time

from gigq.context import current_job
from gigq.job import Job
from gigq.queue import JobQueue
from tests.faults import witness


def work(log, seconds=0.0):
    """Gives a sign of life every 20 ms."""
    with witness.attended(log):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            witness.attend(log)
            time.sleep(0.02)
    return "worked"


def fail_first(log, times=1):
    with witness.attended(log):
        if current_job().attempt <= times:
            raise ValueError(f"attempt {current_job().attempt}")
    return "worked"


def main():
    db, wanted = sys.argv[1:]
    functions = {"work": work, "fail_first": fail_first}
    with JobQueue(db) as queue:
        ids = queue.submit_many(
            [
                Job(name, functions[function], params, **options)
                for name, function, params, options in json.loads(wanted)
            ]
        )
    print(json.dumps({"ids": ids, "at_ns": time.monotonic_ns(), "wall": time.time()}))


if __name__ == "__main__":
    main()
