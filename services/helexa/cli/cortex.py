# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa cortex`: the roles of a site whose socket is given."""

import argparse
import logging
import os
from dataclasses import dataclass

from helexa.cli.addresses import RunningSite
from helexa.cli.embedded import EmbeddedServer, server_config
from helexa.cli.flags import SHARED_FLAGS, add_settings_flags, settings_flags
from helexa.cli.ports import require_free
from helexa.cli.probe import ALIVE
from helexa.cli.running import Roles, Shared, plan_site
from helexa.cli.supervision import supervise
from helexa.process.lifecycle import Life, run_process
from helexa.process.logs import configure_logs
from helexa.process.settings import ServiceSettings, SocketAddress, load_settings
from helexa.process.supervisor import pass_on
from helexa.protocol.naming import instance_id
from helexa.site.connect import data_dir_of
from helexa.site.layout import DataDir

_log = logging.getLogger(__name__)

_OFF = "; without it the role is off"


@dataclass(frozen=True, slots=True)
class CortexOptions:
    """What `helexa cortex` was told."""

    settings: ServiceSettings
    roles: Roles
    nats: SocketAddress | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the socket of each role, and where the site is."""
    parser.add_argument(
        "--orchestrator-socket",
        metavar="HOST:PORT",
        help=f"where the orchestrator's API listens (scheduler and provisioner){_OFF}",
    )
    parser.add_argument(
        "--gateway-socket", metavar="HOST:PORT", help=f"where the OpenAI API listens{_OFF}"
    )
    parser.add_argument(
        "--portal-socket",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help=f"where the web pages listen; may be repeated{_OFF}",
    )
    parser.add_argument(
        "--nats-socket",
        metavar="HOST:PORT",
        help="where the embedded nats-server listens, used without --nats-url; a loopback port "
        "unless it is given",
    )
    add_settings_flags(parser, ServiceSettings, only=SHARED_FLAGS)


def run(arguments: argparse.Namespace) -> int:
    """Run the roles until a signal."""
    options = read_options(arguments)
    configure_logs("cortex", instance_id(), options.settings.log_level)
    return run_process(lambda life: start(life, options))


def read_options(arguments: argparse.Namespace) -> CortexOptions:
    """Return the options in `arguments`, with what the file and the environment say.

    Raises:
        SettingsError: one is wrong.
    """
    settings = load_settings(ServiceSettings, settings_flags(arguments, ServiceSettings)).values
    return CortexOptions(
        settings=settings,
        roles=Roles(
            gateway=_address(arguments.gateway_socket),
            orchestrator=_address(arguments.orchestrator_socket),
            portals=tuple(map(SocketAddress.parse, arguments.portal_socket)),
        ),
        nats=_address(arguments.nats_socket),
    )


async def start(life: Life, options: CortexOptions) -> None:
    """Start the roles, and the site's server where none is named.

    Raises:
        SettingsError: a port is taken.
        HelexaError: something does not start; the message says what.
    """
    data = data_dir_of(options.settings)
    life.resources.enter_context(data.lock())
    for flag, address in _sockets(options.roles):
        require_free(address, flag)
    settings, known = await _servers(life, options, data)
    # A role may wait for another that runs elsewhere, or not yet; here it is enough that it lives.
    shared = Shared({name: getattr(settings, name) for name in SHARED_FLAGS}, awaited=ALIVE)
    site = plan_site(options.roles, known, shared)
    site.file.save(data.site_file)
    if site.children:
        await supervise(life, site.children, on_lines=pass_on, grace_s=settings.grace_s)
    for flag, address in _sockets(options.roles):
        role = flag.removeprefix("--").removesuffix("-socket")
        _log.info("role_serves", extra={"role": role, "address": str(address)})
    if not site.children:
        _log.info("no_role", extra={"advice": "give a role its socket, see helexa cortex --help"})


async def _servers(
    life: Life, options: CortexOptions, data: DataDir
) -> tuple[ServiceSettings, RunningSite]:
    settings = options.settings.model_copy(update={"data_dir": data.path})
    config = server_config(data, options.nats)
    urls = settings.nats_url
    if not urls:
        server = await life.resources.enter_async_context(EmbeddedServer(data, config))
        life.run("nats-server", server.keep())
        urls = (server.url,)
        _log.info("nats_server_serves", extra={"url": server.url})
    known = RunningSite(name=config.name, pid=os.getpid(), nats_urls=urls)
    return settings.model_copy(update={"nats_url": urls}), known


def _sockets(roles: Roles) -> list[tuple[str, SocketAddress]]:
    found = [
        ("--orchestrator-socket", roles.orchestrator),
        ("--gateway-socket", roles.gateway),
        *(("--portal-socket", address) for address in roles.portals),
    ]
    return [(flag, address) for flag, address in found if address is not None]


def _address(text: str | None) -> SocketAddress | None:
    return SocketAddress.parse(text) if text else None
