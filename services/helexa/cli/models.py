# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa models`: the catalogue of a site."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from helexa.cli.api import Api, segment
from helexa.cli.flags import whole_number
from helexa.cli.loading import show_loading
from helexa.cli.reach import add_reach_arguments, orchestrator
from helexa.cli.views import ModelList, model_table
from helexa.process.settings import SettingsError
from helexa.protocol.messages.models import BackendKind, ContinuationWay

KINDS = (
    BackendKind.LLAMA_CPP,
    BackendKind.VLLM,
    BackendKind.OPENAI_PROXY,
    BackendKind.COMMAND,
)
WAYS = (
    ContinuationWay.ASSISTANT_MESSAGE,
    ContinuationWay.CONTINUE_FINAL_MESSAGE,
    ContinuationWay.NONE,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what to do, with which model."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the models")
    listing.add_argument("--json", action="store_true", help="print everything that is known")
    adding = actions.add_parser("add", help="add a model, or change one, and load it")
    _add_model_arguments(adding)
    loading = actions.add_parser("load", help="load a model")
    loading.add_argument("--neuron", metavar="ID", help="load it there")
    unloading = actions.add_parser("unload", help="unload a model until it is asked for")
    removing = actions.add_parser("rm", help="take a model out of the catalogue")
    for each in (loading, unloading, removing):
        each.add_argument("name", help="the model's name")
    for each in (listing, adding, loading, unloading, removing):
        add_reach_arguments(each)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    actions: dict[str, Callable[[Api, argparse.Namespace], None]] = {
        "list": _list,
        "add": _add,
        "load": _load,
        "unload": _unload,
        "rm": _remove,
    }
    # What to send is made first: a slip in it needs no site to be told.
    if arguments.action == "add":
        model_fields(arguments)
    actions[arguments.action](orchestrator(arguments), arguments)
    return 0


def _list(api: Api, arguments: argparse.Namespace) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(api.get("/api/models"), indent=2) + "\n")
        return
    sys.stdout.write(model_table(api.read("/api/models", ModelList).models))


def _add(api: Api, arguments: argparse.Namespace) -> None:
    fields = model_fields(arguments)
    api.call("PUT", f"/api/models/{segment(arguments.name)}", fields)
    if arguments.min_replicas == "0":
        sys.stdout.write(f"{arguments.name}: added; it is loaded when it is asked for\n")
        return
    _load(api, arguments)


def _load(api: Api, arguments: argparse.Namespace) -> None:
    neuron = getattr(arguments, "neuron", None)
    body = {"neuron": neuron} if neuron else {}
    api.call("POST", f"/api/models/{segment(arguments.name)}/load", body)
    show_loading(api, arguments.name)


def _unload(api: Api, arguments: argparse.Namespace) -> None:
    api.call("POST", f"/api/models/{segment(arguments.name)}/unload", {})
    sys.stdout.write(f"{arguments.name}: is unloaded when what it serves has ended\n")


def _remove(api: Api, arguments: argparse.Namespace) -> None:
    api.call("DELETE", f"/api/models/{segment(arguments.name)}")
    sys.stdout.write(f"{arguments.name}: removed\n")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="the name that clients ask for")
    parser.add_argument(
        "--source", help="a path on the neuron, hf:org/repo/file, or an https URL of the weights"
    )
    parser.add_argument("--projector", help="the same for an image or audio projector")
    parser.add_argument("--backend", choices=KINDS, help="how it is run; guessed unless given")
    parser.add_argument("--slots", metavar="N", help="requests that one replica serves at once")
    parser.add_argument("--context", metavar="TOKENS", help="context of one slot")
    parser.add_argument(
        "--alias", action="append", default=[], metavar="NAME", help="another name; repeatable"
    )
    parser.add_argument("--min-replicas", metavar="N", help="keep so many loaded (default: 1)")
    parser.add_argument("--every-neuron", action="store_true", help="load it on each neuron")
    parser.add_argument(
        "--endpoint", metavar="URL", help="a server that already runs, as https://host/v1"
    )
    parser.add_argument("--upstream-model", metavar="NAME", help="its name at that server")
    parser.add_argument(
        "--api-key-file", metavar="PATH", help="a file on the neuron with that server's key"
    )
    parser.add_argument(
        "--continuation",
        choices=WAYS,
        help="how it is told to go on from a partial answer; known for llama_cpp and vllm",
    )
    parser.add_argument(
        "--whole-answers",
        action=argparse.BooleanOptionalAction,
        help="whether it may be asked for answers in one piece, because it stops when it is left",
    )
    parser.add_argument(
        "--command",
        metavar="'PROGRAM ARGUMENTS'",
        help="what to run instead; ${PORT}, ${MODEL_PATH} and others are filled in",
    )
    parser.add_argument(
        "--arg", action="append", default=[], metavar="TEXT", help="appended to the command"
    )


def model_fields(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the configuration of a model in the orchestrator's words, without what is not given.

    Raises:
        SettingsError: a number is none, or it is not said what to run.
    """
    kind = arguments.backend or _guess_kind(arguments)
    if not (arguments.source or arguments.endpoint or arguments.command):
        raise SettingsError("models add: say what to run: --source, --endpoint or --command")
    fields: dict[str, object] = {
        "backend_kind": kind,
        "source": _absolute(arguments.source),
        "projector": _absolute(arguments.projector),
        "slots": _number(arguments.slots, "--slots"),
        "context_tokens": _number(arguments.context, "--context"),
        "aliases": arguments.alias,
        "listen_endpoint": arguments.endpoint,
        "upstream_model": arguments.upstream_model,
        "continuation": arguments.continuation,
        "whole_answers": arguments.whole_answers,
        "api_key_file": arguments.api_key_file,
        "command": shlex.split(arguments.command or ""),
        "args": arguments.arg,
        "policy": _policy(arguments),
    }
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def _guess_kind(arguments: argparse.Namespace) -> str:
    if arguments.endpoint and not arguments.command:
        return BackendKind.OPENAI_PROXY
    return BackendKind.COMMAND if arguments.command else BackendKind.LLAMA_CPP


def _policy(arguments: argparse.Namespace) -> dict[str, object]:
    policy: dict[str, object] = {}
    if arguments.min_replicas is not None:
        minimum = whole_number(arguments.min_replicas, "--min-replicas", at_least=0)
        policy["min_replicas"] = minimum
    if arguments.every_neuron:
        policy["on_every_neuron"] = True
    return policy


def _number(text: str | None, flag: str) -> int | None:
    return None if text is None else whole_number(text, flag, at_least=1)


def _absolute(source: str | None) -> str | None:
    # A neuron on this machine has another working directory than this command.
    if source is not None and Path(source).exists():
        return str(Path(source).absolute())
    return source
