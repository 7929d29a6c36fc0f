# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Logs are lines of JSON that a machine can rely on."""

import json
import logging
import os
import subprocess
import sys
from datetime import datetime

import pytest

from helexa.bus.context import REQUEST_ID
from helexa.process.logs import FrequentEvent, JsonFormatter


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
import os
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


def run_program(program: str) -> tuple[int, list[str]]:
    """Run `program`, which has `write`, the pipe's other end; return its code and its lines."""
    begin = "import asyncio, logging\nfrom helexa.process.logs import configure_logs\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + 'configure_logs("portal", "i1")\n' + program],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stderr.splitlines()


def events(lines: list[str]) -> list[str]:
    return [json.loads(line)["event"] for line in lines if line.startswith("{")]


def test_what_a_loop_has_said_is_written_soon_and_many_lines_at_once() -> None:
    code, lines = run_program("""
from helexa.process import logs
writes = []
logs._write = lambda data: writes.append(data)

async def main():
    for k in range(3):
        logging.getLogger("x").info("said", extra={"k": k})
    held = len(writes)
    async with asyncio.timeout(10):
        while not writes:
            await asyncio.sleep(0.001)
    assert (held, len(writes), writes[0].count(b"\\n")) == (0, 1, 3), writes

asyncio.run(main())
""")

    assert code == 0, lines


def test_a_warning_is_written_at_once_with_all_before_it() -> None:
    code, lines = run_program("""
import os

async def main():
    logging.getLogger("x").info("before")
    logging.getLogger("x").warning("heard")
    os._exit(7)

asyncio.run(main())
""")

    assert (code, events(lines)) == (7, ["before", "heard"])


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param("raise ValueError('a defect')", id="exception"),
        pytest.param("raise SystemExit(1)", id="exit"),
        pytest.param("raise KeyboardInterrupt", id="interrupt"),
    ],
)
def test_no_line_is_lost_when_a_program_ends_by_an_exception(ends: str) -> None:
    code, lines = run_program(f"""
async def main():
    logging.getLogger("x").info("last")
    {ends}

asyncio.run(main())
""")

    assert code != 0
    assert events(lines) == ["last"]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("raise ValueError('a defect')", 1, id="exception"),
        pytest.param("life.stop.ask('enough')", 0, id="asked"),
    ],
)
def test_no_line_is_lost_when_a_process_ends(end: str, code: int) -> None:
    ended, lines = run_program(f"""
import sys
from helexa.process.lifecycle import run_process

async def main(life):
    logging.getLogger("x").info("last")
    {end}

sys.exit(run_process(main))
""")

    assert ended == code
    assert events(lines)[0] == "last"
    if code:
        assert lines[-1] == "ValueError: a defect"
        assert lines.index("Traceback (most recent call last):") > 0


def test_a_process_that_hangs_at_its_end_has_said_all_of_it() -> None:
    code, lines = run_program("""
import sys, threading
from helexa.process.lifecycle import run_process

async def main(life):
    async def block():
        logging.getLogger("x").info("hangs")
        threading.Event().wait()

    life.resources.push_async_callback(block)
    life.stop.ask("enough")

sys.exit(run_process(main, stop_within_s=0.1))
""")

    assert code == 1
    assert events(lines) == ["hangs"]


def test_a_thread_is_heard_at_once() -> None:
    code, lines = run_program("""
import os

async def main():
    await asyncio.to_thread(logging.getLogger("x").info, "thread")
    os._exit(7)

asyncio.run(main())
""")

    assert (code, events(lines)) == (7, ["thread"])


def test_a_process_that_nobody_listens_to_goes_on() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = (
        "import logging; from helexa.process.logs import configure_logs\n"
        "configure_logs('portal', 'i1'); logging.getLogger('x').warning('alone'); print('lives')"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writer, check=False
    )
    os.close(writer)

    assert (done.returncode, done.stdout) == (0, b"lives\n")


def test_a_frequent_event_has_the_line_that_any_other_has() -> None:
    code, lines = run_program("""
from helexa.bus.context import REQUEST_ID
from helexa.process.logs import FrequentEvent

async def main():
    log, facts = logging.getLogger("x"), {"ms": 1.5, "neuron": "n", "odd": object, "none": None}
    REQUEST_ID.set("gw.1")
    log.info("done", extra=facts)
    FrequentEvent(log, "done").tell(facts)
    REQUEST_ID.set("")
    log.info("done")
    FrequentEvent(log, "done").tell({})

asyncio.run(main())
""")

    assert code == 0, lines
    told = [line.partition('","level"')[2] for line in lines]
    assert (told[0], told[2]) == (told[1], told[3])
    assert json.loads(lines[1])["request_id"] == "gw.1"
    assert len(told) == 4


def test_a_frequent_event_is_told_only_where_its_log_is_heard() -> None:
    code, lines = run_program("""
from helexa.process.logs import FrequentEvent

logging.getLogger("quiet").setLevel("WARNING")
FrequentEvent(logging.getLogger("quiet.part"), "quiet").tell({})
FrequentEvent(logging.getLogger("loud"), "loud").tell({})
""")

    assert (code, events(lines)) == (0, ["loud"])


def test_other_handlers_get_the_record_of_a_frequent_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    FrequentEvent(logging.getLogger("kitchen"), "served").tell({"tokens": 3})

    [made] = caplog.records
    assert (made.getMessage(), vars(made)["tokens"]) == ("served", 3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("lone \ud800 surrogate", "lone \ud800 surrogate", id="surrogate"),
        pytest.param(2**80, 2**80, id="large"),
        pytest.param(ValueError("x"), "x", id="exception"),
        pytest.param({"k": [1, None, True]}, {"k": [1, None, True]}, id="nested"),
    ],
)
def test_a_value_never_costs_the_line(value: object, shown: object) -> None:
    line = JsonFormatter("gateway", "abc").format(record("served", value=value))

    assert json.loads(line)["value"] == shown


def test_the_level_of_a_line_has_its_own_place() -> None:
    formatter = JsonFormatter("gateway", "abc")
    short, long = record("served"), record("served", much="x" * 100)
    short.created, long.created = 1.0, 1_900_000_000.9999

    lines = [formatter.line(each) for each in (short, long)]

    assert lines[0].startswith(b'{"time":"1970-01-01T00:00:01.000+00:00","level":"warning",')
    assert lines[1].startswith(b'{"time":"2030-03-17T17:46:40.999+00:00","level":"warning",')
