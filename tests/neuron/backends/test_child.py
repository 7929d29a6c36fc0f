# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Processes that are started, watched and ended with all that they start."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from helexa.neuron.backends.child import Child

PATIENCE_S = 20.0
STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
# A process group of its own, and even a session of its own, must not save it.
ORPHANS = (
    STUBBORN + "import subprocess,sys; "
    "own = [sys.executable, '-S', '-c', 'import time; time.sleep(600)']; "
    "a = subprocess.Popen(own); b = subprocess.Popen(own, start_new_session=True); "
    "print('family', a.pid, b.pid, flush=True); "
)
FAMILY = ORPHANS + "time.sleep(600)"
PARENT = """
import asyncio, sys
from helexa.neuron.backends.child import Child
async def main():
    child = Child([sys.executable, "-S", "-c", sys.argv[1]], {}, name="m", on_exit=lambda: None)
    await child.start()
    while not child.lines():
        await asyncio.sleep(0.01)
    print(*child.lines()[0].split()[1:], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""

Run = Callable[..., Awaitable[Child]]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Start Python code as a child."""
    started: list[Child] = []

    async def start(code: str, **env: str) -> Child:
        child = Child([sys.executable, "-S", "-c", code], env, name="m", on_exit=lambda: None)
        started.append(child)
        await child.start()
        return child

    yield start
    for child in started:
        await child.stop(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def exited(child: Child) -> int | None:
    async with asyncio.timeout(PATIENCE_S):
        await child.exited.wait()
    return child.exit_code


def is_gone(pid: int) -> bool:
    """Not even a zombie is left."""
    return not psutil.pid_exists(pid)


async def test_what_it_writes_is_kept_and_logged(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "helexa")
    child = await run(
        "import os,sys; print(os.getenv('COLOUR'), flush=True); sys.stderr.write('no line end')",
        COLOUR="blue",
    )

    assert await exited(child) == 0
    assert child.lines() == ("blue", "no line end")
    said = [getattr(record, "line", None) for record in caplog.records]
    assert [text for text in said if text] == ["blue", "no line end"]


async def test_only_the_last_lines_are_kept_and_none_is_endless(run: Run) -> None:
    child = await run("print('x' * 3_000_000)\nfor i in range(99): print(i)")

    await exited(child)
    assert len(child.lines()) == 50
    assert child.lines()[-1] == "98"
    assert max(map(len, child.lines())) <= 2000


async def test_the_exit_code_is_that_of_the_program(run: Run) -> None:
    assert await exited(await run("raise SystemExit(7)")) == 7
    assert await exited(await run("import os; os.kill(os.getpid(), 9)")) == 128 + 9


async def test_a_program_that_cannot_be_run_says_so() -> None:
    ended: list[str] = []
    child = Child(["/nonexistent/x"], {}, name="m", on_exit=lambda: ended.append("ended"))
    await child.start()

    assert await exited(child) == 127
    assert "cannot run x" in child.lines()[0]
    assert ended == ["ended"]


async def test_it_has_time_to_end_by_itself(run: Run) -> None:
    child = await run(
        "import signal,sys,time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); "
        "print('ready', flush=True); time.sleep(600)"
    )
    await until(lambda: child.lines() == ("ready",))
    await child.stop(PATIENCE_S)

    assert child.exit_code == 5


@pytest.mark.accepts("NR-8")
async def test_stopping_kills_the_whole_family_and_leaves_no_zombie(run: Run) -> None:
    others = set(psutil.Process().children())
    child = await run(FAMILY)
    await until(lambda: len(child.lines()) > 0)
    family = [int(pid) for pid in child.lines()[0].split()[1:]]
    guards = set(psutil.Process().children()) - others
    assert guards
    await child.stop(0.05)

    assert child.exit_code == 128 + signal.SIGKILL
    assert all(is_gone(pid) for pid in family)
    assert not [guard for guard in guards if guard.is_running()]
    assert not [each for each in psutil.Process().children() if each.status() == "zombie"]


async def test_a_death_takes_the_family_along(run: Run) -> None:
    child = await run(ORPHANS)
    await exited(child)

    assert all(is_gone(int(pid)) for pid in child.lines()[0].split()[1:])


@pytest.mark.accepts("NR-8")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_a_parent_that_is_killed(number: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, FAMILY, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    family = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(family) == 2
    assert not any(is_gone(pid) for pid in family)
    os.kill(parent.pid, number)
    await parent.wait()

    # Where nobody reaps orphans they stay as zombies: dead, and without memory.
    await until(lambda: all(is_gone(pid) or _is_zombie(pid) for pid in family))


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_stopping_works_in_every_state(run: Run) -> None:
    never = Child(["/bin/true"], {}, name="m", on_exit=lambda: None)
    await never.stop(1)
    await never.start()
    assert never.exited.is_set()
    child = await run("import time; time.sleep(600)")
    await asyncio.gather(child.stop(5), child.stop(0))
    await child.stop(1)

    assert child.exited.is_set()


async def test_its_memory_counts_what_it_has_started(run: Run) -> None:
    code = (
        "import subprocess,sys,time; own = [sys.executable, '-S', '-c', "
        "'import time; x = bytes(1) * 80_000_000; print(1, flush=True); time.sleep(600)']; "
        "subprocess.Popen(own); time.sleep(600)"
    )
    child = await run(code)
    await until(lambda: child.lines() == ("1",))

    assert 80_000_000 < (child.memory_bytes() or 0) < 160_000_000
    await child.stop(0)
    assert child.memory_bytes() is None


async def test_the_key_is_not_among_the_arguments_of_the_guard(run: Run) -> None:
    child = await run("import time; print(1, flush=True); time.sleep(600)", KEY="very-secret")
    await until(lambda: child.lines() == ("1",))
    processes = psutil.Process().children(recursive=True)

    assert processes
    assert not [each for each in processes if "very-secret" in " ".join(each.cmdline())]


def test_the_guard_does_nothing_without_an_order() -> None:
    guard = Path(sys.modules[Child.__module__].__file__ or "").with_name("guard.py")
    done = subprocess.run([sys.executable, "-I", "-S", guard], input=b"", check=False)

    assert done.returncode == 127
