# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which processes a site has, what each is told, and what is written about them."""

from pathlib import Path

import pytest

from helexa.cli.addresses import RunningSite
from helexa.cli.commands import COMMANDS
from helexa.cli.panel import KeyHint, panel, ready_line
from helexa.cli.parser import command_parser
from helexa.cli.ports import free_address
from helexa.cli.running import Counts, Roles, Shared, neuron_ids, plan_site
from helexa.process.settings import SocketAddress
from helexa.process.supervisor import Child
from helexa.site.layout import SiteFile

KNOWN = RunningSite(name="s", pid=1, nats_urls=("nats://127.0.0.1:4222",))
SHARED = Shared(
    {"data_dir": Path("/d"), "nats_url": ("nats://127.0.0.1:4222",), "log_level": "info"}
)


def address(port: int) -> SocketAddress:
    return SocketAddress(host="127.0.0.1", port=port)


WHOLE = Roles(
    gateway=address(8080),
    orchestrator=address(8040),
    portals=(address(8091), address(8092)),
    neuron_ids=("n1", "n2"),
    counts=Counts(gateways=2, schedulers=2, provisioners=2, neurons=2),
)


def told(child: Child, flag: str) -> list[str]:
    words = child.argv
    return [words[k + 1] for k, word in enumerate(words) if word == flag]


def test_replicas_have_sockets_of_their_own() -> None:
    site = plan_site(WHOLE, KNOWN, SHARED)

    by_name = {child.name: child for child in site.children}
    assert set(by_name) == {
        *("provisioner", "provisioner-2", "scheduler", "scheduler-2"),
        *("neuron", "neuron-2", "gateway", "gateway-2", "portal"),
    }
    assert told(by_name["gateway"], "--socket") == ["127.0.0.1:8080"]
    assert told(by_name["portal"], "--socket") == ["127.0.0.1:8091", "127.0.0.1:8092"]
    assert told(by_name["neuron-2"], "--node-id") == ["n2"]
    sockets = [
        word
        for child in site.children
        for flag in ("--socket", "--control-socket", "--api-socket")
        for word in told(child, flag)
    ]
    assert len(sockets) == len(set(sockets)) == 12


def test_no_port_is_planned_twice() -> None:
    ports = [free_address().port for _ in range(2000)]
    assert len(set(ports)) == len(ports)


def test_every_process_understands_what_it_is_told() -> None:
    for child in plan_site(WHOLE, KNOWN, SHARED).children:
        place = child.argv.index("helexa.cli")
        name, *words = child.argv[place + 1 :]

        arguments = command_parser(name).parse_args(words)

        assert name in COMMANDS
        assert arguments.data_dir == "/d"


@pytest.mark.accepts("CX-27")
def test_what_serves_others_starts_earlier_and_stops_later() -> None:
    site = plan_site(WHOLE, KNOWN, SHARED)

    order = sorted(site.children, key=lambda child: child.stage)
    kinds = dict.fromkeys(child.name.partition("-")[0] for child in order)

    assert list(kinds) == ["provisioner", "scheduler", "neuron", "gateway", "portal"]


@pytest.mark.accepts("CX-2")
@pytest.mark.parametrize("gateway", [None, address(8080)])
@pytest.mark.parametrize("orchestrator", [None, address(8040)])
@pytest.mark.parametrize("portals", [(), (address(8091),)])
def test_each_mix_of_roles_has_its_processes_alone(
    gateway: SocketAddress | None,
    orchestrator: SocketAddress | None,
    portals: tuple[SocketAddress, ...],
) -> None:
    roles = Roles(gateway=gateway, orchestrator=orchestrator, portals=portals)

    site = plan_site(roles, KNOWN, SHARED)

    wanted = set()
    wanted |= {"gateway"} if gateway else set()
    wanted |= {"scheduler", "provisioner"} if orchestrator else set()
    wanted |= {"portal"} if portals else set()
    assert {child.name for child in site.children} == wanted
    assert (site.file.gateway_url is None) == (gateway is None)
    assert (site.file.orchestrator_url is None) == (orchestrator is None)


def test_other_commands_read_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    plan_site(WHOLE, KNOWN, SHARED).file.save(path)

    found = SiteFile.load(path)

    assert found is not None
    assert found.gateway_url == "http://127.0.0.1:8080"
    assert found.orchestrator_url == "http://127.0.0.1:8040"


def test_neurons_keep_their_ids_when_the_host_is_renamed(tmp_path: Path) -> None:
    file = tmp_path / "ids"

    first = neuron_ids(file, "old", 2)
    fewer = neuron_ids(file, "new", 1)
    more = neuron_ids(file, "new", 3)

    assert first == ("old-1", "old-2")
    assert fewer == ("old-1",)
    assert more == ("old-1", "old-2", "new-1")


def test_the_panel_says_where_to_go_and_what_to_type() -> None:
    site = plan_site(WHOLE, KNOWN, SHARED).file

    text = panel(site, model="helexa-tiny", key=KeyHint(), took_s=3.21, data=Path("/d"))

    for part in (
        "http://127.0.0.1:8080/v1",
        "http://127.0.0.1:8091",
        "http://127.0.0.1:8040",
        "helexa-tiny",
        "none is needed",
        "curl ",
        "OpenAI(base_url=",
        "helexa models add",
        "3.2 s",
    ):
        assert part in text


def test_the_panel_names_the_file_of_a_key_and_not_the_key() -> None:
    site = plan_site(WHOLE, KNOWN, SHARED).file

    text = panel(site, model=None, key=KeyHint(Path("/d/key")), took_s=1, data=Path("/d"))

    assert "in /d/key" in text
    assert "$(cat /d/key)" in text


def test_the_ready_line_is_pairs() -> None:
    site = plan_site(WHOLE, KNOWN, SHARED).file

    line = ready_line(site, model="helexa-tiny", took_s=3.214)

    assert line == (
        "helexa ready gateway=http://127.0.0.1:8080 orchestrator=http://127.0.0.1:8040 "
        "portal=http://127.0.0.1:8091 model=helexa-tiny seconds=3.21"
    )
