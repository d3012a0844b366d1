"""Our own serializers keep what every serializer must, and broken ones are caught where they break."""

from __future__ import annotations


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
