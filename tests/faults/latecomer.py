"""A worker that stops itself between its jobs' ends and the report of them, and reports when it goes on:
`python -m tests.faults.latecomer DB LOG WANT LEASE`.

It calls the storage by hand, so that what it is answered can be counted; prints that as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from gigq.conformance.processes import join
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Completed, Want
from gigq.errors import SessionLost
from gigq.storages.sqlite import SqliteStorage
from tests.faults import witness


def main():
    db, log, want, lease = sys.argv[1:]
    storage = SqliteStorage(db)
    storage.open()
    session = join(storage, "latecomer", float(lease))
    runs = [claim.run for claim in storage.turn(session, want=Want((0,), int(want))).claims]
    for run in runs:
        for what in ("began", "ended"):
            witness.say(log, what=what, job=run.job_id, run=run.number, worker="latecomer")
    outcomes = [Completed(run, Payload("json", b'"late"')) for run in runs]

    os.kill(os.getpid(), signal.SIGSTOP)

    refused_with_session = 0
    try:
        storage.turn(session, outcomes)
    except SessionLost:
        refused_with_session = len(outcomes)
    # As nobody should: under a session that lives.
    stale = storage.turn(join(storage, "latecomer", float(lease)), outcomes).stale
    print(
        json.dumps({"runs": len(runs), "session lost": refused_with_session, "stale": len(stale)})
    )


if __name__ == "__main__":
    main()
