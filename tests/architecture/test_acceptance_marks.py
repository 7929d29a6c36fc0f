# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The marks that tie tests to promised features."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"mark\.accepts\(([^)]*)\)")
IDENTIFIER = re.compile(
    r"(?:NET|LAB|PORT|FEP|HMP|CLI|CX|NR|MESH|PR|RT|CFG|UTL|FLOW|MP|DEP|RM|DOC|OQ|HEL|X)-\d+"
)


def test_every_mark_names_features_by_their_ids() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for mark in MARK.findall(path.read_text()):
            for name in re.findall(r'"([^"]*)"', mark):
                assert IDENTIFIER.fullmatch(name), f"{path}: {name}"
