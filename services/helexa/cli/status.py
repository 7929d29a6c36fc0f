# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa status`: what of a site runs, and how it is."""

import argparse
import asyncio
import json
import sys

from helexa.cli.addresses import RunningSite
from helexa.cli.probe import is_ready
from helexa.cli.reach import add_reach_arguments, orchestrator, read_client_settings
from helexa.cli.views import ModelList, NeuronList, model_table, neuron_table, table
from helexa.site.connect import data_dir_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take where the site is."""
    parser.add_argument("--json", action="store_true", help="print everything that is known")
    add_reach_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the site's processes, neurons and models."""
    api = orchestrator(arguments)
    if arguments.json:
        whole = {"site": api.get("/api/site"), **api.get("/api/neurons"), **api.get("/api/models")}
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
        return 0
    neurons = api.read("/api/neurons", NeuronList).neurons
    models = api.read("/api/models", ModelList).models
    processes = asyncio.run(_processes(arguments, api.url))
    parts = [processes, neuron_table(neurons), model_table(models)]
    sys.stdout.write("\n".join(parts))
    return 0


async def _processes(arguments: argparse.Namespace, orchestrator_url: str) -> str:
    site = RunningSite.load(data_dir_of(read_client_settings(arguments)).site_file)
    known = {"orchestrator": orchestrator_url}
    # The data directory may be about another site than the one that was named.
    if site is not None and site.orchestrator_url == orchestrator_url:
        known |= {
            name: url
            for name, url in (("gateway", site.gateway_url), ("portal", site.portal_url))
            if url
        }
    states = await asyncio.gather(*map(is_ready, known.values()))
    rows = [
        (name, "ready" if ready else "not ready", url)
        for (name, url), ready in zip(known.items(), states, strict=True)
    ]
    return table(("PROCESS", "STATE", "ADDRESS"), rows)
