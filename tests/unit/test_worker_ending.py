"""How a worker ends that owns its process, beside runs that will not stop."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from gigq.worker import Worker


class TestAWorkerThatEndsItsProcess:
    def test_leaves_last_of_all(self, monkeypatch):
        """P5: whatever may take long, such as a slow reader of its output, comes before it lets go of its
        jobs: from then on others may run them."""
        done = []
        worker = Worker("memory://", owns_process=True)
        worker._lingering.append(SimpleNamespace(leave=lambda: done.append("left")))
        for stream in ("stdout", "stderr"):
            flush = SimpleNamespace(flush=lambda stream=stream: done.append(stream))
            monkeypatch.setattr(sys, stream, flush)
        monkeypatch.setattr(os, "_exit", done.append)

        worker._end_process(3)

        monkeypatch.undo()
        assert done == ["stdout", "stderr", "left", 3]
