"""Our own serializers keep what every serializer must, and broken ones are caught where they break."""

from __future__ import annotations

import pytest

from gigq.conformance import SerializerConformance
from gigq.contracts.serializer import Serializer
from gigq.plugins import serializer

KEYS = {"new": b"a new key of thirty-two bytes...", "old": b"an old key"}


class TestJson(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return serializer("json")


class TestMsgpack(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return serializer("msgpack")


class TestCloudpickle(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return serializer("cloudpickle")


class TestSignedJson(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return serializer("signed", signing_keys=KEYS)


class TestSignedCloudpickle(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return serializer("signed+cloudpickle", signing_keys=KEYS)


GENERATED = {"test_carries_any_value_exactly_or_refuses_it", "test_refuses_damage"}
MUTANTS = {
    "TuplesSuite": {"test_keeps_tuples_apart_from_lists"},
    "NaNSuite": {"test_keeps_numbers_that_are_not_finite", "test_keeps_dates_and_decimals"},
    "SubclassesSuite": {"test_never_flattens_a_type_of_the_users_own"},
    "UnpicklingSuite": {"test_runs_no_code_when_it_reads"},
    "ErrorsSuite": {"test_refuses_garbage", "test_refuses_bytes_that_nest_without_end",
                    "test_runs_no_code_when_it_reads"},
}  # fmt: skip


class TestTheSuite:
    @pytest.mark.parametrize(("suite", "named"), MUTANTS.items())
    def test_fails_a_broken_serializer_in_the_case_that_names_it(self, suite, named):
        """Each mutant breaks one promise; that case fails, and no unrelated one does."""
        from gigq.conformance.check import run_suite

        checked = run_suite(f"tests.mutants.serializers:{suite}")

        failed = {result.case.partition("[")[0] for result in checked.broken}
        assert failed & named, checked.traces()
        assert failed <= named | GENERATED, checked.traces()
