"""Jobs that outlast a fault of the disk."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults import witness


def attend_until(log, release):
    """Works, as the witness sees, until a file appears."""
    with witness.attended(log):
        while not Path(release).exists():
            time.sleep(0.01)
    return "done"
