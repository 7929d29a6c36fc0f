# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa drain`: take a neuron out of service without losing a request."""

import argparse
import sys
import time
from collections.abc import Callable

from helexa.cli.api import AnswerError, Api, segment
from helexa.cli.reach import add_reach_arguments, orchestrator
from helexa.cli.views import NeuronView

LOOK_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the neuron."""
    parser.add_argument("neuron", help="the neuron's id, as 'helexa status' shows it")
    parser.add_argument("--undo", action="store_true", help="let it take work again")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        help="return when it has nothing left to do; fail if it still has after SECONDS",
    )
    add_reach_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Let the neuron take nothing new, or take work again."""
    draining = not arguments.undo
    path = f"/api/neurons/{segment(arguments.neuron)}"
    api = orchestrator(arguments)
    api.call("POST", f"{path}/drain", {"draining": draining})
    told = "finishes what it has and takes nothing new" if draining else "takes work again"
    sys.stdout.write(f"{arguments.neuron}: {told}\n")
    sys.stdout.flush()
    if draining and arguments.wait is not None:
        wait_idle(api, path, arguments.neuron, arguments.wait)
        sys.stdout.write(f"{arguments.neuron}: is idle\n")
    return 0


def wait_idle(
    api: Api,
    path: str,
    neuron: str,
    within_s: float,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when the neuron at `path` drains and has nothing left to do.

    Raises:
        AnswerError: it still has something to do after `within_s`.
        UnavailableError: the orchestrator does not answer.
    """
    deadline = clock() + within_s
    while True:
        seen = api.read(path, NeuronView)
        if seen.draining and not seen.slots_busy:
            return
        if clock() >= deadline:
            raise AnswerError(f"{neuron} still has {seen.slots_busy} requests after {within_s:g} s")
        pause(LOOK_S)
