# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa site init`: make the keys and configuration of a site that containers run."""

import argparse
import sys
from pathlib import Path

from helexa.site.foundation import Founded, Servers, found_site

DEFAULT_SERVER = "nats"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take where the files go, which servers there are, and what to tell people."""
    parser.add_argument("action", choices=("init",), help="init: make what is missing")
    parser.add_argument(
        "--directory", metavar="PATH", required=True, help="where a directory for each role is made"
    )
    parser.add_argument(
        "--server",
        metavar="HOST",
        action="append",
        help="the host name of a nats-server; several form a cluster; default: nats",
    )
    parser.add_argument(
        "--store", metavar="PATH", required=True, help="where each server keeps its streams"
    )
    parser.add_argument(
        "--renew",
        metavar="KEY",
        action="append",
        help="make this key anew: the name of a role, system, api-key or orchestrator-key",
    )
    parser.add_argument("--api-url", metavar="URL", help="the API's address, to be printed")
    parser.add_argument("--portal-url", metavar="URL", help="the portal's address, to be printed")


def run(arguments: argparse.Namespace) -> int:
    """Found the site, and print its addresses and, the first time, its key."""
    names = tuple(arguments.server or (DEFAULT_SERVER,))
    servers = Servers(names, Path(arguments.store))
    renewed = [name for name in arguments.renew or () if name]
    founded = found_site(Path(arguments.directory), servers, renewed)
    rows = [
        ("API", arguments.api_url),
        ("Portal", arguments.portal_url),
        ("API key", founded.api_key if founded.is_new else None),
    ]
    sys.stdout.write(_headline(founded) + "\n")
    sys.stdout.write("".join(f"  {name:8} {value}\n" for name, value in rows if value))
    return 0


def _headline(founded: Founded) -> str:
    if founded.is_new:
        return f"{founded.name} has a new key, which is shown this once."
    return f"{founded.name} keeps its keys; its configuration is that of this version."
