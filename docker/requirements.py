# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Prints what to install before our own code: what helexa needs, or what extras of it add.

Dependencies then make a layer of their own, which a change of the code leaves alone.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OWN = re.compile(r"helexa\[([\w,]+)\]")


def requirements(project: dict[str, Any], extra: str) -> Iterator[str]:
    """Yield what `extra` adds, with what the extras that it names add."""
    for requirement in project["optional-dependencies"][extra]:
        named = OWN.fullmatch(requirement)
        if named is None:
            yield requirement
        for inner in named[1].split(",") if named else ():
            yield from requirements(project, inner)


def main() -> None:
    """Print the requirements, one a line."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines: list[str] = []
    for extras in sys.argv[1:]:
        for extra in extras.split(","):
            lines += requirements(project, extra)
    sys.stdout.write("\n".join(lines or project["dependencies"]) + "\n")


main()
