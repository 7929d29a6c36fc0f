# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Flags made of settings: `socket_path` is `--socket-path` and means what it means in the file."""

import argparse
from collections.abc import Collection
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from helexa.process.settings import ServiceSettings, SettingsError, field_help

SHARED_FLAGS = ("data_dir", "nats_url", "log_level", "grace_s")
"""Settings that commands with several processes pass on to each of them."""


def add_settings_flags(
    parser: argparse.ArgumentParser,
    kind: type[ServiceSettings],
    *,
    only: Collection[str] | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Add a flag for each setting of `kind`, or for those in `only`.

    A secret gets a flag only if `secrets` names it: the list of processes shows command lines to
    everybody on the machine.
    """
    for name, field in kind.model_fields.items():
        if only is not None and name not in only:
            continue
        kinds = _kinds_of(field)
        if (SecretStr in kinds and name not in secrets) or dict in kinds:
            continue
        flag = "--" + name.replace("_", "-")
        text = _help(field)
        if bool in kinds:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        elif tuple in kinds:
            parser.add_argument(flag, action="append", metavar="VALUE", help=text)
        else:
            parser.add_argument(flag, metavar="VALUE", help=text)


def settings_flags(
    arguments: argparse.Namespace,
    kind: type[ServiceSettings],
    *,
    whole: Collection[str] = (),
) -> dict[str, object]:
    """Return what was given, by the name of the setting.

    A list may be given by repeating the flag, by commas, or both; a value of a setting in `whole`
    is never split at its commas.
    """
    given: dict[str, object] = {}
    for name in kind.model_fields:
        value = getattr(arguments, name, None)
        if isinstance(value, list):
            parts = value if name in whole else [p for text in value for p in text.split(",")]
            value = tuple(part.strip() for part in parts if part.strip())
        if value is not None:
            given[name] = value
    return given


def flag_words(flags: dict[str, object]) -> tuple[str, ...]:
    """Return `flags` as words of a command line."""
    words: list[str] = []
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, tuple):
            words += [word for part in value for word in (flag, str(part))]
        elif value is not None:
            words += [flag, str(value)]
    return tuple(words)


def whole_number(text: str, flag: str, *, at_least: int) -> int:
    """Return the number in `text`.

    Raises:
        SettingsError: it is none, or too small.
    """
    if not text.isdecimal() or int(text) < at_least:
        raise SettingsError(f"{flag}: {text!r} is not a whole number of at least {at_least}")
    return int(text)


def _help(field: FieldInfo) -> str:
    text = " ".join(field_help(field).replace("`", "").split())
    shown = "" if field.default in (None, (), "") else f"default: {field.default}"
    return "; ".join(part for part in (text.removesuffix("."), shown) if part).replace("%", "%%")


def _kinds_of(field: FieldInfo) -> set[object]:
    annotation = field.annotation
    choices = (
        get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    )
    return {get_origin(choice) or choice for choice in choices}
