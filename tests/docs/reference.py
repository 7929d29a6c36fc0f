# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Writes the reference pages that are generated from the code: ``python -m tests.docs.reference``."""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

import msgspec
from pydantic import BaseModel
from tests.docs.commands_page import commands_page
from tests.docs.metrics_page import metrics_page
from tests.docs.settings_page import settings_page

import helexa.protocol.messages
from helexa.gateway.envelope import envelope
from helexa.protocol import resources, subjects
from helexa.protocol.errors import ERRORS_BY_CODE, HelexaError
from helexa.protocol.messages.base import PROTOCOL_VERSION, AnyMessage, HotMessage, Message
from helexa.protocol.receipts.faults import FAULTS_BY_CODE
from helexa.protocol.schema import definitions
from helexa.protocol.subjects import Call, Event
from helexa.site.permissions import matrix

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
NOTE = "<!-- Generated from the code by `poe docs`; a test compares. -->\n\n"


def messages() -> list[type[AnyMessage]]:
    """Return every wire type, in the order of its module."""
    found: dict[str, type[AnyMessage]] = {}
    package = helexa.protocol.messages
    for module in pkgutil.iter_modules(package.__path__):
        members = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        for name, member in members.items():
            is_wire = inspect.isclass(member) and issubclass(member, Message | HotMessage)
            if is_wire and member is not HotMessage:
                found.setdefault(name, member)
    return [found[name] for name in sorted(found)]


def subjects_page() -> str:
    """Return the page of subjects, streams and permissions."""
    lines = [
        "# Subjects",
        "",
        NOTE.strip(),
        "",
        "Messages are msgpack maps unless JSON is named. Words in braces are subject tokens.",
        "",
        "## Calls",
        "",
        "| subject | request | reply | served by | called by |",
        "|---|---|---|---|---|",
    ]
    for name, call in sorted(vars(subjects).items()):
        if isinstance(call, Call):
            callers = ", ".join(sorted(call.callers))
            lines.append(
                f"| `{call.subject}` (`{name}`) | `{call.request.__name__}` "
                f"| `{call.reply.__name__}` | {call.server} | {callers} |"
            )
    lines += [
        "",
        "## Events",
        "",
        "| subject | message | published by | read by |",
        "|---|---|---|---|",
    ]
    for name, event in sorted(vars(subjects).items()):
        if isinstance(event, Event):
            form = ", JSON" if event.as_json else ""
            lines.append(
                f"| `{event.subject}` (`{name}`) | `{event.message.__name__}`{form} "
                f"| {', '.join(sorted(event.publishers))} | {', '.join(sorted(event.subscribers))} |"
            )
    lines += ["", "## Frames", "", f"`{subjects.TOKENS}`", ""]
    lines += [(importlib.import_module("helexa.protocol.frames").__doc__ or "").strip(), ""]
    lines += [
        "## Streams",
        "",
        "| stream | subjects | storage | bound | kept |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{each.name}` | {', '.join(f'`{one}`' for one in each.subjects)} | {each.storage} "
        f"| {_bound(each)} | {f'{each.max_age_s:.0f} s' if each.max_age_s else 'for ever'} |"
        for each in resources.STREAMS
    ]
    lines += [
        "",
        "## Buckets",
        "",
        "| bucket | owned by | read by | entries expire |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{each.name}` | {', '.join(sorted(each.owners))} | {', '.join(sorted(each.readers))} "
        f"| {f'{each.ttl_s:.0f} s' if each.ttl_s else 'no'} |"
        for each in resources.BUCKETS
    ]
    return "\n".join([*lines, "", *_permissions()]) + "\n"


def _bound(stream: resources.Stream) -> str:
    if stream.max_bytes == resources.UNBOUNDED:
        return "none"
    return f"{stream.max_bytes // resources.MIB} MiB"


def _permissions() -> list[str]:
    lines = [
        "## Permissions",
        "",
        "What the site's servers let each user do, as generated for them. A neuron's rows hold for its",
        "own id, `{neuron}`; everything else is refused.",
    ]
    for row in matrix():
        lines += ["", f"### {row.role}", ""]
        lines += ["May publish:", ""]
        lines += [f"- `{subject}`" for subject in row.permissions.publish] or ["- nothing"]
        lines += ["", "May subscribe:", ""]
        lines += [f"- `{subject}`" for subject in row.permissions.subscribe]
    return lines


def errors_page() -> str:
    """Return the page of error codes."""
    lines = [
        "# Errors",
        "",
        NOTE.strip(),
        "",
        "The gateway sends them in OpenAI's envelope, with the HTTP status and type shown here; `unauthorized`",
        "is `invalid_api_key` there, `malformed` is `bad_request`. [More](http-api.md#errors).",
        "",
        "| code | class | meaning | retryable | status | type |",
        "|---|---|---|---|---|---|",
    ]
    for code in sorted(ERRORS_BY_CODE):
        kind: type[HelexaError] = ERRORS_BY_CODE[code]
        meaning = (kind.__doc__ or "").partition("\n")[0]
        sent = envelope(kind())
        lines.append(
            f"| `{code}` | `{kind.__name__}` | {meaning} | {'yes' if kind.retryable else 'no'} "
            f"| {sent.status} | `{json.loads(sent.body)['error']['type']}` |"
        )
    lines += ["", "## Receipts", ""]
    lines += ["Why a receipt, a claim or a settlement note is refused.", ""]
    lines += ["| code | class | meaning |", "|---|---|---|"]
    for code, fault in sorted(FAULTS_BY_CODE.items()):
        meaning = (fault.__doc__ or "").partition("\n")[0]
        lines.append(f"| `{code}` | `{fault.__name__}` | {meaning} |")
    return "\n".join(lines) + "\n"


def messages_page() -> str:
    """Return the page of wire types; their JSON schema is beside it."""
    lines = [
        "# Messages",
        "",
        NOTE.strip(),
        "",
        f"Protocol version {PROTOCOL_VERSION}. On the bus a message is a msgpack map of these fields; in HTTP",
        "APIs the same types travel as JSON (bytes as base64). The JSON schema of all of them is",
        "[messages.schema.json](messages.schema.json). A reader drops fields that it does not know; records",
        "that are stored or relayed keep them.",
    ]
    for kind in messages():
        lines += [
            "",
            f"## {kind.__name__}",
            "",
            (kind.__doc__ or "").strip().partition("\n\n")[0],
            "",
        ]
        rows = (
            [_field(kind, name) for name in kind.model_fields]
            if issubclass(kind, Message)
            else [_hot_field(field) for field in msgspec.structs.fields(kind)]
        )
        lines += ["| field | type | default |", "|---|---|---|", *rows] if rows else []
    return "\n".join(lines) + "\n"


def _field(kind: type[BaseModel], name: str) -> str:
    field = kind.model_fields[name]
    default = "required" if field.is_required() else f"`{field.get_default()!r}`"
    return _row(name, kind.__annotations__.get(name, field.annotation), default)


def _hot_field(field: msgspec.structs.FieldInfo) -> str:
    default = "required" if field.required else f"`{field.default!r}`"
    return _row(field.name, getattr(field.type, "__origin__", field.type), default)


def _row(name: str, kind: object, default: str) -> str:
    shown = str(kind).replace("|", "\\|")
    for noise in ("helexa.protocol.messages.", "typing.", "<class '", "'>"):
        shown = shown.replace(noise, "")
    shown = ".".join(shown.split(".")[-1:]) if shown.count(".") and "[" not in shown else shown
    return f"| `{name}` | `{shown}` | {default if len(default) < 60 else 'an empty one'} |"


def schema_file() -> str:
    """Return the JSON schema of every wire type."""
    schema = {
        "$defs": definitions(messages()),
        "title": "Helexa messages",
        "description": f"Protocol version {PROTOCOL_VERSION}",
    }
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "subjects.md": subjects_page,
    "errors.md": errors_page,
    "messages.md": messages_page,
    "messages.schema.json": schema_file,
    "settings.md": lambda: settings_page(NOTE.strip()),
    "commands.md": lambda: commands_page(NOTE.strip()),
    "metrics.md": lambda: metrics_page(NOTE.strip(), _field),
}


def write() -> None:
    """Write every page."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write()
