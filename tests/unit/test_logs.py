"""Logging: silent until somebody asks, one handler however often they ask."""

from __future__ import annotations

import json
import logging

import pytest

import gigq  # noqa: F401 - importing it is what is tested
from gigq import ConfigError, setup_logging
from gigq.logs import LOGGER


@pytest.fixture(autouse=True)
def as_it_was():
    handlers, level = list(LOGGER.handlers), LOGGER.level
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)


class TestImportingGigq:
    def test_says_nothing_and_passes_nothing_on(self):
        assert LOGGER.propagate is False
        assert any(isinstance(handler, logging.NullHandler) for handler in LOGGER.handlers)


class TestSetupLogging:
    def test_writes_to_standard_error_once(self, capsys):
        setup_logging()
        setup_logging(logging.INFO)

        logging.getLogger("gigq.worker").info("started %s", "w1")

        assert capsys.readouterr().err.count("started w1") == 1

    def test_leaves_the_root_logger_alone(self):
        before = list(logging.getLogger().handlers)

        setup_logging()

        assert logging.getLogger().handlers == before

    @pytest.mark.parametrize(("level", "heard"), [("warning", 0), (logging.INFO, 1), ("DEBUG", 1)])
    def test_takes_a_level_by_number_or_name(self, level, heard, capsys):
        setup_logging(level)

        logging.getLogger("gigq.x").info("hello")

        assert capsys.readouterr().err.count("hello") == heard

    def test_makes_hostile_text_visible(self, capsys):
        setup_logging()

        logging.getLogger("gigq.x").info("job %s", "\x1b[2J")

        assert "\\x1b[2J" in capsys.readouterr().err

    def test_lets_no_text_begin_a_record(self, capsys):
        """Lines of a message that has several, and of a traceback, stand behind the first one."""
        setup_logging()

        logging.getLogger("gigq.x").info("%s", "one\ntwo\u2028three\x85four")

        first, *others = capsys.readouterr().err.splitlines()
        assert first.endswith("INFO gigq.x: one")
        assert others == ["    two", "    three", "    four"]

    def test_writes_json_with_all_fields(self, capsys):
        setup_logging(log_format="json")

        logging.getLogger("gigq.x").info("done", extra={"job_id": "j", "run": 3})

        line = json.loads(capsys.readouterr().err)
        assert (line["message"], line["logger"], line["job_id"], line["run"]) == (
            "done",
            "gigq.x",
            "j",
            3,
        )

    @pytest.mark.parametrize("level", ["loud", True, None, -1, 1.5])
    def test_refuses_a_level_that_does_not_exist(self, level):
        with pytest.raises(ConfigError, match="log level"):
            setup_logging(level)

    def test_refuses_a_format_that_does_not_exist(self):
        with pytest.raises(ConfigError, match="log_format"):
            setup_logging(log_format="xml")
