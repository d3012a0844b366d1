"""The worker: claims jobs, runs them, and says how they went.

`worker.py` is the public class; `coordinator.py` the loop; `decisions.py` what it decides, as plain
functions; `crew.py` its executors; `keeper.py` guards the lease; `signals.py` INT and TERM.
"""

from __future__ import annotations

from gigq.worker.worker import Worker

__all__ = ["Worker"]
