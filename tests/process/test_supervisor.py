# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Child processes are kept up, given up, and ended, with real processes and real signals."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helexa.process.restarts import RestartPolicy, Restarts
from helexa.process.supervisor import Child, ChildFailedError, Ready, Supervisor

LIMIT_S = 20
LIVES = "echo $$ >&2; exec sleep 1000"
DIES = "echo it broke >&2; exit 3"


def shell(name: str, script: str, *, stage: int = 0, ready: Ready | None = None) -> Child:
    return Child(name, ("/bin/sh", "-c", script), ready=ready, stage=stage)


def ready_by(event: asyncio.Event) -> Ready:
    async def wait() -> None:
        await event.wait()

    return wait


class Heard:
    """What children say."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def take(self, name: str, lines: bytes) -> None:
        for line in lines.decode().splitlines():
            self.lines.put_nowait((name, line))

    async def next(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.lines.get(), LIMIT_S)


class Pauses:
    """Waits between starts, let through one by one."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.asked: list[float] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        if open_gate:
            self.gate.set()

    async def __call__(self, wait_s: float) -> None:
        self.asked.append(wait_s)
        self.begun.set()
        await self.gate.wait()


async def until_gone(pid: int) -> None:
    """Return when no process has `pid`, not even a zombie."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), LIMIT_S)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def is_zombie_or_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.mark.accepts("LAB-4")
async def test_a_child_that_ends_is_started_again(heard: Heard) -> None:
    async with Supervisor([shell("cook", LIVES)], on_lines=heard.take, pause=Pauses()) as running:
        _, first = await heard.next()
        os.kill(int(first), signal.SIGKILL)
        _, second = await heard.next()

        assert running.pids == {"cook": int(second)}

    assert first != second
    assert not is_zombie_or_alive(int(first))
    assert not is_zombie_or_alive(int(second))


async def test_a_child_that_ends_well_unasked_is_started_again(heard: Heard) -> None:
    pauses = Pauses(open_gate=False)
    async with Supervisor([shell("cook", "echo done >&2")], on_lines=heard.take, pause=pauses):
        await heard.next()
        await asyncio.wait_for(pauses.begun.wait(), LIMIT_S)
        pauses.gate.set()

        assert await heard.next() == ("cook", "done")


async def test_waits_between_starts_grow() -> None:
    pauses = Pauses()
    policy = RestartPolicy(initial_interval_s=1, maximum_interval_s=3, maximum_failures=5)
    supervisor = Supervisor(
        [shell("cook", DIES)],
        policy=policy,
        on_lines=lambda _, __: None,
        pause=pauses,
        chance=lambda: 1.0,
    )

    async with supervisor:
        await asyncio.wait_for(supervisor.failed(), LIMIT_S)

    assert pauses.asked == [1, 2, 3, 3]


def test_failures_long_ago_do_not_count() -> None:
    restarts = Restarts(RestartPolicy(initial_interval_s=1, maximum_failures=3, window_s=60))

    waits = [restarts.next_wait_s(at, 0.5) for at in (0, 10, 65, 71, 72)]

    assert waits == [0.5, 1.0, 1.0, 1.0, None]


@pytest.mark.accepts("LAB-4")
async def test_a_child_that_keeps_failing_is_named_with_what_it_said() -> None:
    supervisor = Supervisor(
        [shell("cook", DIES), shell("waiter", LIVES)],
        policy=RestartPolicy(maximum_failures=3),
        on_lines=lambda _, __: None,
        pause=Pauses(),
    )

    async with supervisor:
        error = await asyncio.wait_for(supervisor.failed(), LIMIT_S)

    assert error.message == "cook does not stay up (exit code 3); it said last:\nit broke"
    assert supervisor.pids == {}


async def test_a_child_killed_by_a_signal_is_told_by_its_name() -> None:
    supervisor = Supervisor(
        [shell("cook", "kill -SEGV $$")], policy=RestartPolicy(maximum_failures=1)
    )

    async with supervisor:
        error = await asyncio.wait_for(supervisor.failed(), LIMIT_S)

    assert error.message == "cook does not stay up (SIGSEGV) and said nothing"


async def test_a_wrong_setting_is_not_tried_again() -> None:
    pauses = Pauses()
    never = asyncio.Event()
    child = shell("cook", "echo 'helexa: --socket: wrong' >&2; exit 2", ready=ready_by(never))

    with pytest.raises(ChildFailedError, match="--socket: wrong"):
        async with Supervisor([child], on_lines=lambda _, __: None, pause=pauses):
            pytest.fail("it was never ready")

    assert pauses.asked == []


async def test_a_program_that_does_not_exist_is_told(tmp_path: Path) -> None:
    child = Child("cook", (str(tmp_path / "none"),), ready=ready_by(asyncio.Event()))

    with pytest.raises(ChildFailedError, match="No such file or directory"):
        async with Supervisor([child]):
            pytest.fail("it was never ready")


async def test_a_stage_starts_when_the_one_before_is_ready(heard: Heard) -> None:
    may_go_on = asyncio.Event()
    children = [
        shell("waiter", "echo waiter >&2; exec sleep 1000", stage=1),
        shell("cook", "echo cook >&2; exec sleep 1000", ready=ready_by(may_go_on)),
    ]
    supervisor = Supervisor(children, on_lines=heard.take)

    starting = asyncio.create_task(supervisor.__aenter__())
    first = await heard.next()
    started_early = set(supervisor.pids)
    may_go_on.set()
    second = await heard.next()
    await starting
    await supervisor.stop()

    assert (first, second) == (("cook", "cook"), ("waiter", "waiter"))
    assert started_early == {"cook"}


@pytest.mark.accepts("CX-27")
async def test_stages_stop_in_falling_order(heard: Heard) -> None:
    script = "trap 'echo stopped >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.01; done"
    children = [shell(f"c{stage}", script, stage=stage) for stage in (0, 1, 2)]
    async with Supervisor(children, on_lines=heard.take) as running:
        for _ in children:
            assert (await heard.next())[1] == "up"
        assert len(running.pids) == 3

    stopped = [await heard.next() for _ in children]

    assert stopped == [("c2", "stopped"), ("c1", "stopped"), ("c0", "stopped")]


@pytest.mark.accepts("CX-27")
async def test_a_child_that_does_not_stop_is_killed_with_what_it_started(heard: Heard) -> None:
    script = "trap '' TERM; sleep 1000 & echo $! >&2; wait; while :; do sleep 1000; done"
    async with Supervisor([shell("cook", script)], on_lines=heard.take, stop_within_s=0.2) as it:
        _, grandchild = await heard.next()
        [pid] = it.pids.values()

    await until_gone(int(grandchild))

    assert not is_zombie_or_alive(pid)


async def test_a_stop_during_a_wait_does_not_wait(heard: Heard) -> None:
    pauses = Pauses(open_gate=False)

    async with asyncio.timeout(LIMIT_S):
        async with Supervisor([shell("cook", DIES)], on_lines=heard.take, pause=pauses):
            await pauses.begun.wait()

    assert len(pauses.asked) == 1


async def test_a_stop_during_the_start_leaves_nothing(heard: Heard) -> None:
    never = asyncio.Event()
    supervisor = Supervisor([shell("cook", LIVES, ready=ready_by(never))], on_lines=heard.take)
    starting = asyncio.create_task(supervisor.__aenter__())
    _, pid = await heard.next()

    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting

    assert not is_zombie_or_alive(int(pid))


async def test_a_terminal_interrupt_does_not_reach_children(heard: Heard) -> None:
    async with Supervisor([shell("cook", LIVES)], on_lines=heard.take):
        _, pid = await heard.next()

        assert os.getsid(int(pid)) == int(pid) != os.getsid(0)


async def test_a_line_that_is_too_long_does_not_end_the_listening(heard: Heard) -> None:
    program = "import sys; sys.stderr.write('x' * 3_000_000 + '\\nafter\\n'); input()"
    child = Child("cook", (sys.executable, "-c", program))
    async with Supervisor([child], on_lines=heard.take, pause=Pauses(open_gate=False)):
        while (await heard.next())[1] != "after":
            pass


SUPERVISES = """
import asyncio, sys
from helexa.process.supervisor import Child, Supervisor

async def main():
    children = [Child("cook", ("/bin/sh", "-c", "echo $$ >&2; exec sleep 1000"))]
    async with Supervisor(children):
        await asyncio.Event().wait()

run = __import__(sys.argv[1]).run
run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_children_die_with_a_supervisor_that_is_killed(loop: str) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISES, loop], stderr=subprocess.PIPE, text=True
    )
    assert supervisor.stderr is not None
    descriptor = os.pidfd_open(int(supervisor.stderr.readline()))

    supervisor.kill()
    supervisor.communicate(timeout=LIMIT_S)

    ended, _, _ = select.select([descriptor], [], [], LIMIT_S)
    os.close(descriptor)
    assert ended
