# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa up`: a whole site on one machine, in the foreground."""

import argparse
import os
import socket as network
import sys
import time
from dataclasses import dataclass

from helexa.cli.addresses import RunningSite
from helexa.cli.childlogs import ChildLogs
from helexa.cli.embedded import EmbeddedServer, server_config
from helexa.cli.firstmodel import wait_for_model
from helexa.cli.flags import SHARED_FLAGS, add_settings_flags, settings_flags, whole_number
from helexa.cli.panel import KeyHint, panel, ready_line
from helexa.cli.ports import require_free
from helexa.cli.running import Counts, Roles, Shared, Site, neuron_ids, plan_site
from helexa.cli.supervision import supervise
from helexa.gateway.settings import GatewaySettings
from helexa.portal.settings import PortalSettings
from helexa.process.lifecycle import Life, run_process
from helexa.process.logs import configure_logs
from helexa.process.settings import ServiceSettings, SettingsT, SocketAddress, load_settings
from helexa.protocol.naming import instance_id
from helexa.protocol.subjects import Role
from helexa.provisioner.settings import ProvisionerSettings
from helexa.site.connect import data_dir_of, site_connection
from helexa.site.layout import DataDir

GRACE_S = 4.0
"""So that everything has stopped within ten seconds."""
MODEL_WITHIN_S = 180.0
SOCKETS = {
    "gateway": "where the OpenAI API listens",
    "orchestrator": "where the orchestrator's API listens",
    "portal": "where the web pages listen",
}
COUNTS = ("gateways", "schedulers", "provisioners", "neurons")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `helexa up` was told."""

    settings: ServiceSettings
    gateway: SocketAddress
    orchestrator: SocketAddress
    portals: tuple[SocketAddress, ...]
    nats: SocketAddress | None
    counts: Counts
    verbose: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take where to listen, where to keep the data, and how many processes to run."""
    for name, what in SOCKETS.items():
        parser.add_argument(f"--{name}-socket", metavar="HOST:PORT", help=what)
    parser.add_argument(
        "--nats-socket",
        metavar="HOST:PORT",
        help="where the embedded nats-server listens; a free loopback port unless it is given",
    )
    for name in COUNTS:
        parser.add_argument(f"--{name}", metavar="N", default="1", help=f"how many {name} to run")
    parser.add_argument("--verbose", action="store_true", help="show every log line")
    add_settings_flags(parser, ServiceSettings, only=("data_dir", "log_level", "grace_s"))


def run(arguments: argparse.Namespace) -> int:
    """Run a site until Ctrl-C."""
    options = read_options(arguments)
    level = options.settings.log_level
    configure_logs("up", instance_id(), level if options.verbose else "warning")
    return run_process(lambda life: start(life, options))


def read_options(arguments: argparse.Namespace) -> UpOptions:
    """Return the options in `arguments`, with what the file and the environment say.

    Raises:
        SettingsError: one is wrong.
    """
    flags = settings_flags(arguments, ServiceSettings)
    loaded = load_settings(ServiceSettings, flags)
    settings = loaded.values
    if loaded.origins["grace_s"] == "default":
        settings = settings.model_copy(update={"grace_s": GRACE_S})
    nats = arguments.nats_socket
    return UpOptions(
        settings=settings,
        gateway=SocketAddress.parse(_of(GatewaySettings, arguments.gateway_socket).socket),
        orchestrator=_of(ProvisionerSettings, arguments.orchestrator_socket).address,
        portals=_of(PortalSettings, arguments.portal_socket).addresses,
        nats=SocketAddress.parse(nats) if nats else None,
        counts=Counts(
            *(
                whole_number(getattr(arguments, n), f"--{n}", at_least=int(n != "neurons"))
                for n in COUNTS
            )
        ),
        verbose=arguments.verbose,
    )


def _of(kind: type[SettingsT], socket: str | None) -> SettingsT:
    return load_settings(kind, {"socket": socket}).values


async def start(life: Life, options: UpOptions) -> None:
    """Start everything, and print where it is.

    Raises:
        SettingsError: a port is taken.
        HelexaError: something does not start; the message says what.
    """
    began = time.monotonic()
    data = data_dir_of(options.settings)
    life.resources.enter_context(data.lock())
    _tell(f"Starting Helexa in {data.path}")
    site = await _start_processes(life, options, data)
    _tell("Waiting for a model")
    settings = options.settings.model_copy(update={"nats_url": site.file.nats_urls})
    connection = site_connection(settings, Role.ADMIN)
    model = await wait_for_model(connection, _tell, within_s=MODEL_WITHIN_S)
    took_s = time.monotonic() - began
    gateway = _of(GatewaySettings, None)
    own = data.gateway_key if data.gateway_key.exists() and not gateway.api_keys else None
    key = KeyHint(gateway.api_key_file or own, is_in_settings=bool(gateway.api_keys))
    text = panel(site.file, model=model, key=key, took_s=took_s, data=data.path)
    sys.stdout.write(f"\n{text}\n{ready_line(site.file, model=model, took_s=took_s)}\n")
    sys.stdout.flush()
    life.resources.callback(_tell, "Stopping")


async def _start_processes(life: Life, options: UpOptions, data: DataDir) -> Site:
    require_free(options.gateway, "--gateway-socket")
    require_free(options.orchestrator, "--orchestrator-socket")
    for address in options.portals:
        require_free(address, "--portal-socket")
    config = server_config(data, options.nats)
    server = await life.resources.enter_async_context(EmbeddedServer(data, config))
    life.run("nats-server", server.keep())
    _tell(f"nats-server {server.url}")
    known = RunningSite(name=config.name, pid=os.getpid(), nats_urls=(server.url,))
    roles = Roles(
        gateway=options.gateway,
        orchestrator=options.orchestrator,
        portals=options.portals,
        neuron_ids=neuron_ids(data.neurons / "ids", network.gethostname(), options.counts.neurons),
        counts=options.counts,
    )
    settings = options.settings.model_copy(
        update={"data_dir": data.path, "nats_url": (server.url,)}
    )
    shared = Shared({name: getattr(settings, name) for name in SHARED_FLAGS})
    site = plan_site(roles, known, shared)
    site.file.save(data.site_file)
    logs = ChildLogs(data.logs, verbose=options.verbose)
    life.resources.callback(logs.close)
    _tell("Starting " + ", ".join(child.name for child in site.children))
    await supervise(life, site.children, on_lines=logs.take, grace_s=settings.grace_s)
    return site


def _tell(line: str) -> None:
    sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()
