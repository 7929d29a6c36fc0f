# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa doctor`: is this machine, and the site on it, in order?"""

import argparse
import asyncio
import sys
from collections.abc import Iterable

from helexa.cli import findings
from helexa.cli.findings import Finding
from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.cli.probe import is_ready
from helexa.cli.sitefindings import site_findings
from helexa.gateway.settings import GatewaySettings
from helexa.portal.settings import PortalSettings
from helexa.process.settings import ServiceSettings, SocketAddress, load_settings
from helexa.protocol.subjects import Role
from helexa.provisioner.settings import ProvisionerSettings
from helexa.site.connect import data_dir_of, site_connection
from helexa.site.keys import Identity
from helexa.site.layout import SiteFile
from helexa.site.reload import system_connection

FLAGS = ("data_dir", "nats_url")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take where the site is."""
    add_settings_flags(parser, ServiceSettings, only=FLAGS)


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; return 1 if something is wrong."""
    settings = load_settings(ServiceSettings, settings_flags(arguments, ServiceSettings)).values
    found = [
        findings.nats_server(),
        findings.llama_cpp(),
        *findings.gpus(),
        findings.data_directory(data_dir_of(settings).path),
        *asyncio.run(_site(settings)),
    ]
    sys.stdout.write(table(found))
    return 0 if all(finding.is_fine for finding in found) else 1


def table(found: Iterable[Finding]) -> str:
    """Return the findings, one a line."""
    rows = list(found)
    width = max(len(finding.name) for finding in rows)
    lines = [
        f"{'ok   ' if finding.is_fine else 'WRONG'}  {finding.name:{width}}  {finding.text}"
        for finding in rows
    ]
    return "\n".join(lines) + "\n"


async def _site(settings: ServiceSettings) -> list[Finding]:
    data = data_dir_of(settings)
    site = SiteFile.load(data.site_file)
    runs = site is not None and await _runs(site)
    found = findings.ports(_addresses(), own_site=runs)
    if not runs and not settings.nats_url:
        return [*found, Finding("site", is_fine=True, text="none runs here; helexa up starts one")]
    admin = site_connection(settings, Role.ADMIN)
    seed = Identity.load(data.system_key).seed if data.system_key.exists() else ""
    return [*found, *await site_findings(admin, system_connection(admin.servers, seed))]


async def _runs(site: SiteFile) -> bool:
    urls = [url for url in (site.orchestrator_url, site.gateway_url, site.portal_url) if url]
    return any([await is_ready(url) for url in urls])


def _addresses() -> list[tuple[str, SocketAddress]]:
    gateway = load_settings(GatewaySettings).values.socket
    orchestrator = load_settings(ProvisionerSettings).values.socket
    portals = load_settings(PortalSettings).values.socket
    named = [("gateway", gateway), ("orchestrator", orchestrator)]
    named += [("portal", portal) for portal in portals]
    return [(name, SocketAddress.parse(text)) for name, text in named]
