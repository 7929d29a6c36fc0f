# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Starts a neuron."""

import sys

from helexa.neuron.admission import Applicant
from helexa.neuron.endpoints import serve_endpoints
from helexa.neuron.identity import hold_identity, load_identity, resolve_node_id
from helexa.neuron.joining import JoinToken, read_sites
from helexa.neuron.node import Node
from helexa.neuron.runtimes import runnable_kinds
from helexa.neuron.settings import NeuronSettings
from helexa.process.lifecycle import EXIT_FAILED, Life
from helexa.process.logs import name_instance
from helexa.process.metrics import Metrics
from helexa.process.running import service_main
from helexa.protocol.naming import instance_id
from helexa.protocol.subjects import Role
from helexa.site.connect import data_dir_of


async def start(life: Life, settings: NeuronSettings) -> None:
    """Run a neuron until the end of `life`."""
    data = data_dir_of(settings)
    token = JoinToken(settings, data)
    node_id = resolve_node_id(settings.node_id, data, may_mint=token.is_named)
    life.resources.enter_context(hold_identity(node_id, data))
    seed = settings.nats_seed.get_secret_value() if settings.nats_seed else None
    _, token_urls = token.read()
    instance = instance_id()
    name_instance(instance)
    node = Node(
        settings,
        Applicant(node_id, load_identity(node_id, data, seed), token),
        data,
        Metrics(Role.NEURON, instance),
        kinds=runnable_kinds(settings.backend_kinds),
    )
    await serve_endpoints(life, node, settings, data)

    def give_up(reason: str) -> None:
        sys.stderr.write(f"helexa: {reason}\n")
        life.stop.ask(reason, exit_code=EXIT_FAILED)

    for site in read_sites(settings, token_urls):
        bus = await life.resources.enter_async_context(node.bus_of(site))
        await life.watch(bus)
        life.run(f"admission-{site.name}", node.admit(site, give_up))
    life.resources.push_async_callback(node.end, settings.grace_s)
    node.begin(life.run)


def main() -> int:
    """Run a neuron process; return its exit code."""
    return service_main(NeuronSettings, start)


if __name__ == "__main__":
    sys.exit(main())
