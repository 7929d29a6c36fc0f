# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The reference page of settings, made of the settings classes and their docstrings."""

import ast
import inspect
from collections.abc import Iterator

from helexa.cli.config import KINDS
from helexa.process.settings import WELL_KNOWN_VARIABLES, ServiceSettings, StreamSettings

INTRODUCTION = """\
Each setting has one name. In `helexa.toml` it stands in the table of its service, in the
environment it is `HELEXA_SERVICE_NAME`, as a flag `--name`. Flags win over the environment, the
environment over the file, the file over the default; `helexa config show` tells where a value
comes from. The file is `helexa.toml` in the working directory, or the one that `HELEXA_CONFIG`
names. Unknown names are refused.

In the environment and in flags, the parts of a list are separated by commas. Secrets have no
flags, apart from those that [the commands](commands.md) name: the list of processes shows command
lines to everybody on the machine.
"""
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Literal['memory', 'file']": "`memory` or `file`",
    "Path": "path",
    "SecretStr": "secret text",
    "tuple[str, ...]": "list of texts",
}
SHARED_TABLE = """\
For every service. These may also stand at the top of the file, before the first table, and as
`HELEXA_NAME`; in a service's table, or as `HELEXA_SERVICE_NAME`, they are about that service
alone.
"""
STREAMS_TABLE = """\
For every service that makes streams and buckets: gateway, provisioner and portal. They may be set
once for all of them, like those above, and all of them need the same values: of two services that
differ, the one that started last has its way.
"""


def settings_page(note: str) -> str:
    """Return the page of settings."""
    lines = ["# Settings", "", note, "", INTRODUCTION, "## All services", "", SHARED_TABLE]
    lines += [*_table(ServiceSettings), "", "## Streams", "", STREAMS_TABLE]
    lines += list(_table(StreamSettings))
    for section, kind in KINDS.items():
        lines += [
            "",
            f"## {section}",
            "",
            f"{_summary(kind)} In the table `[{section}]`.",
            "",
            *_table(kind),
        ]
    return "\n".join(lines) + "\n"


def field_docs(kind: type[ServiceSettings]) -> dict[str, str]:
    """Return the docstring of each of `kind`'s own fields."""
    return {name: doc for name, _, doc in _declared(kind)}


def _summary(kind: type[ServiceSettings]) -> str:
    return (kind.__doc__ or "").partition("\n")[0].partition(", table ")[0].rstrip(".") + "."


def _table(kind: type[ServiceSettings]) -> Iterator[str]:
    yield "| name | type | default | variable | meaning |"
    yield "|---|---|---|---|---|"
    for name, annotation, doc in _declared(kind):
        yield " | ".join(
            (
                f"| `{name}`",
                TYPES[annotation.removesuffix(" | None")],
                default_of(kind, name) or "-",
                ", ".join(f"`{each}`" for each in _variables(kind, name)),
                f"{doc} |",
            )
        )


def default_of(kind: type[ServiceSettings], name: str) -> str:
    """Return the default of a field in words, empty where there is none."""
    default = kind.model_fields[name].default
    if default is None or default in ((), ""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"`{default}`"


def _variables(kind: type[ServiceSettings], name: str) -> tuple[str, ...]:
    own = f"HELEXA_{kind.section}_{name}" if kind.section else f"HELEXA_{name}"
    return (own.upper(), *WELL_KNOWN_VARIABLES.get(name, ()))


def _declared(kind: type[ServiceSettings]) -> list[tuple[str, str, str]]:
    """Return name, type and docstring of each field that `kind` itself declares."""
    tree = ast.parse(inspect.getsource(kind))
    (declared,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    found = []
    for node, after in zip(declared.body, [*declared.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if name in kind.model_fields:
                found.append((name, ast.unparse(node.annotation), _text(after)))
    return found


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        text = " ".join(str(node.value.value).split()).replace("|", "\\|")
        return text.replace("`None`", "not set")
    return ""
