# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa version`."""

import argparse
import sys

from helexa.process.version import software_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print the version."""
    del arguments
    sys.stdout.write(version_line() + "\n")
    return 0


def version_line() -> str:
    """Return the version, as `--version` prints it."""
    return f"helexa {software_version()}"
