# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What child processes say reaches a file, and the terminal when it matters."""

import json
from pathlib import Path

import pytest

from helexa.cli import childlogs
from helexa.cli.childlogs import ChildLogs, notable


def line(level: str, event: str, **facts: object) -> bytes:
    record = {"time": "t", "level": level, "event": event, "service": "s", "instance": "i"}
    return json.dumps(record | facts, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (line("info", "serving"), None),
        (line("warning", "bus_error", error="x"), "gateway: warning: bus_error error=x"),
        (line("error", "task_died", traceback="long"), "gateway: error: task_died"),
        (line("warning", "gateway_is_open"), None),
        (b"Traceback (most recent call last):\n", "gateway: Traceback (most recent call last):"),
        (b"3\n", "gateway: 3"),
        (b"\n", None),
    ],
)
def test_a_person_is_shown_what_matters(said: bytes, shown: str | None) -> None:
    assert notable("gateway", said) == shown


def test_everything_is_kept_in_a_file_for_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = ChildLogs(tmp_path, verbose=False)
    said = [line("info", "one"), line("warning", "two")]

    for each in said:
        logs.take("gateway", each)
    logs.close()

    file = tmp_path / "gateway.log"
    assert file.read_bytes() == b"".join(said)
    assert file.stat().st_mode & 0o077 == 0
    assert capsys.readouterr().err == "gateway: warning: two\n"


def test_of_many_lines_those_that_matter_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = ChildLogs(tmp_path, verbose=False)
    quiet = line("info", "one") + line("debug", "two", level_of="error")

    logs.take("gateway", quiet + b"Traceback\n\n" + quiet + line("error", "three") + quiet)
    logs.take("gateway", quiet)
    logs.close()

    assert capsys.readouterr().err == "gateway: Traceback\ngateway: error: three\n"


def test_a_full_disk_costs_lines_and_not_the_listening(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.log").symlink_to("/dev/full")
    logs = ChildLogs(tmp_path, verbose=False)

    logs.take("gateway", line("warning", "two"))
    logs.close()

    assert capsys.readouterr().err == "gateway: warning: two\n"


def test_every_line_is_shown_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = ChildLogs(tmp_path, verbose=True)
    said = line("info", "one")

    logs.take("gateway", said)
    logs.close()

    assert capsys.readouterr().err == said.decode()


def test_a_file_that_is_full_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(childlogs, "LARGEST_FILE_BYTES", 10)
    logs = ChildLogs(tmp_path, verbose=False)

    for text in (b"the first line\n", b"the second\n"):
        logs.take("gateway", line("info", "x") + text)
    logs.close()

    assert b"the first line" in (tmp_path / "gateway.log.1").read_bytes()
    assert b"the second" in (tmp_path / "gateway.log").read_bytes()
