"""Jobs for what an operator does; worker processes import them from here."""

from __future__ import annotations

import time

from gigq.context import current_job
from tests.faults.witness import attend, attended


def hang_in_first_run(log):
    """Goes on until its worker is killed; the next run ends at once."""
    with attended(log):
        while current_job().run == 1:
            attend(log)
            time.sleep(0.02)
