# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A cortex and a neuron as processes, and every command that uses their site."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helexa.cli.ports import free_address, is_free
from helexa.process.settings import SocketAddress
from helexa.site.layout import DataDir, SiteFile

LIMIT_S = 60


class Machine:
    """A home directory, and the commands given in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = DataDir(home / ".local" / "share" / "helexa")
        self.environment = {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"}

    def begin(self, *words: str, awaited: str) -> subprocess.Popen[str]:
        """Start a command and return when it has logged the event `awaited`."""
        process = subprocess.Popen(
            [sys.executable, "-m", "helexa.cli", *words],
            env=self.environment,
            cwd=self.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        said: list[str] = []
        while not said or f'"event":"{awaited}"' not in said[-1]:
            said.append(process.stderr.readline())
            assert said[-1], "".join(said)
        # A pipe that nobody reads would stop the process one day.
        threading.Thread(target=process.communicate).start()
        return process

    def helexa(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "helexa.cli", *words],
            env=self.environment,
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


@pytest.fixture(scope="module")
def sockets() -> dict[str, SocketAddress]:
    names = ("orchestrator", "gateway", "portal", "control", "api")
    return {name: free_address() for name in names}


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, sockets: dict[str, SocketAddress]
) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("home"))
    cortex = made.begin(
        "cortex",
        *("--orchestrator-socket", str(sockets["orchestrator"])),
        *("--gateway-socket", str(sockets["gateway"])),
        *("--portal-socket", str(sockets["portal"])),
        awaited="role_serves",
    )
    with stopped(cortex):
        neuron = made.begin(
            "neuron",
            *("--control-socket", str(sockets["control"])),
            *("--api-socket", str(sockets["api"])),
            *("--models-dir", str(made.home / "models")),
            *("--node-id", "kitchen"),
            awaited="order_done",
        )
        with stopped(neuron):
            loaded = made.helexa("models", "load", "helexa-tiny")
            assert loaded.returncode == 0, loaded.stderr
            yield made


def get(address: SocketAddress, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=LIMIT_S) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.accepts("CLI-2", "CLI-3", "CLI-4", "CLI-5")
def test_a_cortex_serves_each_role_on_its_socket(
    machine: Machine, sockets: dict[str, SocketAddress]
) -> None:
    site = SiteFile.load(machine.data.site_file)

    assert site is not None
    assert site.gateway_url == f"http://{sockets['gateway']}"
    assert '"object": "list"' in get(sockets["gateway"], "/v1/models")
    assert "<h1>Helexa</h1>" in get(sockets["portal"], "/")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(sockets["orchestrator"], "/api/neurons")
    assert refused.value.code == 401
    refused.value.close()


@pytest.mark.accepts("CLI-6", "CLI-7", "CLI-8")
def test_a_neuron_serves_its_own_sockets(
    machine: Machine, sockets: dict[str, SocketAddress]
) -> None:
    assert machine.data.neuron("kitchen").exists()
    assert json.loads(get(sockets["control"], "/livez")) == {"status": "ok"}
    assert "helexa-tiny" in get(sockets["api"], "/v1/models")


@pytest.mark.accepts("CLI-10", "DEP-1")
def test_status_shows_processes_neurons_and_models(machine: Machine) -> None:
    done = machine.helexa("status")

    words = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert ["gateway", "ready"] in [line[:2] for line in words]
    assert ["kitchen", "healthy"] in [line[:2] for line in words]
    assert ["helexa-tiny", "loaded"] in [line[:2] for line in words]


def test_status_is_also_there_for_programs(machine: Machine) -> None:
    found = json.loads(machine.helexa("status", "--json").stdout)

    assert [neuron["id"] for neuron in found["neurons"]] == ["kitchen"]
    assert [model["id"] for model in found["models"]] == ["helexa-tiny"]


@pytest.mark.accepts("DEP-1")
def test_a_question_is_answered(machine: Machine) -> None:
    by_words = machine.helexa("chat", "helexa-tiny", "hello")
    by_pipe = machine.helexa("chat", stdin="hello")

    assert by_words.returncode == 0, by_words.stderr
    assert "Helexa" in by_words.stdout
    assert by_pipe.stdout == by_words.stdout


def test_a_question_to_a_model_that_does_not_exist_is_one_sentence(machine: Machine) -> None:
    done = machine.helexa("chat", "none", "hello")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("helexa: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.accepts("LAB-5", "LAB-6")
def test_a_model_is_added_listed_unloaded_and_removed(machine: Machine) -> None:
    added = machine.helexa(
        *("models", "add", "second", "--source", "embedded:helexa-tiny"),
        *("--context", "512", "--slots", "1", "--alias", "other"),
    )
    listed = machine.helexa("models", "list")
    unloaded = machine.helexa("models", "unload", "second")
    removed = machine.helexa("models", "rm", "second")
    after = machine.helexa("models", "list", "--json")

    assert added.returncode == 0, added.stderr
    assert added.stdout.splitlines()[-1] == "second: loaded"
    assert ["second", "loaded"] in [line.split()[:2] for line in listed.stdout.splitlines()]
    assert unloaded.returncode == 0
    assert removed.returncode == 0
    assert "second" not in [model["id"] for model in json.loads(after.stdout)["models"]]


def test_a_model_that_cannot_be_loaded_says_why(machine: Machine) -> None:
    added = machine.helexa("models", "add", "broken", "--source", "/none/w.gguf")
    machine.helexa("models", "rm", "broken")

    assert added.returncode == 1
    assert added.stderr.startswith("helexa: broken ")
    assert "/none/w.gguf cannot be read" in added.stderr
    assert len(added.stderr.splitlines()) == 1


@pytest.mark.accepts("LAB-11")
def test_why_tells_where_a_model_goes(machine: Machine) -> None:
    done = machine.helexa("why", "helexa-tiny")

    assert done.returncode == 0, done.stderr
    assert "kitchen: score" in done.stdout
    assert "placed: kitchen" in done.stdout


def test_a_neuron_is_drained_and_taken_back(machine: Machine) -> None:
    drained = machine.helexa("drain", "kitchen", "--wait", "20")
    back = machine.helexa("drain", "kitchen", "--undo")
    unknown = machine.helexa("drain", "nobody")

    assert drained.stdout == (
        "kitchen: finishes what it has and takes nothing new\nkitchen: is idle\n"
    )
    assert back.stdout == "kitchen: takes work again\n"
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr


def test_a_neuron_is_inspected(machine: Machine) -> None:
    found = json.loads(machine.helexa("neuron", "inspect", "kitchen").stdout)

    assert found["id"] == "kitchen"
    assert found["descriptor"]["public_key"].startswith("U")


def test_a_join_token_is_one_line_with_the_addresses_given(machine: Machine) -> None:
    url = "nats://site.example:4222"

    done = machine.helexa("neuron", "token", "--nats-url", url)

    assert done.returncode == 0, done.stderr
    [token] = done.stdout.splitlines()
    assert token.startswith("hxj1.")
    assert url in done.stderr


def test_doctor_finds_a_site_in_order(machine: Machine) -> None:
    done = machine.helexa("doctor")

    found = {line[7:].partition("  ")[0]: line for line in done.stdout.splitlines()}
    for name in ("nats-server", "llama.cpp", "site", "max_payload", "JetStream", "clock"):
        assert found[name].startswith("ok"), done.stdout


def test_doctor_says_what_is_wrong_and_what_to_do(machine: Machine, tmp_path: Path) -> None:
    nowhere = Machine(tmp_path)
    with (tmp_path / "helexa.toml").open("w") as file:
        site = SiteFile.load(machine.data.site_file)
        assert site is not None
        taken = str(site.gateway_url).removeprefix("http://")
        file.write(f'[gateway]\nsocket = "{taken}"\n')

    done = nowhere.helexa("doctor", "--nats-url", f"nats://{free_address()}")

    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert done.returncode == 1
    assert any("gateway port" in line and "--gateway-socket" in line for line in wrong)
    assert any("cannot be reached" in line for line in wrong)


@pytest.mark.accepts("CFG-2")
def test_a_second_site_on_one_data_directory_is_refused(machine: Machine) -> None:
    done = machine.helexa("cortex")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("helexa: Another site (PID ")


@pytest.mark.accepts("CFG-2")
def test_a_port_that_is_taken_is_named_with_its_flag(
    machine: Machine, sockets: dict[str, SocketAddress], tmp_path: Path
) -> None:
    taken = str(sockets["gateway"])

    done = machine.helexa("cortex", "--gateway-socket", taken, "--data-dir", str(tmp_path))

    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"helexa: --gateway-socket: cannot listen on {taken}: ")


@pytest.mark.accepts("CX-2", "CX-27")
@pytest.mark.parametrize("given", [(), ("portal",), ("orchestrator",)])
def test_a_role_that_is_not_asked_for_has_no_socket(tmp_path: Path, given: tuple[str, ...]) -> None:
    addresses = {name: free_address() for name in ("orchestrator", "gateway", "portal")}
    words = [word for name in given for word in (f"--{name}-socket", str(addresses[name]))]
    cortex = Machine(tmp_path).begin(
        "cortex", *words, awaited="role_serves" if given else "no_role"
    )

    with stopped(cortex):
        is_open = {name: not is_free(address) for name, address in addresses.items()}
        began = time.monotonic()

    assert is_open == {name: name in given for name in addresses}
    assert time.monotonic() - began < 10
    assert all(is_free(address) for address in addresses.values())
