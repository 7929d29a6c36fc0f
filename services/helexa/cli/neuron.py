# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa neuron`: run a neuron on this host, let one in, or look at one."""

import argparse

from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.cli.services.process import run_service
from helexa.neuron.settings import NeuronSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a neuron."""
    add_settings_flags(parser, NeuronSettings, secrets=("join_token",))


def run(arguments: argparse.Namespace) -> int:
    """Run a neuron in this process."""
    from helexa.neuron.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    flags = settings_flags(arguments, NeuronSettings, whole=("site",))
    return run_service(NeuronSettings, start, flags)
