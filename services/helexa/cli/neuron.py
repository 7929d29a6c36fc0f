# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa neuron`: run a neuron on this host, let one in, or look at one."""

import argparse
import json
import sys

from helexa.cli.api import Api, segment
from helexa.cli.flags import add_settings_flags, settings_flags
from helexa.cli.reach import ClientSettings, orchestrator
from helexa.cli.views import JoinToken, NeuronList, neuron_table
from helexa.neuron.settings import NeuronSettings
from helexa.process.running import run_service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take every setting of a neuron, and what else can be done about neurons."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("token", "inspect"),
        help="token: print a join token for another host; inspect: show neurons; "
        "without it a neuron runs here",
    )
    parser.add_argument("id", nargs="?", help="the neuron to inspect; all unless given")
    add_settings_flags(parser, NeuronSettings, secrets=("join_token",))
    reach = parser.add_argument_group("for token and inspect")
    reach.add_argument("--lasts-s", metavar="SECONDS", type=float, help="how long a token is good")
    reach.add_argument("--orchestrator-url", metavar="URL", help="where the orchestrator is")
    reach.add_argument("--key", metavar="KEY", help="the orchestrator's key")


def run(arguments: argparse.Namespace) -> int:
    """Run a neuron in this process, or do what was asked instead."""
    if arguments.action == "token":
        return _token(orchestrator(_client(arguments)), arguments)
    if arguments.action == "inspect":
        return _inspect(orchestrator(_client(arguments)), arguments.id)
    from helexa.neuron.__main__ import start  # noqa: PLC0415 - `--help` needs only the settings

    flags = settings_flags(arguments, NeuronSettings, whole=("site",))
    return run_service(NeuronSettings, start, flags)


def _client(arguments: argparse.Namespace) -> argparse.Namespace:
    names = ("data_dir", *ClientSettings.model_fields)
    return argparse.Namespace(
        **{name: getattr(arguments, name, None) for name in names if name != "nats_url"}
    )


def _token(api: Api, arguments: argparse.Namespace) -> int:
    body: dict[str, object] = {}
    if arguments.lasts_s is not None:
        body["lasts_s"] = arguments.lasts_s
    if arguments.nats_url:
        body["urls"] = settings_flags(arguments, NeuronSettings)["nats_url"]
    made = JoinToken.model_validate(api.call("POST", "/api/neurons/tokens", body))
    sys.stdout.write(made.token + "\n")
    where = ", ".join(made.urls)
    sys.stderr.write(
        f"It lets hosts in that reach {where}; there: helexa neuron --join-token TOKEN\n"
    )
    return 0


def _inspect(api: Api, name: str | None) -> int:
    if name is None:
        sys.stdout.write(neuron_table(api.read("/api/neurons", NeuronList).neurons))
        return 0
    found = api.get(f"/api/neurons/{segment(name)}")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0
