# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What the doctor says about a machine."""

from pathlib import Path

import pytest

from helexa.bus.connection import Connection
from helexa.cli import findings
from helexa.cli.doctor import table
from helexa.cli.findings import Finding
from helexa.cli.ports import free_address
from helexa.cli.sitefindings import site_findings
from helexa.process.http import bind
from helexa.process.settings import SocketAddress


def test_a_nats_server_that_is_too_old_is_told(tmp_path: Path) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.10.1\n")
    old.chmod(0o755)

    finding = findings.nats_server(old)

    assert not finding.is_fine
    assert "2.10.1" in finding.text
    assert "pip install" in finding.text


def test_a_port_that_is_taken_is_wrong_unless_our_site_has_it() -> None:
    with bind(SocketAddress(host="127.0.0.1", port=0)) as listener:
        taken = SocketAddress(host="127.0.0.1", port=listener.getsockname()[1])

        [wrong] = findings.ports([("gateway", taken)], own_site=False)
        [ours] = findings.ports([("gateway", taken)], own_site=True)
    [free] = findings.ports([("gateway", taken)], own_site=False)

    assert not wrong.is_fine
    assert "--gateway-socket" in wrong.text
    assert ours.is_fine
    assert free.is_fine


def test_a_data_directory_is_judged_by_the_nearest_one_that_exists(tmp_path: Path) -> None:
    finding = findings.data_directory(tmp_path / "not" / "yet")

    assert str(tmp_path) in finding.text


async def test_a_server_with_default_settings_is_found_wanting(nats_url: str) -> None:
    anybody = Connection(servers=(nats_url,), name="test")

    found = {each.name: each for each in await site_findings(anybody, anybody)}

    assert found["site"].is_fine
    assert not found["max_payload"].is_fine
    assert "8MB" in found["max_payload"].text
    assert not found["JetStream"].is_fine


async def test_a_server_that_is_not_there_is_told() -> None:
    nobody = Connection(servers=(f"nats://{free_address()}",), name="test")

    [finding] = await site_findings(nobody, nobody)

    assert not finding.is_fine
    assert "cannot be reached" in finding.text


def test_every_line_says_whether_it_is_fine() -> None:
    found = [Finding("a", is_fine=True, text="x"), Finding("bcd", is_fine=False, text="y")]

    assert table(found) == "ok     a    x\nWRONG  bcd  y\n"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("ImportError: libgomp.so.1: cannot open shared object file", "libgomp1"),
        ("ModuleNotFoundError: No module named 'xllamacpp'", "helexa[embedded]"),
        ("the process was killed", "--force-reinstall"),
    ],
)
def test_each_fault_of_llama_cpp_has_its_remedy(said: str, remedy: str) -> None:
    assert remedy in findings.remedy(said)
