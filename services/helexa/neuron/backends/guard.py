# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The process between a neuron and a runtime: no runtime outlives its neuron, whatever ends that.

Run as a script with `-I -S`, so that it starts fast; it imports nothing of ours. Standard input
is the lifeline: its first line is what to run, as JSON; when it closes, everything dies. SIGTERM is
passed on to the runtime. The exit code is the runtime's, 128 + n for a signal n, 127 if the program
cannot be run.

The guard adopts whatever the runtime leaves behind, kills and reaps it, so that no process of a
runtime stays, even where the neuron is the first process of a container and nobody else reaps.
"""

import ctypes
import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIFELINE = 0
_EXIT_CANNOT_RUN = 127

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run what the first line asks for until it ends or the lifeline closes."""
    order = json.loads(sys.stdin.buffer.readline() or "null")
    if order is None:
        return _EXIT_CANNOT_RUN
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    guard = os.getpid()
    runtime = os.fork()
    if runtime == 0:
        _become(order["command"], order["env"], guard)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(runtime, number)

    signal.signal(signal.SIGTERM, pass_on)
    _wait_for_an_end(runtime)
    code = os.waitstatus_to_exitcode(_kill_all(runtime))
    return code if code >= 0 else 128 - code


def _become(command: list[str], env: dict[str, str], guard: int) -> None:
    try:
        os.setsid()
        # The guard may be killed alone; it may even be gone before this line.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(_EXIT_CANNOT_RUN)
        os.dup2(os.open(os.devnull, os.O_RDONLY), _LIFELINE)
        for name, value in env.items():
            os.putenv(name, value)
        os.execv(command[0], command)  # noqa: S606
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: cannot run {Path(command[0]).name}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(_EXIT_CANNOT_RUN)


def _wait_for_an_end(runtime: int) -> None:
    ends = select.poll()
    ends.register(os.pidfd_open(runtime), select.POLLIN)
    ends.register(_LIFELINE, select.POLLHUP)
    ends.poll()


def _kill_all(runtime: int) -> int:
    """Kills and reaps every descendant; returns the runtime's wait status."""
    status = 0
    with suppress(ProcessLookupError):
        os.killpg(runtime, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(runtime, signal.SIGKILL)
    _, status = os.waitpid(runtime, 0)
    # What it leaves becomes ours, and in turn what those leave.
    while children := _children():
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, 0)
    return status


def _children() -> list[int]:
    """Our children; none where the kernel does not list them."""
    own = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
