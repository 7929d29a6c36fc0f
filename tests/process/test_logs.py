# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Logs are lines of JSON that a machine can rely on."""

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from helexa.bus.context import REQUEST_ID
from helexa.process.logs import JsonFormatter


def record(event: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("kitchen").makeRecord(
        "kitchen", logging.WARNING, __file__, 1, event, (), None, extra=extra
    )


@pytest.mark.accepts("UTL-1")
def test_a_line_names_its_event_its_process_and_its_facts() -> None:
    line = json.loads(JsonFormatter("gateway", "abc").format(record("served", tokens=3)))

    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "level": "warning",
        "event": "served",
        "service": "gateway",
        "instance": "abc",
        "tokens": 3,
    }


@pytest.mark.accepts("UTL-1")
def test_a_line_names_the_request_in_work() -> None:
    token = REQUEST_ID.set("gw.123")
    try:
        line = json.loads(JsonFormatter("gateway", "abc").format(record("served")))
    finally:
        REQUEST_ID.reset(token)

    assert line["request_id"] == "gw.123"


def test_a_traceback_stays_within_one_line() -> None:
    made = record("failed")
    try:
        raise ValueError("two\nlines")  # noqa: TRY301 - the traceback is what is wanted
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)

    text = JsonFormatter("gateway", "abc").format(made)

    assert "\n" not in text
    assert "ValueError: two\nlines" in json.loads(text)["traceback"]


@pytest.mark.accepts("UTL-1")
def test_a_process_logs_from_its_level_on_to_stderr_alone() -> None:
    program = """
import logging
from helexa.process.logs import configure_logs
configure_logs("portal", "i1", "warning")
logging.getLogger("x").info("too quiet")
logging.getLogger("x").warning("heard", extra={"path": object})
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert json.loads(line)["event"] == "heard"
