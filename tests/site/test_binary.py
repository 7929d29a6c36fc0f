# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from pathlib import Path

import pytest

from helexa.site.binary import MINIMUM, find_server
from helexa.site.errors import ServerBinaryError


def program(directory: Path, answer: str) -> Path:
    directory.mkdir()
    path = directory / "nats-server"
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def test_the_packaged_server_is_found_without_one_on_the_path(tmp_path: Path) -> None:
    found = find_server(search_path=str(tmp_path))

    assert found.version >= MINIMUM
    assert found.path.name == "nats-server"


def test_the_one_on_the_path_comes_first(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin", "nats-server: v2.99.1")

    assert find_server(search_path=str(on_path.parent)).path == on_path


def test_an_old_one_on_the_path_is_passed_over(tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "nats-server: v2.10.29")
    packaged = program(tmp_path / "venv", "nats-server: v2.15.0")

    found = find_server(search_path=str(old.parent), packaged=packaged)

    assert (found.path, found.version) == (packaged, (2, 15, 0))


def test_an_old_one_alone_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "nats-server: v2.14.9")

    with pytest.raises(ServerBinaryError) as refused:
        find_server(search_path=str(old.parent), packaged=tmp_path / "none")

    assert str(refused.value) == (
        f"{old} is version 2.14.9, and Helexa needs 2.15.0 or newer; "
        "run: pip install 'helexa[embedded]'."
    )


def test_none_at_all_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ServerBinaryError) as refused:
        find_server(search_path=str(tmp_path), packaged=tmp_path / "none")

    assert str(refused.value) == (
        "There is no nats-server on this machine; run: pip install 'helexa[embedded]'."
    )


def test_the_one_that_is_named_is_the_only_one_tried(tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "nats-server: v2.2.0")

    with pytest.raises(ServerBinaryError, match=r"is version 2\.2\.0"):
        find_server(old)
    with pytest.raises(ServerBinaryError, match="cannot be run"):
        find_server(tmp_path / "absent")


def test_a_program_that_is_something_else_is_refused(tmp_path: Path) -> None:
    other = program(tmp_path / "bin", "hello")

    with pytest.raises(ServerBinaryError, match="does not tell its version"):
        find_server(other)
