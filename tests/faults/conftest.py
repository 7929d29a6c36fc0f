# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The table of what each fault did, shown at the end of the run."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from helexa.process.settings import current_environment

TABLE_FILE = "HELEXA_FAULTS_TABLE"
"""The variable that names a file for the table, as Markdown."""
ROWS = pytest.StashKey[list[dict[str, object]]]()

Record = Callable[..., None]


@pytest.fixture(scope="session")
def record(pytestconfig: pytest.Config) -> Record:
    """Add a row to the table."""
    rows = pytestconfig.stash.setdefault(ROWS, [])

    def add(**columns: object) -> None:
        rows.append(columns)

    return add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    lines = table(rows)
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    named = current_environment().get(TABLE_FILE)
    if named:
        Path(named).write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(rows: list[dict[str, object]]) -> list[str]:
    """Return the rows as Markdown tables, one for each run of rows with the same columns."""
    lines: list[str] = []
    for columns, group in itertools.groupby(rows, key=tuple):
        texts = [list(columns), *([str(value) for value in row.values()] for row in group)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        texts.insert(1, ["-" * width for width in widths])
        lines += ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in texts] + [""]
    return lines[:-1]
