# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Running the command as users do."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

LIMIT_S = 60

Helexa = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def helexa(tmp_path: Path) -> Helexa:
    """Run `helexa` with words, in an empty directory and with no settings but those given."""

    def run(
        *words: str, environment: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        known = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8"}
        return subprocess.run(
            [sys.executable, "-m", "helexa.cli", *words],
            env=known | dict(environment or {}),
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    return run
