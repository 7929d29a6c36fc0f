# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Giving commands, in an empty directory and with no settings but those given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from helexa.cli.__main__ import main
from helexa.process.settings import current_environment


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Helexa = Callable[..., Done]
"""Gives one command."""


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in current_environment():
        if name.startswith(("HELEXA_", "NATS_", "HF_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def helexa(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Helexa:
    """Give one command."""

    def run(*words: str, environment: Mapping[str, str] | None = None) -> Done:
        with monkeypatch.context() as patch:
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            try:
                code = main(words)
            except SystemExit as ended:
                code = int(ended.code or 0)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run
