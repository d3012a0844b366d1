"""The texts that a storage keeps and never reads: options, errors, moments and workers."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gigq.contracts.storage import ErrorInfo, JobOptions
from gigq.storages.sqlite.schema import retention_from_json
from gigq.storages.sqlite.sessions import _worker
from gigq.text import timestamp
from gigq.worker.decisions import TEN_YEARS_US, orders_of, retry_delay_us

FIELDS = ["timeout_us", "memory_limit", "executor", "by_value", "description", "metadata", "retry",
          "pass_parent_results", "no_such"]  # fmt: skip
RETRY = ["delay_us", "backoff", "max_delay_us", "jitter", "no_such"]
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2), st.just({}), st.sampled_from([10**400, -(10**400), 2**63]),
)  # fmt: skip
options = st.dictionaries(
    st.sampled_from(FIELDS),
    st.one_of(values, st.dictionaries(st.sampled_from(RETRY), values, max_size=3)),
    max_size=4,
)
#: What reading a text that is not gigq's may raise; whoever reads says what becomes of it.
REFUSALS = (ValueError, TypeError, RecursionError)
COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


class TestOptions:
    def test_are_refused_or_of_use(self, sized):
        """Whatever is taken can be used: as a deadline, a limit, and for any number of retries."""

        @settings(max_examples=sized(short=400, full=800, nightly=100_000), **COMMON)
        @given(options, st.integers(1, 1_000), st.floats(0, 1))
        def holds(fields, attempt, uniform):
            try:
                orders = orders_of(json.dumps(fields))
            except REFUSALS:
                return
            assert 0 <= (orders.timeout_us or 0) <= TEN_YEARS_US
            assert 0 <= (orders.memory_limit or 0) < 2**63
            assert 0 <= retry_delay_us(orders.retry, attempt, lambda: uniform) <= TEN_YEARS_US

        holds()

    @pytest.mark.parametrize(
        "fields",
        [
            {"retry": {"delay_us": 1, "jitter": float("nan")}}, {"retry": {"backoff": float("inf")}},
            {"retry": {"delay_us": -1}}, {"retry": {"backoff": 0.5}}, {"retry": {"jitter": 2}},
            {"timeout_us": -1}, {"timeout_us": 10**30}, {"timeout_us": True}, {"memory_limit": 2**80},
            {"metadata": []}, {"description": 1}, {"executor": ["process"]}, {"by_value": 1},
        ],
    )  # fmt: skip
    def test_that_nobody_could_use_are_refused(self, fields):
        """A delay that is not a number ended every worker that met it."""
        with pytest.raises(ValueError, match="not what gigq writes"):
            JobOptions.from_json(json.dumps(fields))


class TestTexts:
    @pytest.mark.parametrize(
        "text",
        ["", "x", "1", "[]", "{}", "null", "[1, 2, 3, 4]", '["a", "b", "c", [["d"]]]', "[" * 100_000,
         '{"completed": -1}', '{"completed": 1e999}', '{"running": 1}', '{"x": 1}', '{"takes": 1}'],
    )  # fmt: skip
    def test_that_are_no_json_of_ours_are_told_apart(self, text):
        """An error, a retention and a worker that cannot be read: none of them ends its reader."""
        with suppress(*REFUSALS):
            ErrorInfo.from_json(text)
        assert retention_from_json(text) == {}
        assert _worker(text).worker_id == "(unreadable)"

    @pytest.mark.parametrize("instant", [0, 2**63 - 1, -(2**63), 10**40, 253_402_300_799_999_999])
    def test_of_moments_are_always_dates(self, instant):
        """The calendar of Python ends where integers go on."""
        assert datetime.fromisoformat(timestamp(instant)).tzinfo is not None
