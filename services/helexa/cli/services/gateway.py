# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa gateway`."""

import argparse

from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.gateway.settings import GatewaySettings
from helexa.process.running import run_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a gateway."""
    add_settings_flags(parser, GatewaySettings)


def run(arguments: argparse.Namespace) -> int:
    """Run a gateway in this process."""
    from helexa.gateway.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    return run_service(GatewaySettings, start, settings_flags(arguments, GatewaySettings))
