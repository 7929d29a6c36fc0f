# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The command line: what is understood, what is refused, and how fast it helps."""

import argparse
import ast
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Helexa

import helexa.cli.__main__ as entry
from helexa.cli.commands import COMMANDS
from helexa.cli.cortex import read_options as read_cortex
from helexa.cli.parser import command_parser
from helexa.cli.up import GRACE_S
from helexa.cli.up import read_options as read_up

HELP_WITHIN_S = 0.3
CORTEX = (
    "helexa cortex --orchestrator-socket 0.0.0.0:8040 --gateway-socket 0.0.0.0:8080 "
    "--portal-socket 0.0.0.0:8091"
)
NEURON = "helexa neuron --control-socket 0.0.0.0:9050 --api-socket 127.0.0.1:8060 --models-dir DIR"


def parse(line: str) -> argparse.Namespace:
    name, *words = shlex.split(line.removeprefix("helexa "))
    return command_parser(name).parse_args(words)


@pytest.mark.accepts("CLI-1")
def test_help_lists_every_command_with_what_it_does(helexa: Helexa) -> None:
    done = helexa("--help")

    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.summary in done.stdout


@pytest.mark.accepts("CLI-1")
def test_help_is_fast() -> None:
    took: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "helexa.cli", "--help"], capture_output=True, check=True
        )
        took.append(time.perf_counter() - began)

    assert min(took) < HELP_WITHIN_S


def test_help_imports_no_service_and_no_dependency() -> None:
    program = (
        "import sys; from helexa.cli.__main__ import main; main(['--help']); "
        "sys.stderr.write(' '.join(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    imported = set(done.stderr.split())
    assert imported.isdisjoint({"pydantic", "nats", "uvicorn", "starlette", "httpx", "asyncio"})


@pytest.mark.accepts("CLI-1", "CLI-2")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(helexa: Helexa, name: str) -> None:
    done = helexa(name, "--help")

    shown = " ".join(done.stdout.split())
    assert done.returncode == 0
    assert COMMANDS[name].summary in shown
    assert " ".join(COMMANDS[name].example.split()) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_understood(name: str) -> None:
    parse(COMMANDS[name].example)


@pytest.mark.accepts("CLI-3", "CLI-4", "CLI-5", "CLI-12")
def test_the_cortex_of_the_first_page_has_all_roles() -> None:
    options = read_cortex(parse(CORTEX))

    assert str(options.roles.orchestrator) == "0.0.0.0:8040"
    assert str(options.roles.gateway) == "0.0.0.0:8080"
    assert [str(each) for each in options.roles.portals] == ["0.0.0.0:8091"]
    assert options.settings.nats_url == ()


@pytest.mark.accepts("CLI-7", "CLI-8", "CLI-9", "CLI-12")
def test_the_neuron_of_the_first_page_has_its_sockets() -> None:
    arguments = parse(NEURON)

    assert arguments.control_socket == "0.0.0.0:9050"
    assert arguments.api_socket == "127.0.0.1:8060"
    assert arguments.models_dir == "DIR"


@pytest.mark.accepts("CX-2")
def test_a_role_without_its_socket_is_off() -> None:
    options = read_cortex(parse("cortex --gateway-socket 127.0.0.1:0"))

    assert options.roles.orchestrator is None
    assert options.roles.portals == ()


@pytest.mark.accepts("CLI-5")
def test_a_portal_socket_may_be_repeated() -> None:
    options = read_cortex(parse("cortex --portal-socket h:1 --portal-socket h:2"))

    assert [str(each) for each in options.roles.portals] == ["h:1", "h:2"]


def test_the_environment_names_the_servers_of_a_cortex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://a:1,nats://b:2")

    assert read_cortex(parse("cortex")).settings.nats_url == ("nats://a:1", "nats://b:2")


def test_up_takes_its_defaults_from_the_services() -> None:
    options = read_up(parse("up"))

    assert str(options.gateway) == "127.0.0.1:8080"
    assert str(options.orchestrator) == "127.0.0.1:8040"
    assert [str(each) for each in options.portals] == ["127.0.0.1:8091"]
    assert options.nats is None
    assert options.settings.grace_s == GRACE_S


def test_up_follows_the_file_and_a_flag_wins(tmp_path: Path) -> None:
    (tmp_path / "helexa.toml").write_text(
        'grace_s = 1\n[gateway]\nsocket = "h:1"\n[portal]\nsocket = ["h:2", "h:3"]\n'
    )

    options = read_up(parse("up --gateway-socket h:9 --neurons 3 --gateways 2"))

    assert str(options.gateway) == "h:9"
    assert [str(each) for each in options.portals] == ["h:2", "h:3"]
    assert options.settings.grace_s == 1
    assert (options.counts.gateways, options.counts.neurons) == (2, 3)


@pytest.mark.accepts("CFG-2")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bogus", "there is no command 'bogus'; see 'helexa --help'"),
        ("statu", "there is no command 'statu'; did you mean 'helexa status'?"),
        ("up --bogus", "unrecognized arguments: --bogus (see 'helexa up --help')"),
        ("up --gateways none", "--gateways: 'none' is not a whole number of at least 1"),
        ("up --gateways 0", "--gateways: '0' is not a whole number of at least 1"),
        ("up --gateway-socket 8080", "'8080' is not HOST:PORT"),
        ("up --log-level loud", "--log-level: log_level: is one of debug, info, warning, error"),
        ("cortex --gateway-socket h:x", "'h:x' is not HOST:PORT"),
        ("gateway --queue-limit many", "--queue-limit: queue_limit: Input should be a valid int"),
        ("config show kitchen", "invalid choice: 'kitchen'"),
        ("status --orchestrator-url bogus", "'bogus' is not an address like http://"),
        ("status", "no orchestrator is known: start a site with 'helexa up'"),
        ("chat", "no gateway is known: start a site with 'helexa up'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(helexa: Helexa, line: str, told: str) -> None:
    done = helexa(*shlex.split(line))

    assert done.returncode == 2
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert said.startswith("helexa")
    assert told in said


@pytest.mark.accepts("CFG-2")
def test_a_mistake_in_the_file_is_told_with_its_line(helexa: Helexa, tmp_path: Path) -> None:
    (tmp_path / "helexa.toml").write_text("[gateway]\n\nsoket = 1\n")

    done = helexa("up")

    assert done.returncode == 2
    assert done.stderr == (
        "helexa: helexa.toml:3: unknown setting 'soket'; did you mean 'socket'?\n"
    )


def test_an_output_that_nobody_reads_is_no_defect() -> None:
    shell = f"{shlex.quote(sys.executable)} -m helexa.cli config show | head -n 1"

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False
    )

    assert done.stdout == "[gateway]\n"
    assert done.stderr == ""


@pytest.mark.accepts("CLI-11")
def test_commands_import_no_rule_of_a_service() -> None:
    allowed = {"__main__", "settings", "gpu", "backends", "ledger", "provider"}
    for path in Path(entry.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = node.module.split(".")
                if parts[1:2] and parts[1] in (
                    "gateway",
                    "scheduler",
                    "provisioner",
                    "portal",
                    "neuron",
                ):
                    assert parts[2] in allowed, f"{path.name}: {node.module}"
