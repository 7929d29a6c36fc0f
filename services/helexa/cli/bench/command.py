# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa bench`: the command, its arguments, and where its endpoint is."""

import argparse
import sys
from pathlib import Path

from helexa.cli.addresses import RunningSite
from helexa.cli.api import AnswerError
from helexa.cli.bench import plan
from helexa.cli.bench.plan import Plan, read_plan
from helexa.cli.bench.progress import Progress
from helexa.cli.bench.table import Run, as_json, as_text
from helexa.cli.flags import add_settings_flags
from helexa.cli.outcome import INTERRUPTED
from helexa.cli.reach import ClientSettings, gateway_address, read_client_settings
from helexa.site.connect import data_dir_of
from helexa.site.files import read_secret


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what is measured, how, and where it is."""
    parser.add_argument(
        "--url", help="any OpenAI-compatible API, http:// or https://; the site's gateway if absent"
    )
    parser.add_argument(
        "--key-file", metavar="FILE", help="holds the API key; else HELEXA_CLIENT_KEY is the key"
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", help="certificates to trust in place of the system's"
    )
    parser.add_argument("--model", metavar="NAME", help="a model's name; else the first one listed")
    _add_load(parser)
    _add_request(parser)
    parser.add_argument(
        "--json", action="store_true", help="print everything that was measured, times in seconds"
    )
    add_settings_flags(parser, ClientSettings, only=("data_dir",))


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    asked = read_plan(arguments)
    measured = _measure(asked, arguments)
    if not measured.figures:
        sys.stderr.write("helexa: interrupted before anything was measured\n")
        return INTERRUPTED
    sys.stdout.write(as_json(measured) if arguments.json else as_text(measured))
    if measured.was_interrupted:
        return INTERRUPTED
    return 0 if all(each.answered for each in measured.figures) else 1


def place(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the address of the API and the key for it.

    The key of a site is never sent to another address.

    Raises:
        SettingsError: it is not known where the API is.
        KeyFileError: the key cannot be read.
    """
    settings = read_client_settings(arguments)
    key = settings.key.get_secret_value() if settings.key is not None else None
    if arguments.key_file is not None:
        key = read_secret(Path(arguments.key_file))
    if arguments.url is None:
        url, own = gateway_address(arguments)
        return url, key or own
    site = RunningSite.load(data_dir_of(settings).site_file)
    if key is None and site is not None and _root(arguments.url) in site.gateway_urls:
        _, key = gateway_address(arguments)
    return arguments.url, key


def _measure(asked: Plan, arguments: argparse.Namespace) -> Run:
    try:
        # Only this command needs httptools, and a machine that measures needs nothing else.
        from helexa.cli.bench.endpoint import endpoint  # noqa: PLC0415
        from helexa.cli.bench.session import measure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise AnswerError(f"{error.name} is missing: pip install 'helexa[bench]'") from error
    url, key = place(arguments)
    ca_file = None if arguments.ca_file is None else Path(arguments.ca_file)
    progress = Progress(_to_stderr, is_terminal=sys.stderr.isatty())
    return measure(asked, endpoint(url, key, ca_file), arguments.model, progress)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _root(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--concurrency",
        nargs="+",
        metavar="N",
        help="clients, each asking again when it is answered, one step after the other; default: "
        f"{' '.join(plan.CONCURRENCY)}; with --rate the most connections, default: "
        f"{plan.MOST_CONNECTIONS}",
    )
    parser.add_argument(
        "--rate",
        nargs="+",
        metavar="N",
        help="ask so many times a second, answered or not; time counts from when a request was due",
    )
    parser.add_argument(
        "--mode",
        choices=plan.MODES,
        default=plan.MODES[0],
        help=f"kind of answers that are asked for; default: {plan.MODES[0]}",
    )
    parser.add_argument("--requests", metavar="N", help="end a step after so many requests")
    parser.add_argument(
        "--seconds",
        metavar="N",
        help="end a step after so long; what is under way is awaited; default: "
        f"{plan.SECONDS:g}, none with --requests",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        default=f"{plan.TIMEOUT_S:g}",
        help=f"longest silence before a request counts as failed; default: {plan.TIMEOUT_S:g}",
    )


def _add_request(parser: argparse.ArgumentParser) -> None:
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help=f"what is asked; default: '{plan.PROMPT}'")
    prompt.add_argument(
        "--prompt-tokens",
        metavar="N",
        help="make up prompts of about so many tokens, each with another beginning",
    )
    parser.add_argument(
        "--prompts", metavar="N", help="how many made-up prompts take turns; default: no two alike"
    )
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        default=str(plan.MAX_TOKENS),
        help=f"longest answer; default: {plan.MAX_TOKENS}",
    )
    parser.add_argument(
        "--extra",
        metavar="JSON",
        help="more fields of each request: '{\"seed\": 1}'",
    )
