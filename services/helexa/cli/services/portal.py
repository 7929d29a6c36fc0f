# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa portal`."""

import argparse

from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.portal.settings import PortalSettings
from helexa.process.running import run_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a portal."""
    add_settings_flags(parser, PortalSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run a portal in this process."""
    from helexa.portal.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    return run_service(PortalSettings, start, settings_flags(arguments, PortalSettings))
