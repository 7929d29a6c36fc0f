# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa scheduler`."""

import argparse

from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.process.running import run_service
from helexa.scheduler.settings import SchedulerSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a scheduler."""
    add_settings_flags(parser, SchedulerSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run a scheduler in this process."""
    from helexa.scheduler.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    return run_service(SchedulerSettings, start, settings_flags(arguments, SchedulerSettings))
