# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa drain`: take a neuron out of service without losing a request."""

import argparse
import sys

from helexa.cli.api import segment
from helexa.cli.reach import add_reach_arguments, orchestrator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the neuron."""
    parser.add_argument("neuron", help="the neuron's id, as 'helexa status' shows it")
    parser.add_argument("--undo", action="store_true", help="let it take work again")
    add_reach_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Let the neuron take nothing new, or take work again."""
    draining = not arguments.undo
    path = f"/api/neurons/{segment(arguments.neuron)}/drain"
    orchestrator(arguments).call("POST", path, {"draining": draining})
    told = "finishes what it has and takes nothing new" if draining else "takes work again"
    sys.stdout.write(f"{arguments.neuron}: {told}\n")
    return 0
