# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa provisioner`."""

import argparse

from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.process.running import run_service
from helexa.provisioner.settings import ProvisionerSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a provisioner."""
    add_settings_flags(parser, ProvisionerSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run a provisioner in this process."""
    from helexa.provisioner.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    return run_service(ProvisionerSettings, start, settings_flags(arguments, ProvisionerSettings))
