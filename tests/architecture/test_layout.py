# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The rules that a reader relies on when looking for the room for a change."""

import re
import subprocess
from pathlib import Path

import pytest

from helexa.protocol.messages.models import BackendKind

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    "pyproject.toml",
    "services",
    "shared",
    "compose.yaml",
    "docker",
    "tests",
    "docs",
    "README.md",
    "LICENSE.md",
    "uv.lock",
}
IDENTIFIER = "SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0"
VAGUE = {"utils", "helpers", "common", "manager", "misc", "data", "info"}
MAX_MODULE_LINES = 300
TABLES = {"subjects.py": 480, "errors.py": 340}
"""Modules of declarations only, which belong together in one place."""


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


SOURCES = tracked("*.py", "*.c", "*.sh", "*.toml", "*.html", "*.css", ".ci/run")
MODULES = tracked("services/*.py", "shared/*.py")


@pytest.mark.accepts("DOC-11")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_file_names_its_licence(path: Path) -> None:
    assert IDENTIFIER in "\n".join(path.read_text().split("\n")[:3])


def test_the_namespace_roots_hold_no_init_file() -> None:
    for root in ("services", "shared"):
        assert not (ROOT / root / "helexa" / "__init__.py").exists()


def test_the_top_level_is_fixed() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_holds_one_idea(path: Path) -> None:
    assert path.stem not in VAGUE
    assert len(path.read_text().splitlines()) <= TABLES.get(path.name, MAX_MODULE_LINES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_subjects_module_spells_subjects(path: Path) -> None:
    if path.name == "subjects.py":
        pytest.skip("this is the module")
    spelled = re.findall(
        r"""["'](?:helexa\.(?:neuron|gateway|scheduler|provisioner|portal|tokens|usage|event|metrics|ledger|bulk)\.[^"']*[*>{][^"']*|\$(?:JS|KV|SYS|O)\.[^"']*)["']""",
        path.read_text(),
    )
    assert spelled == []


def test_every_package_says_in_one_sentence_what_it_is() -> None:
    for path in tracked("services/*/__init__.py", "shared/*/__init__.py"):
        body = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert len(body) == 1, path
        assert body[0].startswith('"""'), path


@pytest.mark.accepts("CX-15")
def test_those_who_place_and_route_know_no_backend_by_name() -> None:
    kinds = (BackendKind.LLAMA_CPP, BackendKind.VLLM, BackendKind.OPENAI_PROXY)
    for path in tracked("services/helexa/scheduler/*.py", "services/helexa/provisioner/*.py"):
        if path.name != "seed.py":
            text = path.read_text()
            assert not [kind for kind in kinds if f'"{kind}"' in text], path
            assert "BackendKind." not in text, path


@pytest.mark.accepts("DOC-10")
def test_the_map_of_the_code_names_every_package() -> None:
    described = (ROOT / "docs" / "contributing.md").read_text()
    packages = {path.parent.relative_to(ROOT) for path in tracked("*/helexa/*/__init__.py")}
    named = [str(each) for each in packages if len(each.parts) == 3]
    assert [name for name in named if f"`{name}`" not in described] == []


@pytest.mark.accepts("DOC-12")
def test_the_licence_says_both_of_its_steps_and_where_it_stands() -> None:
    licence = (ROOT / "LICENSE.md").read_text()
    assert "https://polyformproject.org/licenses/shield/1.0.0" in licence
    assert "From 2028-01-01" in licence
    assert "Apache License, Version 2.0" in licence
    assert (ROOT / "docs" / "explanation" / "governance.md").exists()
