# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A process ends as it is asked to: in order at the first signal, at once at the second."""

import signal
import subprocess
import sys

import pytest

from helexa.process.signals import SAME_SIGNAL_S

LIMIT_S = 20

LIVES = """
import asyncio, sys
from helexa.process.lifecycle import run_process

async def say(text):
    print(text, flush=True)

async def main(life):
    life.resources.push_async_callback(say, "first in, last out")
    life.resources.push_async_callback(say, "last in, first out")
    print("ready", flush=True)

sys.exit(run_process(main))
"""

STUCK = """
import asyncio, sys
from helexa.process.lifecycle import run_process

async def never():
    print("leaving", flush=True)
    await asyncio.Event().wait()

async def main(life):
    life.resources.push_async_callback(never)
    print("ready", flush=True)

sys.exit(run_process(main))
"""

HANGS = """
import asyncio, sys, threading
from helexa.process.logs import configure_logs
from helexa.process.lifecycle import run_process

async def wait():
    await asyncio.Event().wait()

async def block():
    threading.Event().wait()

async def main(life):
    life.resources.push_async_callback({hang})
    print("ready", flush=True)

configure_logs("test", "i1", "info")
sys.exit(run_process(main, stop_within_s=0.5))
"""

DIES = """
import sys
from helexa.process.lifecycle import run_process

async def die():
    raise RuntimeError("broken")

async def main(life):
    life.run("background", die())

sys.exit(run_process(main))
"""

REFUSES = """
import sys
from helexa.process.lifecycle import run_process
from helexa.process.settings import SettingsError
from helexa.protocol.errors import UnavailableError

async def main(life):
    raise {error}

sys.exit(run_process(main))
"""


def begin(program: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.accepts("CX-27")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_in_order(number: signal.Signals) -> None:
    process = begin(LIVES)

    process.send_signal(number)
    out, _ = process.communicate(timeout=LIMIT_S)

    assert out.splitlines() == ["last in, first out", "first in, last out"]
    assert process.returncode == 0


def test_a_second_signal_kills() -> None:
    process = begin(STUCK)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "leaving\n"

    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        # What follows at once is taken for the first signal.
        process.wait(2 * SAME_SIGNAL_S)
    process.send_signal(signal.SIGTERM)

    process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.accepts("CX-27")
@pytest.mark.parametrize("hang", ["wait", "block"])
def test_what_hangs_does_not_hold_a_process_and_is_named(hang: str) -> None:
    process = begin(HANGS.format(hang=hang))

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert hang in said


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_background_task_that_dies_ends_the_process() -> None:
    done = run(DIES)

    assert done.returncode == 1
    assert "task_died" in done.stderr


def test_a_wrong_setting_is_one_line_and_exit_code_two() -> None:
    done = run(REFUSES.format(error='SettingsError("--socket: wrong")'))

    assert done.returncode == 2
    assert done.stderr == "helexa: --socket: wrong\n"


def test_what_cannot_start_is_one_line_and_exit_code_one() -> None:
    done = run(REFUSES.format(error='UnavailableError("nobody is there")'))

    assert done.returncode == 1
    assert done.stderr == "helexa: nobody is there\n"
