# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa config show`: each setting and where its value comes from."""

import argparse
import sys
from collections.abc import Sequence

from pydantic import SecretStr

from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.cli.parser import Parser
from helexa.cli.reach import ClientSettings
from helexa.gateway.settings import GatewaySettings
from helexa.neuron.settings import NeuronSettings
from helexa.portal.settings import PortalSettings
from helexa.process.settings import Loaded, ServiceSettings, load_settings
from helexa.provisioner.settings import ProvisionerSettings
from helexa.scheduler.settings import SchedulerSettings

KINDS: dict[str, type[ServiceSettings]] = {
    kind.section: kind
    for kind in (
        GatewaySettings,
        SchedulerSettings,
        ProvisionerSettings,
        PortalSettings,
        NeuronSettings,
        ClientSettings,
    )
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the service, and the flags that it would be started with."""
    parser.add_argument("action", choices=("show",), help="what to do")
    parser.add_argument("service", nargs="?", choices=tuple(KINDS), help="one service alone")
    parser.add_argument(
        "flags",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="flags of that service, as when it is started",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the settings of one service, or of all."""
    if arguments.service is not None:
        sys.stdout.write(_one(arguments.service, arguments.flags))
        return 0
    sys.stdout.write("\n".join(_one(service, ()) for service in KINDS))
    return 0


def _one(service: str, words: Sequence[str]) -> str:
    kind = KINDS[service]
    parser = Parser(prog=f"helexa config show {service}", allow_abbrev=False)
    secrets = [name for name in ("join_token", "key") if name in kind.model_fields]
    add_settings_flags(parser, kind, secrets=secrets)
    flags = settings_flags(parser.parse_args(words), kind)
    return show(service, load_settings(kind, flags))


def show(service: str, loaded: Loaded[ServiceSettings]) -> str:
    """Return a table of the settings of `service`: name, value, origin. Secrets stay hidden."""
    rows = [
        (name, _text(getattr(loaded.values, name)), origin)
        for name, origin in loaded.origins.items()
    ]
    names = max(len(name) for name, _, _ in rows)
    values = max(len(value) for _, value, _ in rows)
    lines = [f"{name:{names}}  {value:{values}}  {origin}" for name, value, origin in rows]
    return "\n".join([f"[{service}]", *lines]) + "\n"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, SecretStr):
        return "(secret)"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
