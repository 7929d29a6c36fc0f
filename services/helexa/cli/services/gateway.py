# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa gateway`."""

import argparse

from helexa.cli.flags import add_settings_flags, settings_flags, whole_number
from helexa.gateway.settings import GatewaySettings
from helexa.process.running import run_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a gateway, and how many to run."""
    add_settings_flags(parser, GatewaySettings)
    parser.add_argument(
        "--workers",
        metavar="N",
        default="1",
        help="how many gateway processes to run behind the socket; default: 1",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run a gateway in this process, or several in processes of their own."""
    flags = settings_flags(arguments, GatewaySettings)
    workers = whole_number(arguments.workers, "--workers", at_least=1)
    if workers > 1:
        from helexa.cli.workers import run_workers  # noqa: PLC0415 - as below

        return run_workers(flags, workers)
    from helexa.gateway.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    return run_service(GatewaySettings, start, flags)
