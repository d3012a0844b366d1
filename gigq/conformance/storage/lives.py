"""The life of jobs, generated."""

from __future__ import annotations

from gigq.conformance.storage.base import StorageCases


class LifecycleCases(StorageCases):
    """Filled below."""
