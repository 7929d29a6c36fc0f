# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every command: its name, what it does in one line, an example, and the module that has it.

Nothing is imported for `helexa --help`; a command's module is imported when it is chosen.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One command. Its module has `add_arguments(parser)` and `run(arguments) -> int`."""

    module: str
    summary: str
    example: str
    group: str


START = "Start something"
USE = "Use a running site"
LOOK = "Look after this machine"

COMMANDS: dict[str, Command] = {
    "up": Command(
        "helexa.cli.up",
        "Start a whole site on this machine: servers, one neuron and a small model.",
        "helexa up --data-dir ~/helexa",
        START,
    ),
    "cortex": Command(
        "helexa.cli.cortex",
        "Start a site's roles: each one whose socket is given.",
        "helexa cortex --orchestrator-socket 0.0.0.0:8040 --gateway-socket 0.0.0.0:8080 "
        "--portal-socket 0.0.0.0:8091",
        START,
    ),
    "neuron": Command(
        "helexa.cli.neuron",
        "Run models on this host for a site.",
        "helexa neuron --control-socket 0.0.0.0:9050 --api-socket 127.0.0.1:8060 "
        "--models-dir /var/lib/helexa/models",
        START,
    ),
    "gateway": Command(
        "helexa.cli.services.gateway",
        "Run one gateway process: the OpenAI API.",
        "helexa gateway --socket 127.0.0.1:8080 --nats-url nats://127.0.0.1:4222",
        START,
    ),
    "scheduler": Command(
        "helexa.cli.services.scheduler",
        "Run one scheduler process: who serves a request.",
        "helexa scheduler --nats-url nats://127.0.0.1:4222",
        START,
    ),
    "provisioner": Command(
        "helexa.cli.services.provisioner",
        "Run one provisioner process: which models are loaded where, and the orchestrator API.",
        "helexa provisioner --socket 127.0.0.1:8040 --nats-url nats://127.0.0.1:4222",
        START,
    ),
    "portal": Command(
        "helexa.cli.services.portal",
        "Run one portal process: the web pages of a site.",
        "helexa portal --socket 127.0.0.1:8091 --nats-url nats://127.0.0.1:4222",
        START,
    ),
    "status": Command(
        "helexa.cli.status",
        "Show the neurons and models of a site.",
        "helexa status",
        USE,
    ),
    "models": Command(
        "helexa.cli.models",
        "Add, list, load, unload and remove models.",
        "helexa models add qwen --source hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf",
        USE,
    ),
    "chat": Command(
        "helexa.cli.chat",
        "Chat with a model in the terminal.",
        "helexa chat helexa-tiny 'Hello!'",
        USE,
    ),
    "bench": Command(
        "helexa.cli.bench.command",
        "Measure how fast a site, or any OpenAI-compatible API, answers.",
        "helexa bench --model helexa-tiny --concurrency 1 4 16",
        USE,
    ),
    "why": Command(
        "helexa.cli.why",
        "Tell why a request went, or a model would go, where it does.",
        "helexa why helexa-tiny",
        USE,
    ),
    "drain": Command(
        "helexa.cli.drain",
        "Let a neuron finish what it has and take nothing new.",
        "helexa drain gpu-host-1",
        USE,
    ),
    "receipts": Command(
        "helexa.cli.receipts",
        "List, verify and export the receipts of paid requests.",
        "helexa receipts list",
        LOOK,
    ),
    "site": Command(
        "helexa.cli.site",
        "Make the keys and the NATS configuration of a site that containers run.",
        "helexa site init --directory /site --store /site/jetstream --server nats",
        LOOK,
    ),
    "ledger": Command(
        "helexa.cli.ledger",
        "Check, show, export and restore this machine's copy of a portal's ledger.",
        "helexa ledger verify",
        LOOK,
    ),
    "config": Command(
        "helexa.cli.config",
        "Show each setting and where its value comes from.",
        "helexa config show gateway",
        LOOK,
    ),
    "doctor": Command(
        "helexa.cli.doctor",
        "Check this machine and its site, and tell what to do.",
        "helexa doctor",
        LOOK,
    ),
    "version": Command(
        "helexa.cli.version",
        "Print the version.",
        "helexa version",
        LOOK,
    ),
}
