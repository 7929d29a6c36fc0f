# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The version of this installation."""

from importlib.metadata import PackageNotFoundError, version


def software_version() -> str:
    """Return the installed version, or `0.0.0` in a tree that is not installed."""
    try:
        return version("helexa")
    except PackageNotFoundError:
        return "0.0.0"
