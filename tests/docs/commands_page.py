# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The reference page of commands, made of their parsers; argparse's own text varies by version."""

import argparse
from collections.abc import Iterator

from tests.docs.settings_page import default_of, field_docs

from helexa.cli.commands import COMMANDS
from helexa.cli.config import KINDS
from helexa.cli.parser import DESCRIPTION, command_parser
from helexa.cli.reach import ClientSettings
from helexa.process.settings import ServiceSettings, StreamSettings

INTRODUCTION = """\
`helexa COMMAND --help` shows the same. The exit code is 0 when all is done, 1 when something
failed, 2 when an argument or a setting is wrong. A flag that is also [a setting](settings.md) may
be given in the file or the environment as well.
"""


def commands_page(note: str) -> str:
    """Return the page of commands."""
    lines = ["# Commands", "", note, "", DESCRIPTION, "", INTRODUCTION]
    for name, command in COMMANDS.items():
        lines += [f"## helexa {name}", "", command.summary, "", f"    {command.example}", ""]
        parser = command_parser(name)
        actions = list(_subcommands(parser))
        if not actions:
            lines += _arguments(name, parser)
        for action, summary, inner in actions:
            lines += [f"### helexa {name} {action}", "", f"{summary.capitalize()}.", ""]
            lines += _arguments(name, inner)
    return "\n".join(lines).rstrip() + "\n"


def _subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - there is no other way
            told = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001
            for name, inner in action.choices.items():
                yield name, told[name], inner


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions  # noqa: SLF001 - argparse has no public list of them
        if not isinstance(action, argparse._HelpAction)  # noqa: SLF001
    ]


def _arguments(command: str, parser: argparse.ArgumentParser) -> list[str]:
    rows = [f"| {_name(each)} | {_meaning(command, each)} |" for each in _actions(parser)]
    return ["| argument | meaning |", "|---|---|", *rows, ""] if rows else []


def _name(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else ""
    if action.option_strings:
        flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
        if action.choices is not None:
            value = ", ".join(map(str, action.choices))
        takes_value = action.nargs != 0
        return f"{flags} {value or action.dest.upper()}" if takes_value else flags
    if action.choices is not None:
        value = ", ".join(map(str, action.choices))
    optional = " (optional)" if action.nargs == "?" else ""
    return f"{(value or action.dest).replace('|', ' or ')}{optional}"


def _meaning(command: str, action: argparse.Action) -> str:
    setting = _setting(command, action)
    if setting is not None:
        kind, name = setting
        default = default_of(kind, name)
        parts = (field_docs(kind)[name], f"Default: {default}." if default else "")
        return " ".join(filter(None, parts)) or "See [settings](settings.md)."
    text = (action.help or "").replace("%%", "%").replace("|", "\\|")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _setting(command: str, action: argparse.Action) -> tuple[type[ServiceSettings], str] | None:
    """Return the setting that a flag was made of."""
    made = action.metavar == "VALUE" or isinstance(action, argparse.BooleanOptionalAction)
    if not made:
        return None
    for kind in (KINDS.get(command), ServiceSettings, StreamSettings, ClientSettings):
        if kind is not None and action.dest in field_docs(kind):
            return kind, action.dest
    return None
