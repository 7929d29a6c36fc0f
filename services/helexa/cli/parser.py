# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The argument parsers: a wrong argument is one clear line and exit code 2."""

import argparse
import importlib
from collections.abc import Callable
from typing import NoReturn

from helexa.cli.commands import COMMANDS

Run = Callable[[argparse.Namespace], int]
DESCRIPTION = "An open inference mesh: OpenAI-compatible gateways over NATS, on anybody's hosts."


class Parser(argparse.ArgumentParser):
    """A parser that does not answer a mistake with a page of usage."""

    def error(self, message: str) -> NoReturn:  # type: ignore[explicit-override] # see below
        """End with one line and exit code 2."""
        # `typing_extensions.override` would double the time of `helexa --help`.
        text = " ".join(message.split())
        self.exit(2, f"{self.prog}: {text} (see '{self.prog} --help')\n")


def command_parser(name: str) -> Parser:
    """Return the parser of one command; its namespace has the command's function as `run`.

    Only that command's module is imported.
    """
    command = COMMANDS[name]
    parser = Parser(
        prog=f"helexa {name}",
        description=command.summary,
        epilog=f"example:\n  {command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module = importlib.import_module(command.module)
    add_arguments: Callable[[argparse.ArgumentParser], None] = module.add_arguments
    run: Run = module.run
    add_arguments(parser)
    parser.set_defaults(run=run)
    return parser


def unknown_command(word: str) -> str:
    """Return one line about a command that does not exist."""
    from difflib import get_close_matches  # noqa: PLC0415 - only when something is wrong

    close = get_close_matches(word, COMMANDS, n=1)
    advice = f"did you mean 'helexa {close[0]}'?" if close else "see 'helexa --help'"
    return f"helexa: there is no command {word!r}; {advice}"


def overview() -> str:
    """Return what `helexa --help` prints."""
    width = max(map(len, COMMANDS))
    lines = ["usage: helexa COMMAND [flags]", "", DESCRIPTION]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [
            f"  {name:{width}}  {command.summary}"
            for name, command in COMMANDS.items()
            if command.group == group
        ]
    lines += ["", "example:", "  helexa up", "", "'helexa COMMAND --help' tells more about each."]
    return "\n".join(lines) + "\n"
