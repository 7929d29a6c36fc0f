# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The table of what each fault did, shown at the end of the run."""

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
    """Return the rows as a Markdown table; they may have different columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [names, ["-"] * len(names), *([str(row.get(n, "")) for n in names] for row in rows)]
    widths = [max(len(line[k]) for line in texts) for k in range(len(names))]
    texts[1] = ["-" * width for width in widths]
    return ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in texts]
